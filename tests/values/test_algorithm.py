"""core and ActorCritic: optimiser steps, Polyak averages, delays, and the order of an update."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from asserting import assert_close

from understudy import core
from understudy.algorithm import ActorCritic, Critic
from understudy.core import pytree
from understudy.errors import SettingsError
from understudy.extractions import DDPGBC, Imitate
from understudy.policies.deterministic import Deterministic
from understudy.run.policy import bare

KEY = jax.random.key(0)


def test_descend_takes_one_adam_step_and_reports_the_loss():
    optimiser = core.adam(0.1)
    net, metrics = core.descend(core.net(jnp.float32(3.0), optimiser), optimiser, lambda x, y: ((x - y) ** 2, {}), 1.0)
    assert_close(net.params, 2.9)  # Adam's first step has the size of the rate
    assert_close(metrics["loss"], 4.0)


def test_adam_steps_as_optax_does():
    grads = np.random.default_rng(0).normal(size=(20, 7)) * 10.0 ** np.arange(-4, 3)
    ours, theirs = core.scale_by_adam(), optax.scale_by_adam()
    state, reference = ours.init(jnp.ones(7)), theirs.init(jnp.ones(7))
    assert jax.tree.structure(state) == jax.tree.structure(reference)
    for g in jnp.asarray(grads, jnp.float32):
        step, state = ours.update(g, state)
        expected, reference = theirs.update(g, reference)
        assert_close(step, expected, rtol=2e-5, atol=0)  # optax's 1 - b2^t carries float32 cancellation
    assert_close(state.nu, reference.nu)


def test_adam_s_epsilon_stays_outside_the_root():
    """First step: m / (1 - b1) = g and v / (1 - b2) = g^2, so it is -rate g / (|g| + eps)."""
    optimiser = core.adam(0.5)
    updates, _ = optimiser.update(jnp.array([3.0, -2e-8]), optimiser.init(jnp.zeros(2)))
    assert_close(updates, [-0.5, 0.5 * 2 / 3])


def test_adam_decays_along_half_a_cosine_and_is_constant_after_it():
    optimiser = core.adam(0.1, 4.0, 0.3)
    net, steps = core.net(jnp.float32(0.0), optimiser), []
    for _ in range(6):
        after, _ = core.descend(net, optimiser, lambda x: (-x, {}))
        steps.append(float(after.params - net.params))
        net = after
    half = 0.5 * (1 + math.cos(math.pi / 4))
    assert_close(steps, [0.1, 0.1 * half, 0.05, 0.1 * (1 - half), 0.03, 0.03], rtol=1e-4, atol=1e-6)


def test_polyak_prefix_and_batch_size():
    assert_close(core.polyak({"x": jnp.float32(1.0)}, {"x": jnp.float32(3.0)}, 0.25)["x"], 1.5)
    assert core.prefix("critic", {"loss": 1}) == {"critic/loss": 1}
    assert core.batch_size({"a": jnp.zeros((7, 2)), "b": jnp.zeros((7, 3))}) == 7


@pytree
class Counting(Critic):
    """Its state counts its updates, so that what the policy sees is known. Q = updates so far."""

    def init(self, key, batch):
        return jnp.float32(0.0)

    def q(self, state, observations, actions):
        return jnp.full(observations.shape[0], state) + 0 * actions.sum(-1)

    def update(self, state, batch, actor, key):
        return state + 1, {"backup": actor.choose(batch["next_observations"], key)[0, 0], "step": actor.step}


def test_the_policy_sees_the_critic_after_its_step_and_waits_its_turn(batch):
    policy = Deterministic(action_size=2, hidden=(4,))
    algorithm = ActorCritic(critic=Counting(), extraction=DDPGBC(alpha=1.0), policy=policy, target_policy=True,
                            target_policy_tau=0.5, policy_delay=3, learning_rate=0.1)  # fmt: skip
    state = algorithm.init(KEY, batch)
    bias = lambda params: np.asarray(params["params"]["Dense_1"]["bias"])
    start = bias(state.actor.params)
    seen = []
    for i in range(4):
        state, metrics = algorithm.update(state, batch, jax.random.fold_in(KEY, i))
        seen.append((float(metrics["actor/q"]), float(metrics["critic/step"])))
        assert (bias(state.actor.params) != start).any() == (i >= 2)
    assert seen == [(0.0, 0.0), (0.0, 1.0), (3.0, 2.0), (3.0, 3.0)]  # the third update moves the policy; then repeated
    assert_close(bias(state.target), (start + bias(state.actor.params)) / 2)


def test_a_delayed_policy_stays_one_branch_where_seeds_run_in_step(batch):
    """`vmap` makes a `cond` on what each seed has of its own into a choice between two results, both computed."""
    policy = Deterministic(action_size=2, hidden=(4,))
    algorithm = ActorCritic(critic=Counting(), extraction=DDPGBC(), policy=policy, policy_delay=2)
    keys = jax.random.split(KEY, 3)
    states = jax.vmap(lambda k: algorithm.init(k, batch))(keys)
    together = jax.vmap(lambda state, key: algorithm.update(state, batch, key))
    assert " cond[" in str(jax.make_jaxpr(together)(states, keys))
    first, _ = together(states, keys)
    second, _ = together(first, keys)
    alone = jax.tree.map(lambda x: x[1], states)
    for _ in range(2):
        alone, _ = algorithm.update(alone, batch, keys[1])
    jax.tree.map(assert_close, jax.tree.map(lambda x: x[1], second), alone)


def test_backups_use_the_target_policy(batch, constant):
    algorithm = ActorCritic(critic=Counting(), extraction=DDPGBC(), policy=Deterministic(action_size=2, hidden=(4,)),
                            target_policy=True)  # fmt: skip
    state = algorithm.init(KEY, batch)
    target = constant(state.target, [0.5 * math.log(3), 0.0])
    _, metrics = algorithm.update(dataclasses.replace(state, target=target), batch, KEY)
    assert_close(metrics["critic/backup"], 0.5)


@pytest.mark.parametrize("target_policy", [False, True])
def test_the_average_acts_where_asked_and_is_backed_up_only_by_target_policy(batch, constant, target_policy):
    algorithm = ActorCritic(critic=Counting(), extraction=DDPGBC(exploration=0.0), target_policy_tau=0.25,
                            policy=Deterministic(action_size=2, hidden=(4,)), act_average=True,
                            target_policy=target_policy, learning_rate=0.1)  # fmt: skip
    state = algorithm.init(KEY, batch)
    state = dataclasses.replace(
        state, target=constant(state.target, [0.5 * math.log(3), 0.0]),
        actor=dataclasses.replace(state.actor, params=constant(state.actor.params, [0.0, 0.0])),
    )  # fmt: skip
    for greedy in (False, True):
        assert_close(algorithm.act(state, batch["observations"], KEY, greedy=greedy)[0], [[0.5, 0.0]] * 2)
    after, metrics = algorithm.update(state, batch, KEY)
    assert_close(metrics["critic/backup"], 0.5 if target_policy else 0.0)
    jax.tree.map(lambda t, o, n: assert_close(n, 0.75 * t + 0.25 * o), state.target, after.actor.params, after.target)
    deployed = bare(after)
    assert deployed.actor.opt == ()
    assert_close(
        algorithm.act(deployed, batch["observations"], KEY)[0], algorithm.act(after, batch["observations"], KEY)[0]
    )


def test_no_average_is_kept_where_none_is_used(batch):
    algorithm = ActorCritic(critic=Counting(), extraction=DDPGBC(), policy=Deterministic(action_size=2, hidden=(4,)))
    assert algorithm.init(KEY, batch).target == ()


def test_acting_greedily_adds_no_noise(batch):
    algorithm = ActorCritic(critic=Counting(), extraction=DDPGBC(exploration=0.5),
                            policy=Deterministic(action_size=2, hidden=(4,)))  # fmt: skip
    state = algorithm.init(KEY, batch)
    mode = algorithm.policy.mode(state.actor.params, batch["observations"])
    greedy, carry = algorithm.act(state, batch["observations"], KEY, greedy=True)
    assert_close(greedy, mode)
    assert carry == ()
    assert float(jnp.abs(algorithm.act(state, batch["observations"], KEY)[0] - mode).max()) > 0.05


def test_missing_keys_say_what_to_do(batch):
    algorithm = ActorCritic(critic=Counting(), extraction=Imitate(), policy=Deterministic(action_size=2))
    del batch["rewards"]
    with pytest.raises(SettingsError, match=r"Counting needs batch keys \['rewards'\]; got .* data set with rewards"):
        algorithm.init(KEY, batch)
