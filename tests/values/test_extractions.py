"""Each extraction with a policy and a critic of known output."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

from understudy.algorithm import Extraction
from understudy.algorithms.fql import Distil
from understudy.algorithms.sac import MaxEnt
from understudy.extractions import AWR, DDPGBC, BestOfN, Imitate
from understudy.policies.deterministic import Deterministic
from understudy.policies.gaussian import Gaussian
from understudy.policies.one_step_flow import OneStepFlow

KEY = jax.random.key(0)
HALF = 0.5 * math.log(3)  # tanh(HALF) = 1/2


@dataclasses.dataclass(frozen=True)
class KnownCritic:
    """Q(s, a) = scale (a_0 + a_1) + offset; the advantage is 1, then -1."""

    scale: float = 1.0
    offset: float = 0.0

    def q(self, state, observations, actions):
        return self.scale * actions.sum(-1) + self.offset

    def advantage(self, state, observations, actions):
        return jnp.array([1.0, -1.0])


@pytest.fixture
def half(constant, batch):
    """The deterministic policy a = (1/2, 1/2) and its parameters."""
    policy = Deterministic(action_size=2, hidden=(4,))
    return policy, constant(policy.init(KEY, batch["observations"], batch["actions"]), [HALF, HALF])


def test_imitate_is_the_mean_of_the_policys_loss(half, batch):
    policy, params = half
    loss, metrics = Imitate().loss(params, (), policy, None, (), batch, KEY)
    assert_close(loss, (0.25 + 1.25) / 2)  # |(0, .5)|^2, |(.5, 1)|^2
    assert_close(metrics["imitation"], loss)


def test_awr_weighs_imitation_by_the_exponential_advantage(half, batch):
    policy, params = half
    loss, metrics = AWR(beta=math.log(2), clip=100.0).loss(params, (), policy, KnownCritic(), (), batch, KEY)
    assert_close(loss, (2 * 0.25 + 0.5 * 1.25) / 2)
    assert_close(metrics["weight"], 1.25)
    loss, _ = AWR(beta=math.log(2), clip=1.5).loss(params, (), policy, KnownCritic(), (), batch, KEY)
    assert_close(loss, (1.5 * 0.25 + 0.5 * 1.25) / 2)


@pytest.mark.parametrize("normalise, value", [(True, 1.0), (False, 4.0)])
def test_ddpg_bc_trades_the_value_against_imitation(half, batch, normalise, value):
    policy, params = half
    extraction = DDPGBC(alpha=0.4, normalise=normalise)
    loss, metrics = extraction.loss(params, (), policy, KnownCritic(scale=4.0), (), batch, KEY)
    assert_close(metrics["q"], 4.0)
    assert_close(loss, 0.4 * 0.75 - value)


def test_ddpg_bc_gradient_has_both_parts(half, batch):
    policy, params = half
    loss = lambda p: DDPGBC(alpha=0.4, normalise=False).loss(p, (), policy, KnownCritic(4.0), (), batch, KEY)[0]
    bias = jax.grad(loss)(params)["params"]["Dense_1"]["bias"]
    # d a / d b = 3/4; imitation 2 (a - a_data), mean over the two rows: (.25, .75); value 4
    assert_close(bias, [0.75 * (0.4 * 2 * 0.25 - 4), 0.75 * (0.4 * 2 * 0.75 - 4)])


def test_ddpg_bc_explores_with_clipped_noise():
    actions = DDPGBC(exploration=0.1).explore(jnp.zeros((20_000, 1)), KEY)
    assert_close(actions.std(), 0.1, atol=0.002)
    assert float(jnp.abs(DDPGBC(exploration=9.0).explore(jnp.zeros((100, 1)), KEY)).max()) == 1.0


def test_best_of_n_takes_the_sample_of_highest_value(constant, batch):
    policy = Gaussian(action_size=2, hidden=(4,), deviation="constant", std=0.2)
    params = policy.init(KEY, batch["observations"], batch["actions"])
    params["network"] = constant(params["network"], [0.0, 0.0])
    q = lambda observations, actions: -((actions - jnp.array([0.3, -0.3])) ** 2).sum(-1)
    chosen = BestOfN(samples=16).choose(policy, params, q, batch["observations"], KEY)
    samples = np.stack([policy.sample(params, batch["observations"], k) for k in jax.random.split(KEY, 16)])
    distance = ((samples - np.array([0.3, -0.3])) ** 2).sum(-1)  # [16, 2]
    assert_close(chosen, samples[distance.argmin(0), [0, 1]])
    only = policy.sample(params, batch["observations"], jax.random.split(KEY, 1)[0])
    assert_close(BestOfN(samples=1).choose(policy, params, q, batch["observations"], KEY), only)


def test_best_of_n_imitates(half, batch):
    policy, params = half
    assert_close(BestOfN(samples=4).loss(params, (), policy, None, (), batch, KEY)[0], 0.75)


def test_extractions_act_greedily_with_the_mode(half, batch):
    policy, params = half
    assert_close(Extraction().choose(policy, params, None, batch["observations"], KEY, greedy=True), [[0.5, 0.5]] * 2)
    assert Extraction().temperature(()) is None
    with pytest.raises(TypeError, match="defines no policy loss"):
        Extraction().loss(params, (), policy, None, (), batch, KEY)


def test_max_ent_weighs_the_log_prob_by_the_temperature(batch, fixed_policy):
    extraction = MaxEnt(initial_temperature=0.5, target_entropy=-1.5)
    aux = extraction.init()
    assert_close(extraction.temperature(aux), 0.5)
    loss, metrics = extraction.loss((), aux, fixed_policy(0.25, -2.0), KnownCritic(), (), batch, KEY)
    assert_close(loss, 0.5 * -2.0 - 0.5)
    assert_close(metrics["entropy"], 2.0)
    assert_close(metrics["target_entropy"], -3.0)  # -1.5 per dimension, two dimensions
    assert_close(metrics["temperature"], 0.5)


@pytest.mark.parametrize("entropy, direction", [(2.0, -1), (-9.0, 1)])
def test_max_ent_lowers_the_temperature_where_the_entropy_exceeds_its_target(entropy, direction):
    extraction = MaxEnt(initial_temperature=0.5, learning_rate=0.1)
    metrics = {"entropy": jnp.float32(entropy), "target_entropy": jnp.float32(-2.0)}
    aux = extraction.adapt(extraction.init(), metrics)
    assert_close(aux.params, math.log(0.5) + 0.1 * direction, rtol=1e-4)  # Adam's first step has the size of the rate
    fixed = dataclasses.replace(extraction, learning_rate=0.0)
    assert_close(fixed.temperature(fixed.adapt(fixed.init(), metrics)), 0.5)


@pytest.mark.parametrize("normalise, value", [(True, 1.0), (False, 5.0)])
def test_distil_adds_flow_matching_distillation_and_the_value(constant, batch, normalise, value):
    policy = OneStepFlow(action_size=2, hidden=())
    params = policy.init(KEY, batch["observations"], batch["actions"])
    params = {"flow": constant(params["flow"], 9.0), "one_step": constant(params["one_step"], 0.5)}
    extraction = Distil(alpha=3.0, normalise=normalise)
    loss, metrics = extraction.loss(params, (), policy, KnownCritic(5.0), (), batch, KEY)
    assert_close(metrics["distillation"], 0.25)  # the flow's actions end at 1
    assert_close(metrics["q"], 5.0)
    assert_close(loss, metrics["flow_matching"] + 3.0 * 0.25 - value)
    matching = policy.flow.loss(params["flow"], batch["observations"], batch["actions"], jax.random.split(KEY)[0])
    assert_close(metrics["flow_matching"], matching.mean())
