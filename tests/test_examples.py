"""The examples do what their headers say."""

import numpy as np
import pytest

from examples import moons, sort


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
