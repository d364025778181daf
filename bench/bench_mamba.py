"""Is a training step of mamba-minimal's model faster than in torch (its loop over time made linear by unbind)?

And does a token cost the same after a long text as after a short one?
"""

import math

import numpy as np
import pytest

import nn


def torch_model(torch, config):
    """mamba-minimal in torch; the scan takes the steps apart with unbind, so that its backward is linear in the length."""
    N, F = torch.nn, torch.nn.functional
    D, S, R = config.d_inner, config.d_state, config.rank

    class RMSNorm(N.Module):
        def __init__(self, width):
            super().__init__()
            self.weight = N.Parameter(torch.ones(width))

        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight

    class Block(N.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.in_proj = RMSNorm(config.d_model), N.Linear(config.d_model, 2 * D, bias=False)
            self.conv1d = N.Conv1d(D, D, config.d_conv, groups=D, padding=config.d_conv - 1)
            self.x_proj, self.dt_proj = N.Linear(D, R + 2 * S, bias=False), N.Linear(R, D)
            self.A_log = N.Parameter(torch.log(torch.arange(1, S + 1.0)).repeat(D, 1))
            self.D, self.out_proj = N.Parameter(torch.ones(D)), N.Linear(D, config.d_model, bias=False)

        def forward(self, x):
            L = x.shape[1]
            u, z = self.in_proj(self.norm(x)).split(D, -1)
            u = F.silu(self.conv1d(u.transpose(1, 2))[..., :L].transpose(1, 2))
            dt, B, C = self.x_proj(u).split([R, S, S], -1)
            dt = F.softplus(self.dt_proj(dt))
            decay = torch.exp(dt[..., None] * -torch.exp(self.A_log))
            fed = dt[..., None] * B[:, :, None] * u[..., None]
            h, ys = torch.zeros(x.shape[0], D, S), []
            for a, b, c in zip(decay.unbind(1), fed.unbind(1), C.unbind(1)):
                h = a * h + b
                ys.append((h * c[:, None]).sum(-1))
            y = torch.stack(ys, 1) + u * self.D
            return x + self.out_proj(y * F.silu(z))

    class Mamba(N.Module):
        def __init__(self):
            super().__init__()
            self.embedding = N.Embedding(config.vocab_size, config.d_model)
            self.layers, self.norm_f = N.Sequential(*(Block() for _ in range(config.n_layer))), RMSNorm(config.d_model)
            N.init.normal_(self.embedding.weight, std=0.02)

        def forward(self, ids, targets):
            logits = self.norm_f(self.layers(self.embedding(ids))) @ self.embedding.weight.T
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Mamba()


def test_step(race, torch):
    config = nn.MambaConfig(vocab_size=256, d_model=128, n_layer=4)
    rng = np.random.default_rng(0)
    ids, targets = rng.integers(0, 256, (4, 256)), rng.integers(0, 256, (4, 256))
    trainer = nn.Trainer(nn.Mamba(config), lambda step: (ids, targets), nn.TrainerConfig(steps=10**9, lr=1e-4))
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
    assert trainer.losses[0] == pytest.approx(math.log(256), abs=0.3)
    race("Mamba step (4 layers, 128 wide, batch 4, length 256)", trainer.train_step, {"torch, unbind": theirs}, 10.0, rounds=5)


def test_a_token_costs_the_same_after_a_long_text(race):
    model = nn.Mamba(nn.MambaConfig(vocab_size=256, d_model=128, n_layer=4))
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (1, 1))
    _, short = model.step(rng.integers(0, 256, (1, 16)))
    _, long = model.step(rng.integers(0, 256, (1, 4096)))
    race("a token after 16 tokens", lambda: model.step(one, short), {"after 4096": lambda: model.step(one, long)}, 1.0)
