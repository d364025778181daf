"""The ten programs of the loop IR's grammar: their texts (programs/*.loops), arguments for them, and what they mean in NumPy.

Each entry of PROGRAMS: the text's name -> (sizes to arguments, arguments to results in f64). Named sizes in the texts stand
for any numbers; a test may leave them named or give them values when it reads the text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdsl.ir.loop_parser import parse_loops
from kdsl.ir.loops import Program

FOLDER = Path(__file__).parent / "programs"


def read(name: str, **sizes: int) -> Program:
    """The program of a text, with these sizes made numbers."""
    return parse_loops((FOLDER / f"{name}.loops").read_text(), sizes)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def gelu(x):
    return x / (1 + np.exp(-2 * 0.7978845608028654 * (x + 0.044715 * x**3)))


def softmax(x):
    with np.errstate(all="ignore"):
        e = np.exp(x - x.max(-1, keepdims=True, initial=-np.inf))
        return e / e.sum(-1, keepdims=True)


def _some_infinite(x):
    x[..., ::3] = -np.inf
    x[x.shape[0] // 2] = -np.inf
    return x


def _layer_norm_arguments(R, N):
    x = normal(1, R, N)
    mean = x.mean(1) if N else np.zeros(R, np.float32)
    rstd = 1 / np.sqrt(x.var(1) + 1e-5) if N else np.ones(R, np.float32)
    return normal(0, R, N), x, normal(2, N), mean, rstd.astype(np.float32)


def _layer_norm_backward(dy, x, w, mean, rstd):
    n = (x - mean[:, None]) * rstd[:, None]
    h = dy * w
    dx = (h - h.mean(1, keepdims=True) - n * (h * n).mean(1, keepdims=True)) * rstd[:, None] if x.size else x
    return dx, (dy * n).sum(0), dy.sum(0)


def _scores(q, k):
    T = q.shape[1]
    return np.where(np.tril(np.ones((T, T), bool)), q @ k.transpose(0, 2, 1) / 8, -np.inf)


def _attention(q, k, v):
    s = _scores(q, k)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    return softmax(s) @ v, (top + np.log(np.exp(s - top).sum(-1, keepdims=True)))[..., 0]


def _attention_arguments(H, T):
    q, k, v, do = (normal(i, H, T, 64) for i in range(4))
    o, lse = _attention(*(x.astype(np.float64) for x in (q, k, v)))
    return q, k, v, do, lse.astype(np.float32), (o * do).sum(-1).astype(np.float32)


def _attention_keys_values(q, k, v, do, lse, delta):
    p = np.exp(_scores(q, k) - lse[..., None])
    ds = p * (do @ v.transpose(0, 2, 1) - delta[..., None])
    return ds.transpose(0, 2, 1) @ q / 8, p.transpose(0, 2, 1) @ do


def _scan_arguments(L, D):
    dt = np.log1p(np.exp(normal(1, L, D)))
    return normal(0, L, D), dt, -np.exp(normal(2, D, 16)), normal(3, L, 16), normal(4, L, 16)


def _scan_states(x, dt, a, b):
    h, out = np.zeros(a.shape), []
    for t in range(len(x)):
        h = h * np.exp(dt[t][:, None] * a) + (dt[t] * x[t])[:, None] * b[t]
        out.append(h)
    return out


def _selective_scan(x, dt, a, b, c):
    states = _scan_states(x, dt, a, b)
    return (np.stack([h @ c[t] for t, h in enumerate(states)]) if states else np.zeros(x.shape),)


def _selective_scan_backward(x, dt, a, b, c, dy):
    states = [np.zeros(a.shape), *_scan_states(x, dt, a, b)]
    dx, ddt, da, db, dc, dh = (np.zeros(v.shape) for v in (x, dt, a, b, c, a))
    for t in reversed(range(len(x))):
        e = np.exp(dt[t][:, None] * a)
        dc[t] = states[t + 1].T @ dy[t]
        g = dh + dy[t][:, None] * c[t]
        db[t] = g.T @ (dt[t] * x[t])
        turn = g * states[t] * e
        dx[t], ddt[t] = (g @ b[t]) * dt[t], (g @ b[t]) * x[t] + (turn * a).sum(1)
        da += turn * dt[t][:, None]
        dh = g * e
    return dx, ddt, da, db, dc


def _convolution(x, w):
    wide = np.pad(x, ((0, 0), (1, 1)))
    return (sum(w[:, :, s] @ wide[:, s : s + x.shape[1]] for s in range(3)),)


def _embedding_gradient(V, ids, dy):
    out = np.zeros((V, dy.shape[1]))
    np.add.at(out, np.where(ids < 0, ids + V, ids), dy)
    return (out,)


def _with_nan(x):
    x[::2, x.shape[1] // 2 :] = np.nan
    x[1::3] = -np.inf
    return x


PROGRAMS = {
    "gelu": (lambda N: (normal(0, N),), lambda x: (gelu(x),)),
    "softmax": (
        lambda R, N: (_some_infinite(normal(0, R, N)) if R else normal(0, R, N),),
        lambda x: (softmax(x),),
    ),
    "softmax_streamed": (
        lambda R, N: (_some_infinite(normal(0, R, N)) if R else normal(0, R, N),),
        lambda x: (softmax(x),),
    ),
    "layer_norm_backward": (_layer_norm_arguments, _layer_norm_backward),
    "linear_gelu": (
        lambda M, K, N: (normal(0, M, K), normal(1, K, N), normal(2, N)),
        lambda x, w, bias: (gelu(x @ w + bias),),
    ),
    "attention": (lambda H, T: _attention_arguments(H, T)[:3], _attention),
    "attention_keys_values": (_attention_arguments, _attention_keys_values),
    "selective_scan": (_scan_arguments, _selective_scan),
    "selective_scan_backward": (
        lambda L, D: (*_scan_arguments(L, D), normal(5, L, D)),
        _selective_scan_backward,
    ),
    "convolution": (lambda I, O, T: (normal(0, I, T), normal(1, O, I, 3)), _convolution),
    "embedding_gradient": (
        lambda V, E, T: (np.random.default_rng(0).integers(-V, V, T), normal(1, T, E)),
        lambda ids, dy, V: _embedding_gradient(V, ids, dy),
    ),
    "argmax": (lambda R, N: (_with_nan(normal(0, R, N)),), lambda x: (np.argmax(x, 1),)),
}

SIZES = {
    "gelu": [dict(N=n) for n in (0, 1, 31, 32, 97, 1000)],
    "softmax": [dict(R=r, N=n) for r, n in ((0, 5), (1, 1), (9, 31), (3, 64), (8, 101))],
    "softmax_streamed": [dict(R=r, N=n) for r, n in ((0, 5), (1, 1), (9, 31), (3, 64), (8, 101))],
    "layer_norm_backward": [dict(R=r, N=n) for r, n in ((0, 5), (1, 1), (129, 31), (5, 101), (3, 64))],
    "linear_gelu": [
        dict(M=m, K=k, N=n)
        for m, k, n in ((1, 1, 1), (0, 3, 4), (3, 0, 5), (50, 7, 17), (13, 9, 48), (48, 8, 32))
    ],
    "attention": [dict(H=h, T=t) for h, t in ((1, 1), (2, 6), (1, 17), (1, 53))],
    "attention_keys_values": [dict(H=h, T=t) for h, t in ((1, 1), (2, 6), (1, 17), (1, 53))],
    "selective_scan": [dict(L=t, D=d) for t, d in ((0, 3), (1, 1), (37, 13), (16, 8))],
    "selective_scan_backward": [dict(L=t, D=d) for t, d in ((0, 3), (1, 1), (37, 13), (16, 8))],
    "convolution": [dict(I=i, O=o, T=t) for i, o, t in ((1, 1, 1), (3, 7, 33), (0, 2, 5), (4, 6, 16))],
    "embedding_gradient": [dict(V=v, E=e, T=t) for v, e, t in ((1, 1, 1), (7, 37, 50), (3, 32, 0))],
    "argmax": [dict(R=r, N=n) for r, n in ((1, 1), (7, 31), (6, 65))],
}

FIXED = {
    "attention": "T",
    "attention_keys_values": "T",
}  # near memory has a fixed size, and their strips are as long as the line


def expected(name: str, arguments: tuple[np.ndarray, ...], sizes: dict[str, int]) -> tuple[np.ndarray, ...]:
    """What the program means, in f64."""
    wide = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in arguments]
    meaning = PROGRAMS[name][1]
    return meaning(*wide, sizes["V"]) if name == "embedding_gradient" else meaning(*wide)


def assert_close(results, wanted, name: str) -> None:
    """Equal within f32's rounding of sums of this length; NaN only where NaN is wanted."""
    for i, (result, want) in enumerate(zip(results, wanted, strict=True)):
        assert result.shape == want.shape, f"{name}: result {i} has shape {result.shape}, not {want.shape}"
        bound = 4e-6 * (1 + np.nanmax(np.abs(want[np.isfinite(want)]), initial=0))
        same = (result == want) | (np.isnan(result) & np.isnan(want)) | (np.abs(result - want) <= bound)
        worst = np.argwhere(~same)
        assert same.all(), (
            f"{name}: result {i} at {worst[0]}: {result[tuple(worst[0])]}, not {want[tuple(worst[0])]} (bound {bound:.1e})"
        )


def compile_for_cpu(program: Program):
    """The program as machine code of this machine: a function of its arguments (and named sizes)."""
    from kdsl.codegen.llvm.module import emit_module
    from kdsl.runtime.call import ArgumentSpec, Executable, ResultSpec
    from kdsl.runtime.cpu import load
    from kdsl.target import parse_target

    target = parse_target("cpu")
    plain = lambda shape: tuple(n if isinstance(n, int) else str(n) for n in shape)  # noqa: E731
    arguments = [ArgumentSpec(b.dtype, plain(b.shape)) for b in program.buffers if b.role == "argument"]
    results = [ResultSpec(b.dtype, len(b.shape)) for b in program.buffers if b.role == "result"]
    order = [(b.role, b.number) for b in program.buffers if b.role != "temporary"]
    library = load(emit_module(program, target), target)
    return Executable(library, arguments, results, program.sizes, program.constants, order=order)
