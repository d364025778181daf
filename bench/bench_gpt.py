"""Is a whole training step of minGPT's models (forward, backward, clipping, AdamW) faster than in torch eager?"""

import math

import numpy as np
import pytest

import nn


def torch_model(torch, config):
    """minGPT in torch: fused scaled_dot_product_attention, F.layer_norm, tanh GELU."""
    N = torch.nn

    class Block(N.Module):
        def __init__(self):
            super().__init__()
            C = config.n_embd
            self.ln_1, self.ln_2 = N.LayerNorm(C), N.LayerNorm(C)
            self.c_attn, self.proj = N.Linear(C, 3 * C), N.Linear(C, C)
            self.c_fc, self.c_proj = N.Linear(C, 4 * C), N.Linear(4 * C, C)
            self.dropout = N.Dropout(config.resid_pdrop)

        def forward(self, x):
            B, T, C = x.shape
            q, k, v = (y.reshape(B, T, config.n_head, -1).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).split(C, 2))
            y = N.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, dropout_p=config.attn_pdrop if self.training else 0.0
            )
            x = x + self.dropout(self.proj(y.transpose(1, 2).reshape(B, T, C)))
            return x + self.dropout(self.c_proj(N.functional.gelu(self.c_fc(self.ln_2(x)), approximate="tanh")))

    class GPT(N.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = N.Embedding(config.vocab_size, config.n_embd), N.Embedding(config.block_size, config.n_embd)
            self.drop = N.Dropout(config.embd_pdrop)
            self.h = N.Sequential(*(Block() for _ in range(config.n_layer)))
            self.ln_f, self.head = N.LayerNorm(config.n_embd), N.Linear(config.n_embd, config.vocab_size, bias=False)

        def forward(self, ids, targets):
            x = self.drop(self.wte(ids) + self.wpe.weight[: ids.shape[1]])
            logits = self.head(self.ln_f(self.h(x)))
            return N.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-1)

    return GPT()


@pytest.mark.parametrize(("preset", "vocabulary", "block"), [("gpt-nano", 3, 11), ("gpt-mini", 65, 128)])
def test_step(race, torch, preset, vocabulary, block):
    config = nn.GPTConfig(vocab_size=vocabulary, block_size=block, model_type=preset)
    rng = np.random.default_rng(0)
    ids, targets = rng.integers(0, vocabulary, (64, block)), rng.integers(0, vocabulary, (64, block))
    trainer = nn.Trainer(nn.GPT(config), lambda step: (ids, targets), nn.TrainerConfig(steps=10**9, lr=1e-4))
    model = torch_model(torch, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    t_ids, t_targets = torch.from_numpy(ids), torch.from_numpy(targets)

    def theirs():
        loss = model(t_ids, t_targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    trainer.train_step()
    assert trainer.losses[0] == pytest.approx(math.log(vocabulary), abs=0.3)
    race(f"{preset} step (batch 64, block {block})", trainer.train_step, {"torch": theirs}, 1.5, rounds=9 if block < 20 else 3)
