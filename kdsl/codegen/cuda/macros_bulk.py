"""Macros of sm_90: one warp brings tiles to near memory through the bulk copy engine (TMA), the others multiply them.

    gates(GATES)                                  make the mbarriers, for all threads
    if brings(GATES):                             the warp behind the others
        room(GATES, n)                            tile n - depth has been read: its place is free
        bring(GATES, n, near(X, n), boxes, i, k)  tile n begins to come, from there on in the tensor
    landed(GATES, n)                              tile n is there
    leave(GATES, n)                               this warp has read it
    send(near(SENT, 0), boxes, tile, i + axis0, j + axis1)        a tile of results leaves for there in the tensor
    sent()                                        nothing of near memory is needed any more

Tile n has slot n % depth; the mbarriers of a slot open once for each of its tiles, so that the parity of n // depth says which
opening is meant. Nobody but the bringing warp meets `room` and `bring`, nobody but the others `landed` and `leave`.
In:  seam.py, writer.py.  Out: `BULK_MACROS`, names that generated source may use. Read before: macros_dot.py.
Read next: macros_warpgroup.py, bulk.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsl.codegen.cuda.macros import as_size, spread
from kdsl.codegen.cuda.records import BYTES, Gates
from kdsl.codegen.cuda.seam import Spec, boolean, factors, macro, void
from kdsl.codegen.cuda.writer import V, Writer, i32
from kdsl.ir.boxes import LINE

SPIN = "{ .reg .pred open; again: mbarrier.try_wait.parity.shared::cta.b64 open, [$0], $1; @open bra on; bra again; on: }"


def _gate(w: Writer, g: Gates, number: V, free: bool) -> tuple[V, V]:
    """The address of the mbarrier of tile `number`, and the parity of its opening."""
    slot, turn = w.urem(number, i32(g.depth)), w.and_(w.udiv(number, i32(g.depth)), i32(1))
    first = w.add(w.near_base(), i32(g.start + (8 * g.depth if free else 0)))
    return w.add(first, w.shl(slot, i32(3))), turn


def _number(w: Writer, sig: Any, number: V) -> V:
    return w.trunc(as_size(w, sig.args[1], number), i32)


def _by_one_lane(w: Writer, text: str, values: Sequence[V], letters: str) -> None:
    """An instruction of a warp's first lane; its operands are $1, $2 …"""
    text = "{ .reg .pred one; setp.eq.b32 one, $0, 0; @one " + text + " }"
    w.asm(text, [], [w.and_(w.thread(), i32(31)), *values], ",".join("r" + letters), True)


@macro(lambda gates: void)
def gates(w: Writer, sig: Any, gates: V) -> None:
    """Make the mbarriers; afterwards every thread may use them."""
    g = sig.args[0].spec
    with w.if_then(w.icmp_unsigned("==", w.thread(), i32(0))):
        for slot in range(g.depth):
            for free, arrivals in ((False, 1), (True, g.warps)):
                address, _ = _gate(w, g, i32(slot), free)
                w.asm(f"mbarrier.init.shared::cta.b64 [$0], {arrivals};", [], [address], "r", True)
        w.plain("fence.mbarrier_init.release.cluster;")
    w.plain("bar.sync 0;")


@macro(lambda gates: boolean)
def brings(w: Writer, sig: Any, gates: V) -> V:
    """Whether this thread is of the warp that brings the tiles."""
    return w.icmp_unsigned(">=", w.thread(), i32(32 * sig.args[0].spec.warps))


@macro(lambda gates, number: void)
def room(w: Writer, sig: Any, gates: V, number: V) -> None:
    """Wait until the slot of a tile is free, and expect the tile's bytes there. The first tiles find their slots free."""
    g, n = sig.args[0].spec, _number(w, sig, number)
    free, turn = _gate(w, g, n, True)
    w.asm(SPIN, [], [free, w.xor(turn, i32(1))], "r,r", True)
    full, _ = _gate(w, g, n, False)
    _by_one_lane(w, f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [$1], {g.bytes};", [full], "r")


@macro(lambda gates, number, near, boxes, *start: void)
def bring(w: Writer, sig: Any, gates: V, number: V, near: V, boxes: V, *start: V) -> None:
    """Begin to bring a tile: panels of 128 bytes a row. `start`: where it begins along the tensor's axes, slowest first."""
    s = sig.args[2].spec
    full, _ = _gate(w, sig.args[0].spec, _number(w, sig, number), False)
    *slow, fast = (w.trunc(as_size(w, t, v), i32) for t, v in zip(sig.args[4:], start, strict=True))
    each = LINE // BYTES[s.dtype]
    axes = len(start)
    places = ", ".join(f"${i + 4}" for i in range(axes))
    copy = f"cp.async.bulk.tensor.{axes}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
    for panel in range(s.shape[1] // each):
        to = w.add(near, i32(panel * s.shape[0] * LINE))
        at = [w.add(fast, i32(panel * each)), *reversed(slow)]
        _by_one_lane(w, f"{copy} [$1], [$2, {{{places}}}], [$3];", [to, boxes, full, *at], "rlr" + "r" * axes)


@macro(lambda gates, number: void)
def landed(w: Writer, sig: Any, gates: V, number: V) -> None:
    """Wait until a tile is there."""
    address, turn = _gate(w, sig.args[0].spec, _number(w, sig, number), False)
    w.asm(SPIN, [], [address, turn], "r,r", True)


@macro(lambda gates, number: void)
def leave(w: Writer, sig: Any, gates: V, number: V) -> None:
    """This warp needs a tile no longer."""
    address, _ = _gate(w, sig.args[0].spec, _number(w, sig, number), True)
    _by_one_lane(w, "mbarrier.arrive.shared::cta.b64 _, [$1];", [address], "r")


def _start(w: Writer, t: Any, v: V) -> V:
    """Where a coordinate begins: a size, or a walk along the tile."""
    return i32(0) if isinstance(t, Spec) else w.trunc(as_size(w, t, v), i32)


@macro(lambda near, boxes, tile, *start: void)
def send(w: Writer, sig: Any, near: V, boxes: V, tile: V, *start: V) -> None:
    """Send a tile with rows of 128 bytes to a tensor, a warp its own 16 rows; it lies in near memory on the way."""
    s, have = sig.args[0].spec, sig.args[2].spec
    words = w.to_words(spread(w, sig.args[2], tile, have), s.dtype)  # four of them are 16 rows of 16 columns
    lane, warp = w.and_(w.thread(), i32(31)), w.lshr(w.thread(), i32(5))
    high, wide = w.and_(w.lshr(lane, i32(3)), i32(1)), w.lshr(lane, i32(4))  # which of four 8 x 8 this lane's row is of
    row = w.or_(w.shl(high, i32(3)), w.and_(lane, i32(7)))
    box = w.add(near, w.mul(warp, i32(16 * LINE)))
    to = [w.add(_start(w, t, v), w.shl(warp, i32(4)) if factors(t) == (1,) else i32(0)) for t, v in zip(sig.args[3:], start)]
    axes = len(start)
    places = ", ".join(f"${i + 3}" for i in range(axes))
    tensor = f"cp.async.bulk.tensor.{axes}d.global.shared::cta.tile.bulk_group [$1, {{{places}}}], [$2];"
    _by_one_lane(w, f"cp.async.bulk.wait_group.read {s.depth - 1};", [], "")  # the tile that was here has left
    w.plain("bar.warp.sync -1;")
    for four in range(have.shape[1] // 16):
        piece = w.xor(w.or_(i32(2 * four), wide), w.and_(lane, i32(7)))
        at = w.add(box, w.add(w.mul(row, i32(LINE)), w.shl(piece, i32(4))))
        text = "stmatrix.sync.aligned.m8n8.x4.shared.b16 [$0], {$1, $2, $3, $4};"
        w.asm(text, [], [at, *words[4 * four : 4 * four + 4]], "r,r,r,r,r", True)
    w.plain("fence.proxy.async.shared::cta;")
    w.plain("bar.warp.sync -1;")
    _by_one_lane(w, f"{tensor} @one cp.async.bulk.commit_group;", [boxes, box, *reversed(to)], "lr" + "r" * axes)


@macro(lambda: void)
def sent(w: Writer, sig: Any) -> None:
    """Wait until what this warp sends has been read from near memory."""
    w.plain("cp.async.bulk.wait_group.read 0;")


BULK_MACROS = {
    "gates": gates, "brings": brings, "room": room, "bring": bring, "landed": landed, "leave": leave,
    "send": send, "sent": sent,
}  # fmt: skip
