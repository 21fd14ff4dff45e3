"""Intervals against numbers worked out by hand or known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from understudy.errors import DataError
from understudy.evaluate.statistics import summary, wilson


def test_wilson_by_hand():
    # z = 1.959964, z^2 = 3.841459. 8 of 10: centre (0.8 + 0.19207) / 1.384146 = 0.716739,
    # half sqrt(0.016 + 0.00960365) * 1.959964 / 1.384146 = 0.226577.
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=2e-6)
    # None of 50: high = z^2 / (50 + z^2); all of 50: its mirror image.
    assert wilson(0, 50) == pytest.approx((0.0, 3.841459 / 53.841459), abs=1e-6)
    assert wilson(50, 50) == pytest.approx((50 / 53.841459, 1.0), abs=1e-6)
    assert wilson(0, 50)[0] == 0.0 and wilson(50, 50)[1] == 1.0
    assert wilson(5, 10, confidence=0.6826895) == pytest.approx((0.5 - 0.5 / 11**0.5, 0.5 + 0.5 / 11**0.5), abs=1e-6)


def test_one_seed_of_successes_uses_wilson():
    values = np.array([1] * 40 + [0] * 10)
    assert summary(values) == (0.8, *wilson(40, 50)) == summary(values[None])


def test_one_seed_of_returns_is_bootstrapped_over_episodes():
    values = np.random.default_rng(1).normal(5, 2, 400)
    mean, low, high = summary(values)
    assert mean == pytest.approx(values.mean())
    error = values.std() / 20  # of a mean of 400
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)


def test_seeds_and_episodes_are_both_drawn():
    # Every episode of a seed alike: only the seeds vary. Of 2 seeds at 0 and 1, a draw has mean 0, 0.5 or 1 with
    # probability 1/4, 1/2, 1/4: the 2.5% quantile is 0 and the 97.5% quantile is 1.
    assert summary(np.array([[0.0] * 20, [1.0] * 20])) == (0.5, 0.0, 1.0)
    # At 40% confidence the quantiles 0.3 and 0.7 both fall on 0.5.
    assert summary(np.array([[0.0] * 20, [1.0] * 20]), confidence=0.4) == (0.5, 0.5, 0.5)
    # Every episode of every seed failed or succeeded: Wilson's interval over all 60, not a point.
    assert summary(np.ones((3, 20))) == (1.0, *wilson(60, 60))
    assert summary(np.zeros((3, 20))) == (0.0, *wilson(0, 60))
    # All seeds alike, episodes vary: variance of the mean is (K - draws of the same seed) / (K M) = as one long list.
    rng = np.random.default_rng(0)
    values = np.tile(rng.normal(size=100), (3, 1))
    mean, low, high = summary(values)
    error = values.std() / 300**0.5
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_the_interval_of_many_seeds_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        rates = rng.uniform(0.2, 0.8, (20, 1))
        _, low, high = summary(rng.random((20, 10)) < rates)
        held += low <= 0.5 <= high
    assert 50 <= held <= 60  # 95% of 60 is 57


def test_it_is_the_same_every_time_and_shrinks_with_confidence():
    values = np.random.default_rng(0).random((3, 50))
    assert summary(values) == summary(values)
    wide, narrow = summary(values), summary(values, confidence=0.5)
    assert wide[1] < narrow[1] < narrow[0] < narrow[2] < wide[2]


def test_constant_values_have_no_width():
    assert summary(np.full((3, 10), 2.5)) == (2.5, 2.5, 2.5)
    assert summary(np.full(10, -200.0)) == (-200.0, -200.0, -200.0)


@pytest.mark.parametrize("bad", [[], [[]], [0.0, np.nan], [[1.0, np.inf]], np.zeros((2, 2, 2))])
def test_undefined_values_are_refused(bad):
    with pytest.raises(DataError, match="expected|Expected"):
        summary(np.array(bad))
