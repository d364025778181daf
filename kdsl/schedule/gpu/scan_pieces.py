"""What a scan's step needs or gives that no carry goes through: made for a piece of steps at once, all lanes of the warp at work.

    piece  { tiles (steps, lanes) and (steps, rows) into near memory        dt = softplus(delta + bias), B
             Stream over the steps { takes from near memory; what is folded into near memory }
             tiles (steps, lanes) of what the steps gave, stored             (y + D u) silu(z) }

A value is *apart* if no carry goes into it, it changes from step to step, and it lacks one letter of the carry's tile: step by
step, every lane that differs in that letter alone would make it again. Its loads for a whole piece are in flight together, and
lie along memory whichever axis is contiguous there. What a step *gives* and nothing in the steps waits for is made afterwards
in the same way, down to the folds and carries that it reads.
In:  a ScanPlan.  Out: Apart (which values), PieceTiles (tiles of them). Read before: ../scan_tiles.py. Read next: scan.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Carried, ScanPlan, flat
from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, REDUCTIONS, SOURCES, Op
from kdsl.ir.sizes import Extent, Size, names_in, substitute
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.positions import Known, Memory, Position, constant, number, spread_to
from kdsl.schedule.scan_tiles import ScanTiles

ALIKE = ELEMENTWISE | {Op.CAST, Op.BITCAST, Op.BARRIER, Op.STOP_GRADIENT, Op.BROADCAST, Op.PERMUTE}
FEEDING = ALIKE | MOVEMENT | SOURCES | {Op.TAKE, Op.TAKE_ALONG}


class Apart:
    """Which values of a plan's step may be made for a piece of steps at once."""

    def __init__(self, plan: ScanPlan) -> None:
        self.p = plan
        self.made = {e.result: e for e in plan.inner}
        self.before = {c.before for c in (*plan.carries, *plan.replayed)}
        self.carried = self._after(lambda e: e.result in self.before)
        self.loops = {loop: self._after(lambda e, loop=loop: _names(e, loop)) for loop in ("step_0", "replay_0")}  # type: ignore[misc]
        self._feeding: dict[Value, bool] = {}
        self.waited_for = self._before(c.after for c in plan.carries)
        sums = {c: v for c in plan.carries if (v := self._added(c)) is not None}
        self.waited_for = self._before(c.after for c in plan.carries if c not in sums)
        self.sums = {c: v for c, v in sums.items() if self.stands_alone(v, "step_0") or self.roots(v)}  # what is added up
        self.waited_for = self._before(c.after for c in plan.carries if c not in self.sums)

    def _after(self, first: Callable[[Equation], bool]) -> set[Value]:
        """The values that these equations go into."""
        out: set[Value] = set()
        for e in self.p.inner:
            if first(e) or any(v in out for v in e.values):
                out.add(e.result)
        return out

    def _before(self, values: Iterable[Value]) -> set[Value]:
        """The values that go into these, and they."""
        out, left = set(), list(values)
        while left:
            v = left.pop()
            if v not in out:
                out.add(v)
                left += self.made[v].values if v in self.made else ()
        return out

    def _added(self, c: Carried) -> Value | None:
        """What each step adds to a carry that nothing else reads."""
        e, p = self.made.get(c.after), self.p
        number = p.carries.index(c)
        readers = [r for r in p.inner for v in r.values if v is c.before]
        while e is not None and e.op is Op.BARRIER:
            e = self.made.get(e.values[0])
        if e is None:  # what it always becomes comes from outside
            return None
        apart = number not in p.kept.values() and not any(y is c.after for y, _ in p.ys.values())
        used = [r for r in p.inner for v in r.values if v is e.result]
        if e.op is not Op.ADD or readers != [e] or len(used) != 1 or not apart or self.across(c.after) is not True:
            return None
        others = [v for v in e.operands if v is not c.before]
        return others[0] if len(others) == 1 and isinstance(others[0], Value) else None

    def across(self, v: Value) -> bool | None:
        """Does a tile of this value have the lanes along its second axis, or the rows? None: it has both letters."""
        mine = set(flat(self.p.letters.values[v]))
        if self.p.rows in mine and self.p.rows is not None:
            return None if self.p.lane in mine else False
        return True

    def stands_alone(self, v: Value, loop: str) -> bool:
        """Whether a piece may have this value for all its steps of a loop."""
        return v in self.loops[loop] and v not in self.carried and self.across(v) is not None and self._feeds(v)

    def _feeds(self, v: Value) -> bool:
        """Whether it is made of maps and slices alone."""
        if v not in self._feeding:
            e = self.made.get(v)
            self._feeding[v] = e is None or (e.op in FEEDING and e.op is not Op.RESHAPE and all(map(self._feeds, e.values)))
        return self._feeding[v]

    def _at_hand(self, v: Value) -> bool:
        """Whether a piece can make this value without its steps."""
        return v not in self.carried and self._feeds(v) and (v not in self.loops["step_0"] or self.stands_alone(v, "step_0"))

    def roots(self, v: Value) -> list[Value] | None:
        """What the steps must hand on so that a value they give can be made afterwards; None where they give it themselves."""
        found: dict[Value, None] = {}

        def walk(v: Value, across: bool) -> bool:
            if v in found or v not in self.made or self._at_hand(v):
                return True
            side, e = self.across(v), self.made[v]
            if side is None or (side is not across and flat(self.p.letters.values[v])):
                return False
            if v not in self.carried or v in self.waited_for or v in self.before or e.op not in ALIKE or e.op in REDUCTIONS:
                found[v] = None
                return True
            return all(walk(o, across) for o in e.values)

        side = self.across(v)
        return list(found) if side is not None and walk(v, side) else None


def _names(e: Equation, loop: str) -> bool:
    value = e.attributes.get("value") if e.op is Op.SIZE else None
    return isinstance(value, Size) and loop in names_in(value)


class PieceTiles(ScanTiles):
    """Tiles whose first axis counts the steps of a piece and whose second lies along the lanes, or along the rows."""

    def __init__(
        self, tiles: ScanTiles, loop: str, first: Extent, steps: int, across: bool, loose: bool, memory: Callable[[Value], Memory]
    ) -> None:
        super().__init__(tiles.scan, memory, still=True)
        self.levels, self.counter, self.depth_of = tiles.levels, tiles.counter, tiles.depth_of
        self.loop, self.step, self.across = loop, first + ir.axis(0), across
        p, wide = self.scan, 1 if across else 0
        self.pos = {x: at for x, at in tiles.pos.items() if x not in (p.rows, p.lane)}
        letter = p.lane if across else p.rows
        if letter is not None:
            moved = {"#0": ir.axis(1)} if not across else {}
            at = tiles.pos[letter]
            self.pos[letter] = substitute(at, moved) if isinstance(at, Size) else at
        self.shape = steps, tiles.shape[wide]
        self.edge = ({"#0"} if loose else set()) | ({"#1"} if f"#{wide}" in tiles.edge else set())

    def compute(self, e: Equation, at: Position) -> Known:
        if e.op is Op.TAKE:
            index = self.made.get(e.values[1])
            if index is not None and _names(index, self.loop):
                axis = e.attributes["axis"]
                return self.operand(e, 0, (*at[:axis], self.at_steps(index.attributes["value"]), *at[axis:]))
        if _names(e, self.loop):
            return self.count(self.at_steps(e.attributes["value"]))
        return super().compute(e, at)

    def at_steps(self, place: Extent) -> Extent:
        """An index expression of the loop's step, for the steps of the piece."""
        return substitute(place, {self.loop: self.step}) if isinstance(place, Size) else place

    def let_value(self, v: Value) -> ir.Tile:
        """A value for all steps of the piece, with a name that later tiles may use."""
        at = self.plain(v)
        tile, depth = self.tile(v, at)
        if not isinstance(tile, (ir.Name, ir.Constant)):
            tile = self.let(tile, v.name or "piece", depth)
            self.memo[v, at] = tile, depth
        return tile

    def summed(self, v: Value, end: Extent) -> ir.Tile:
        """A value added up over the steps of the piece, those before `end`."""
        known = self.tile(v, self.plain(v))
        if "#0" in self.edge:
            inside = self.map("lt", [self.count(self.step), (number(end, dt.i64), self.depth)], dt.bool_)
            known = self.map("where", [inside, known, (constant(0, known[0].dtype), 0)], known[0].dtype)
        wide = self.shape[1] if len(known[0].shape) == 2 and known[0].shape[1] > 1 else 1
        return ir.Fold("sum", spread_to(self.here(known), (self.shape[0], wide)), 0)
