"""The functions of nn: each is written once, forward, in NumPy's words; its gradient is derived.

Each function is a family of kernels (kernels.layer): widths are fixed, batch and time are named. Call them on Tensors; inside a
kernel of your own use the plain function, `softmax.function(x)`. Read before: function.py. Read next: ../layers.py.
"""

from nn.functional.activations import (
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)  # fmt: skip
from nn.functional.attention import causal_attention, scaled_dot_product_attention
from nn.functional.function import Function, detached, function
from nn.functional.linear import embedding, linear, linear_activation, linear_residual
from nn.functional.losses import binary_cross_entropy_with_logits, cross_entropy, l1_loss, mse_loss
from nn.functional.norms import batch_norm, batch_norm_train, group_norm, layer_norm, rms_norm
from nn.functional.random import dropout, generator, manual_seed
from nn.functional.ssm import selective_scan, selective_state_update
from nn.functional.windows import avg_pool1d, avg_pool2d, conv1d, conv2d, max_pool1d, max_pool2d

__all__ = [
    "Function", "avg_pool1d", "avg_pool2d", "batch_norm", "batch_norm_train", "binary_cross_entropy_with_logits",
    "causal_attention", "conv1d", "conv2d", "cross_entropy", "detached", "dropout", "elu", "embedding", "function",
    "gelu", "generator", "group_norm", "l1_loss", "layer_norm", "leaky_relu", "linear", "linear_activation",
    "linear_residual", "log_softmax", "manual_seed", "max_pool1d", "max_pool2d", "mse_loss", "relu", "rms_norm",
    "scaled_dot_product_attention", "selective_scan", "selective_state_update", "sigmoid", "silu", "softmax", "softplus", "tanh",
]  # fmt: skip
