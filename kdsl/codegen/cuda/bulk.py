"""What one warp of a kernel does for the others where the bulk copy engine brings tiles: the same loops, copies alone.

In:  a kernel whose schedule gives it a warp that brings tiles ("bringing": 1), names, how loops are entered.  Out: the tensor
maps that are passed, the mbarriers' record, and the statements of that warp.

    if brings(GATES):
        k, k_end = size(0), size(4096)
        while k < k_end:
            room(GATES, k_count)
            bring(GATES, k_count, near(NEAR_X, k_count), x_boxes, i, k)
            …
        return

A tile's number counts all steps of the stream that reads it, whatever streams are around.
Read before: ir/boxes.py, macros_bulk.py. Read next: emit.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdsl.codegen.cuda.choose_layouts import Unsupported
from kdsl.codegen.cuda.expressions import Block, Line
from kdsl.codegen.cuda.grid import Enter, Text
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.records import BYTES
from kdsl.ir import loops as ir
from kdsl.ir.boxes import Boxes, boxes_of


class Bringer:
    def __init__(self, kernel: ir.Kernel, names: Names, warps: int) -> None:
        self.names, self.warps = names, warps
        streams = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Stream) and any(isinstance(c, ir.Copy) for c in s.body)]
        if len(streams) != 1 or streams[0].order == "backward":
            raise Unsupported(f"{kernel.name} has tiles brought for {len(streams)} streams, or backwards")
        (self.stream,) = streams
        self.copies = [c for c in self.stream.body if isinstance(c, ir.Copy)]
        self.boxes = {c: self._boxes(c) for c in self.copies}
        self.maps: dict[tuple[object, ...], tuple[str, Boxes]] = {}
        for b in self.boxes.values():
            self.maps.setdefault(b.tensor, (names.of(f"boxes {len(self.maps)}", f"{b.memory.name}_boxes"), b))
        self.depth = self.copies[0].depth
        self.bytes = sum(int(c.shape[0]) * int(c.shape[1]) * BYTES[c.near.dtype.name] for c in self.copies)
        self.gates = names.of("gates", "GATES")
        self.count = names.of("count", f"{self.stream.index}_count")

    def _boxes(self, c: ir.Copy) -> Boxes:
        boxes = boxes_of(c.view, tuple(c.shape))
        if boxes is None or tuple(c.near.shape) != tuple(c.shape):
            raise Unsupported(f"the copy engine cannot bring {c.near.name}")
        return boxes

    def record(self, start: int) -> str:
        """The definition of the mbarriers, which lie from this byte of near memory."""
        return f"{self.gates} = Gates({self.depth}, {start}, {self.bytes}, {self.warps})"

    def statements(self, body: Sequence[ir.Statement], enter: Enter, text: Text) -> list[Line | Block]:
        """What the warp that brings does."""
        self.enter, self.text = enter, text
        return self._statements(body)

    def parted(self, bring: Sequence[Line | Block], compute: Sequence[Line | Block]) -> list[Line | Block]:
        """The statements of the warp that brings and, behind them, of those that compute."""
        start = Line([f"{self.count} = size(0)"])
        role = Block(f"if brings({self.gates}):", [start, *bring, Line(["return"])], once=True)
        return [Line([f"gates({self.gates})"]), role, start, *compute]

    def _statements(self, body: Sequence[ir.Statement]) -> list[Line | Block]:
        out: list[Line | Block] = []
        for s in body:
            if isinstance(s, ir.Stream) and any(x is self.stream for x in (s, *ir.walk(s.body))):
                i, end = self.enter(s.index, s.lo, s.tile), self.names.of("end", f"{s.index}_end")
                inside = self._step() if s is self.stream else self._statements(s.body)
                out.append(Line([f"{i}, {end} = size({self.text(s.lo)}), size({self.text(s.hi)})"]))
                out.append(Block(f"while {i} < {end}:", [*inside, Line([f"{i} = {i} + {s.tile}"])]))
        return out

    def _step(self) -> list[Line | Block]:
        """Bring the tiles of one step."""
        text = [f"room({self.gates}, {self.count})"]
        for c in self.copies:
            b = self.boxes[c]
            near = f"near({self.names.of('near', c.near.name.upper())}, {self.count})"
            start = ", ".join(map(self.text, b.start))
            text.append(f"bring({self.gates}, {self.count}, {near}, {self.maps[b.tensor][0]}, {start})")
        return [Line([*text, f"{self.count} = {self.count} + 1"])]
