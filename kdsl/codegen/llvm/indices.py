"""Index expressions (ir/sizes.py) as 64-bit integers, scalar or one per lane.

In:  an Extent, and what its names stand for.  Out: an i64 Value; constants are folded, terms are added from the outermost
loop inwards so that each partial sum is computed in the outermost loop that knows it.
Read before: writer.py. Read next: memory.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdsl.codegen.llvm.writer import Value, Writer
from kdsl.ir.sizes import Extent, at_least, names_in


class Indices(Writer):
    """Adds the names of sizes, loop indices and integer Lets."""

    names: dict[str, Value]
    natural: set[str]  # names known to be at least 0

    def number(self, x: int) -> Value:
        return Value(str(x), "i64", const=x)

    def add(self, a: Value, b: Value) -> Value:
        if a.const is not None and b.const is not None:
            return self.number(a.const + b.const)
        if a.const == 0:
            return b
        if b.const == 0:
            return a
        return self.binary("add nsw", a, b) if a.const is None else self.binary("add nsw", b, a)

    def times(self, a: Value, b: Value) -> Value:
        if a.const is not None and b.const is not None:
            return self.number(a.const * b.const)
        if a.const is not None:
            a, b = b, a
        if b.const == 0:
            return b
        return a if b.const == 1 else self.binary("mul nsw", a, b)

    def subtract(self, a: Value, b: Value) -> Value:
        if b.const is not None:
            return self.add(a, self.number(-b.const))
        return self.binary("sub nsw", a, b)

    def sum(self, terms: list[Value]) -> Value:
        """Outermost loop first, constants last."""
        constant = sum(t.const for t in terms if t.const is not None)
        total: Value | None = None
        for term in sorted((t for t in terms if t.const is None), key=lambda t: t.depth):
            total = term if total is None else self.add(total, term)
        return self.number(constant) if total is None else self.add(total, self.number(constant))

    def is_natural(self, x: Extent) -> bool:
        """Whether x >= 0 for sure."""
        return (
            (isinstance(x, int) and x >= 0) or (not isinstance(x, int) and names_in(x) <= self.natural and at_least(x, 0))
        )

    def integer(self, x: Extent, axes: Mapping[str, Value] | None = None) -> Value:
        """The value of an index expression; `axes` says what tile axes stand for."""
        if isinstance(x, int):
            return self.number(x)
        return self.sum(self.terms(x, axes))

    def terms(self, x: Extent, axes: Mapping[str, Value] | None = None) -> list[Value]:
        """The summands of an index expression."""
        if isinstance(x, int):
            return [self.number(x)] if x else []
        out = []
        for monomial, factor in x.terms.items():
            parts = [self.atom(a, axes) for a in monomial]
            parts.sort(key=lambda v: v.depth)
            product = self.number(factor) if not parts else parts[0]
            for v in parts[1:]:
                product = self.times(product, v)
            out.append(self.times(product, self.number(factor)) if parts else product)
        return out

    def atom(self, atom: tuple, axes: Mapping[str, Value] | None) -> Value:
        if atom[0] == "name":
            if axes is not None and atom[1] in axes:
                return axes[atom[1]]
            return self.names[atom[1]]
        a, b = self.integer(atom[1], axes), self.integer(atom[2], axes)
        if a.const is not None and b.const is not None and (b.const or atom[0] in ("min", "max")):
            x, y = a.const, b.const
            return self.number(
                {"//": lambda: x // y, "%": lambda: x % y, "min": lambda: min(x, y), "max": lambda: max(x, y)}[
                    atom[0]
                ]()
            )
        if atom[0] in ("min", "max"):
            return self.intrinsic(f"s{atom[0]}", (a, b))
        return self.floor_division(atom[0], a, b, self.is_natural(atom[1]) and self.is_natural(atom[2]))

    def floor_division(self, op: str, a: Value, b: Value, natural: bool) -> Value:
        """a // b or a % b rounding down; division by zero gives an unspecified number and no trap."""
        if b.const is not None and b.const > 0 and b.const & (b.const - 1) == 0:
            if op == "%":
                return self.binary("and", a, self.number(b.const - 1))
            return self.binary("ashr", a, self.number(b.const.bit_length() - 1))
        zero, one = self.number(0), self.number(1)
        if b.const is None:
            b = self.select(self.compare("icmp eq", b, zero), self.splat(one, b.width), b)
        if natural:
            return self.binary("udiv" if op == "//" else "urem", a, b)
        remainder = self.binary("srem", a, b)
        other_sign = self.compare("icmp slt", self.binary("xor", remainder, b), zero)
        wrong = self.binary("and", self.compare("icmp ne", remainder, zero), other_sign)
        if op == "%":
            return self.select(wrong, self.binary("add", remainder, b), remainder)
        quotient = self.binary("sdiv", a, b)
        return self.select(wrong, self.binary("sub", quotient, one), quotient)
