"""Random steps of scans, written once for kdsl and for jax.numpy, so that one can be asked about the other.

A step is a program drawn from a seed: two carries in a dict, slices of several shapes and dtypes (numbers, masks, indices),
tensors that it closes over, and a few of: maps, folds over any axis, products, sorts, gathers, scatters, turns, slices with
steps of any sign, prefix sums, and a scan of its own.
"""

from __future__ import annotations

import numpy as np

import kdsl as kd

ALIKE = ("tanh", "sin", "exp", "where", "maximum", "sum", "max", "mean", "flip", "roll", "sort", "argsort")
SIZES = (1, 2, 3, 4, 5, 8, 9, 17)
LENGTHS = (0, 1, 2, 3, 7, 8, 9, 17, 31, 33)


class Kdsl:
    """The functions that a step is written in."""

    for _name in (*ALIKE, "concat"):
        locals()[_name] = staticmethod(getattr(kd, _name))
    take, take_along, einsum = staticmethod(kd.take), staticmethod(kd.take_along_axis), staticmethod(kd.einsum)
    scan, scatter, broadcast = staticmethod(kd.scan), staticmethod(kd.scatter_add), staticmethod(kd.broadcast_to)
    cumulative_sum = staticmethod(kd.cumulative_sum)


class Jax:
    """The same of jax.numpy."""

    def __init__(self):
        import jax
        import jax.numpy as jnp

        for name in ALIKE:
            setattr(self, name, getattr(jnp, name))
        self.concat, self.take, self.take_along, self.einsum = jnp.concatenate, jnp.take, jnp.take_along_axis, jnp.einsum
        self.broadcast, self.cumulative_sum = jnp.broadcast_to, jnp.cumsum
        self.jax, self.jnp = jax, jnp

    def scatter(self, x, index, updates, axis):
        return self.jnp.moveaxis(self.jnp.moveaxis(x, axis, 0).at[index].add(self.jnp.moveaxis(updates, axis, 0)), 0, axis)

    def scan(self, step, init, xs, axis=0, reverse=False):
        move = self.jax.tree_util.tree_map
        rows = move(lambda x: self.jnp.moveaxis(x, axis, 0), xs)
        last, ys = self.jax.lax.scan(step, init, rows, reverse=reverse)
        return last, move(lambda y: self.jnp.moveaxis(y, 0, axis), ys)


class RandomStep:
    """A random step of two carries, h:[n, m] and s:[n], over slices x:[n, m], u:[n], mask:[n, m], index:[m]."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.n, self.m = (int(rng.choice(SIZES)) for _ in "nm")
        self.length, self.inner = int(rng.choice(LENGTHS)), int(rng.choice((0, 1, 2, 5, 9)))
        self.reverse, self.axis = bool(rng.integers(2)), int(rng.integers(2))
        self.moves = [int(k) for k in rng.integers(0, 22, int(rng.integers(1, 6)))]
        self.returns = int(rng.integers(5))
        self.strided = int(rng.integers(3))

    def arguments(self, dtype: object = "f8") -> list[np.ndarray]:
        rng, n, m = self.rng, self.n, self.m
        shapes = [(n, m), (n,), self._long((n, m)), self._long((n,)), (m, m), (m,), (), (self.inner, n, m)]
        out = [(rng.standard_normal(s) * 0.6).astype(dtype) for s in shapes]
        mask, index = rng.standard_normal(self._long((n, m))) > 0, rng.integers(-m, m, self._long((m,)))
        if self.strided == 1:
            out[2], mask = out[2][::-1, ..., ::-1], np.asfortranarray(mask)
        elif self.strided == 2:
            out[2], index = np.asfortranarray(out[2]), np.repeat(index, 2, 0)[::2]
        return [*out, mask, index]

    def _long(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[: self.axis], self.length, *shape[self.axis :])

    def run(self, f, h, s, xs, us, w, bias, scale, words, masks, indices):
        """The scan, in the functions of `f`."""

        def step(carry, now):
            h, s = carry["h"], carry["s"]
            x, u, mask, index = now
            for k in self.moves:
                h, s = self.move(f, k, h, s, x, u, mask, index, w, bias, scale, words)
            h, s = f.tanh(h), f.tanh(s)
            pair, both = (h * x, f.sum(h, axis=1)), {"s": s, "n": f.sum(h * x, axis=0)}
            return {"h": h, "s": s}, [h, pair, both, (f.max(h, axis=1), h[:, ::-1]), (s, u * s)][self.returns]

        last, ys = f.scan(step, {"h": h, "s": s}, (xs, us, masks, indices), axis=self.axis, reverse=self.reverse)
        return last["h"], last["s"], *_leaves(ys)

    def move(self, f, k, h, s, x, u, mask, index, w, bias, scale, words):
        match k:
            case 0:
                return f.tanh(h + x), s
            case 1:
                return h * f.exp(-(u * u))[:, None] + x * bias, s
            case 2:
                return h, s * 0.5 + f.sum(h * x, axis=1)
            case 3:
                return h * 0.7 + s[:, None] * bias, s
            case 4:
                return f.tanh(h @ w), s
            case 5:
                return h, f.sin(s) + u * scale
            case 6:
                return f.where(mask, h, h * 0.5 - x), s
            case 7:
                return f.flip(h, axis=1) * 0.8 + x, s
            case 8:
                return h / (1 + f.sum(h * h, axis=1)[:, None]), s
            case 9:
                return h, f.tanh(s) + f.max(h, axis=1)
            case 10:
                return f.concat([h[:, 1:], x[:, :1]], axis=1), s
            case 11:
                return h * 0.9, s + f.mean(s) * 0.1
            case 12:
                return f.tanh(h + f.sum(f.tanh(x + scale), axis=0)), s
            case 13:
                return f.sort(h + x, axis=1), s
            case 14:
                return f.take(h, index, axis=1) + x, s
            case 15:
                return f.scatter(h * 0.5, index, x, axis=1), s
            case 16:
                return f.take_along(h, f.argsort(x, axis=1), axis=1), s + f.take_along(x, f.argsort(h, axis=1), axis=1)[:, 0]
            case 17:
                return f.cumulative_sum(h * 0.5, axis=1) + x, s
            case 18:
                last, ys = f.scan(lambda a, b: (f.tanh(a + b * scale), f.sum(a * b, axis=1)), h, words)
                return last, s + f.sum(ys, axis=0)
            case 19:
                return f.einsum("nm,kn->km", h, f.einsum("nm,km->kn", x, x)) * 0.3, s
            case 20:
                return h + f.roll(x, 1, axis=1)[:, ::-1], s
            case _:
                return f.where(s[:, None] > u[:, None], h, f.maximum(h, x)), s


def _leaves(x):
    if isinstance(x, dict):
        x = tuple(x[k] for k in sorted(x))
    return [y for part in x for y in _leaves(part)] if isinstance(x, (tuple, list)) else [x]
