"""Tiny problems of known value: each critic finds it, and each policy finds the better action.

The problems (one observation dimension per state, one action dimension, action a in [-1, 1]):
    bandit     one step; reward 1 where a > 0, else 0: Q(a) is the reward; the mean over the data is 1/2, the best 1
    chain      s0 -> s1 -> end, reward 1 each: Q(s1) = 1, Q(s0) = 1 + gamma
    clock      one state for ever, reward 1, recorded in pieces cut by time-outs: V = 1 / (1 - gamma)
    deadline   the same, each step a termination: V = 1
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import USUAL

from understudy import registry
from understudy.wrappers import core_of

GAMMA, B = 0.8, 128
SAME = ("ooo", "jsrl", "qc_fql")  # wrappers around what is here already
LIVE = ("ppo", "dppo", "uni_o4")  # they play bandits of their own (test_on_policy.py)
LEARNERS = [n for n in registry.ALGORITHMS if n not in (*SAME, *LIVE)]
CRITICS = [n for n in LEARNERS if n not in ("bc", "hnpg")]  # HNPG's has a value test of its own
SLOW = ("pa_rl", "ro2o", "h2o", "hnpg")  # `make learn`


def patiently(names):
    """The names, the slow ones marked."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


SMALL = {"hidden": (32, 32), "samples": 8, "keep": 3, "steps": 5}


def tuned(name: str):
    """The algorithm with small, fast networks; nothing of its method is changed, but it takes single actions."""

    def shrink(part):
        change = {"learning_rate": 3e-3} if hasattr(part, "learning_rate") else {}
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name in SMALL:
                change[field.name] = SMALL[field.name]
            elif dataclasses.is_dataclass(value):
                change[field.name] = shrink(value)
        names = {f.name for f in dataclasses.fields(part)}
        fast = {"discount": GAMMA, "tau": 0.05, "target_policy_tau": 0.05, "penalty": 0.0, "scale": 2.0}
        change |= {k: v for k, v in fast.items() if k in names}  # a residual of scale 2 reaches every action
        return dataclasses.replace(part, **change)

    algorithm = shrink(core_of(registry.load("algorithm", name)(1)))
    return dataclasses.replace(algorithm, policy_delay=1) if hasattr(algorithm, "policy_delay") else algorithm


def transitions(state, actions, rewards, masks, following) -> dict:
    column = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (B,))
    following = jnp.broadcast_to(jnp.asarray(following, jnp.float32), (B,))
    return {
        "observations": column(state)[:, None], "actions": actions, "rewards": column(rewards),
        "masks": column(masks), "next_observations": following[:, None], "next_actions": actions,
        "next_valids": jnp.ones(B), "mc_returns": jnp.full(B, -jnp.inf),
    }  # fmt: skip


ACTIONS = jnp.linspace(-1, 1, B)[:, None]
FIRST = jnp.arange(B) % 2 == 0
SIGN = jnp.where(ACTIONS[:, 0] > 0, 1.0, 0.0)
PROBLEMS = {
    "bandit": transitions(0.0, ACTIONS, SIGN, 0.0, 0.0),
    "chain": transitions(jnp.where(FIRST, -1.0, 1.0), ACTIONS, 1.0, jnp.where(FIRST, 1.0, 0.0), 1.0),
    "clock": transitions(1.0, ACTIONS, 1.0, 1.0, 1.0),
    "deadline": transitions(1.0, ACTIONS, 1.0, 0.0, 1.0),
}


@functools.partial(jax.jit, static_argnames="n", compiler_options=USUAL)
def learn(algorithm, state, batch, key, n: int):
    body = lambda state, i: algorithm.update(state, batch, jax.random.fold_in(key, i))
    return jax.lax.scan(body, state, jnp.arange(n))


@functools.cache
def plain(name: str):
    """For values: the conservative weight and the entropy are off, whose bias is known and not asked for."""
    algorithm = tuned(name)
    if name == "arsq":
        return algorithm  # of demonstrations alone is its gap, and there are none here
    if hasattr(algorithm.critic, "weight"):
        algorithm = dataclasses.replace(algorithm, critic=dataclasses.replace(algorithm.critic, weight=0.0))
    if hasattr(algorithm.extraction, "initial_temperature"):
        quiet = dataclasses.replace(algorithm.extraction, initial_temperature=1e-6, learning_rate=0.0)
        algorithm = dataclasses.replace(algorithm, extraction=quiet)
    return algorithm


def value(name: str, problem: str, states, n: int = 800, **critic):
    """Q at each of `states` and every action of the data, after n updates; `critic`: other settings of it."""
    algorithm, batch = plain(name), PROBLEMS[problem]
    if critic:
        algorithm = dataclasses.replace(algorithm, critic=dataclasses.replace(algorithm.critic, **critic))
    batch = {k: v for k, v in batch.items() if k in algorithm.requires}
    state, _ = learn(algorithm, algorithm.init(jax.random.key(0), batch), batch, jax.random.key(1), n)

    def q(s):
        observations = jnp.full((B, 1), s)
        if name == "arsq":
            v, _, _, advantages = algorithm.score(state.q.params, observations, batch["actions"])
            return (v + advantages.sum(-1)).min(0)
        return algorithm.critic.q(state.critic, observations, batch["actions"])

    return [np.asarray(q(s)) for s in states]


@pytest.mark.parametrize("name", patiently(CRITICS))
def test_values(name):
    """All four problems by every critic, through one compiled program."""
    (bandit,) = value(name, "bandit", [0.0])
    far = np.abs(ACTIONS[:, 0]) > 0.2  # next to the jump a smooth network is in between
    np.testing.assert_allclose(bandit[far], SIGN[far], atol=0.15)
    first, last = value(name, "chain", [-1.0, 1.0])
    np.testing.assert_allclose(last.mean(), 1.0, atol=0.05)
    np.testing.assert_allclose(first.mean(), 1 + GAMMA, atol=0.08)
    (deadline,) = value(name, "deadline", [1.0])
    np.testing.assert_allclose(deadline.mean(), 1.0, atol=0.05)
    (clock,) = value(name, "clock", [1.0])
    np.testing.assert_allclose(clock.mean(), 1 / (1 - GAMMA), atol=0.3)


@pytest.mark.parametrize("head", ["hl_gauss", "two_hot"])
def test_values_of_categorical_heads(head):
    """The same four problems by a TD critic with bins of a sixth, to which a value travels more slowly."""
    heads = dict(n=2400, head=head, bins=48, v_min=-2.0, v_max=6.0)
    (bandit,) = value("td3_bc", "bandit", [0.0], **heads)
    far = np.abs(ACTIONS[:, 0]) > 0.2
    np.testing.assert_allclose(bandit[far], SIGN[far], atol=0.15)
    first, last = value("td3_bc", "chain", [-1.0, 1.0], **heads)
    np.testing.assert_allclose([first.mean(), last.mean()], [1 + GAMMA, 1.0], atol=0.05)
    (deadline,) = value("td3_bc", "deadline", [1.0], **heads)
    np.testing.assert_allclose(deadline.mean(), 1.0, atol=0.05)
    (clock,) = value("td3_bc", "clock", [1.0], **heads)
    np.testing.assert_allclose(clock.mean(), 1 / (1 - GAMMA), atol=0.2)


@pytest.mark.parametrize("expectile, expected, tolerance", [(0.5, 0.5, 0.05), (0.9, 0.9, 0.05), (0.99, 0.99, 0.03)])
def test_iql_value_goes_from_the_mean_to_the_best(expectile, expected, tolerance):
    """Half of the rewards are 1, half 0: the expectile tau of that is tau itself."""
    algorithm = plain("iql")
    algorithm = dataclasses.replace(algorithm, critic=dataclasses.replace(algorithm.critic, expectile=expectile))
    batch = {k: v for k, v in PROBLEMS["bandit"].items() if k in algorithm.requires}
    state, _ = learn(algorithm, algorithm.init(jax.random.key(0), batch), batch, jax.random.key(1), 800)
    v = algorithm.critic.v(state.critic.v.params, jnp.zeros((1, 1)))
    np.testing.assert_allclose(v, expected, atol=tolerance)


@pytest.mark.parametrize("name", ["cql", "cal_ql"])
def test_conservatism_lowers_values_of_unseen_actions_and_calibration_stops_it(name):
    """Data hold only a > 0, of reward 1. CQL pushes the rest down; Cal-QL not below known returns of the policy."""
    algorithm = tuned(name)
    algorithm = dataclasses.replace(algorithm, critic=dataclasses.replace(algorithm.critic, weight=1.0))
    batch = transitions(0.0, jnp.abs(ACTIONS), 1.0, 0.0, 0.0) | {"mc_returns": jnp.ones(B)}
    batch = {k: v for k, v in batch.items() if k in algorithm.requires}
    state, metrics = learn(algorithm, algorithm.init(jax.random.key(0), batch), batch, jax.random.key(1), 800)
    q = algorithm.critic.q(state.critic, jnp.zeros((B, 1)), ACTIONS)
    seen, unseen = float(q[ACTIONS[:, 0] > 0.2].mean()), float(q[ACTIONS[:, 0] < -0.2].mean())
    assert unseen < seen - 0.5
    if name == "cal_ql":
        assert seen > 0.5, "calibrated values stay near the return of the data"


@pytest.mark.parametrize("name", patiently(LEARNERS))
def test_the_policy_finds_the_better_action(name):
    """In the bandit; behaviour cloning alone should not, which shows that the others owe it to the values."""
    algorithm = tuned(name)
    batch = {k: v for k, v in PROBLEMS["bandit"].items() if k in algorithm.requires}
    state, _ = learn(algorithm, algorithm.init(jax.random.key(0), batch), batch, jax.random.key(1), 800)
    actions, _ = algorithm.act(state, jnp.zeros((512, 1)), jax.random.key(2), greedy=True)
    if name == "bc":
        assert abs(float(actions.mean())) < 0.2
    else:
        assert float((actions > 0).mean()) > 0.95


@pytest.mark.parametrize("policy", ["gaussian", "flow", "one_step_flow", "deterministic"])
def test_pa_rl_takes_any_policy_past_its_data(policy):
    """Half of the data lie around -0.5, of reward 0, half around 0.5, of reward 1. Each class imitates them first."""
    side = jnp.where(FIRST, -0.5, 0.5)[:, None]
    actions = side + 0.1 * jax.random.normal(jax.random.key(0), side.shape)
    reward = lambda a: jnp.where(jnp.abs(a[:, 0] - 0.5) < 0.3, 1.0, 0.0)
    batch = transitions(0.0, actions, reward(actions), 0.0, 0.0) | {"mc_returns": reward(actions)}
    algorithm = registry.adjust(tuned("pa_rl"), {
        "policy": policy, "critic.weight": 1.0, "critic.ensemble": 2, "critic.subset": 0, "critic.samples": 4,
        "extraction.step_size": 0.01, "extraction.imitation_steps": 300, "decay_steps": 0.0,
    })  # fmt: skip
    batch = {k: v for k, v in batch.items() if k in algorithm.requires}
    state = algorithm.init(jax.random.key(1), batch)
    sampled = []
    for i in range(3):
        state, _ = learn(algorithm, state, batch, jax.random.key(2 + i), 300)
        actions = algorithm.policy.sample(state.actor.params, jnp.zeros((512, 1)), jax.random.key(3))
        sampled.append(float(reward(actions).mean()))
    cloned, _, improved = sampled
    assert cloned < 0.5 < 0.55 < improved, "the policy's own samples, before any are chosen"
    acted, _ = algorithm.act(state, jnp.zeros((512, 1)), jax.random.key(4))
    assert float(reward(acted).mean()) > 0.95
