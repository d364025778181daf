"""Barriers derived from reads, writes and copies, against what was found by hand and by an emulator that looks for races."""

from kdsl.codegen.cuda.barriers import Loop, place_barriers


def access(kind, ring, number, depth):
    return [(kind, ring, number, depth)]


def loop(depth, *statements):
    return Loop(tuple(statements), depth)


def test_attention():
    kernel = [
        access("copy", "q", 0, 1),
        access("read", "q", 0, 1),
        access("copy", "kv", 0, 2),
        loop(2, access("copy", "kv", lambda t: t + 1, 2), access("read", "kv", lambda t: t, 2)),
        access("write", "q", 0, 1),
        access("read", "q", 0, 1),
    ]
    assert place_barriers(kernel) == {(1,): 0, (3,): None, (3, 0): 0, (5,): None}


def test_product_with_three_steps_in_flight():
    kernel = [access("copy", "x", n, 4) for n in range(3)]
    kernel.append(loop(4, access("copy", "x", lambda t: t + 3, 4), access("read", "x", lambda t: t, 4)))
    assert place_barriers(kernel) == {(3, 0): 2}
    kernel[-1] = loop(4, access("read", "x", lambda t: t, 4), access("copy", "x", lambda t: t + 3, 4))
    assert place_barriers(kernel) == {(3, 0): 2}


def test_copying_as_far_ahead_as_there_are_slots_takes_two_barriers():
    kernel = [access("copy", "x", n, 4) for n in range(4)]
    kernel.append(loop(4, access("read", "x", lambda t: t, 4), access("copy", "x", lambda t: t + 4, 4)))
    assert len(place_barriers(kernel)) == 2


def test_scratch_of_a_fold_in_a_loop():
    write, read = access("write", "f", 0, 1), access("read", "f", 0, 1)
    assert len(place_barriers([loop(1, write, read)])) == 2
    turns = loop(2, access("write", "f", lambda t: t, 2), access("read", "f", lambda t: t, 2))
    assert len(place_barriers([turns])) == 1
    other = access("write", "g", 0, 1), access("read", "g", 0, 1)
    assert len(place_barriers([loop(1, write, read, *other)])) == 2


def test_a_loop_that_does_not_run():
    """The barrier inside the loop does not part what stands before and behind it."""
    kernel = [access("write", "x", 0, 1), loop(1, access("read", "x", 0, 1)), access("read", "x", 0, 1)]
    assert place_barriers(kernel) == {(1,): None}


def test_one_of_two_loops_that_does_not_run():
    """Full tiles and the tile at the edge are two loops, and either may be empty: the first's wait is not the second's."""
    body = access("write", "x", 0, 1), access("read", "x", 0, 1), access("read", "q", 0, 1)
    kernel = [access("copy", "q", 0, 1), loop(1, *body), loop(1, *body)]
    waits = place_barriers(kernel)
    assert any(p[0] == 1 and n == 0 for p, n in waits.items() if p > (0,)) or waits.get((1,)) == 0
    assert any(p[0] == 2 and n == 0 for p, n in waits.items() if p > (0,)) or waits.get((1,)) == 0


def test_nothing_to_part():
    assert place_barriers([access("read", "x", 0, 1), access("read", "x", 0, 1)]) == {}


def test_a_statement_that_writes_from_the_same_thread_does_not_wait_for_itself():
    own, read = access("own 1", "x", 0, 1), access("read", "x", 0, 1)
    assert place_barriers([loop(1, own)]) == {}
    assert place_barriers([loop(1, own), read]) == {(1,): None}
    assert len(place_barriers([loop(1, own, access("own 2", "x", 0, 1))])) == 2


def test_two_barriers_around_a_loop_rather_than_one_in_it():
    """What steps read was put before them, what they put is read behind them: one place in the loop would part both."""
    steps = loop(1, [("own 1", "given", 0, 1)], access("read", "made", 0, 1))
    kernel = [access("write", "made", 0, 1), steps, access("read", "given", 0, 1)]
    assert place_barriers(kernel) == {(1,): None, (2,): None}
