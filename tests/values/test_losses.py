"""Every function of losses.py against numbers worked out by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from understudy import losses

assert_close = lambda x, y: np.testing.assert_allclose(np.asarray(x), y, rtol=1e-6, atol=1e-7)


def test_expectile_weighs_the_two_sides_by_tau_and_one_minus_tau():
    assert_close(losses.expectile_loss(jnp.array([2.0, -1.0, 0.0]), 0.7), [2.8, 0.3, 0.0])  # .7 * 4, .3 * 1, 0


def test_awr_weights_are_exponential_and_clipped():
    advantages = jnp.array([0.0, math.log(2), 10.0, 1e6])
    assert_close(losses.awr_weights(advantages, 1.0, 5.0), [1.0, 2.0, 5.0, 5.0])
    assert_close(losses.awr_weights(jnp.array([math.log(3)]), 2.0, 100.0), [9.0])


def test_td_loss_averages_the_batch_and_sums_the_ensemble():
    q, targets = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0.0, 2.0])
    assert_close(losses.td_loss(q, targets), 7.0)  # (1 + 0) / 2 + (9 + 4) / 2


def test_normalised_q_weight_is_a_constant_to_the_gradient():
    assert_close(losses.normalised_q_weight(jnp.array([1.0, -3.0])), 0.5)
    assert_close(losses.normalised_q_weight(jnp.zeros(2)), 1e6)
    grad = jax.grad(lambda q: losses.normalised_q_weight(q) * q.sum())(jnp.array([1.0, -3.0]))
    assert_close(grad, [0.5, 0.5])


def test_conservative_gap_is_a_log_sum_exp_above_the_data():
    q_sampled = jnp.log(jnp.array([[[1.0], [2.0], [3.0]], [[1.0], [1.0], [2.0]]]))  # [E=2, N=3, B=1]
    assert_close(losses.conservative_gap(q_sampled, jnp.array([[1.0], [0.0]])), [[math.log(6) - 1], [math.log(4)]])
    assert_close(losses.conservative_gap(jnp.zeros((1, 2, 1)), jnp.ones((1, 1)), 2.0), [[2 * math.log(2) - 1]])


def test_aggregate_reduces_the_first_axis():
    q = jnp.array([[1.0, 5.0], [3.0, 2.0]])
    assert_close(losses.aggregate(q, "min"), [1.0, 2.0])
    assert_close(losses.aggregate(q, "mean"), [2.0, 3.5])
    with pytest.raises(KeyError):
        losses.aggregate(q, "median")


def test_the_least_and_the_most_have_the_gradient_of_one_entry():
    x = jnp.array([[1.0, 5.0, 2.0], [3.0, 2.0, 2.0], [0.0, 4.0, 7.0]])
    assert_close(losses.least(x), [0.0, 2.0, 2.0])
    assert_close(losses.most(x), [3.0, 5.0, 7.0])
    slope = lambda f: jax.grad(lambda x: (f(x) * jnp.array([1.0, 2.0, 3.0])).sum())(x)
    assert_close(slope(losses.least), [[0, 0, 3], [0, 2, 0], [1, 0, 0]])  # of the first where there are several
    assert_close(slope(losses.most), [[0, 2, 0], [1, 0, 0], [0, 0, 3]])
    assert np.isnan(losses.least(x.at[1, 0].set(jnp.nan)))[0], "what is none is not passed over"


def test_the_lower_bound_lies_beta_deviations_below_the_mean():
    q = jnp.array([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]])
    deviation = math.sqrt((9 + 1 + 16) / 3)  # around 4, divided by E
    assert_close(losses.aggregate(q, "lcb", 0.5), [4 - 0.5 * deviation, 5.0])
    assert_close(losses.aggregate(q, "lcb", 0.0), losses.aggregate(q, "mean"))
    with pytest.raises(TypeError):
        losses.aggregate(q, "lcb")  # without a beta
    slope = jax.grad(lambda q: losses.lower_bound(q, 0.5).sum())(q)
    by_hand = 1 / 3 - 0.5 * np.array([-3, -1, 4]) / (3 * deviation)  # d std / d q_i = (q_i - mean) / (E std)
    assert_close(slope[:, 0], by_hand)
    assert_close(slope[:, 1], [1 / 3] * 3)  # equal networks: no slope of the deviation, and no NaN


def phi(x):
    """P(N(0, 1) < x)."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_hl_gauss_is_the_mass_of_a_gaussian_in_each_bin():
    edges = jnp.array([0.0, 1.0, 2.0, 3.0])
    inside = np.diff([phi((e - 1.2) / 0.5) for e in (0, 1, 2, 3)])
    at_the_end = np.diff([phi(e / 0.5) for e in (0, 1, 2, 3)])
    expected = [inside / inside.sum(), at_the_end / at_the_end.sum()]
    table = np.array([0.344578 - 0.008198, 0.945201 - 0.344578, 0.999841 - 0.945201])  # of the normal, at -2.4 to 3.6
    np.testing.assert_allclose(expected[0], table / 0.991643, atol=2e-6)
    assert_close(losses.hl_gauss(jnp.array([1.2, 0.0]), edges, 0.5), expected)


def test_hl_gauss_sums_to_one_and_its_mean_is_the_value_away_from_the_ends():
    edges = jnp.linspace(-100.0, 0.0, 102)
    width = 100 / 101
    values = jnp.linspace(-100 + 4 * width, -4 * width, 57)
    p = losses.hl_gauss(values, edges, 0.75 * width)
    assert_close(p.sum(-1), np.ones(57))
    centres = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose((p * centres).sum(-1), values, atol=1e-4 * width * 50)
    ends = losses.hl_gauss(jnp.array([-100.0, 0.0]), edges, 0.75 * width)
    assert_close(ends.sum(-1), np.ones(2))
    assert float((ends[1] * centres).sum()) < -0.5 * width, "at an end half of the Gaussian is missing"


def test_two_hot_is_exact_at_the_points_and_between_them():
    points = jnp.array([-1.0, 1.0, 3.0, 5.0])
    p = losses.two_hot(jnp.array([-1.0, 1.5, 5.0, 4.0]), points)
    assert_close(p, [[1, 0, 0, 0], [0, 0.75, 0.25, 0], [0, 0, 0, 1], [0, 0, 0.5, 0.5]])
    assert_close((p * points).sum(-1), [-1.0, 1.5, 5.0, 4.0])


def test_categorical_loss_averages_the_batch_and_sums_the_ensemble():
    logits = jnp.log(jnp.array([[[1.0, 3.0], [1.0, 1.0]], [[2.0, 2.0], [9.0, 1.0]]]))  # [E=2, B=2, N=2]
    p = jnp.array([[0.0, 1.0], [0.5, 0.5]])
    first = (math.log(4 / 3) + math.log(2)) / 2
    second = (math.log(2) - 0.5 * (math.log(0.9) + math.log(0.1))) / 2
    assert_close(losses.categorical_loss(logits, p), first + second)


def test_categorical_mean():
    assert_close(
        losses.categorical_mean(jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]])), jnp.array([-4.0, 8.0])), [5.0, 2.0]
    )


def test_flow_matching_loss_is_a_mean_over_dimensions():
    velocity, noise, actions = jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 0.0]]), jnp.array([[1.0, 1.0]])
    assert_close(losses.flow_matching_loss(velocity, noise, actions), [0.625])  # ((1 - .5)^2 + (2 - 1)^2) / 2


def test_gaussian_log_prob():
    x, mean = jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2))
    log_std = jnp.array([[0.0, math.log(2)]])  # both lie one deviation from the mean
    assert_close(losses.gaussian_log_prob(x, mean, log_std), [-1.0 - math.log(2) - math.log(2 * math.pi)])


def test_tanh_log_det_is_exact_and_stable():
    assert_close(losses.tanh_log_det(jnp.array([[0.0]])), [0.0])
    assert_close(losses.tanh_log_det(jnp.array([[0.5 * math.log(3), 0.0]])), [math.log(0.75)])  # tanh = 1/2
    assert_close(losses.tanh_log_det(jnp.array([[40.0], [-40.0]])), [math.log(4) - 80] * 2)


def test_denoising_loss_is_a_mean_over_dimensions():
    assert_close(losses.denoising_loss(jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 0.0]])), [2.125])  # (.25 + 4) / 2


def test_mixture_log_prob_weighs_densities():
    x, mean = jnp.array([[0.0, 2.0]]), jnp.array([[[0.0, 0.0], [0.0, 2.0]]])
    log_std = jnp.array([[[0.0, math.log(2)], [0.0, 0.0]]])
    logits = jnp.array([[1.0, 1.0 + math.log(3)]])  # weights 1/4 and 3/4
    expected = math.log(0.25 * math.exp(-0.5) / 2 + 0.75) - math.log(2 * math.pi)
    assert_close(losses.mixture_log_prob(x, logits, mean, log_std), [expected])
