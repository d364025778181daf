"""Recurrent: a language model of blocks that carry a state from position to position.

In:  ids (B, L).  Out: logits (B, L, V), and with targets the mean cross-entropy over targets that are not -1.
`step(ids, state)` continues from a state: the logits are those of the whole text, the cost is that of the new ids.
A subclass sets `embedding`, `layers`, `norm_f` and `lm_head`; a block takes (x, state) and has `first_state(batch)`.
Read before: pretrained.py, sampling.py. Read next: mamba.py.
"""

from __future__ import annotations

from typing import Any

from nn import functional as F
from nn.devices import moved, numpy
from nn.layers import Embedding, Linear
from nn.module import ModuleList
from nn.normalisation import RMSNorm
from nn.pretrained import Pretrained
from nn.sampling import continued, last, next_tokens
from nn.tape import no_grad

State = list[Any]  # for each block what it carries


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
        if state is None:
            states = (block.first_state(ids.shape[0]) for block in self.layers)
            state = [tuple(moved(x, self.device) for x in own) for own in states]
        after = []
        with no_grad():
            x = self.embedding(ids)
            for block, carried in zip(self.layers, state, strict=True):
                x, *carried = block(x, tuple(carried))
                after.append(tuple(t.data for t in carried))
            return self.lm_head(self.norm_f(x)).data, after

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
            ids = continued(ids, next_tokens(logits, temperature, do_sample, top_k))
            new = last(ids, 1)
        self.train(was_training)
        return (numpy(ids), state) if return_state else numpy(ids)
