"""Six mistakes, and what kdsl answers: what is wrong, where, which facts clash, and a way out.

python examples/errors.py
"""

from __future__ import annotations

import numpy as np

import kdsl as kd

X, B = np.ones((64, 768), np.float32), np.ones(64, np.float32)


@kd.kernel
def affine(x, bias):
    return x * 2 + bias


@kd.kernel
def branch(x):
    if kd.sum(x) > 0:
        return x
    return -x


@kd.kernel
def scaled(x: kd.f32["N", "D"], weight: kd.f32["D"]):
    return x * weight


@kd.kernel
def masked(x):
    return x[x > 0]


MISTAKES = {
    "shapes that do not fit": lambda: affine(X, B),
    "a named size with two values": lambda: scaled(X, B),
    "another dtype than declared": lambda: scaled(X.astype("f8"), X[0]),
    "a Python if on a tensor": lambda: branch(X),
    "a mask as an index": lambda: masked(X),
    "a result that is too small": lambda: affine(X, X[0], out=np.empty((3, 3), "f4")),
}


def main() -> None:
    for title, mistake in MISTAKES.items():
        try:
            mistake()
        except kd.KdslError as error:
            print(f"--- {title}\n{type(error).__name__}: {error}\n")
        else:
            raise AssertionError(f"{title} was not noticed")


if __name__ == "__main__":
    main()
