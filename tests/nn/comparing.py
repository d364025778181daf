"""Our function and torch's: equal values, equal gradients."""

import numpy as np

import nn

rng = np.random.default_rng(1)


def array(*shape):
    return rng.standard_normal(shape).astype("f4")


def compare(ours, theirs, *arrays, rtol=3e-5, atol=3e-6):
    """Values, and gradients to every floating argument, of a function of nn Tensors and its torch twin."""
    import torch

    a = [nn.Tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
    b = [torch.from_numpy(x.copy()) for x in arrays]
    for t in b:
        t.requires_grad_(t.is_floating_point())
    y, t = ours(*a), theirs(*b)
    np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=rtol, atol=atol)
    g = array(*y.shape)
    y.backward(g)
    t.backward(torch.from_numpy(np.asarray(g)))
    for p, q in zip(a, b):
        if q.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=rtol, atol=atol)
