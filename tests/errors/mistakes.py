"""Mistakes that users make, each a function without arguments. The golden texts quote these lines: append, do not reorder."""

import numpy as np

import kdsl as kd

X = np.ones((64, 768), np.float32)
B = np.ones(64, np.float32)
SCALE = np.ones((200, 200), np.float32)


@kd.kernel
def affine(x, bias):
    y = x + bias
    return y


@kd.kernel
def layer_norm(x: kd.f32["N", "D"], weight: kd.f32["D"]):
    return x * weight


@kd.kernel
def fixed(x: kd.f32[4, "D"]):
    return x


@kd.kernel
def count(ids: kd.integer["N"]):
    return kd.sum(ids)


def shifted(values, by):
    return values + by


@kd.kernel
def with_helper(x, bias):
    return shifted(x, bias) * 2


@kd.kernel
def branch(x):
    if kd.sum(x) > 0:
        return x
    return -x


@kd.kernel
def relu_loop(x: kd.f32["N"]):
    total = 0
    for i in range(x.shape[0]):
        total = total + x[i]
    return total


@kd.kernel
def masked(x):
    return x[x > 0]


@kd.kernel
def words(x):
    return x, "done"


@kd.kernel
def sized(x: kd.f32["N"]):
    return x if x.shape[0] > 4 else -x


def shapes_do_not_add():
    affine(X, B)


def named_sizes_differ():
    layer_norm(X, B)


def fixed_size_differs():
    fixed(X)


def dtype_not_declared():
    layer_norm(X.astype(np.float64), X[0])


def class_of_dtypes():
    count(X[0])


def too_few_axes():
    layer_norm(X[0], X[0])


def in_a_helper():
    with_helper(X, B)


def python_if():
    branch(X)


def loop_over_named_size():
    relu_loop(B)


def compare_named_size():
    sized(B)


def boolean_mask():
    masked(X)


def result_is_text():
    words(X)


def result_of_lambda():
    kd.kernel(lambda x: (x, {"name": object()}))(X)


def missing_argument():
    affine(X)


def unknown_argument():
    affine(X, B, axis=0)


def unhashable_static():
    affine(X, {1, 2})


def axis_out_of_range():
    kd.kernel(lambda x: kd.sum(x, axis=2))(X)


def index_out_of_range():
    kd.kernel(lambda x: x[64])(X)


def large_constant():
    kd.kernel(lambda x: x @ SCALE)(X[:, :200])


def no_common_dtype():
    kd.kernel(lambda x, y: x + y)(np.ones(3, np.uint64), np.ones(3, np.int64))


def complex_array():
    affine(X.astype(complex), X)


def cotangent_shape():
    affine.vjp(X, X, B)


def number_of_cotangents():
    affine.vjp(X, X)


def gradient_of_a_vector():
    kd.grad(affine)(X, X)


def gradient_of_integers():
    kd.grad(lambda n: kd.sum(n) * 0.5)(np.arange(3))


def contraction_sizes():
    kd.kernel(lambda x, w: x @ w)(X, B)


def write_into_tensor():
    def write(x):
        x[0] = 1
        return x

    kd.kernel(write)(X)


def float_of_tensor():
    kd.kernel(lambda x: float(x[0, 0]))(X)


def target_without_name():
    kd.kernel(lambda x: x, target="abacus")


def out_shape():
    affine(X, X, out=np.empty((3, 3), np.float32))


def out_structure():
    affine(X, X, out=(np.empty_like(X), np.empty_like(X)))


def no_such_architecture():
    affine.ptx(X, X, arch="sm_12")


def rule_with_wrong_shape():
    square = kd.kernel(lambda x: x * x)
    square.defvjp(lambda args, results, cotangents: (kd.sum(cotangents[0]),))
    square.vjp(X, X)


def types_of_unknown_parameter():
    kd.kernel(lambda x: x, types={"y": kd.f32})


def carry_of_another_shape():
    kd.kernel(lambda x: kd.scan(lambda total, row: (total + row, None), 0.0, x))(X)


def carry_of_another_dtype():
    def decayed(h, x):
        h = h * 0.5 + x
        return h.astype(kd.f64), h

    kd.kernel(lambda x: kd.scan(decayed, kd.zeros(768), x))(X)


def carry_begins_as_a_number():
    kd.kernel(lambda x: kd.scan(lambda total, row: (total + kd.sum(row), total), 0.0, x))(X.astype("f8"))


def carry_of_another_structure():
    kd.kernel(lambda x: kd.scan(lambda c, row: ({"h": row}, None), {"h": kd.zeros(768), "n": 0}, x))(X)


def step_without_y():
    def step(h, x):
        return h + x

    kd.kernel(lambda x: kd.scan(step, kd.zeros(768), x))(X)


def step_of_one_parameter():
    kd.kernel(lambda x: kd.scan(lambda x: (x, x), kd.zeros(768), x))(X)


def scan_over_nothing():
    kd.kernel(lambda x: kd.scan(lambda c, _: (c, None), x, None))(X)


def scanned_lengths():
    kd.kernel(lambda x, b: kd.scan(lambda c, now: (c, None), 0.0, (x, b[:8])))(X, B)


def combine_of_another_dtype():
    kd.kernel(lambda n: kd.associative_scan(lambda a, b: a / b, n))(np.arange(8))


def cumulative_without_an_axis():
    kd.kernel(lambda x: kd.cumulative_sum(x))(X)


MISTAKES = [f for name, f in list(globals().items()) if callable(f) and getattr(f, "__module__", "") == __name__
            and not isinstance(f, kd.Kernel) and name not in ("shifted",)]  # fmt: skip
