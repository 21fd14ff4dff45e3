"""What IDQL and Diffusion-QL add: which sample acts, what is backed up, and how the value is normalised."""

from __future__ import annotations

import dataclasses
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

from understudy.algorithm import Actor
from understudy.algorithms.diffusion_ql import DiffusionQLCritic, Guide
from understudy.algorithms.idql import Implicit
from understudy.policies.deterministic import Deterministic

KEY = jax.random.key(0)
HALF = 0.5 * math.log(3)  # tanh(HALF) = 1/2


@dataclasses.dataclass(frozen=True)
class Coins:
    """Actions 0.5 or -0.5, fairly."""

    def sample(self, params, observations, key):
        return jnp.where(jax.random.bernoulli(key, 0.5, (observations.shape[0], 1)), 0.5, -0.5)


@dataclasses.dataclass(frozen=True)
class Linear:
    """Q_i(s, a) = (i + 1) sum a, A(s, a) = a_0."""

    expectile: float = 0.9

    def advantage(self, state, observations, actions):
        return actions[..., 0]

    def qs(self, params, observations, actions):
        return jnp.stack([actions.sum(-1), 2 * actions.sum(-1)])


MANY = jnp.ones((4000, 3))


def test_implicit_acts_greedily_with_the_best_and_live_by_expectile_weights():
    extraction = Implicit(samples=200, live="expectile")
    weigh = extraction.compare(Linear(), ())
    advantage, weight = weigh(MANY[:2], jnp.array([[0.5], [-0.5]]))
    assert_close(advantage, [0.5, -0.5])
    assert_close(weight, [0.9, 0.1])
    choose = lambda e, greedy: e.choose(Coins(), (), weigh, MANY, KEY, greedy=greedy)
    assert_close(choose(extraction, True), np.full((4000, 1), 0.5))
    assert_close((choose(extraction, False) > 0).mean(), 0.9, atol=0.02)  # of 200 fair coins, nine to one
    assert_close(choose(Implicit(samples=200), False), np.full((4000, 1), 0.5))


def test_guide_acts_by_softmax_over_q():
    q = lambda observations, actions: math.log(3) * (actions[..., 0] > 0)
    for greedy in (True, False):
        chosen = Guide(samples=200).choose(Coins(), (), q, MANY, KEY, greedy=greedy)
        assert_close((chosen > 0).mean(), 0.75, atol=0.03)


@pytest.mark.parametrize("network, share", [(0, 1 / 2), (1, 2.0)])
def test_guide_divides_one_network_by_the_size_of_the_other(constant, batch, monkeypatch, network, share):
    policy = Deterministic(action_size=2, hidden=(4,))
    params = constant(policy.init(KEY, batch["observations"], batch["actions"]), [HALF, HALF])
    monkeypatch.setattr(jax.random, "randint", lambda *_, **__: jnp.int32(network))
    state = types.SimpleNamespace(q=types.SimpleNamespace(params=()))
    loss, metrics = Guide(eta=0.3).loss(params, (), policy, Linear(), state, batch, KEY)
    assert_close(metrics["imitation"], 0.75)
    assert_close(loss, 0.75 - 0.3 * share)  # Q_1 = 1, Q_2 = 2
    bias = jax.grad(lambda p: Guide(eta=0.3).loss(p, (), policy, Linear(), state, batch, KEY)[0])(params)
    bias = bias["params"]["Dense_1"]["bias"]
    assert_close(
        bias, [0.75 * (2 * 0.25 - 0.3 * share), 0.75 * (2 * 0.75 - 0.3 * share)]
    )  # nothing through the divisor


@dataclasses.dataclass(frozen=True)
class Either:
    """(0.5, 0.5) or its opposite: with many draws both."""

    def sample(self, params, observations, key):
        return jnp.where(jax.random.bernoulli(key), 0.5, -0.5) * jnp.ones((observations.shape[0], 2))


@pytest.mark.parametrize("samples, best", [(1, None), (64, (0.75, 0.25))])
def test_each_network_backs_up_its_own_best_action(batch, linear, samples, best):
    """Q_1 = a_0 + a_1 / 2, Q_2 = -a_1 / 2: at the best of each .75 and .25, at one action .75, -.25 or the reverse."""
    critic = DiffusionQLCritic(hidden=(), discount=0.5, backup_samples=samples)
    state = critic.init(KEY, batch)
    weights = [[0, 0, 0, 1, 0.5], [0, 0, 0, 0, -0.5]]
    state = dataclasses.replace(state, target=linear(state.target, weights))
    assert_close(critic.q(state, batch["observations"], jnp.full((2, 2), 0.5)), [-0.25, -0.25])
    targets = critic.target(state, batch, Actor(Either(), (), None), KEY)
    value = (float(targets[0]) - 1.0) / 0.5
    assert value == pytest.approx(min(best)) if best else value in (pytest.approx(-0.25), pytest.approx(-0.75))
    assert_close(targets[1], 2.0)  # terminal
