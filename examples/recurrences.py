"""Recurrences in a few lines each: a GRU, an LSTM, a Kalman filter, a moving average, an ODE, a running maximum.

    python examples/recurrences.py

Each is an ordinary step function under kd.scan: compiled to one kernel, with the gradient derived. The letters are the papers'.
"""

from __future__ import annotations

import numpy as np

import kdsl as kd


@kd.kernel
def gru(x, h, w, u, b):
    """Gates z, r and a candidate n. Shapes: x [T, B, D], h [B, H], w [D, 3H], u [H, 3H], b [3H]; all hidden states [T, B, H]."""
    width = h.shape[1]

    def step(h, x):
        from_x, from_h = x @ w + b, h @ u
        z = kd.sigmoid(from_x[:, :width] + from_h[:, :width])
        r = kd.sigmoid(from_x[:, width : 2 * width] + from_h[:, width : 2 * width])
        n = kd.tanh(from_x[:, 2 * width :] + r * from_h[:, 2 * width :])
        h = (1 - z) * n + z * h
        return h, h

    return kd.scan(step, h, x)[1]


@kd.kernel
def lstm(x, h, c, w, u, b):
    """Gates i, f, g, o. Shapes: x [T, B, D], h and c [B, H], w [D, 4H], u [H, 4H], b [4H]; ((h, c), hidden states [T, B, H])."""
    width = h.shape[1]

    def step(state, x):
        h, c = state
        gates = x @ w + h @ u + b
        i, f, g, o = (gates[:, k * width : (k + 1) * width] for k in range(4))
        c = kd.sigmoid(f) * c + kd.sigmoid(i) * kd.tanh(g)
        h = kd.sigmoid(o) * kd.tanh(c)
        return (h, c), h

    return kd.scan(step, (h, c), x)


@kd.kernel
def kalman(z, x, p, f, q, h, r):
    """Predict, then correct by one measured number z. Shapes: z [T], x [S], p, f, q [S, S], h [S], r []; states [T, S]."""

    def step(state, z):
        x, p = state
        x, p = f @ x, f @ p @ f.T + q
        ph = p @ h
        gain = ph / (kd.sum(h * ph) + r)
        x = x + gain * (z - kd.sum(h * x))
        p = p - gain[:, None] * ph[None, :]
        return (x, p), x

    return kd.scan(step, (x, p), z)[1]


@kd.kernel
def moving_average(x, a):
    """m = a m + (1 - a) x, beginning with the first x. Shapes: x [T, D], a [] or [D]; [T, D]."""

    def step(m, x):
        m = a * m + (1 - a) * x
        return m, m

    return kd.scan(step, x[0], x)[1]


@kd.kernel
def pendulum(angle, speed, dt: kd.f64, drive):
    """angle'' = -sin(angle) + drive, by Runge and Kutta's fourth-order steps. Shapes: angle, speed [B], drive [T, B]; [T, B]."""

    def slope(angle, speed, push):
        return speed, push - kd.sin(angle)

    def step(state, push):
        a, v = state
        a1, v1 = slope(a, v, push)
        a2, v2 = slope(a + dt / 2 * a1, v + dt / 2 * v1, push)
        a3, v3 = slope(a + dt / 2 * a2, v + dt / 2 * v2, push)
        a4, v4 = slope(a + dt * a3, v + dt * v3, push)
        a = a + dt / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
        v = v + dt / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        return (a, v), a

    return kd.scan(step, (angle, speed), drive)[1]


@kd.kernel
def highest_so_far(x):
    """The running maximum along the last axis, and when it was reached first. Shapes: x [B, T]; [B, T] twice."""
    times = kd.broadcast_to(kd.arange(x.shape[1]), x.shape)

    def later(earlier, now):
        higher = now[0] > earlier[0]
        return kd.where(higher, now[0], earlier[0]), kd.where(higher, now[1], earlier[1])

    return kd.associative_scan(later, (x, times), axis=1)


def main() -> None:
    rng = np.random.default_rng(0)
    track = np.cumsum(rng.standard_normal(200))
    measured = track + rng.standard_normal(200) * 3
    one = np.ones((1, 1))
    smooth = kalman(measured, np.zeros(1), one * 10, one, one, np.ones(1), np.float64(9))
    print(f"Kalman filter: error {np.std(smooth[:, 0] - track):.2f} where the measurements have {np.std(measured - track):.2f}")
    angle = pendulum(np.array([0.1]), np.array([0.0]), 2 * np.pi / 1000, np.zeros((1000, 1)))
    print(f"pendulum: after one period a small swing is back at {angle[-1, 0]:.4f}")
    print(f"highest so far of {np.round(track[:6], 1)}: {np.round(highest_so_far(track[None, :6])[0][0], 1)}")


if __name__ == "__main__":
    main()
