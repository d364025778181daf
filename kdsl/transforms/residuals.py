"""What the forward hands to the backward: a program and its derivative cut into two programs.

In:  a simplified Function.  Out: a Split:
    forward    the program; its results, then the residuals
    backward   parameters: those of the program that it needs, the residuals, one cotangent per floating result
               results: one gradient for each floating parameter (or for those numbered `wanted` among them)
    needed     which parameters of the program the backward needs, by position: only these are held until then

Kept are values of the forward that are dear to compute and small to hold, where the walk back from the gradients meets them:
    row statistics    a reduction that makes 8 elements or more into one (not in f16 or bf16: stored, it would be rounded)
    contractions      with their bias where nothing else reads them: the forward's next kernel then reads the same array
                      but not scores: a product that is reduced along a line and then contracted along it (attention) is
                      larger than what it is made of, and made again tile by tile
    scans             what they give, and the checkpoints from which a gradient makes the states between again
    orders            sorts and argmax
    dear maps         that two contractions or scans read: the forward has stored them anyway (but none of scores)
Everything else (maps, masks, gathers, random bits) is computed again from the parameters: a random key is a parameter.
Read before: transforms/differentiate.py. Read next: transforms/expand.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, REDUCTIONS, Op
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Function, Value, definitions, users
from kdsl.transforms.cost import HEAVY, cost_of, estimate
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.prune import live_equations

FEW = 8  # a reduction of fewer elements than this is computed again
ORDERS = frozenset({Op.SORT, Op.ARGSORT, Op.ARGMAX, Op.ARGMIN, Op.SEARCHSORTED})
TRANSPARENT = ELEMENTWISE | {Op.BROADCAST, Op.PERMUTE, Op.BARRIER}


@dataclass(eq=False, frozen=True)
class Split:
    """The two halves of a pullback; see above."""

    forward: Function
    backward: Function
    needed: tuple[int, ...]
    residuals: tuple[Value, ...]


def split_forward_backward(function: Function, wanted: Sequence[int] | None = None) -> Split:
    """Cut `function` and its vjp in two; `wanted` numbers the gradients among those of the floating parameters."""
    whole = vjp(function)
    gradients = whole.results if wanted is None else tuple(whole.results[i] for i in wanted)
    cotangents = whole.parameters[len(function.parameters) :]
    residuals = _residuals(function, whole, gradients)
    kept = tuple(e for e in whole.equations if e.result not in residuals)
    equations = live_equations(kept, gradients)
    read = {v for e in equations for v in e.values} | set(gradients)
    needed = tuple(i for i, p in enumerate(function.parameters) if p in read)
    residuals = tuple(v for v in residuals if v in read)
    parameters = (*(function.parameters[i] for i in needed), *residuals, *cotangents)
    forward = replace(function, name=f"{function.name}_forward", results=function.results + residuals)
    backward = Function(f"{function.name}_backward", parameters, equations, gradients, function.location)
    return Split(forward, backward, needed, residuals)


def _residuals(function: Function, whole: Function, gradients: Sequence[Value]) -> tuple[Value, ...]:
    """The values to keep, in the order of the forward."""
    home = definitions(whole.equations)
    primal = {e.result: e for e in function.equations}
    readers = users(function)
    found: set[Value] = set()
    seen: set[Value] = set()
    stack = list(gradients)
    while stack:
        v = stack.pop()
        if v in seen or v not in home:
            continue
        seen.add(v)
        e = primal.get(v)
        if e is not None and (
            _worth_keeping(e, readers) or _with_bias(e, function, primal, readers) or _is_stored_anyway(e, primal, readers)
        ):
            found.add(v)
        else:
            stack.extend(home[v].values)
    return tuple(e.result for e in function.equations if e.result in found)


def _with_bias(e: Equation, function: Function, primal: dict[Value, Equation], readers: dict[Value, list[Equation]]) -> bool:
    """Whether e adds a row, or a number, to a contraction that nothing else reads."""
    if e.op not in (Op.ADD, Op.SUB):
        return False
    for product, bias in (e.operands, e.operands[::-1]):
        q = primal.get(product) if isinstance(product, Value) else None
        small = not isinstance(bias, Value) or (bias in primal and primal[bias].op is Op.BROADCAST)
        if q is not None and q.op is Op.DOT and small and readers[q.result] == [e] and q.result not in function.results:
            return _worth_keeping(q, readers)
    return False


def _is_stored_anyway(e: Equation, primal: dict[Value, Equation], readers: dict[Value, list[Equation]]) -> bool:
    """Whether a dear map is written by the forward anyway: contractions and scans read it, which are kernels of their own.

    Not what is made of scores, nor what is larger than all that it is made of."""
    if e.op not in ELEMENTWISE or len(_heavy_readers(e.result, readers)) < 2:
        return False
    todo, seen, dear, largest = [e], {e}, False, 0
    while todo:
        q = todo.pop()
        dear |= cost_of(q.op) >= HEAVY
        for v in q.values:
            p = primal.get(v)
            if p is None or p.op not in ELEMENTWISE | MOVEMENT:
                largest = max(largest, estimate(v.type.count))
                if p is not None and p.op is Op.DOT and _is_scores(p, readers):
                    return False
            elif p not in seen:
                seen.add(p)
                todo.append(p)
    return dear and estimate(e.result.type.count) <= largest


def _heavy_readers(v: Value, readers: dict[Value, list[Equation]]) -> set[object]:
    """The contractions and scans that read v, as it is or through movements."""
    found: set[object] = set()
    for r in readers.get(v, ()):
        if r.op is Op.DOT:
            found.add(r)
        elif r.op is Op.SCAN:
            found.add(Scan(r).key)
        elif r.op in MOVEMENT:
            found |= _heavy_readers(r.result, readers)
    return found


def _worth_keeping(e: Equation, readers: dict[Value, list[Equation]]) -> bool:
    if e.op in ORDERS or e.op in (Op.CALL, Op.SCAN):
        return True
    if e.op is Op.DOT:
        return not _is_scores(e, readers)
    if e.op not in REDUCTIONS or e.result.dtype.compute is not e.result.dtype:
        return False
    count: Extent = 1
    for axis in e.attributes["axes"]:
        count = count * e.values[0].shape[axis]
    return not isinstance(count, int) or count >= FEW


def _is_scores(e: Equation, readers: dict[Value, list[Equation]]) -> bool:
    """Whether a product is reduced (softmax) and contracted again, with nothing but maps between."""
    reduced = contracted = False
    seen: set[Value] = set()
    stack = [e.result]
    while stack:
        v = stack.pop()
        for reader in readers.get(v, ()):
            reduced |= reader.op in REDUCTIONS
            contracted |= reader.op is Op.DOT
            if reader.op in TRANSPARENT and reader.result not in seen:
                seen.add(reader.result)
                stack.append(reader.result)
    return reduced and contracted
