"""PA-RL's action optimisation on values of known shape, and what of it critic and policy see."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

from understudy.algorithm import Actor, ActorCritic
from understudy.algorithms.cql import CQLCritic
from understudy.algorithms.pa_rl import ActionOptimisation, pa_rl
from understudy.critics import TD
from understudy.data.replay import Buffer
from understudy.data.samplers import Sampler
from understudy.errors import SettingsError
from understudy.policies.deterministic import Deterministic
from understudy.policies.gaussian import Gaussian
from understudy.run import candidates
from understudy.run.phases import plan, settle

KEY = jax.random.key(0)
GOAL = np.array([0.5, -0.5])
bowl = lambda observations, actions: -((actions - GOAL) ** 2).sum(-1)  # Q(s, a) = -|a - g|^2
rows = lambda *actions: jnp.asarray(actions, jnp.float32)[:, None, :]  # [N, 1, A]
S = jnp.zeros((1, 3))


def test_steps_up_a_bowl_shrink_the_distance_by_one_factor_each():
    start = rows([0.0, 0.0], [0.9, 0.3])
    for steps in (0, 1, 3):
        actions, v = ActionOptimisation(steps=steps, step_size=0.1).climb(bowl, S, start)
        left = (1 - 2 * 0.1) ** steps * (np.asarray(start)[:, 0] - GOAL)  # slope -2 (a - g)
        assert_close(actions[:, 0], GOAL + left)
        assert_close(v[:, 0], -(left**2).sum(-1))


def test_steps_end_at_the_bounds():
    slope = lambda observations, actions: 3 * actions[..., 0] - actions[..., 1]
    actions, v = ActionOptimisation(steps=4, step_size=0.1).climb(slope, S, rows([0.5, 0.1]))
    assert_close(actions[:, 0], [[1.0, -0.3]])  # 0.5 + 4 * 0.3 is cut at 1
    assert_close(v, [[3.3]])


def test_steps_that_overshoot_keep_the_best_on_the_way():
    actions, v = ActionOptimisation(steps=3, step_size=1.25).climb(bowl, S, rows([0.4, -0.5]))
    assert_close(actions[:, 0], [[0.4, -0.5]])  # the distance grows by 1.5 a step
    assert_close(v, [[-0.01]])
    actions, _ = ActionOptimisation(steps=3, step_size=0.5).climb(bowl, S, rows([0.4, -0.5]))
    assert_close(actions[:, 0], [GOAL])


def test_the_best_proposals_are_kept_best_first():
    proposals = rows([-1.0, -0.5], [0.4, -0.5], [1.0, -0.5], [0.5, -0.3])
    assert_close(ActionOptimisation(keep=3).best(bowl, S, proposals)[:, 0], [[0.4, -0.5], [0.5, -0.3], [1.0, -0.5]])
    assert_close(ActionOptimisation(keep=9).best(bowl, S, proposals)[-1, 0], [-1.0, -0.5])
    two = jnp.concatenate([proposals, proposals[::-1]], 1)  # each row is ranked for itself
    assert_close(ActionOptimisation(keep=1).best(bowl, jnp.zeros((2, 3)), two)[0], [[0.4, -0.5]] * 2)


def test_selection_is_by_the_value_after_the_climb():
    q = lambda observations, actions: jnp.where(actions[..., 0] > 0, 0.2 * actions[..., 0], 5 * (0.1 + actions[..., 0]))
    proposals = rows([0.4], [-0.1], [-0.9])  # values .08, 0 and -4; slopes .2 and 5
    select = lambda **kw: ActionOptimisation(**kw).select(q, S, proposals)
    assert_close(select(keep=2, steps=0), [[0.4]])
    assert_close(select(keep=2, steps=1, step_size=0.01), [[-0.05]])
    assert_close(select(keep=1, steps=1, step_size=0.01), [[0.402]])


def test_it_acts_with_the_best_of_the_policys_samples(fixed_policy):
    extraction, policy = ActionOptimisation(samples=8, keep=3, steps=0), fixed_policy(action=None)
    samples = np.stack([policy.sample((), S, k) for k in jax.random.split(KEY, 8)])[:, 0]  # [8, A]
    expected = samples[((samples - GOAL) ** 2).sum(-1).argmin()]
    for greedy in (False, True):
        assert_close(extraction.choose(policy, (), bowl, S, KEY, greedy=greedy), [expected])
    climbed = dataclasses.replace(extraction, steps=50, step_size=0.1).choose(policy, (), bowl, S, KEY)
    assert_close(climbed, [GOAL], atol=1e-3)


PROPOSALS = rows([0.5, -0.4], [0.5, -0.2], [0.5, 0.0], [0.5, 0.5])  # values -.01, -.09, -.25, -1


def optimised(data, step=0, batch_size=1, **settings):
    """`optimise` on PROPOSALS at s and s', the same rows `batch_size` times."""
    settings = {"keep": 3, "steps": 0} | settings
    many = lambda x: jnp.repeat(x, batch_size, -2)
    batch = {"observations": many(S), "next_observations": many(S), "actions": many(jnp.asarray([data]))}
    proposals = {"observations": many(PROPOSALS), "next_observations": many(PROPOSALS[1:])}
    return ActionOptimisation(**settings).optimise(bowl, batch, proposals, KEY, step)


def test_the_recorded_action_takes_the_place_of_the_worst_that_was_kept():
    prepared, chosen = optimised([0.5, -0.1], distil="all")
    assert_close(prepared["targets"][:, 0], [[0.5, -0.4], [0.5, -0.2], [0.5, -0.1]])
    e = np.exp([-0.01, -0.09, -0.16])
    assert_close(prepared["weights"][:, 0], e / e.sum())
    assert_close(chosen["observations"], [[0.5, -0.4]])
    assert_close(chosen["next_observations"], [[0.5, -0.2]])
    assert_close(prepared["gains"], [-0.01 - (-0.01 - 0.09 - 0.25 - 1) / 4])
    climbed, _ = optimised([0.5, 1.0], distil="all", steps=1, step_size=0.25)
    assert_close(climbed["targets"][-1, 0], [0.5, 0.25])  # half of the way to the goal


def test_a_recorded_action_is_imitated_but_not_chosen():
    prepared, chosen = optimised([0.5, -0.5], distil="best")
    assert_close(prepared["targets"], [[[0.5, -0.5]]])
    assert_close(chosen["observations"], [[0.5, -0.4]])


def test_one_optimised_action_is_drawn_by_softmax():
    prepared, _ = optimised([-1.0, 1.0], batch_size=4000)  # values -.01, -.09 and -4.5
    drawn = np.asarray(prepared["targets"])[0, :, 1]
    e = np.exp([-0.01, -0.09, -4.5])
    for action, share in zip((-0.4, -0.2, 1.0), e / e.sum()):
        assert_close(np.isclose(drawn, action).mean(), share, atol=0.02)
    assert_close(prepared["weights"], np.ones((1, 4000)))


def test_at_first_the_policy_imitates_the_data():
    for distil in ("softmax", "best", "all"):
        before, _ = optimised([0.5, 0.9], step=4, imitation_steps=5.0, distil=distil)
        assert_close(before["targets"], np.broadcast_to([0.5, 0.9], before["targets"].shape))
        assert_close(before["weights"].sum(0), [1.0])
        after, _ = optimised([0.5, 0.9], step=5, imitation_steps=5.0, distil=distil)
        assert not np.isclose(after["targets"][0, 0, 1], 0.9)


def test_the_offline_phase_fills_in_how_long():
    steps = lambda **lengths: settle(pa_rl(2), plan(**lengths)).extraction.imitation_steps
    assert steps(offline=300, online=50) == 300.0
    assert steps(online=50, data=False) == 0.0
    asked = dataclasses.replace(pa_rl(2), extraction=ActionOptimisation(imitation_steps=7.0))
    assert settle(asked, plan(offline=300)).extraction.imitation_steps == 7.0


def test_loss_is_the_policys_own_on_the_targets(constant, batch):
    policy = Deterministic(action_size=2, hidden=(4,))
    params = constant(policy.init(KEY, batch["observations"], batch["actions"]), [0.0, 0.0])  # a = 0
    prepared = batch | {
        "targets": jnp.array([[[0.5, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.5, 0.5]]]),  # |a|^2: .25, 0; 1, .5
        "weights": jnp.array([[0.2, 0.6], [0.8, 0.4]]),
        "gains": jnp.array([1.0, 2.0]),
    }
    loss, metrics = ActionOptimisation().loss(params, (), policy, None, (), prepared, KEY)
    assert_close(loss, ((0.2 * 0.25 + 0.8 * 1.0) + (0.6 * 0.0 + 0.4 * 0.5)) / 2)
    assert_close(metrics["imitation"], loss)
    assert_close(metrics["gain"], 1.5)


def test_proposals_come_from_the_policy_or_from_the_batch(batch, fixed_policy):
    stored = jnp.linspace(-1, 1, 12).reshape(2, 3, 2)  # [B, k, A]
    cached = batch | {"candidates": stored, "next_candidates": -stored}
    prepare = lambda batch, **kw: ActionOptimisation(samples=3, steps=0, **kw).prepare(
        fixed_policy(action=0.25), (), bowl, batch, KEY, 0)[1]  # fmt: skip
    assert_close(prepare(cached)["observations"], [[0.25, 0.25]] * 2)
    best = lambda x: np.asarray(x)[np.arange(2), np.asarray(bowl(None, x)).argmax(1)]
    assert_close(prepare(cached, cached=True)["observations"], best(stored))
    assert_close(prepare(cached, cached=True)["next_observations"], best(-stored))
    assert set(prepare({k: v for k, v in batch.items() if not k.startswith("next")})) == {"observations"}
    algorithm = ActorCritic(critic=TD(hidden=(4,)), extraction=ActionOptimisation(cached=True),
                            policy=Deterministic(action_size=2, hidden=(4,)))  # fmt: skip
    assert algorithm.requires - TD.requires == {"candidates", "next_candidates"}
    message = r"ActionOptimisation needs batch keys \['candidates', 'next_candidates'\].*extraction.cached = False"
    with pytest.raises(SettingsError, match=message):
        algorithm.init(KEY, batch)


def test_critics_back_up_the_chosen_action(linear, batch, fixed_policy):
    chosen = {"next_observations": jnp.array([[0.7, 0.0], [0.1, 0.0]])}
    actor = Actor(fixed_policy(0.25), (), lambda s, key: jnp.full((2, 2), 0.25), chosen=chosen)
    assert_close(actor.choose_at(batch, "next_observations", KEY), chosen["next_observations"])
    assert_close(actor.choose_at(batch, "observations", KEY), [[0.25, 0.25]] * 2)
    for critic in (TD(hidden=(), ensemble=1, discount=1.0),
                   CQLCritic(hidden=(), ensemble=1, discount=1.0, importance=False)):  # fmt: skip
        state = critic.init(KEY, batch)
        state = dataclasses.replace(state, target=linear(state.target, [0, 0, 0, 1, 0]))  # Q(s, a) = a_0
        assert_close(critic.target(state, batch, actor, KEY), [1 + 0.7, 2.0])


def test_a_conservative_gap_without_densities_takes_what_the_extraction_chooses(linear, batch):
    critic = CQLCritic(hidden=(), ensemble=1, samples=3, importance=False)
    assert critic.needs == () and CQLCritic(importance=False, entropy=True).needs == CQLCritic().needs
    choose = lambda s, key: jax.random.uniform(key, (2, 2))
    actor = Actor(None, (), choose)
    drawn, log_probs = critic.draw(actor, batch, "observations", KEY)
    assert_close(drawn, np.stack([choose(None, k) for k in jax.random.split(KEY, 3)]))
    assert_close(log_probs, np.zeros((3, 2)))
    repeat = dataclasses.replace(critic, repeat=True)
    drawn, log_probs = repeat.draw(actor, batch, "observations", KEY)
    assert_close(drawn, choose(None, jax.random.split(KEY, 1)[0])[None])  # valued once, it counts three times
    assert log_probs.shape == (1, 2)
    state = critic.init(KEY, batch)
    state = dataclasses.replace(state, q=dataclasses.replace(state.q, params=linear(state.q.params, [0, 0, 0, 1, 0])))
    here, following = jnp.array([[0.7, 0.0], [0.1, 0.0]]), jnp.array([[-0.2, 0.0], [0.3, 0.0]])
    actor = Actor(None, (), None, chosen={"observations": here, "next_observations": following})
    _, metrics = repeat.update(state, batch, actor, KEY)
    uniform = repeat.proposals(batch, actor, jax.random.split(KEY)[1])[0][:3, :, 0]
    data = np.array([0.5, 0.0])
    three = lambda x: 3 * np.exp(np.asarray(x)[:, 0])
    pushed = np.exp(uniform).sum(0) + three(here) + three(following) + np.exp(data)
    assert_close(metrics["gap"], (np.log(pushed) - data).mean())


def test_an_update_optimises_under_the_critic_before_its_step(batch, fixed_policy):
    """What the policy imitates is optimised under the networks that the update began with."""
    algorithm = ActorCritic(critic=TD(hidden=(8,), learning_rate=0.1), policy=Deterministic(action_size=2, hidden=(4,)),
                            extraction=ActionOptimisation(samples=2, distil="best", step_size=0.1))  # fmt: skip
    state = algorithm.init(KEY, batch)
    _, metrics = algorithm.update(state, batch, KEY)
    q = lambda s, a: algorithm.critic.q(state.critic, s, a)
    prepared, _ = algorithm.extraction.prepare(
        algorithm.policy, state.actor.params, q, batch, jax.random.fold_in(KEY, 2), 0
    )
    own = algorithm.policy.mode(state.actor.params, batch["observations"])
    assert_close(metrics["actor/imitation"], ((prepared["targets"][0] - own) ** 2).sum(-1).mean())
    assert float(metrics["actor/gain"]) >= 0
    assert not math.isclose(float(metrics["actor/imitation"]), 0.0)


def test_stored_proposals_are_the_policys_samples_whatever_the_size_of_the_pieces():
    algorithm = ActorCritic(critic=TD(hidden=(4,)), policy=Gaussian(action_size=2, hidden=(4,)),
                            extraction=ActionOptimisation(samples=3, cached=True))  # fmt: skip
    count = 7
    column = lambda *shape: jnp.linspace(0, 1, count * math.prod(shape)).reshape(count, *shape)
    data = {"observations": column(3), "next_observations": -column(3), "actions": column(2), "rewards": column(),
            "masks": column(), "ends": jnp.arange(count) == 6}  # fmt: skip
    state = algorithm.init(KEY, data | {"candidates": column(3, 2), "next_candidates": column(3, 2)})
    buffer = Buffer.full(data)
    filled = buffer.beside(candidates.columns(algorithm, state.actor.params, buffer, KEY))
    assert filled.data["candidates"].shape == filled.data["next_candidates"].shape == (count, 3, 2)
    pieces = candidates.columns(algorithm, state.actor.params, buffer, KEY, rows=3)
    for name, which, key in zip(("candidates", "next_candidates"), ("observations", "next_observations"),
                                jax.random.split(KEY)):  # fmt: skip
        assert_close(filled.data[name], pieces[name])
        keys = jax.random.split(jax.random.fold_in(key, 5), 3)
        own = [algorithm.policy.sample(state.actor.params, data[which][5:6], k)[0] for k in keys]
        assert_close(filled.data[name][5], own)
    batch = Sampler(batch_size=4)({"prior": filled}, KEY)
    _, metrics = algorithm.update(state, batch, KEY)
    assert all(bool(jnp.isfinite(v)) for v in metrics.values())
    two_steps = Sampler(n_step=2).read(filled, jnp.array([2]))
    assert_close(two_steps["candidates"], filled.data["candidates"][2:3])
    assert_close(two_steps["next_candidates"], filled.data["next_candidates"][3:4])
