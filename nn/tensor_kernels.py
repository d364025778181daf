"""The kernels behind a Tensor's operators and methods: one each, for any shapes.

In:  arrays and numbers; what is static behind the *.  Out: an array.
Read before: kernels.py. Read next: tensor.py.
"""

from __future__ import annotations

from typing import Any

import kdsl as kd
from nn.kernels import elementwise

add = elementwise(lambda a, b: a + b)
sub = elementwise(lambda a, b: a - b)
rsub = elementwise(lambda a, b: b - a)
mul = elementwise(lambda a, b: a * b)
div = elementwise(lambda a, b: a / b)
rdiv = elementwise(lambda a, b: b / a)
pow = elementwise(lambda a, b: a**b)
neg = elementwise(lambda a: -a)
lt = elementwise(lambda a, b: a < b)
le = elementwise(lambda a, b: a <= b)
gt = elementwise(lambda a, b: a > b)
ge = elementwise(lambda a, b: a >= b)
eq = elementwise(lambda a, b: a == b)
exp = elementwise(lambda a: kd.exp(a))
log = elementwise(lambda a: kd.log(a))
sqrt = elementwise(lambda a: kd.sqrt(a))
tanh = elementwise(lambda a: kd.tanh(a))
sigmoid = elementwise(lambda a: kd.sigmoid(a))
relu = elementwise(lambda a: kd.where(a > 0, a, 0))
abs = elementwise(lambda a: kd.abs(a))
matmul = kd.kernel(lambda a, b: a @ b)
take = kd.kernel(lambda a, i, *, axis: kd.take(a, i, axis=axis))
getitem = kd.kernel(lambda a, *, index: a[thaw(index)])
sum = kd.kernel(lambda a, *, axis, keepdims: kd.sum(a, axis=axis, keepdims=keepdims))
mean = kd.kernel(lambda a, *, axis, keepdims: kd.mean(a, axis=axis, keepdims=keepdims))
max = kd.kernel(lambda a, *, axis, keepdims: kd.max(a, axis=axis, keepdims=keepdims))
argmax = kd.kernel(lambda a, *, axis, keepdims: kd.argmax(a, axis=axis, keepdims=keepdims))
reshape = kd.kernel(lambda a, *, shape: kd.reshape(a, shape))
permute = kd.kernel(lambda a, *, axes: kd.permute_dims(a, axes))
astype = kd.kernel(lambda a, *, dtype: kd.astype(a, dtype))


def freeze(index: Any) -> Any:
    """An index as a static value: slices become hashable."""
    if isinstance(index, tuple):
        return tuple(map(freeze, index))
    return ("slice", index.start, index.stop, index.step) if isinstance(index, slice) else index


def thaw(index: Any) -> Any:
    """The index that was frozen."""
    if isinstance(index, tuple) and index[:1] == ("slice",):
        return slice(*index[1:])
    return tuple(map(thaw, index)) if isinstance(index, tuple) else index
