"""Rows of a table by number, and the gradient: rows added to a table, where one row may be wanted many times.

    y_t = table[ids_t]          dtable[i] = sum over t with ids_t = i of dy_t

The sum over equal ids is done in the order of t by the one worker that owns the row: no atomic additions, so the same bits
every time.

    python examples/embedding.py
"""

from __future__ import annotations

import numpy as np

import kdsl as kd


def reference_gradient(rows: int, ids: np.ndarray, dy: np.ndarray) -> np.ndarray:
    out = np.zeros((rows, dy.shape[1]), dy.dtype)
    np.add.at(out, ids, dy)
    return out


@kd.kernel
def embedding(table: kd.f32["rows", "width"], ids: kd.i64["T"]):
    return table[ids]


def main() -> None:
    rng = np.random.default_rng(0)
    table, dy = rng.standard_normal((10, 16), np.float32), rng.standard_normal((1000, 16), np.float32)
    ids = rng.integers(0, 10, 1000)
    assert np.array_equal(embedding(table, ids), table[ids])
    (dtable,) = embedding.vjp(table, ids, dy)  # integers have no gradient
    np.testing.assert_allclose(dtable, reference_gradient(10, ids, dy), rtol=1e-4, atol=1e-4)
    assert np.array_equal(dtable, embedding.vjp(table, ids, dy)[0])
    try:
        embedding(table, np.array([3, 12]))
    except IndexError as mistake:
        print(mistake)


if __name__ == "__main__":
    main()
