"""The short way into a program on a GPU: a call that looks like one before goes from its arguments to the launches at once.

In:  as runtime/fast.py: for each kind of call that was seen, what its arguments are and the executable for them.  Out:
`ShortCall.call(args, keywords)`, the results, or NotImplemented where no record fits: runtime/cuda_call.py takes everything.
The records lie under what tells calls apart: of each tensor its kind (shape, strides, dtype, device, stream, alignment), of
each container its length or keys, of each other argument its type; static values are compared afterwards.
Read before: runtime/fast.py, runtime/cuda_plan.py. Read next: specialisation/short_way.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kdsl.errors import KdslError
from kdsl.runtime.arrays import Array
from kdsl.runtime.cuda_arrays import WIDEST, DeviceTensor, new
from kdsl.runtime.cuda_call import GpuExecutable, meet
from kdsl.runtime.cuda_checks import later
from kdsl.runtime.cuda_memory import Block
from kdsl.runtime.cuda_plan import Plan, Sizes, Table, bits_of
from kdsl.runtime.fast import Argument, Nested, Same, SizeOf, Tensor

MOST_RECORDS = 256  # sizes that keep changing push out what came first
MOST_ALIKE = 16  # so do static values
_COMPARED = frozenset({int, str, bytes, float, bool, type(None)})
_AS_BITS = {"f32": (struct.Struct("<f"), struct.Struct("<I")), "f64": (struct.Struct("<d"), struct.Struct("<Q"))}

Read = tuple[list[Any], tuple[Any, ...]]  # the arguments and what they contain, one after the other; what tells calls apart


@dataclass(frozen=True)
class Handing:
    """What a call gives: the first `shown` results as arrays of the caller's kind, the others as they are, then the arguments
    numbered `held` and the values of the sizes `told`; through `finish` where there is one, or the `single` result itself."""

    shown: int
    finish: Callable[[tuple[Any, ...]], Any] | None = None
    single: bool = False
    held: Sequence[int] = ()
    told: Sequence[str] = ()


Made = tuple[int, tuple[int, ...], tuple[int, ...], Any, int, int]  # of a result: word, shape, strides, dtype, bytes, kind
Wrap = Callable[[DeviceTensor], Any]


class ShortCall:
    """The records of one kernel. `view` reads arrays of other libraries, `wrap` makes them of results."""

    def __init__(self, view: Callable[[Any], Any], wrap: Wrap) -> None:
        self._view, self._wrap = view, wrap
        self._records: dict[tuple[Any, ...], list[Record]] = {}

    def call(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """The results of a call, or NotImplemented."""
        read = self._read(args, keywords)
        if read is not None:
            flat = read[0]
            for record in self._records.get(read[1], ()):
                if record.fits(flat):
                    return record.run(flat)
        return NotImplemented

    def into(self, out: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """The same for `out=`: an Array, or a tuple or list of Arrays, which it returns."""
        several = type(out) in (tuple, list)
        targets: list[Any] = [getattr(x, "data", None) for x in (out if several else (out,))]
        read = self._read(args, keywords) if all(type(x) is DeviceTensor for x in targets) else None
        if read is not None:
            for record in self._records.get(read[1], ()):
                if record.fits(read[0]) and record.flat is several:
                    return out if record.run_into(read[0], targets) else NotImplemented
        return NotImplemented

    def add(
        self,
        executable: GpuExecutable,
        arguments: Sequence[Argument],
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        sizes: Mapping[str, int],
        handing: Handing,
        fixed: Mapping[int, Any] = {},
    ) -> None:
        """From now on, calls like this one take the short way. `fixed`: arguments of the program that are defaults."""
        read = self._read(args, keywords)
        if read is None or fixed:
            return
        record = Record.of(executable, arguments, read[0], sizes, handing, self._wrap)
        if record is not None:
            while len(self._records) >= MOST_RECORDS:
                self._records.pop(next(iter(self._records)))
            alike = self._records.setdefault(read[1], [])
            alike[:] = [*alike[-MOST_ALIKE + 1 :], record]

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def _read(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> Read | None:
        """None where there is no tensor on a GPU, or an array that is not on one."""
        flat: list[Any] = [*args, *keywords.values()]
        key: list[Any] = []
        there = False
        for i, x in enumerate(flat):  # grows as it is walked
            kind = type(x)
            if kind is Array:
                x = flat[i] = x.data
                kind = type(x)
            if kind is DeviceTensor:
                there = True
                key.append(x.known_kind or x.kind)
            elif kind is tuple or kind is list:
                key.append((kind, len(x)))
                flat += x
            elif kind is dict:
                key.append((kind, *x))
                flat += x.values()
            elif kind is np.ndarray or isinstance(x, np.generic):
                if x.ndim:
                    return None
                key.append(x.dtype)
            elif kind in _COMPARED or (tensor := self._viewed(x)) is None:
                key.append(kind)
            elif type(tensor) is DeviceTensor:
                flat[i], there = tensor, True
                key.append(tensor.kind)
            else:
                return None
        if keywords:
            key.append(tuple(keywords))
        return (flat, tuple(key)) if there else None

    def _viewed(self, x: Any) -> Any:
        """An array of another library as a tensor; NotImplemented where kernels do not take it: the long way says why."""
        try:
            return self._view(x)
        except KdslError:
            return NotImplemented


class Record:
    """One kind of call: where its arguments go, and what comes out."""

    def __init__(
        self, executable: GpuExecutable, plan: Plan, values: Sizes, first: DeviceTensor, wrap: Wrap, handing: Handing
    ) -> None:
        self.executable, self.plan, self.values, self.wrap, self.handing = executable, plan, values, wrap, handing
        self.device, self.stream, self.room = first.device, first.stream, first.room
        self.flat = not handing.single
        self.statics: list[tuple[int, Any]] = []  # (number among the arguments, value)
        self.tensors: list[tuple[int, int]] = []  # (number among the arguments, word)
        self.numbers: list[tuple[int, int, Any]] = []  # (number among the arguments, word, dtype)
        self.constants: list[tuple[int, int]] = []  # (word, address)
        self.results: list[Made] = []
        self.held: list[int] = []

    @staticmethod
    def of(
        executable: GpuExecutable,
        arguments: Sequence[Argument],
        flat: Sequence[Any],
        sizes: Mapping[str, int],
        handing: Handing,
        wrap: Wrap,
    ) -> Record | None:
        """The record of a call; None where a tensor must be copied first, or lies elsewhere than the others."""
        objects = list(arguments)
        for part in objects:  # grows as it is walked, in the order of `flat`
            if isinstance(part, Nested):
                objects += part.children
        places = {x.number: i for i, x in enumerate(objects) if isinstance(x, Tensor)}
        if len(objects) != len(flat) or sorted(places) != list(range(len(executable.arguments))):
            return None
        given = {number: flat[i] for number, i in places.items()}
        tensors: dict[int, DeviceTensor] = {n: x for n, x in given.items() if type(x) is DeviceTensor}
        names = {p.number: p.name for p in executable.places.values() if p.role == "argument"}
        if not tensors:
            return None
        first = tensors[min(tensors)]
        for n, x in tensors.items():
            if (x.device, x.stream) != (first.device, first.stream) or x.address % executable.alignment.get(names[n], 1):
                return None
        values = executable.size_values([_shaped(given[n]) for n in sorted(given)], sizes)  # type: ignore[misc]
        numbers = tuple(n for n in sorted(given) if n not in tensors)
        plan = executable.plan(first.device, values, numbers)
        out = Record(executable, plan, values, first, wrap, handing)
        out.tensors = [(places[n], plan.at[names[n]]) for n in tensors]
        out.numbers = [(places[n], plan.bits[n], executable.arguments[n].dtype) for n in numbers]
        out.statics = [(i, x.value) for i, x in enumerate(objects) if isinstance(x, Same)]
        out.statics += [(i, flat[i]) for i, x in enumerate(objects) if isinstance(x, SizeOf)]
        kept = executable.constants_on(first.device)
        out.constants = [(plan.at[p.name], kept[p.number].address) for p in executable.places.values() if p.role == "constant"]
        for p in executable.result_places:
            like = DeviceTensor(0, plan.shapes[p.name], p.dtype.numpy, first.device, None, None, first.stream, new)
            out.results.append((plan.at[p.name], like.shape, like.strides, like.dtype, like.nbytes, like.kind))
        out.held = [places[n] for n in handing.held]
        return out

    def fits(self, flat: Sequence[Any]) -> bool:
        """Whether the static values are those of the record."""
        return not self.statics or all(_same(flat[i], value) for i, value in self.statics)

    def run(self, flat: Sequence[Any]) -> Any:
        """The results, or NotImplemented where the long way must say what is wrong."""
        device, stream, plan = self.device, self.stream, self.plan
        own = self.room is new and not plan.ahead
        table = self._filled(flat)
        words, made = table.words, []
        if not own:
            for word, shape, _, dtype, _, _ in self.results:
                x = self.room(shape, dtype, device, stream)
                words[word] = x.address
                made.append(x)
        if plan.try_run(table, stream, own):
            plan.done(table)
            return NotImplemented
        if own:
            for word, shape, strides, dtype, size, kind in self.results:
                block = Block.of(words[word], size, device, stream, plan.pool)
                made.append(DeviceTensor.of(block, shape, strides, dtype, kind))
        plan.done(table)
        executable = self.executable
        if executable.checks:
            later(partial(executable.check, made, self.values, stream))
            made = [made[i] for i in executable.visible]
        handing = self.handing
        if handing.single:
            return self.wrap(made[0])
        results = [self.wrap(x) if i < handing.shown else x for i, x in enumerate(made)]
        out = (*results, *[flat[i] for i in self.held], *[self.values[name] for name in handing.told])
        return out if handing.finish is None else handing.finish(out)

    def run_into(self, flat: Sequence[Any], targets: Sequence[DeviceTensor]) -> bool:
        """Write the results into `targets`; False where the long way must do it."""
        if self.executable.checks or len(targets) != len(self.results):
            return False
        sources = [flat[i] for i, _ in self.tensors]
        for i, (x, (_, shape, strides, dtype, _, _)) in enumerate(zip(targets, self.results)):
            same = (x.shape, x.strides, x.dtype, x.device, x.stream) == (shape, strides, dtype, self.device, self.stream)
            if not same or x.address % WIDEST or any(meet(x, other) for other in (*sources, *targets[:i])):
                return False
            if type(x.owner) is Block:
                x.owner.used_on(self.stream)
        table = self._filled(flat)
        for x, result in zip(targets, self.results):
            table.words[result[0]] = x.address
        failed = self.plan.try_run(table, self.stream, False)
        self.plan.done(table)
        return not failed

    def _filled(self, flat: Sequence[Any]) -> Table:
        table = self.plan.table()
        words, stream = table.words, self.stream
        for i, word in self.tensors:
            x = flat[i]
            owner = x.owner
            if type(owner) is Block and owner.stream != stream:  # another stream has used the memory since
                owner.used_on(stream)
            words[word] = x.address
        for i, word, dtype in self.numbers:
            words[word] = _bits(flat[i], dtype)
        for word, address in self.constants:
            words[word] = address
        return table


def _bits(x: Any, dtype: Any) -> int:
    if type(x) is float and dtype.name in _AS_BITS:
        number, bits = _AS_BITS[dtype.name]
        try:
            return bits.unpack(number.pack(x))[0]  # type: ignore[no-any-return]
        except OverflowError:  # larger than any f32
            pass
    return bits_of(x, dtype)


def _same(x: Any, value: Any) -> bool:
    if type(x) is not type(value) or type(x) not in _COMPARED:
        return x is value
    return struct.pack("d", x) == struct.pack("d", value) if type(x) is float else x == value


def _shaped(x: Any) -> Any:
    return x if hasattr(x, "shape") else np.asarray(x)
