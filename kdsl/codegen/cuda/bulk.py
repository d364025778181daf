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

A tile's number counts all steps of the stream that reads it, whatever streams are around. Results of f16 and bf16 leave through
near memory too (`sends`), each warp's rows by themselves: memory is then written in whole sectors, while others multiply.
Read before: ir/boxes.py, macros_bulk.py. Read next: streams.py, emit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.codegen.cuda.choose_layouts import Unsupported
from kdsl.codegen.cuda.grid import Enter, Text
from kdsl.codegen.cuda.layout import Layout, accumulator
from kdsl.codegen.cuda.lines import Block, Line
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.records import BYTES, HALVES
from kdsl.ir import loops as ir
from kdsl.ir.boxes import Boxes, boxes_of

ROWS = 16  # of a warp
WIDE = 128  # a product of more columns has a multiprocessor, and room for its results, to itself


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
            self._map(b)
        self.slot = 0  # how many tiles of results leave in a turn: a multiple of `rooms`, each turn begins with the first
        self.rooms = 2 if kernel.schedule["columns"] > WIDE else 1
        self.sent: dict[str, tuple[str, int, int]] = {}  # by dtype: near memory, its rows and columns
        self.depth = self.copies[0].depth
        self.bytes = sum(int(c.shape[0]) * int(c.shape[1]) * BYTES[c.near.dtype.name] for c in self.copies)
        self.gates = names.of("gates", "GATES")
        self.count = names.of("count", f"{self.stream.index}_count")

    def _boxes(self, c: ir.Copy) -> Boxes:
        boxes = boxes_of(c.view, tuple(c.shape))
        if boxes is None or tuple(c.near.shape) != tuple(c.shape):
            raise Unsupported(f"the copy engine cannot bring {c.near.name}")
        return boxes

    def _map(self, b: Boxes) -> str:
        """What the map for these boxes is called."""
        name = self.names.of(f"boxes {len(self.maps)}", f"{b.memory.name}_boxes") if b.tensor not in self.maps else ""
        return self.maps.setdefault(b.tensor, (name, b))[0]

    def sends(self, s: ir.Store, layout: Layout, text: Text) -> Callable[[str], str] | None:
        """How a store of tile leaves as boxes, each warp its rows: f16 and bf16 from the accumulators of warpgroups, in
        rows of 128 bytes. None where it goes the way of all others."""
        m, n = s.tile.shape if len(s.tile.shape) == 2 else (0, 0)
        boxes = boxes_of(s.view, (ROWS, n)) if s.view.memory.dtype.name in HALVES else None
        if boxes is None or (m, n) != (ROWS * self.warps, boxes.box[-1]) or layout != accumulator(m, n, (self.warps, 1)):
            return None
        dtype = boxes.dtype.name
        near = self.names.of("sent", f"SENT_{dtype}".upper())
        slot, self.slot = self.slot, self.slot + 1
        self.sent[dtype] = near, m, n
        walks = [e + ir.axis(0) if b > 1 else e for e, b in zip(boxes.start, boxes.box)]
        at = ", ".join(map(text, [*walks[:-1], boxes.start[-1] + ir.axis(1)]))
        return lambda x: f"send(near({near}, {slot}), {self._map(boxes)}, {x}, {at})"

    def sent_records(self, start: int) -> tuple[list[str], int]:
        """The near memory through which results leave, from this byte on, and where it ends."""
        threads = 32 * self.warps
        near = f"{self.rooms}, {start}, {threads}, boxed=True"
        out = [f'{name} = Near("{d}", ({m}, {n}), {near})' for d, (name, m, n) in self.sent.items()]
        return out, start + self.rooms * max((m * n * BYTES[d] for d, (_, m, n) in self.sent.items()), default=0)

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
        return [Line([f"gates({self.gates})"]), role, start, *compute, *([Line(["sent()"])] if self.sent else [])]

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
