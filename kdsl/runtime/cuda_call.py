"""A compiled program that runs on a GPU, called like every Executable.

In:  kernels with their blocks and parameters, the program's memory, what its arguments and results are.  Out: results where
the arguments are: arguments on a GPU give results there, at once, while the kernels still run on the caller's stream;
NumPy arrays are copied there and the results back.
Inputs and temporaries stay alive as long as kernels use them: memory is given back in the order of the stream.
Read before: runtime/cuda_arrays.py, runtime/cuda_plan.py, runtime/call.py. Read next: gpu_program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from kdsl.errors import DeviceError, DtypeError, OutOfRangeError, ResultError, ShapeError
from kdsl.runtime.call import ArgumentSpec, Executable, IndexCheck, ResultSpec
from kdsl.runtime.cuda_arrays import DEFAULT_STREAM, DeviceTensor, new, put
from kdsl.runtime.cuda_checks import later
from kdsl.runtime.cuda_copy import spread
from kdsl.runtime.cuda_driver import enter
from kdsl.runtime.cuda_memory import Block, download
from kdsl.runtime.cuda_plan import Launch, Place, Plan, Sizes, bits_of
from kdsl.runtime.out import check_out

MOST_PLANS = 64


class GpuExecutable:
    """`executable(arrays)` -> list of results; `sizes` gives the named sizes where the arguments' shapes do not."""

    is_native = False
    size_values = Executable.size_values

    def __init__(
        self,
        launches: Sequence[Launch],
        places: Sequence[Place],
        arguments: Sequence[ArgumentSpec],
        results: Sequence[ResultSpec],
        sizes: Sequence[str] = (),
        constants: Sequence[Any] = (),
        checks: Sequence[IndexCheck] = (),
    ) -> None:
        self.launches, self.arguments, self.results = tuple(launches), tuple(arguments), tuple(results)
        self.sizes, self.checks, self.constants = tuple(sizes), tuple(checks), tuple(constants)
        hidden = {n for c in checks for n in (c.least, c.largest)}
        self.visible = tuple(i for i in range(len(results)) if i not in hidden)
        self.places = {p.name: p for p in places}
        self.result_places = sorted((p for p in places if p.role == "result"), key=lambda p: p.number)
        self.alignment: dict[str, int] = {}
        for p in (p for launch in launches for p in launch.parameters if p.kind == "address"):
            self.alignment[p.name] = max(p.alignment, self.alignment.get(p.name, 1))
        self._constants: dict[int, list[DeviceTensor]] = {}
        self._plans: dict[Any, Plan] = {}

    def __call__(self, arrays: Sequence[Any], out: Sequence[Any] | None = None, sizes: Sizes | None = None) -> list[Any]:
        """Run. On a GPU the results are promises: whatever uses them next on the stream comes after the kernels."""
        if out is not None and len(out) != len(self.visible):
            raise ResultError(f"out= has {len(out)} arrays, the kernel has {len(self.visible)} results", location=False)
        first = next((x for x in arrays if isinstance(x, DeviceTensor)), None)
        device, stream = (0, DEFAULT_STREAM) if first is None else (first.device, first.stream)
        enter(device)
        inputs = [self._input(x, spec, first, device, stream) for x, spec in zip(arrays, self.arguments, strict=True)]
        numbers = {i: x for i, x in enumerate(inputs) if not isinstance(x, DeviceTensor)}
        values = self.size_values(inputs, sizes or {})  # type: ignore[arg-type, misc]
        room = new if first is None else first.room
        results = self._rooms(values, inputs, out if first is not None else None, room, device, stream)
        self._run(inputs, results, self.plan(device, values, tuple(numbers)), numbers, stream)
        if self.checks:
            later(partial(self.check, results, values, stream))
        shown = [results[i] for i in self.visible]
        if first is None:
            return self._to_host(shown, out)
        return shown if out is None else self._into(out, shown, stream)

    # --- before ---------------------------------------------------------------------------------------------------------------
    def _input(
        self, x: Any, spec: ArgumentSpec, first: DeviceTensor | None, device: int, stream: int
    ) -> Any:
        """An argument on the device, or a number of the host's, which needs no copy."""
        if not isinstance(x, DeviceTensor):
            if first is not None and x.ndim:
                raise DeviceError(f"one argument lies on cuda:{device}, another on cpu", location=False)
            data = np.asarray(x, spec.dtype.numpy)
            if not data.ndim:
                return data
            if spec.strides is not None:
                return _strided(data, device, stream)
            return put(data, device, stream)
        if x.device != device:
            raise DeviceError(f"one argument lies on cuda:{device}, another on cuda:{x.device}", location=False)
        if isinstance(x.owner, Block):
            x.owner.used_on(stream)
        return x

    def _rooms(
        self,
        values: Sizes,
        inputs: Sequence[DeviceTensor],
        out: Sequence[Any] | None,
        room: Callable[..., DeviceTensor],
        device: int,
        stream: int,
    ) -> list[DeviceTensor]:
        """Where results go: new memory, or that of `out=` where kernels may write there and it is apart from all that is read.

        Several threads may read one element of an argument, so that none is written over even where that is legal on a CPU."""
        given = dict(zip(self.visible, out)) if out is not None else {}
        results = []
        for i, place in enumerate(self.result_places):
            shape, dtype = place.shape(values), place.dtype.numpy
            target = given.get(i)
            if target is not None:
                _check_out(target, shape, dtype, self.visible.index(i), device)
                others = [*(x for k, x in given.items() if k != i), *(x for x in inputs if isinstance(x, DeviceTensor))]
                straight = target.flags.c_contiguous and target.address % self.alignment.get(place.name, 1) == 0
                if straight and not any(meet(target, x) for x in others):
                    results.append(target)
                    continue
            results.append(room(shape, dtype, device, stream) if i in self.visible else new(shape, dtype, device, stream))
        return results

    # --- the call ---------------------------------------------------------------------------------------------------------------
    def plan(self, device: int, values: Sizes, numbers: tuple[int, ...]) -> Plan:
        """The launches for these sizes on a device, where the arguments `numbers` are numbers of the host."""
        key = device, numbers, tuple(values.items())
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            found = self._plans[key] = Plan(self.launches, tuple(self.places.values()), values, device, numbers)
        return found

    def _run(
        self, inputs: Sequence[Any], results: Sequence[DeviceTensor], plan: Plan, numbers: Mapping[int, Any], stream: int
    ) -> None:
        tensors = {"argument": inputs, "result": results, "constant": self.constants_on(plan.device)}
        alive, table = [], plan.table()
        for name, alignment in self.alignment.items():
            place = self.places[name]
            if place.role != "temporary" and not (place.role == "argument" and place.number in numbers):
                x = tensors[place.role][place.number]
                if x.address % alignment and place.role == "argument":
                    x = x.again(alignment)
                    alive.append(x)
                table.words[plan.at[name]] = x.address
        for i, number in numbers.items():
            table.words[plan.bits[i]] = bits_of(number, self.arguments[i].dtype)
        plan.run(table, stream)

    def constants_on(self, device: int) -> list[DeviceTensor]:
        """The constants on a device, copied there once."""
        if device not in self._constants:
            self._constants[device] = [put(c, device) for c in self.constants]
        return self._constants[device]

    def check(self, results: Sequence[DeviceTensor], values: Sizes, stream: int) -> None:
        for check in self.checks:
            n = check.length(values)
            ends = []
            for i in (check.least, check.largest):
                found = np.empty((), results[i].dtype)
                download(results[i].address, found, stream)
                ends.append(int(found))
            for index in ends:
                if ends[0] <= ends[1] and not -n <= index < n:  # least > largest: no index at all
                    message = f"index {index} is out of range for an axis of size {n}"
                    raise OutOfRangeError(message, location=check.location or False)

    # --- after ----------------------------------------------------------------------------------------------------------------
    def _to_host(self, shown: Sequence[DeviceTensor], out: Sequence[Any] | None) -> list[Any]:
        arrays = [x.numpy() for x in shown]
        if out is None:
            return arrays
        for position, (target, x) in enumerate(zip(out, arrays)):
            check_out(target, x.shape, x.dtype, position)
        for target, x in zip(out, arrays):
            target[...] = x
        return list(out)

    def _into(self, out: Sequence[Any], shown: Sequence[DeviceTensor], stream: int) -> list[Any]:
        for target, x in zip(out, shown):
            if x is not target and x.nbytes:
                if isinstance(target.owner, Block):
                    target.owner.used_on(stream)
                spread(x, target, stream)
        return list(out)


def _strided(data: np.ndarray[Any, Any], device: int, stream: int) -> DeviceTensor:
    """An array with any strides on a device: all bytes between its first and its last element."""
    low = high = 0
    for n, s in zip(data.shape, data.strides):
        low, high = low + min(0, (n - 1) * s), high + max(0, (n - 1) * s)
    if not data.size:
        return put(data, device, stream)
    memory = np.zeros(high - low + data.itemsize, np.uint8)
    np.ndarray(data.shape, data.dtype, memory.data, -low, data.strides)[...] = data
    whole = put(memory, device, stream)
    return DeviceTensor(whole.address - low, data.shape, data.dtype, device, whole.owner, data.strides, stream)


def meet(a: DeviceTensor, b: DeviceTensor) -> bool:
    """Whether two tensors have bytes in common, or might have."""
    if a.owner is not b.owner and type(a.owner) is Block and type(b.owner) is Block:
        return False
    (a_low, a_high), (b_low, b_high) = a.span(), b.span()
    return a.device == b.device and a_low < b_high and b_low < a_high


def _check_out(target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], position: int, device: int) -> None:
    """An error unless `target` can hold a result of that shape and dtype on that device."""
    where = f"out[{position}]"
    if not isinstance(target, DeviceTensor) or target.device != device:
        raise DeviceError(f"{where} does not lie on cuda:{device}, where the arguments are", location=False)
    if target.shape != shape:
        raise ShapeError(f"{where} has shape {target.shape}, the result has {shape}", location=False)
    if target.dtype != dtype:
        raise DtypeError(f"{where} has dtype {target.dtype}, the result has {dtype}", location=False)
    if any(s == 0 and n > 1 for s, n in zip(target.strides, shape)):
        raise ResultError(f"{where} uses one element of memory several times", location=False)
