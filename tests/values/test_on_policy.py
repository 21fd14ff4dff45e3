"""Advantages, the clipped surrogate, rollouts and DPPO's bounds, by hand; and bandits that must be solved."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from understudy.algorithms.dppo import DPPO
from understudy.algorithms.ppo import PPO
from understudy.core import adam, descend
from understudy.errors import SettingsError
from understudy.losses import clipped_surrogate, generalised_advantages
from understudy.on_policy import Rollout
from understudy.policies.deterministic import Deterministic
from understudy.policies.diffusion import Diffusion
from understudy.policies.gaussian import Gaussian
from understudy.policies.mixture import Mixture
from understudy.wrappers import Chunked


def test_advantages_stop_at_ends_and_bootstrap_over_time_outs():
    column = lambda *x: jnp.array(x)[:, None]
    got = generalised_advantages(
        rewards=column(1.0, 2.0, 3.0, 4.0), values=column(0.5, 1.0, 1.5, 2.0), next_values=column(1.0, 10.0, 2.0, 20.0),
        masks=column(1.0, 1.0, 1.0, 0.0), ends=column(0.0, 1.0, 0.0, 1.0), begins=jnp.ones((4, 1)),
        discount=0.5, trace=0.5,
    )  # fmt: skip
    last = 4 - 2.0  # a termination: nothing follows
    third = (3 + 0.5 * 2.0 - 1.5) + 0.25 * last
    second = 2 + 0.5 * 10.0 - 1.0  # a time-out: the value of where it stopped counts, no trace crosses it
    first = (1 + 0.5 * 1.0 - 0.5) + 0.25 * second
    np.testing.assert_allclose(got[:, 0], [first, second, third, last])


def test_a_decision_that_lasts_several_steps_is_one_step_of_the_advantages():
    """Chunks of 2: one whole, one that the episode's end cuts short, then one that the end of what was played cuts."""
    column = lambda *x: jnp.array(x)[:, None]
    got = generalised_advantages(
        rewards=column(1.0, 2.0, 3.0, 4.0), values=column(0.5, 9.0, 1.5, 2.0), next_values=column(9.0, 1.5, 8.0, 6.0),
        masks=column(1.0, 1.0, 1.0, 1.0), ends=column(0.0, 0.0, 1.0, 0.0), begins=column(1.0, 0.0, 1.0, 1.0),
        discount=0.5, trace=0.1,
    )  # fmt: skip
    last = 4 + 0.5 * 6.0 - 2.0
    second = 3 + 0.5 * 8.0 - 1.5  # a time-out
    first = (1 + 0.5 * 2.0 + 0.25 * 1.5 - 0.5) + 0.25 * 0.1 * second
    np.testing.assert_allclose(got[jnp.array([0, 2, 3]), 0], [first, second, last], rtol=1e-6)


def test_the_surrogate_gains_nothing_beyond_the_clip():
    ratio, advantages = jnp.array([0.5, 1.5, 0.5, 1.5]), jnp.array([1.0, 1.0, -1.0, -1.0])
    np.testing.assert_allclose(clipped_surrogate(ratio, advantages, 0.2), [0.5, 1.2, -0.8, -1.5])


def slot(t, lanes=2):
    x = jnp.arange(lanes) * 10.0 + t
    return {"observations": x[:, None], "actions": x[:, None], "next_observations": x[:, None] + 1, "rewards": x,
            "masks": jnp.ones(lanes), "ends": jnp.zeros(lanes, bool), "mc_returns": x}  # fmt: skip


def test_a_rollout_holds_the_last_steps_in_order_and_an_epoch_goes_over_all_of_them_once():
    rollout = Rollout.empty({"observations": jnp.zeros((1, 1)), "actions": jnp.zeros((1, 1))}, steps=3, lanes=2)
    for t in range(6):
        rollout = rollout.add(slot(t))
    np.testing.assert_array_equal(rollout.steps["rewards"], [[3, 13], [4, 14], [5, 15]])
    rollout = rollout.assess(lambda o: 0 * o[..., 0], discount=0.9, trace=0.0)  # no trace: the rewards themselves
    np.testing.assert_array_equal(rollout.advantages, rollout.steps["rewards"])
    seen = []
    for part in range(3):
        rollout, batch = rollout.minibatch(jnp.int32(part), 3, jax.random.key(part))
        assert batch["actions"].shape == (2, 1)
        np.testing.assert_allclose(batch["advantages"].mean(), 0, atol=1e-6)
        np.testing.assert_array_equal(batch["returns"], batch["rewards"])
        seen += batch["returns"].tolist()
    assert sorted(seen) == [3, 4, 5, 13, 14, 15]


def test_an_epoch_goes_over_what_was_decided_and_over_no_step_between():
    rollout = Rollout.empty({"observations": jnp.zeros((1, 1)), "actions": jnp.zeros((1, 1))}, steps=6, lanes=2)
    for t in range(6):
        begins = jnp.array([t % 3 == 0, t % 3 == 1 or t == 5], jnp.float32)  # the second lane's episode ended at 4
        rollout = rollout.add(slot(t) | {"begins": begins})
    rollout = rollout.assess(lambda o: 0 * o[..., 0], discount=1.0, trace=0.0)
    seen = []
    for part in range(2):
        rollout, batch = rollout.minibatch(jnp.int32(part), 2, jax.random.key(0), steps_per_action=3)
        assert batch["begins"].tolist() == [1, 1]
        seen += zip(batch["rewards"].tolist(), batch["returns"].tolist())
    begun = {(0, 0 + 1 + 2), (3, 3 + 4 + 5), (11, 11 + 12 + 13), (14, 14), (15, 15)}
    assert len(set(seen)) == 4 and set(seen) <= begun


def solve(algorithm, bursts: int):
    """One step an episode, reward 1 - (a - 0.5)^2, 16 steps of 8 environments a burst: the state after them, and the
    observations."""
    observations = jnp.ones((8, 1))
    unused = {"observations": observations, "actions": jnp.zeros((8, 1))}
    state = algorithm.init(jax.random.key(0), unused)

    @jax.jit
    def burst(state, key):
        def step(i, state):
            actions, carry = algorithm.act(state, observations, jax.random.fold_in(key, i))
            played = {"observations": observations, "actions": actions, "next_observations": observations,
                      "rewards": 1 - (actions[:, 0] - 0.5) ** 2, "masks": jnp.zeros(8),
                      "ends": jnp.ones(8)}  # fmt: skip
            return algorithm.observe(state, played, carry)

        state = jax.lax.fori_loop(0, 16, step, state)
        body = lambda i, state: algorithm.update(state, unused, jax.random.fold_in(key, 100 + i))[0]
        return jax.lax.fori_loop(0, 16, body, state)

    for i in range(bursts):
        state = burst(state, jax.random.key(i))
    assert int(state.turn) == 0, "a burst is one whole number of epochs"
    return state, observations


BANDIT = dict(hidden=(16,), steps_per_rollout=16, lanes=8, epochs=4, minibatches=4, learning_rate=3e-3)


def test_ppo_finds_the_better_action_from_its_own_play_alone():
    algorithm = PPO(policy=Gaussian(action_size=1, hidden=(16,)), **BANDIT)
    state, observations = solve(algorithm, 40)
    mode, _ = algorithm.act(state, observations, jax.random.key(0), greedy=True)
    np.testing.assert_allclose(mode, 0.5, atol=0.1)
    np.testing.assert_allclose(algorithm.v(state.value.params, observations), 1.0, atol=0.2)


@pytest.mark.parametrize("std, mean", [(1.0, 0.0), (0.1, 0.95)])
@pytest.mark.parametrize("policy", [Gaussian(action_size=2, deviation="state", hidden=(3,)),
                                    Mixture(action_size=2, components=1, hidden=(3,))])  # fmt: skip
def test_the_weight_of_the_entropy_widens_a_gaussian_and_leaves_its_mean(policy, std, mean):
    """H is log sigma and a constant in each dimension, whatever is clipped when it is played."""
    n = 200_000
    batch = {"observations": jnp.ones((n, 1)), "actions": jnp.zeros((n, 2)), "advantages": jnp.zeros(n)}
    params = policy.init(jax.random.key(0), jnp.ones((1, 1)), jnp.zeros((1, 2)))
    wanted = jnp.array([np.arctanh(mean)] * 2 + [np.log(std)] * 2)
    found, structure = jax.tree.flatten(jax.tree.map(jnp.zeros_like, params))
    last = next(i for i, x in enumerate(found) if x.shape == (policy.network.out,))  # its biases
    found[last] = found[last].at[-4:].set(wanted)
    loss = lambda params: PPO(policy=policy, entropy=0.5).policy_loss(params, params, batch, jax.random.key(1))[0]
    slope = jax.tree.leaves(jax.grad(loss)(structure.unflatten(found)))[last][-4:]
    np.testing.assert_allclose(slope[2:], -0.5, atol=0.01)
    np.testing.assert_allclose(slope[:2] / (1 - mean**2), 0.0, atol=0.02 / std)


def test_dppo_finds_it_through_its_denoising_steps():
    policy = Diffusion(action_size=1, hidden=(16,), steps=4)
    algorithm = DPPO(policy=policy, fine_tuned=2, clip=0.2, first_clip=0.1, **BANDIT)
    state, observations = solve(algorithm, 30)
    actions, _ = algorithm.act(state, jnp.ones((64, 1)), jax.random.key(0), greedy=True)
    assert float(((actions - 0.5) ** 2).mean()) < 0.02, "0.04 is a deviation of 0.2"
    start = algorithm.init(jax.random.key(0), {"observations": observations, "actions": jnp.zeros((8, 1))})
    jax.tree.map(np.testing.assert_array_equal, state.base, start.base)


def test_offline_the_policy_is_cloned_and_what_never_changes_live_follows_it():
    batch = {"observations": jnp.ones((4, 1)), "actions": jnp.full((4, 1), 0.3)}
    algorithm = PPO(policy=Gaussian(action_size=1, hidden=(16,)), imitation=1.0, **BANDIT)
    state = algorithm.init(jax.random.key(0), batch)
    after, metrics = jax.jit(algorithm.update)(state, batch, jax.random.key(1))
    loss = lambda params: (-algorithm.policy.log_prob(params, *batch.values()).mean(), {})
    expected, _ = descend(state.actor, adam(algorithm.learning_rate), loss)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after.actor, expected)
    np.testing.assert_allclose(metrics["actor/imitation"], loss(state.actor.params)[0], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after.value, state.value)
    assert int(after.turn) == 0, "no burst has begun"
    algorithm = DPPO(policy=Diffusion(action_size=1, hidden=(16,), steps=4), imitation=1.0, **BANDIT)
    state = algorithm.init(jax.random.key(0), batch)
    after, _ = jax.jit(algorithm.update)(state, batch, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, after.base, after.actor.params)
    assert any(map(np.any, jax.tree.leaves(jax.tree.map(lambda a, b: a != b, after.base, state.base))))


@pytest.mark.parametrize("core", [
    PPO(policy=Gaussian(action_size=1, hidden=(16,)), **BANDIT),
    DPPO(policy=Diffusion(action_size=1, hidden=(16,), steps=4), fine_tuned=2, clip=0.2, first_clip=0.1, **BANDIT),
])  # fmt: skip
def test_a_chunk_learns_from_what_its_single_steps_brought(core):
    """Two steps an episode that look the same, 1 - (a - 0.5)^2 in the first, 1 - (a + 0.5)^2 in the second: no single
    action has more than 1.5 of the 2."""
    algorithm, observations = Chunked(algorithm=core, chunk=2), jnp.ones((8, 1))
    state = algorithm.init(jax.random.key(0), {"observations": observations, "actions": jnp.zeros((8, 2, 1))})
    empty = jax.tree.map(jnp.zeros_like, algorithm.act(state, observations, jax.random.key(0))[1])

    @jax.jit
    def burst(state, carry, key):
        def step(i, now):
            state, carry = now
            actions, carry = algorithm.act(state, observations, jax.random.fold_in(key, i), carry)
            second = jnp.full(8, i % 2, jnp.float32)
            played = {"observations": observations, "actions": actions, "next_observations": observations,
                      "rewards": 1 - (actions[:, 0] - 0.5 + second) ** 2, "masks": 1 - second,
                      "ends": second}  # fmt: skip
            state = algorithm.observe(state, played, carry)
            return state, jax.tree.map(lambda x: jnp.where(i % 2, jnp.zeros_like(x), x), carry)

        state, carry = jax.lax.fori_loop(0, 16, step, (state, carry))
        unused = {"observations": observations, "actions": jnp.zeros((8, 2, 1))}
        body = lambda i, state: algorithm.update(state, unused, jax.random.fold_in(key, i))[0]
        return jax.lax.fori_loop(0, 16, body, state), carry

    carry = empty
    for i in range(50):
        state, carry = burst(state, carry, jax.random.key(i))
    plan = algorithm.act(state, jnp.ones((64, 1)), jax.random.key(0), greedy=True)[1]["plan"]
    error = ((plan[..., 0] - jnp.array([0.5, -0.5])) ** 2).mean()
    assert float(error) < 0.02, "a single action for both has 0.25"


def test_a_chunk_keeps_the_chain_that_it_came_from():
    core = DPPO(policy=Diffusion(action_size=1, hidden=(8,), steps=4), **BANDIT | {"lanes": 2})
    algorithm, observations = Chunked(algorithm=core, chunk=2), jnp.ones((2, 1))
    state = algorithm.init(jax.random.key(0), {"observations": observations, "actions": jnp.zeros((2, 2, 1))})
    _, first = algorithm.act(state, observations, jax.random.key(1))
    _, second = algorithm.act(state, observations, jax.random.key(2), first)
    half = second | {"left": jnp.array([0, 1])}  # the first lane's chunk is over
    _, third = algorithm.act(state, observations, jax.random.key(3), half)
    for old, new in ((first["plan"], third["plan"]), (first["inner"]["chain"], third["inner"]["chain"])):
        np.testing.assert_array_equal(old[1], new[1])
        assert not np.allclose(old[0], new[0])
    np.testing.assert_array_equal(first["plan"], second["plan"])
    np.testing.assert_array_equal(jnp.clip(third["inner"]["chain"][:, -1], -1, 1), third["plan"].reshape(2, -1))


def test_each_denoising_step_of_dppo_has_its_bound_and_its_discount(monkeypatch):
    """Three steps, the first furthest from the action; ratios 1.5, an advantage of 2."""
    algorithm = DPPO(policy=Diffusion(action_size=1), clip=0.3, first_clip=0.1, clip_rate=3.0, denoising_discount=0.5)
    monkeypatch.setattr(DPPO, "log_probs", lambda self, params, *_: params)
    batch = {"observations": None, "chain": None, "advantages": jnp.array([2.0])}
    loss, metrics = algorithm.policy_loss(jnp.full((1, 3), jnp.log(1.5)), jnp.zeros((1, 3)), batch, None)
    middle = 0.1 + 0.2 * (np.exp(1.5) - 1) / (np.exp(3) - 1)
    gains = [1.1 * 0.5, (1 + middle) * 1.0, 1.3 * 2.0]
    np.testing.assert_allclose(-loss, np.mean(gains), rtol=1e-6)
    assert metrics["clipped"] == 1
    alone = DPPO(policy=Diffusion(action_size=1), fine_tuned=1, clip=0.3, first_clip=0.1)
    loss, _ = alone.policy_loss(jnp.log(jnp.array([[1.5]])), jnp.zeros((1, 1)), batch, None)
    np.testing.assert_allclose(-loss, 1.3 * 2.0, rtol=1e-6)


def test_dppo_scores_what_it_has_played_as_it_played_it():
    """A chain of steps mu + 0.2 eps, so that each density is known; the first steps are the base's."""
    policy = Diffusion(action_size=2, hidden=(8,), temperature=0.0)
    algorithm = DPPO(policy=policy, min_std=0.2, noise_clip=9.0)
    batch = {"observations": jnp.ones((4, 3)), "actions": jnp.zeros((4, 2))}
    state = algorithm.init(jax.random.key(0), batch)
    key = jax.random.key(3)
    actions, carry = algorithm.act(state, batch["observations"], key)
    assert carry["chain"].shape == (4, 4, 2)
    np.testing.assert_array_equal(actions, jnp.clip(carry["chain"][:, -1], -1, 1))
    eps = jax.random.normal(jax.random.split(key)[1], (5, 4, 2))[2:]
    expected = np.clip(-0.5 * eps**2 - np.log(0.2 * np.sqrt(2 * np.pi)), -5, 2).mean(-1).T
    got = algorithm.log_probs(state.actor.params, batch["observations"], carry["chain"])
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    another = jax.tree.map(lambda x: x + 0.1, state.actor.params)
    tuned = dataclasses.replace(state, actor=dataclasses.replace(state.actor, params=another))
    _, moved = algorithm.act(tuned, batch["observations"], key)
    np.testing.assert_array_equal(moved["chain"][:, 0], carry["chain"][:, 0])
    assert not np.allclose(moved["chain"][:, 1], carry["chain"][:, 1])
    _, moved = algorithm.act(dataclasses.replace(state, base=another), batch["observations"], key)
    assert not np.allclose(moved["chain"][:, 0], carry["chain"][:, 0])


def test_what_ppo_cannot_use_is_refused():
    batch = {"observations": jnp.zeros((1, 1)), "actions": jnp.zeros((1, 1))}
    with pytest.raises(SettingsError, match="needs a policy with log_prob .* Deterministic is not one"):
        PPO(policy=Deterministic(action_size=1)).init(jax.random.key(0), batch)
    with pytest.raises(SettingsError, match="10 steps of 3 environments do not split into 4 equal minibatches"):
        PPO(policy=Gaussian(action_size=1), steps_per_rollout=10, lanes=3, minibatches=4).init(jax.random.key(0), batch)
    with pytest.raises(SettingsError, match="10 steps of 1 environments do not split .* of chunks of 4 actions"):
        ppo = PPO(policy=Gaussian(action_size=1), steps_per_rollout=10, minibatches=1)
        Chunked(algorithm=ppo, chunk=4).init(jax.random.key(0), batch | {"actions": jnp.zeros((1, 4, 1))})
    for policy in (Gaussian(action_size=1), Diffusion(action_size=1, clip="noisy")):
        with pytest.raises(SettingsError, match="DPPO needs a policy whose denoising steps are Gaussian"):
            DPPO(policy=policy).init(jax.random.key(0), batch)
    with pytest.raises(SettingsError, match="its noise; policy.sampler is 'ddim', give ddpm"):
        DPPO(policy=Diffusion(action_size=1, sampler="ddim")).init(jax.random.key(0), batch)
    with pytest.raises(SettingsError, match="fine_tuned is 6; give at most the 5 steps"):
        DPPO(policy=Diffusion(action_size=1), fine_tuned=6).init(jax.random.key(0), batch)
