"""Recurrent: a language model of blocks that carry a state from position to position.

In:  ids (B, L).  Out: logits (B, L, V), and with targets the mean cross-entropy over targets that are not -1.
`step(ids, state)` continues from a state: the logits are those of the whole text, the cost is that of the new ids.
A subclass sets `embedding`, `layers`, `norm_f` and `lm_head`; its blocks are RecurrentBlocks.
One token of one sequence has kernels of its own, compiled with the first prompt: at this size a kernel takes microseconds, and
so does each thing that is done between two of them.
Read before: pretrained.py, sampling.py. Read next: mamba.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nn import functional as F
from nn.devices import moved, numpy, view
from nn.kernels import Layer, layer
from nn.layers import Embedding, Linear
from nn.module import Module, ModuleList
from nn.normalisation import RMSNorm
from nn.pretrained import Pretrained
from nn.sampling import continued, next_tokens
from nn.tape import no_grad
from nn.tensor import Tensor, apply

State = list[Any]  # for each block what it carries


class RecurrentBlock(Module):
    """A block that is one kernel: `family` on x, `weights()` and the state, with what `settings` says. With a state it gives
    (x, the state after it)."""

    @property
    def family(self) -> Layer:
        """The kernel."""
        raise NotImplementedError

    def weights(self) -> tuple[Tensor | None, ...]:
        """What the kernel is given between x and the state."""
        raise NotImplementedError

    def settings(self, length: int) -> dict[str, Any]:
        """The kernel's static values for so many positions."""
        raise NotImplementedError

    def first_state(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """The state before the first position."""
        raise NotImplementedError

    def forward(self, x: Any, state: tuple[Any, Any] | None = None) -> Any:
        return apply(self.family, x, *self.weights(), *(state or (None, None)), **self.settings(x.shape[1]))

    def token(self, x: Any, state: tuple[Any, Any]) -> Any:
        """`forward` of arrays, for one position of one sequence."""
        weights = [None if w is None else w.data for w in self.weights()]
        return self.family.fixed(**self.settings(1))(x, *weights, *state)


@layer("batch time", "V C")
def _embedded(ids, table):
    return F.embedding.function(ids, table)


@layer("batch time C", "C", "V C", "V")
def _head(x, norm, weight, bias, *, eps):
    """The logits of the last block's x."""
    return F.linear.function(F.rms_norm.function(x, norm, eps=eps), weight, bias)


class Recurrent(Pretrained):
    """Embedding, blocks with a state, norm, head."""

    embedding: Embedding
    layers: ModuleList
    norm_f: RMSNorm
    lm_head: Linear

    def forward(self, ids: Any, targets: Any = None) -> Any:
        x = self.embedding(F.detached(ids))  # (B, L, C)
        for block in self.layers:
            x = block(x)
        logits = self.lm_head(self.norm_f(x))  # (B, L, V)
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits, F.detached(targets))

    def step(self, ids: Any, state: State | None = None) -> tuple[Any, State]:
        """Logits (B, L, V) of ids (B, L) that follow what `state` has seen (None: nothing), and the state after them: arrays that
        lie where the model is.

        >>> logits, state = model.step(prompt)
        >>> logits, state = model.step(one_more_id, state)
        """
        ids = F.detached(ids)
        if state is not None and ids.shape == (1, 1) and self._is_plain():
            return self._token(ids, state)
        if state is None:
            if self._is_plain():  # no size that comes later is compiled for
                self._token(np.zeros((1, 1), ids.dtype), [block.first_state(1) for block in self.layers])
            states = (block.first_state(ids.shape[0]) for block in self.layers)
            state = [tuple(moved(x, self.device) for x in own) for own in states]
        after = []
        with no_grad():
            x = self.embedding(ids)
            for block, carried in zip(self.layers, state, strict=True):
                x, *carried = block(x, tuple(carried))
                after.append(tuple(t.data for t in carried))
            return self.lm_head(self.norm_f(x)).data, after

    def _is_plain(self) -> bool:
        """Are its parts those whose kernels `_token` calls, and in the host's memory?"""
        ends = type(self.embedding), type(self.norm_f), type(self.lm_head)
        blocks = all(type(block).forward is RecurrentBlock.forward for block in self.layers)
        return ends == (Embedding, RMSNorm, Linear) and blocks and isinstance(self.embedding.weight.data, np.ndarray)

    def _token(self, ids: Any, state: State) -> tuple[Any, State]:
        """`step` of one id of one sequence."""
        x, after, head = _embedded.fixed()(ids, self.embedding.weight.data), [], self.lm_head
        for block, carried in zip(self.layers, state, strict=True):
            x, *carried = block.token(x, carried)
            after.append(tuple(carried))
        bias = None if head.bias is None else head.bias.data
        return _head.fixed(eps=self.norm_f.eps)(x, self.norm_f.weight.data, head.weight.data, bias), after

    def generate(
        self,
        ids: Any,
        max_new_tokens: int,
        temperature: float = 1.0,
        do_sample: bool = False,
        top_k: int | None = None,
        state: State | None = None,
        return_state: bool = False,
    ) -> Any:
        """`ids` (B, L) continued by max_new_tokens tokens: the likeliest each time, or with do_sample drawn from
        softmax(logits / temperature) over the top_k likeliest (all if None). Constant time and memory a token.

        With `state` the ids follow what it has seen; with return_state the result is (ids, state), where the state has seen
        all ids but the last.
        """
        ids = moved(F.detached(ids), self.device)
        was_training, new = self.training, ids
        self.eval()
        for _ in range(max_new_tokens):
            logits, state = self.step(new, state)
            drawn = next_tokens(logits, temperature, do_sample, top_k)
            ids, new = continued(ids, drawn), view(drawn, (len(drawn), 1))
        self.train(was_training)
        return (numpy(ids), state) if return_state else numpy(ids)
