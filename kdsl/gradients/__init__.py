"""gradients/: derivatives of kernels, and the rules that users write themselves.

    arguments.py   which gradients there are, in which structure; what cotangents must be
    rules.py       f.defvjp: a kernel that brings its own derivative stays a call until differentiation asks for the rule
    derived.py     what both of the next two are: called like the kernel that they belong to
    vjp.py         f.vjp: compiled outside a kernel, inlined inside one
    pullback.py    f.pullback: a program for the forward and one for the backward, and what lies between them
    grad.py        kd.grad and kd.value_and_grad

Read before: specialisation/, transforms/differentiate.py. Read next: kernel.py.
"""
