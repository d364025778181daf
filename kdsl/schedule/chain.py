"""stub"""
def schedule_chain(plan, target, memory):
    raise NotImplementedError
