"""The recurrences of examples/recurrences.py: equal to loops in NumPy and to PyTorch's cells, with gradients that are slopes."""

from __future__ import annotations

import numpy as np
import pytest

from examples import recurrences as r
from tests.transforms.test_derivatives_scan import assert_slopes, normal


@pytest.mark.oracle
def test_gru_and_lstm_are_pytorchs():
    torch = pytest.importorskip("torch")
    t, b, d, h = 7, 3, 5, 4
    x, h0, c0 = normal(t, b, d), normal(b, h), normal(b, h)
    for name, gates in (("LSTM", 4), ("GRU", 3)):
        cell = getattr(torch.nn, name)(d, h).double()
        with torch.no_grad():
            cell.bias_hh_l0.zero_()
        w, u, bias = (getattr(cell, n).detach().numpy() for n in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"))
        state = tuple(torch.from_numpy(v)[None] for v in (h0, c0))
        if name == "LSTM":
            want = cell(torch.from_numpy(x), state)[0].detach().numpy()
            got = r.lstm(x, h0, c0, w.T, u.T, bias)[1]
        else:  # PyTorch's rows of gates are r, z, n
            order = np.r_[h : 2 * h, :h, 2 * h : 3 * h]
            want = cell(torch.from_numpy(x), state[0])[0].detach().numpy()
            got = r.gru(x, h0, w[order].T, u[order].T, bias[order])
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
        assert gates


def test_gradients_of_cells():
    t, b, d, h = 9, 2, 3, 4
    assert_slopes(r.gru, normal(t, b, d), normal(b, h), normal(d, 3 * h), normal(h, 3 * h), normal(3 * h))
    assert_slopes(r.lstm, normal(t, b, d), normal(b, h), normal(b, h), normal(d, 4 * h), normal(h, 4 * h), normal(4 * h))


def test_kalman():
    s, t = 3, 11
    f, q, p = np.eye(s) + normal(s, s) / 10, np.eye(s) / 10, np.eye(s)
    z, x, h, noise = normal(t), normal(s), normal(s), np.array(0.5)
    states = r.kalman(z, x, p, f, q, h, noise)
    for now, want in zip(z, states, strict=True):
        x, p = f @ x, f @ p @ f.T + q
        gain = p @ h / (h @ p @ h + noise)
        x, p = x + gain * (now - h @ x), p - np.outer(gain, p @ h)
        np.testing.assert_allclose(want, x, rtol=1e-9, atol=1e-12)
    assert_slopes(r.kalman, z, normal(s), np.eye(s), f, q, h, noise)


def test_the_others():
    x, a = normal(19, 3), np.array(0.9)
    m = x[0]
    for now, got in zip(x, r.moving_average(x, a), strict=True):
        m = a * m + (1 - a) * now
        np.testing.assert_allclose(got, m, rtol=1e-12)
    assert_slopes(r.moving_average, x, a)
    angle = r.pendulum(np.array([0.01]), np.zeros(1), 2 * np.pi / 1000, np.zeros((1000, 1)))
    assert angle[-1, 0] == pytest.approx(0.01, abs=1e-6)
    highest, when = r.highest_so_far(x.T)
    np.testing.assert_array_equal(highest, np.maximum.accumulate(x.T, 1))
    np.testing.assert_array_equal(np.take_along_axis(x.T, when, 1), highest)


def test_gradients_of_an_ode_and_of_a_running_maximum():
    assert_slopes(r.pendulum, np.array([0.3]), np.zeros(1), np.array(0.05), normal(40, 1))
    assert_slopes(lambda x: r.highest_so_far(x)[0], normal(3, 19))
