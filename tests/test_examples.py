"""The examples do what their headers say."""

import numpy as np
import pytest

from examples import induction_heads, moons, selective_copying, sort


def test_moons_follows_micrograd_digit_by_digit():
    _, losses, accuracies, _, _ = moons.train()
    for step, want in ((0, 0.895844), (1, 1.723591), (10, 0.245070), (50, 0.098751)):
        assert losses[step] == pytest.approx(want, abs=1e-6)
    assert losses[99] == pytest.approx(0.010978370, abs=1e-9)
    assert min(accuracies[70:]) == 1.0


def test_sort_learns():
    """600 steps sort most problems; the whole run of 2000 sorts all (slow)."""
    trainer = sort.make_trainer(600)
    trainer.run(progress=False)
    assert trainer.losses[0] == pytest.approx(np.log(3), abs=0.1)
    assert sort.accuracy(trainer.model, sort.draw(np.random.default_rng(0), 200, test=True)) > 0.8


@pytest.mark.slow
def test_sort_sorts_everything_after_2000_steps():
    trainer = sort.make_trainer(2000)
    trainer.run(progress=False)
    assert sort.accuracy(trainer.model, sort.draw(np.random.default_rng(0), 500, test=True)) == 1.0


def test_induction_heads_learns():
    """150 steps lower the loss well below that of a guess; 700 answer everything, also at twice the length (slow)."""
    trainer = induction_heads.make_trainer(700)
    for _ in range(150):
        trainer.train_step()
    assert trainer.losses[0] == pytest.approx(np.log(13), abs=0.3)
    assert min(trainer.losses) < 2.0


@pytest.mark.slow
def test_induction_heads_answers_everything_after_700_steps():
    trainer = induction_heads.make_trainer(700)
    trainer.run(progress=False)
    assert induction_heads.accuracy(trainer.model) > 0.99
    assert induction_heads.accuracy(trainer.model, 2 * induction_heads.LENGTH) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_selective_copying_copies_after_1000_steps(kind):
    trainer = selective_copying.make_trainer(1000, kind)
    trainer.run(progress=False)
    assert selective_copying.accuracy(trainer.model) > 0.95
