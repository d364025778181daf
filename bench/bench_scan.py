"""How far ahead are scans of a torch loop over time (by unbind) and of jax.lax.scan? Does cost grow with length alone?"""

import numpy as np
import pytest

import kdsl as kd

SIZES = 4, 512, 384, 16


@kd.kernel
def selective_scan(x, dt, a, b, c, d):
    def step(h, now):
        x, dt, b, c = now
        h = kd.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
        return h, kd.sum(h * c[:, None, :], axis=-1) + d * x

    return kd.scan(step, kd.zeros((x.shape[0], *a.shape)), (x, dt, b, c), axis=1)[1]


def arguments(array, batch, length, width, states):
    wide, slim = (batch, length, width), (batch, length, states)
    x, dt, a, b, c, d = (array(*s) for s in (wide, wide, (width, states), slim, slim, (width,)))
    return x, np.abs(dt) / 4, -np.abs(a), b, c, d


def by_torch(torch, x, dt, a, b, c, d):
    h = torch.zeros(x.shape[0], *a.shape)
    ys = []
    decay = torch.exp(dt[..., None] * a).unbind(1)
    drive = ((dt * x)[..., None] * b[:, :, None, :]).unbind(1)
    for now, more, out in zip(decay, drive, c.unbind(1)):
        h = now * h + more
        ys.append((h @ out[:, :, None])[..., 0])
    return torch.stack(ys, 1) + x * d


def by_jax(jax):
    import jax.numpy as jnp

    def f(x, dt, a, b, c, d):
        def step(h, now):
            x, dt, b, c = now
            h = jnp.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
            return h, (h * c[:, None, :]).sum(-1)

        over_time = tuple(jnp.moveaxis(v, 1, 0) for v in (x, dt, b, c))
        return jnp.moveaxis(jax.lax.scan(step, jnp.zeros((x.shape[0], *a.shape)), over_time)[1], 0, 1) + x * d

    return f


def close(a, b, tolerance=1e-3):
    a, b = np.asarray(a), np.asarray(b)
    assert np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max())


def test_selective_scan(race, torch, array):
    jax = pytest.importorskip("jax")
    args = arguments(array, *SIZES)
    tensors, lax = [torch.from_numpy(v) for v in args], jax.jit(by_jax(jax))
    arrays = [jax.numpy.asarray(v) for v in args]
    close(selective_scan(*args), by_torch(torch, *tensors))
    close(selective_scan(*args), lax(*arrays))
    others = {
        "a torch loop over time": lambda: by_torch(torch, *tensors),
        "jax.lax.scan": lambda: lax(*arrays).block_until_ready(),
    }
    race("selective scan (4, 512, 384, 16)", lambda: selective_scan(*args), others, 5, rounds=7)


def test_selective_scan_with_its_gradient(race, torch, array):
    jax = pytest.importorskip("jax")
    args, dy = arguments(array, *SIZES), array(*SIZES[:3])
    tensors = [torch.from_numpy(v).requires_grad_() for v in args]
    arrays = [jax.numpy.asarray(v) for v in args]
    f = by_jax(jax)
    lax = jax.jit(jax.grad(lambda *v: (f(*v) * dy).sum(), argnums=tuple(range(6))))

    def ours():
        _, pullback = selective_scan.pullback(*args)
        return pullback(dy)

    def theirs():
        return torch.autograd.grad(by_torch(torch, *tensors), tensors, torch.from_numpy(dy))

    for mine, want, again in zip(ours(), theirs(), lax(*arrays)):
        close(mine, want)
        close(mine, again)
    others = {"a torch loop over time": theirs, "jax.lax.scan": lambda: jax.block_until_ready(lax(*arrays))}
    race("selective scan with its gradient (4, 512, 384, 16)", ours, others, 10, rounds=5)


def test_a_named_number_of_states(race, array):
    a, b, c, d = (kd.f32["B", "L", "D"], kd.f32["D", "N"], kd.f32["B", "L", "N"], kd.f32["D"])
    named = kd.kernel(selective_scan, types=(a, a, b, c, c, d))
    args = arguments(array, *SIZES)
    close(named(*args), selective_scan(*args))
    race("selective scan of named sizes", lambda: named(*args), {"of numbers": lambda: selective_scan(*args)}, 0.8, rounds=7)


def test_cost_grows_with_length(race, array):
    short, long = (arguments(array, 1, n, 64, 16) for n in (1024, 65536))
    selective_scan(*short), selective_scan(*long)

    def many():
        for _ in range(64):
            selective_scan(*short)

    race("one scan of 65536 steps, or 64 of 1024", lambda: selective_scan(*long), {"64 of 1024": many}, 0.8, rounds=5)


@kd.kernel
def running_sum(x):
    return kd.cumulative_sum(x)


@kd.kernel
def average(x):
    return kd.scan(lambda h, v: (0.9 * h + 0.1 * v,) * 2, kd.zeros(()), x)[1]


def average_by_jax(jax):
    def combine(earlier, later):
        return earlier[0] * later[0], earlier[1] * later[0] + later[1]

    return lambda x: jax.lax.associative_scan(combine, (jax.numpy.full_like(x, 0.9), 0.1 * x))[1]


def average_by_torch(torch, x):
    h, out = torch.zeros(()), []
    for v in x.unbind():
        h = 0.9 * h + 0.1 * v
        out.append(h)
    return torch.stack(out)


def test_one_long_running_sum(race, torch, array):
    jax = pytest.importorskip("jax")
    x = array(1 << 20)
    tensor, given, scan = torch.from_numpy(x), jax.numpy.asarray(x), jax.jit(lambda x: jax.lax.associative_scan(jax.numpy.add, x))
    close(running_sum(x), np.cumsum(x, dtype="f8"))
    close(scan(given), np.cumsum(x, dtype="f8"))
    others = {
        "torch.cumsum": lambda: torch.cumsum(tensor, 0),
        "numpy.cumsum": lambda: np.cumsum(x),
        "jax.lax.associative_scan": lambda: scan(given).block_until_ready(),
    }
    race("a running sum of 1,048,576", lambda: running_sum(x), others, 1, rounds=9)


@kd.kernel
def momentum(g):
    def step(carry, g):
        v, x = carry
        v = 0.9 * v + g
        x = x - 0.01 * v
        return (v, x), x

    return kd.scan(step, (kd.zeros(()), kd.zeros(())), g)[1]


def test_one_long_momentum(race, array):
    jax = pytest.importorskip("jax")
    x = array(1 << 16)
    given = jax.numpy.asarray(x)

    def step(carry, g):
        v = 0.9 * carry[0] + g
        return (v, carry[1] - 0.01 * v), carry[1] - 0.01 * v

    scan = jax.jit(lambda g: jax.lax.scan(step, (0.0, 0.0), g)[1])
    close(momentum(x), scan(given))
    others = {"jax.lax.scan": lambda: scan(given).block_until_ready()}
    race("momentum of 65,536 steps", lambda: momentum(x), others, 5, rounds=9)


@kd.kernel
def running_log_sum(x):
    return kd.associative_scan(kd.logaddexp, x)


def test_one_long_log_sum(race, torch, array):
    jax = pytest.importorskip("jax")
    x = array(1 << 16)
    tensor, given = torch.from_numpy(x), jax.numpy.asarray(x)
    scan = jax.jit(lambda x: jax.lax.associative_scan(jax.numpy.logaddexp, x))
    close(running_log_sum(x), torch.logcumsumexp(tensor, 0))
    close(scan(given), torch.logcumsumexp(tensor, 0))
    others = {
        "torch.logcumsumexp": lambda: torch.logcumsumexp(tensor, 0),
        "jax.lax.associative_scan": lambda: scan(given).block_until_ready(),
    }
    race("a running logaddexp of 65,536", lambda: running_log_sum(x), others, 1, rounds=9)


def test_one_long_moving_average(race, array):
    jax = pytest.importorskip("jax")
    x = array(1 << 20)
    given, scan = jax.numpy.asarray(x), jax.jit(average_by_jax(jax))
    close(average(x), scan(given))
    others = {"jax.lax.associative_scan": lambda: scan(given).block_until_ready()}
    race("a moving average of 1,048,576", lambda: average(x), others, 5, rounds=9)


def test_a_moving_average(race, torch, array):
    x = array(1 << 14)
    tensor = torch.from_numpy(x)
    close(average(x), average_by_torch(torch, tensor))
    others = {"a torch loop over time": lambda: average_by_torch(torch, tensor)}
    race("a moving average of 16,384", lambda: average(x), others, 1000, rounds=3)
