"""State-space models: the selective scan of Mamba, one step of it, and the chunked dual form of Mamba-2.

    h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t          y_t = sum over n of C_t h_t

Letters: B batch, L length, D channels, N states, G groups of channels that share B and C; of Mamba-2: H heads, P channels of
a head, R = H/G heads of a group, Q positions of a chunk. States are f32 whatever the others are; neither they (B, L, D, N)
nor the decays are ever stored: they live inside the scan's kernel, forward and backward.
Source: Gu and Dao 2023, "Mamba"; Dao and Gu 2024, "Transformers are SSMs".
Read before: activations.py. Read next: ../mamba.py, ../mamba2.py.
"""

from __future__ import annotations

import math
from typing import Any

import kdsl as kd
from nn.devices import assign
from nn.functional.activations import silu, softplus
from nn.functional.function import detached, function
from nn.tensor import Tensor

_B_OR_C = "D N | batch N time | batch G N time"
_EACH, _B_OR_C_NOW = "batch D | batch H P", "batch N | batch G N"


# --- Mamba ----------------------------------------------------------------------------------------------------------------------
@function("batch D time", "batch D time", "D N", _B_OR_C, _B_OR_C, "D", "batch D time", "D")
def selective_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, *, delta_softplus=False, return_last_state=False):
    """The selective scan with the signature of mamba_ssm's selective_scan_fn.

        dt = softplus(delta + delta_bias)     y = (scan(dt, u, A, B, C) + D u) silu(z)

    Shapes    u, delta, z (B, D, L), A (D, N), B and C (D, N), (B, N, L) or (B, G, N, L), D and delta_bias (D,)
              -> (B, D, L) in u's dtype, and with return_last_state also (B, D, N) in f32
    Memory    no state of every position: only what is returned; a gradient keeps every 8th to 32nd state
    Raises    ShapeError where G groups do not divide the channels; kd.DtypeError for a complex A, which kdsl does not have
    Source    mamba_ssm, ops/selective_scan_interface.py; Gu and Dao 2023, "Mamba", algorithm 2
    Example: `y, last = F.selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True, return_last_state=True)`.
    """
    delta = kd.astype(delta, kd.f32)
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = softplus.function(delta)
    B, C = (kd.astype(kd.squeeze(v, 1) if v.ndim == 4 and v.shape[1] == 1 else v, kd.f32) for v in (B, C))
    h, y = recurrence(kd.zeros((*u.shape[:2], A.shape[1])), u, delta, A, B, C, axis=-1)
    if D is not None:
        y = y + u * D[:, None]
    if z is not None:
        y = y * silu.function(kd.astype(z, kd.f32))
    y = kd.astype(y, u.dtype)
    return (y, h) if return_last_state else y


def recurrence(h, x, dt, A, B, C, axis):
    """The scan along `axis` from the state h: (last state, y).

    Shapes    h (B, D, N), A (D, N); at each position x and dt (B, D), B and C (B, N) or (B, G, N), or (D, N) for all positions
    """
    varying = [v for v in (B, C) if v.ndim > 2]

    def step(h, now):
        x, dt, *at = now
        b, c = (_by_channel(at.pop(0), h.shape[1]) if v.ndim > 2 else v for v in (B, C))
        return _step(h, x, dt, A, b, c)

    return kd.scan(step, h, (x, dt, *varying), axis=axis)


def _step(h, x, dt, A, b, c):
    """(the next state, y) with b and c as (B, D or 1, N) or (D, N)."""
    h = kd.exp(dt[..., None] * A) * h + (dt * x)[..., None] * b  # (B, D, N)
    return h, kd.sum(h * c, axis=-1)  # (B, D)


def _by_channel(v, channels):
    """B or C of one position for each channel: (B, N) as (B, 1, N), (B, G, N) as (B, D, N)."""
    if v.ndim == 3 and channels % v.shape[1]:
        raise kd.ShapeError(f"{v.shape[1]} groups do not divide {channels} channels")
    return kd.repeat(v, channels // v.shape[1], axis=1) if v.ndim == 3 else v[:, None, :]


@function(
    "batch D N | batch H P N", _EACH, _EACH, "D N | H P N", _B_OR_C_NOW, _B_OR_C_NOW, "D | H P", _EACH, "D | H P"
)  # fmt: skip
def _state_update(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, *, dt_softplus=False):
    """One step of the selective scan: (y, the next state)."""
    step = kd.astype(dt, kd.f32)
    step = step if dt_bias is None else step + dt_bias
    step = softplus.function(step) if dt_softplus else step
    B, C = (_by_channel(v, x.shape[1]) for v in (B, C))  # (B, D or 1, N), or of each head
    if x.ndim == 3:
        B, C = B[:, :, None], C[:, :, None]  # (B, H or 1, 1, N)
    h, y = _step(state, x, step, A, B, C)
    y = y if D is None else y + x * D
    y = y if z is None else y * silu.function(kd.astype(z, kd.f32))
    return kd.astype(y, x.dtype), h


def selective_state_update(
    state: Any, x: Any, dt: Any, A: Any, B: Any, C: Any, D: Any = None, z: Any = None, dt_bias: Any = None,
    dt_softplus: bool = False,
) -> Tensor:  # fmt: skip
    """One step of the selective scan with the signature of mamba_ssm's selective_state_update: `state` is changed in place.

        dt = softplus(dt + dt_bias)     state = exp(dt A) state + dt x B     y = (sum over n of C state + D x) silu(z)

    Shapes    state (B, D, N), x, dt, z (B, D), A (D, N), B and C (B, N) or (B, G, N), D and dt_bias (D,) -> (B, D);
              or with heads state (B, H, P, N), x, dt, z (B, H, P), A (H, P, N), D and dt_bias (H, P) -> (B, H, P)
    Raises    ShapeError where G groups do not divide the channels or heads
    Source    mamba_ssm, ops/triton/selective_state_update.py
    Example: `y = F.selective_state_update(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus=True)`.
    """
    y, h = _state_update(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus=dt_softplus)
    assign(detached(state), h.data)
    return y


def causal_convolution(x, taps, bias, before):
    """silu of each channel's convolution with its K taps, and the last K - 1 inputs; `before`: those before x (None: zeros).

    Shapes    x (B, L, D), taps (D, 1, K), bias (D,) or None, before (B, K - 1, D) or None -> (B, L, D), (B, K - 1, D)
    """
    K = taps.shape[2]
    x = kd.pad(x, ((0, 0), (K - 1, 0), (0, 0))) if before is None else kd.concat([before, x], axis=1)
    y = kd.sum(kd.sliding_window(x, K, axis=1) * taps[:, 0], axis=-1)  # (B, L, D)
    y = y if bias is None else y + bias
    return silu.function(y), x[:, y.shape[1] :]


# --- Mamba-2 --------------------------------------------------------------------------------------------------------------------
def chunked_recurrence(h, x, dt, A, B, C, chunk):
    """The scan with one decay a head, by products within chunks and a scan from chunk to chunk: (last state, y).

    Shapes    h (B, H, P, N), x (B, L, H, P), dt (B, L, H), A (H,), B and C (B, L, G, N) -> (B, H, P, N), (B, L, H, P)
    """
    batch, length, heads, P = x.shape
    G, N = B.shape[2:]
    chunks = (length + chunk - 1) // chunk
    x, dt, B, C = (_in_chunks(v, chunks, chunk) for v in (x, dt, B, C))  # positions beyond the end have dt = 0
    x = x.reshape((batch, chunks, chunk, G, heads // G, P))  # (B, c, Q, G, R, P)
    dt = dt.reshape((batch, chunks, chunk, G, heads // G))  # (B, c, Q, G, R)
    passed = kd.cumulative_sum(dt * A.reshape((G, heads // G)), axis=2)  # (B, c, Q, G, R): log of the decay since the start
    whole = passed[:, :, -1]  # (B, c, G, R)
    fed = x * dt[..., None]  # (B, c, Q, G, R, P)

    # within a chunk: position l sees s <= l through the decay between them
    seen = kd.einsum("bclgn,bcsgn->bcgls", C, B)
    log = kd.permute_dims(passed, (0, 1, 3, 4, 2))  # (B, c, G, R, Q)
    i = kd.arange(chunk)
    decay = kd.exp(kd.where(i[:, None] >= i[None, :], log[..., :, None] - log[..., None, :], -math.inf))
    inside = kd.einsum("bcgrls,bcsgrp->bclgrp", seen[:, :, :, None] * decay, fed)

    # from chunk to chunk: what a chunk adds to the state, and what it reads of those before
    added = kd.einsum("bcsgn,bcsgrp->bcgrpn", B, fed * kd.exp(whole[:, :, None] - passed)[..., None])

    def step(h, now):
        decay, added = now
        return decay[..., None, None] * h + added, h

    h, before = kd.scan(step, h.reshape((batch, G, heads // G, P, N)), (kd.exp(whole), added), axis=1)
    outside = kd.einsum("bclgn,bcgrpn->bclgrp", C, before) * kd.exp(passed)[..., None]
    y = (inside + outside).reshape((batch, chunks * chunk, heads, P))[:, :length]
    return h.reshape((batch, heads, P, N)), y


def _in_chunks(v, chunks, chunk):
    """v (B, L, ...) as (B, chunks, chunk, ...), zeros beyond the end."""
    batch, length, *rest = v.shape
    v = kd.pad(v, ((0, 0), (0, chunks * chunk - length), *[(0, 0)] * len(rest)))
    return v.reshape((batch, chunks, chunk, *rest))
