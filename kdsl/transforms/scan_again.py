"""What a step of a gradient needs that the replay of the step has made already.

In:  a scan written out, with a replayed step, and its letters.  Out: {value of the step: value of the replay that it equals}.
The replay walks a chunk of steps forward, the gradient then backward. Both write out the same step, each at the place of its
own loop: equations are equal if they are alike but for the name of that loop's index. What is dear to make (an exponential)
is kept near for the chunk and read again; what is cheap is made again; a state after a step is the one before the next.

    replay    e = exp(dt[r] * a)     h' = e * h + …             gradient    e = exp(dt[s] * a)     the same with s for r

Read before: scan_steps.py. Read next: plan_scan.py.
"""

from __future__ import annotations

from typing import Any

from kdsl.ir.frame import Letters
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Size, names_in, size, substitute
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.cost import HEAVY, cost_of
from kdsl.transforms.scan_steps import REPLAY, STEP, Written


def made_again(w: Written, letters: Letters) -> dict[Value, Value]:
    """Values of the step that are read from near memory, with the replay's value (or next state) that lies there."""
    equal = _equal_values(w)
    states = {c.after for c in w.replayed}
    needed = [v for e in w.inner[w.replay :] if e.result not in equal for v in e.values if v in equal]
    made = {e.result: e for e in w.inner[w.replay :]}
    out: dict[Value, Value] = {}

    def cost(v: Value) -> int:
        """Of making a value again, with what is kept so far."""
        e = made.get(v)
        if e is None or v in out:
            return 0
        return (0 if e.op is Op.TAKE else cost_of(e.op)) + sum(cost(o) for o in dict.fromkeys(e.values))

    def keep(v: Value) -> None:
        if v in out or v not in made or letters.values[v] != letters.values[equal[v]]:
            return
        if equal[v] in states:
            out[v] = equal[v]
            return
        for o in made[v].values:  # the dearest part of it may be enough
            if cost(o) >= HEAVY and o in equal:
                keep(o)
        if cost(v) >= HEAVY:
            out[v] = equal[v]

    for v in dict.fromkeys(needed):
        if v in equal:
            keep(v)
    return out


def _equal_values(w: Written) -> dict[Value, Value]:
    """Each value of the step that the replay makes too: the replay's."""
    name: dict[Value, Value] = {}  # a BARRIER that is no carry is what it is of
    before = {c.before for c in (*w.carries, *w.replayed)}
    after = {c.after for c in w.replayed}
    known: dict[Any, Value] = {}
    state: dict[Value, Value] = {}  # what a state after a replayed step is the BARRIER of: that state
    out: dict[Value, Value] = {}
    for number, e in enumerate(w.inner[w.around :], w.around):
        if e.op is Op.BARRIER and e.result not in before:
            name[e.result] = name.get(e.values[0], e.values[0])
            if e.result in after:
                state[name[e.result]] = e.result
            continue
        if e.op is Op.CONSTANT:
            continue
        key = _key(e, name)
        if number < w.replay:
            name[e.result] = known.setdefault(key, e.result)
        elif key in known:
            name[e.result] = known[key]
            out[e.result] = state.get(known[key], known[key])
    return out


def _key(e: Equation, name: dict[Value, Value]) -> Any:
    operands = tuple(name.get(o, o) if isinstance(o, Value) else (type(o), repr(o)) for o in e.operands)
    attributes = tuple(sorted((k, _at_step(v)) for k, v in e.attributes.items()))
    return e.op, operands, repr(attributes), e.result.type


def _at_step(x: Any) -> Any:
    """An attribute of the replayed step as the step itself has it."""
    replay = f"{REPLAY}_0"
    return substitute(x, {replay: size(f"{STEP}_0")}) if isinstance(x, Size) and replay in names_in(x) else x
