"""The natural gradient against a dense solution, HNPG's update by hand, and a bandit that it must solve."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import understudy
from understudy.algorithms.hnpg import HNPG
from understudy.errors import SettingsError
from understudy.natural_gradient import conjugate_gradients, natural_step
from understudy.policies.deterministic import Deterministic
from understudy.policies.gaussian import Gaussian

KEY = jax.random.key(0)


def test_conjugate_gradients_solve_a_system_and_stop_where_it_is_solved():
    matrix = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]], np.float32)
    b = np.array([1.0, -2.0, 0.5], np.float32)
    x = conjugate_gradients(lambda v: matrix @ v, jnp.asarray(b), 3)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-4)
    np.testing.assert_array_equal(conjugate_gradients(lambda v: matrix @ v, jnp.asarray(b), 50), x)
    assert not np.asarray(conjugate_gradients(lambda v: matrix @ v, jnp.zeros(3), 3)).any()


def test_the_step_is_the_dense_solution_scaled_to_its_divergence():
    """log pi(a|s) = -(a - theta . s)^2 / 2: the score of a row is (a - theta . s) s."""
    rng = np.random.default_rng(0)
    s, a, advantages, theta = rng.normal(size=(12, 3)), rng.normal(size=12), rng.normal(size=12), rng.normal(size=3)
    scores = (a - s @ theta)[:, None] * s
    gradient, fisher = (advantages[:, None] * scores).mean(0), scores.T @ scores / 12 + 0.1 * np.eye(3)
    w = np.linalg.solve(fisher, gradient)
    step = np.sqrt(2 * 0.001 / (w @ fisher @ w)) * w
    f = lambda x: jnp.asarray(x, jnp.float32)
    log_prob = lambda p: -0.5 * (f(a) - f(s) @ p) ** 2
    after, metrics = natural_step(log_prob, f(theta), f(advantages), 0.001, 0.1, 10)
    np.testing.assert_allclose(after, theta + step, rtol=1e-4)
    ratio = np.exp(-0.5 * (a - s @ (theta + step)) ** 2 + 0.5 * (a - s @ theta) ** 2)
    assert metrics["share"] == 1 and metrics["gain"] == pytest.approx((advantages * (ratio - 1)).mean(), rel=1e-3)
    stayed, metrics = natural_step(log_prob, f(theta), jnp.zeros(12), 0.001, 0.1, 10)
    np.testing.assert_array_equal(stayed, f(theta))
    assert metrics["share"] == metrics["gain"] == 0


def played(observations, actions, rewards, masks, ends):
    column = lambda x: jnp.asarray(x, jnp.float32)[:, None]
    return {"observations": column(observations), "actions": column(actions), "next_observations": column(observations),
            "rewards": jnp.asarray(rewards, jnp.float32), "masks": jnp.asarray(masks, jnp.float32),
            "ends": jnp.asarray(ends)}  # fmt: skip


def test_the_critic_learns_returns_of_what_was_played_and_backups_of_data(monkeypatch):
    """Q(s, a) = theta a and a policy that always plays 2: V = 2 theta."""
    monkeypatch.setattr(HNPG, "q", lambda self, params, o, a: params * a[..., 0])
    monkeypatch.setattr(Gaussian, "sample", lambda self, params, o, key: jnp.full((*o.shape[:-1], 1), 2.0))
    algorithm = HNPG(policy=Gaussian(action_size=1, hidden=(4,)), discount=0.5, steps_per_rollout=2, critic_steps=1,
                     data_weight=0.5)  # fmt: skip
    data = played([0, 0], [1, 3], [1, 2], [1, 0], [False, False])
    state = algorithm.init(KEY, data)
    from understudy.core import adam, net

    state = type(state)(actor=state.actor, critic=net(jnp.float32(0.25), adam(3e-4)), rollout=state.rollout)
    state = algorithm.observe(state, played([0], [1], [1], [1], [False]))
    state = algorithm.observe(state, played([0], [2], [4], [1], [True]))  # a time-out
    _, metrics = algorithm.update(state, data, KEY)
    last = 4 + 0.5 * 0.5  # V where it was cut off
    first = 1 + 0.5 * last
    online = ((0.25 * 1 - first) ** 2 + (0.25 * 2 - last) ** 2) / 2
    off = ((0.25 * 1 - (1 + 0.5 * 0.5)) ** 2 + (0.25 * 3 - 2) ** 2) / 2
    assert metrics["critic/online"] == pytest.approx(online, rel=1e-5)
    assert metrics["critic/data"] == pytest.approx(off, rel=1e-5)
    assert metrics["critic/loss"] == pytest.approx(online + 0.5 * off, rel=1e-5)


def test_it_finds_the_better_action_from_its_own_play():
    """One step an episode, reward 1 - (a - 0.5)^2."""
    algorithm = HNPG(policy=Gaussian(action_size=1, hidden=(16,)), hidden=(16,), steps_per_rollout=32, lanes=8,
                     critic_steps=20, learning_rate=1e-2, samples=4)  # fmt: skip
    observations, rng = jnp.ones((8, 1)), np.random.default_rng(0)
    tried = rng.uniform(-1, 1, 64)
    data = played(np.ones(64), tried, 1 - (tried - 0.5) ** 2, np.zeros(64), np.ones(64, bool))
    state = algorithm.init(KEY, data)

    @jax.jit
    def burst(state, key):
        def step(i, state):
            actions, _ = algorithm.act(state, observations, jax.random.fold_in(key, i))
            slot = {"observations": observations, "actions": actions, "next_observations": observations,
                    "rewards": 1 - (actions[:, 0] - 0.5) ** 2, "masks": jnp.zeros(8), "ends": jnp.ones(8)}  # fmt: skip
            return algorithm.observe(state, slot)

        state = jax.lax.fori_loop(0, 32, step, state)
        return algorithm.update(state, data, jax.random.fold_in(key, 99))

    for i in range(60):
        state, metrics = burst(state, jax.random.key(i))
    mode, _ = algorithm.act(state, observations, KEY, greedy=True)
    np.testing.assert_allclose(mode, 0.5, atol=0.1)
    q = lambda a: float(algorithm.q(state.critic.params, jnp.ones((1, 1)), jnp.full((1, 1), a))[0])
    assert q(0.5) > q(-0.5) + 0.4, "the critic knows actions of the data as well"


def test_a_policy_without_densities_is_refused_and_so_is_an_offline_phase(tmp_path):
    batch = played([0], [0], [0], [1], [False])
    with pytest.raises(SettingsError, match="HNPG needs a policy with log_prob .*; Deterministic is not one"):
        HNPG(policy=Deterministic(action_size=1)).init(KEY, batch)
    data = understudy.data.from_arrays(np.zeros((9, 3)), np.zeros((9, 1)), np.zeros(9), truncations=np.arange(9) == 8)
    with pytest.raises(SettingsError, match="HNPG learns only from what it plays; give --offline 0"):
        understudy.train("hnpg", data, env="Pendulum-v1", offline=5, online=5, out=tmp_path / "run")
