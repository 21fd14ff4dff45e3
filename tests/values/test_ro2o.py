"""RO2O's terms with numbers worked by hand."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from asserting import assert_close

from understudy import registry
from understudy.algorithm import Actor
from understudy.algorithms.ro2o import RO2OCritic, SmoothMaxEnt, jeffreys, perturbed
from understudy.policies.tanh_gaussian import TanhGaussian

KEY = jax.random.key(0)


def test_perturbed_observations_stay_within_epsilon_and_in_order():
    tree = {"state": jnp.arange(6.0).reshape(3, 2), "goal": jnp.arange(3.0)[:, None]}
    near = perturbed(tree, 0.25, 400, KEY)
    assert near["state"].shape == (1200, 2) and near["goal"].shape == (1200, 1)
    for k in tree:
        difference = near[k].reshape(400, *tree[k].shape) - tree[k]
        assert 0.24 < float(jnp.abs(difference).max()) <= 0.25 + 1e-6
        assert_close(difference.mean(0), jnp.zeros_like(tree[k]), atol=0.03)


def test_jeffreys_adds_both_divergences():
    same = jnp.zeros((1, 2))
    assert_close(jeffreys(same, same, same, same), [0.0])
    # N(0, 1) and N(1, 2): KL = log 2 + 2/8 - 1/2, reversed -log 2 + 5/2 - 1/2
    mean, log_std = jnp.array([[1.0]]), jnp.array([[math.log(2.0)]])
    assert_close(jeffreys(jnp.zeros((1, 1)), jnp.zeros((1, 1)), mean, log_std), [2 / 8 - 0.5 + 2.5 - 0.5])


def test_critic_loss_is_smooth_and_pessimistic(linear, batch):
    critic = RO2OCritic(hidden=(), ensemble=2, samples=2, smoothness=10.0, ood=0.5, expectile=0.75)
    params = linear(critic.init(KEY, batch).q.params, [[1, 0, 0, 0, 0], [-2, 0, 0, 0, 0]])  # Q_i = s_0, -2 s_0
    move = jnp.array([[0.1, 0, 0], [0.2, 0, 0], [-0.3, 0, 0], [0.0, 0, 0]])  # two rows, twice
    near = jnp.tile(batch["observations"], (2, 1)) + move
    far = jnp.array([[1.0, 0, 0], [0.0, 0, 0], [2.0, 0, 0], [1.0, 0, 0]])
    targets = jnp.array([0.0, 1.0])
    loss, metrics = critic.loss(params, targets, near, far, jnp.zeros((4, 2)), jnp.float32(3.0), batch)
    # s_0 is 1 and 0: Q = (1, -2), (0, 0)
    assert_close(metrics["td"], (1 + 1) / 2 + (4 + 1) / 2)
    # changes (.1, -.2), (-.3, .6) of row 1 and (.2, -.4), (0, 0) of row 2; .75 up, .25 down, mean of both networks
    first, second = (0.75 * 0.01 + 0.25 * 0.04) / 2, (0.25 * 0.09 + 0.75 * 0.36) / 2
    other = (0.75 * 0.04 + 0.25 * 0.16) / 2
    assert_close(metrics["smoothness"], (max(first, second) + other) / 2)
    # outside: Q = s_0 (1, -2), deviation |s_0| 3 / sqrt(2): (3 * that)^2 averaged over s_0^2 = 1, 0, 4, 1
    assert_close(metrics["ood"], 9 * 4.5 * 6 / 4)
    assert_close(loss, metrics["td"] + 10 * metrics["smoothness"] + 0.5 * metrics["ood"])
    # The penalty pulls each network down by the same amount, whatever the others say: 2 * 3 std / (E n B) a row.
    only = dataclasses.replace(critic, smoothness=0.0, ood=1.0)
    grad = jax.grad(lambda p: only.loss(p, targets, near, far, jnp.zeros((4, 2)), jnp.float32(3.0), batch)[0])(params)
    plain = jax.grad(lambda p: ((critic.qs(p, batch["observations"], batch["actions"]) - targets) ** 2).mean(-1).sum())
    bias = lambda tree: tree["params"]["VmapMLP_0"]["Dense_0"]["bias"]
    assert_close(bias(grad) - bias(plain(params)), [[2 * 3 * 3 / math.sqrt(2) * 4 / 8]] * 2)


def test_dropout_is_no_change_of_the_values(batch):
    critic = RO2OCritic(hidden=(16,), ensemble=2, samples=2, dropout=0.5)
    params, near = critic.init(KEY, batch).q.params, jnp.tile(batch["observations"], (2, 1))
    _, metrics = critic.loss(params, jnp.zeros(2), near, near, jnp.zeros((4, 2)), jnp.float32(1.0), batch, KEY)
    assert_close(metrics["smoothness"], 0.0)


def test_the_penalty_falls_to_its_least(batch, fixed_policy):
    critic = RO2OCritic(hidden=(4,), ensemble=3, samples=2, penalty=1.0, penalty_min=0.4, penalty_decay=0.1)
    state, policy = critic.init(KEY, batch), fixed_policy(0.5, -2.0)
    ood = lambda step: critic.update(state, batch, Actor(policy, (), None, 0.0, jnp.int32(step)), KEY)[1]["ood"]
    at_first = ood(0)
    assert_close([ood(2) / at_first, ood(6) / at_first, ood(9) / at_first], [0.64, 0.16, 0.16], rtol=1e-4)


class Steep:
    """Q(s, a) = a_0 + a_1."""

    def q(self, state, observations, actions):
        return actions.sum(-1)


def test_the_policys_loss_adds_its_largest_change(linear, batch):
    policy = TanhGaussian(action_size=2, hidden=())
    params = policy.init(KEY, batch["observations"], batch["actions"])
    kernel = np.zeros((3, 4))
    kernel[0, 0] = 2.0  # mean_0 = 2 s_0, deviations 1
    params["network"] = linear(params["network"], kernel)
    extraction = SmoothMaxEnt(samples=50, epsilon=0.1, smoothness=3.0, initial_temperature=0.5)
    loss, metrics = extraction.loss(params, extraction.init(), policy, Steep(), (), batch, KEY)
    key_actions, key_near = jax.random.split(KEY)
    near = perturbed(batch["observations"], 0.1, 50, key_near).reshape(50, 2, 3)
    moved = 2 * np.abs(np.asarray(near - batch["observations"]))[..., 0].max(0)
    assert_close(metrics["change"], (moved**2).mean(), rtol=1e-4)  # J of N(m, 1) and N(m + d, 1) is d^2
    actions, log_probs = policy.sample_and_log_prob(params, batch["observations"], key_actions)
    assert_close(loss, (0.5 * log_probs - actions.sum(-1)).mean() + 3 * metrics["change"], rtol=1e-4)


def test_the_gradients_are_finite_where_a_compiler_computes_twice():
    """Without optimisation XLA rounds an entry and the largest of them differently; jnp.max then divides 0 by 0."""
    rng = np.random.default_rng(0)
    batch = {"observations": jnp.float32(rng.normal(size=(32, 3))), "next_observations": jnp.zeros((32, 3)),
             "actions": jnp.zeros((32, 1)), "rewards": -jnp.ones(32), "masks": jnp.ones(32)}  # fmt: skip
    algorithm = registry.make("ro2o", 1, {"critic.hidden": (16,), "policy.hidden": (16,)})
    state = algorithm.init(KEY, batch)
    plain = {"xla_backend_optimization_level": 0}
    state, _ = jax.jit(algorithm.update, compiler_options=plain)(state, batch, KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.actor.params))
