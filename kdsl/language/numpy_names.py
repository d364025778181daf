"""NumPy's names for the language: np.exp(x) on a tracer means kd.exp(x).

In:  a NumPy ufunc or function and its arguments.  Out: what the function of the language gives.
Two tables, from NumPy's function to ours; where signatures differ a line translates. What has no entry is an error.
Read before: tracer.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kdsl.errors import ArgumentError
from kdsl.language.dispatch import FUNCTIONS

_SAME_UFUNCS = (
    "add subtract multiply divide floor_divide remainder negative positive sign square reciprocal maximum minimum hypot "
    "exp exp2 expm1 log log2 log10 log1p logaddexp sqrt sin cos tan sinh cosh tanh floor ceil trunc isnan isinf isfinite "
    "signbit copysign nextafter equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor "
    "logical_not bitwise_and bitwise_or bitwise_xor matmul vecdot"
).split()
UFUNCS: dict[Any, str] = {
    **{getattr(np, name): name for name in _SAME_UFUNCS if hasattr(np, name)},
    np.power: "pow", np.absolute: "abs", np.fabs: "abs", np.float_power: "pow", np.rint: "round",
    np.arcsin: "asin", np.arccos: "acos", np.arctan: "atan", np.arctan2: "atan2", np.arcsinh: "asinh",
    np.arccosh: "acosh", np.arctanh: "atanh", np.invert: "bitwise_invert", np.left_shift: "bitwise_left_shift",
    np.right_shift: "bitwise_right_shift",
}  # fmt: skip
REDUCTIONS: dict[Any, str] = {
    np.add: "sum", np.multiply: "prod", np.maximum: "max", np.minimum: "min", np.logical_and: "all", np.logical_or: "any",
}  # fmt: skip
ACCUMULATIONS: dict[Any, str] = {
    np.add: "cumulative_sum", np.multiply: "cumulative_prod", np.maximum: "cumulative_max",
}  # fmt: skip


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer `__array_ufunc__`."""
    kwargs = _without_defaults(kwargs)
    if method == "__call__" and ufunc in UFUNCS and not kwargs:
        return FUNCTIONS[UFUNCS[ufunc]](*inputs)
    if method == "__call__" and ufunc in UFUNCS and set(kwargs) == {"dtype"}:
        return FUNCTIONS["astype"](FUNCTIONS[UFUNCS[ufunc]](*inputs), kwargs["dtype"])
    if method == "reduce" and ufunc in REDUCTIONS and len(inputs) == 1:
        return FUNCTIONS[REDUCTIONS[ufunc]](inputs[0], **{"axis": 0, **kwargs})
    if method == "accumulate" and ufunc in ACCUMULATIONS and len(inputs) == 1:
        return FUNCTIONS[ACCUMULATIONS[ufunc]](inputs[0], **{"axis": 0, **kwargs})
    raise _unknown(f"np.{ufunc.__name__}{'' if method == '__call__' else '.' + method}", kwargs)


def call_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer `__array_function__`."""
    kwargs = _without_defaults(kwargs)
    if function not in _TABLE:
        raise _unknown(f"np.{function.__name__}", {})
    return _TABLE[function](*args, **kwargs)


def _without_defaults(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Options that only say what is so anyway."""
    usual = {"out": (None, (None,)), "where": (True, np._NoValue), "initial": (np._NoValue,), "keepdims": (np._NoValue,),
             "dtype": (None,), "casting": ("same_kind",), "order": ("K", "C"), "subok": (True,)}  # fmt: skip
    return {k: v for k, v in kwargs.items() if not any(v is u for u in usual.get(k, ()))}


def _unknown(name: str, kwargs: dict[str, Any]) -> ArgumentError:
    options = f" with {', '.join(kwargs)}=" if kwargs else ""
    return ArgumentError(
        f"kdsl has no {name}{options} for tensors in a kernel", hint="kd's own functions follow the array API standard's names"
    )


# --- functions: NumPy's signatures on the left --------------------------------------------------------------------
def _reduction(name: str) -> Callable[..., Any]:
    def call(a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
        options = {} if dtype is None else {"dtype": dtype}
        _no_out(out)
        return FUNCTIONS[name](a, axis, keepdims=keepdims, **options)

    return call


def _extremum(name: str) -> Callable[..., Any]:
    def call(a: Any, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        _no_out(out)
        return FUNCTIONS[name](a, axis, keepdims=keepdims)

    return call


def _moment(name: str) -> Callable[..., Any]:
    def call(
        a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False,
        *, mean: Any = None, correction: float | None = None,
    ) -> Any:  # fmt: skip
        _no_out(out)
        result = FUNCTIONS[name](a, axis, correction=ddof if correction is None else correction, keepdims=keepdims)
        return result if dtype is None else FUNCTIONS["astype"](result, dtype)

    return call


def _no_out(out: Any) -> None:
    if out is not None:
        raise ArgumentError("a tensor in a kernel cannot be written to, so out= has no meaning", hint="use the result")


def _named(name: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: FUNCTIONS[name](*args, **kwargs)


def _cumulative(name: str) -> Callable[..., Any]:
    """np.cumsum without an axis runs over all elements in their order; np.cumulative_sum asks for one."""

    def call(a: Any, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
        _no_out(out)
        return FUNCTIONS[name](FUNCTIONS["reshape"](a, (-1,)) if axis is None else a, axis=axis, dtype=dtype)

    return call


def _axis_option(name: str, default: Any = 0) -> Callable[..., Any]:
    """NumPy takes the axis by position, the array API by keyword."""
    return lambda a, axis=default: FUNCTIONS[name](a, axis=axis)


def _transpose(a: Any, axes: Any = None) -> Any:
    return FUNCTIONS["permute_dims"](a, tuple(range(a.ndim))[::-1] if axes is None else axes)


def _pad(array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    if mode != "constant":
        raise ArgumentError(f"kdsl pads with a number, not with mode={mode!r}")
    return FUNCTIONS["pad"](array, pad_width, constant_values)


def _round(a: Any, decimals: int = 0, out: None = None) -> Any:
    _no_out(out)
    return round(a, decimals)


def _array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    return FUNCTIONS["split"](ary, indices_or_sections, axis)


def _triangle(name: str) -> Callable[..., Any]:
    return lambda m, k=0: FUNCTIONS[name](m, k=k)


def _like(name: str) -> Callable[..., Any]:
    return lambda *args, dtype=None, **_: FUNCTIONS[name](*args, dtype=dtype)


_SAME = (
    "where expand_dims squeeze reshape broadcast_to broadcast_arrays moveaxis einsum "
    "tile clip searchsorted meshgrid"
).split()
_TABLE: dict[Any, Callable[..., Any]] = {
    **{getattr(np, n): _named(n) for n in _SAME},
    **{getattr(np, n): _reduction(n) for n in ("sum", "prod", "mean")},
    **{getattr(np, n): _extremum(n) for n in ("max", "min", "any", "all", "argmax", "argmin")},
    np.amax: _extremum("max"),
    np.amin: _extremum("min"),
    **{getattr(np, n): _moment(n) for n in ("var", "std")},
    **{getattr(np, n): _like(n) for n in ("zeros_like", "ones_like", "full_like", "empty_like")},
    **{getattr(np, n): _triangle(n) for n in ("tril", "triu")},
    np.cumsum: _cumulative("cumulative_sum"),
    np.cumprod: _cumulative("cumulative_prod"),
    **{getattr(np, n): _named(n) for n in ("cumulative_sum", "cumulative_prod") if hasattr(np, n)},
    np.count_nonzero: _named("count_nonzero"),
    np.transpose: _transpose,
    np.matrix_transpose: _named("matrix_transpose"),
    np.swapaxes: lambda a, axis1, axis2: a.swapaxes(axis1, axis2),
    np.flip: _axis_option("flip", None),
    np.concatenate: lambda arrays, axis=0: FUNCTIONS["concat"](arrays, axis=axis),
    np.stack: lambda arrays, axis=0: FUNCTIONS["stack"](arrays, axis=axis),
    np.unstack: lambda x, *, axis=0: FUNCTIONS["unstack"](x, axis=axis),
    np.split: _array_split,
    np.roll: lambda a, shift, axis=None: FUNCTIONS["roll"](a, shift, axis=axis),
    np.repeat: lambda a, repeats, axis=None: FUNCTIONS["repeat"](a, repeats, axis=axis),
    np.take: lambda a, indices, axis=None: FUNCTIONS["take"](a, indices, axis=axis),
    np.take_along_axis: lambda arr, indices, axis=-1: FUNCTIONS["take_along_axis"](arr, indices, axis=axis),
    np.tensordot: lambda a, b, axes=2: FUNCTIONS["tensordot"](a, b, axes=axes),
    np.ravel: lambda a: FUNCTIONS["reshape"](a, (-1,)),
    np.pad: _pad,
    np.round: _round,
    np.sort: lambda a, axis=-1, *, stable=True: FUNCTIONS["sort"](a, axis=axis),
    np.argsort: lambda a, axis=-1, *, stable=True: FUNCTIONS["argsort"](a, axis=axis),
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.size: lambda a, axis=None: a.size if axis is None else a.shape[axis],
    np.astype: lambda x, dtype, /, *, copy=True: FUNCTIONS["astype"](x, dtype),
}
