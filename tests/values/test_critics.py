"""Each critic with Q networks of known output: targets, losses, targets' Polyak steps."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

from understudy.algorithm import Actor, ActorCritic
from understudy.algorithms.bc import NoCritic
from understudy.algorithms.cql import CQLCritic
from understudy.algorithms.iql import IQLCritic
from understudy.algorithms.rebrac import ReBRACCritic
from understudy.algorithms.sac import SoftTD
from understudy.critics import TD, smooth
from understudy.errors import SettingsError
from understudy.extractions import Imitate
from understudy.policies.gaussian import Gaussian

KEY = jax.random.key(0)


def actor_of(policy, temperature=0.0, step=0):
    choose = lambda observations, key: policy.sample((), observations, key)
    return Actor(policy, (), choose, temperature, step)


@pytest.fixture
def known(constant, batch):
    """known(critic, q, target): its state with constant networks, and the state of the test's batch."""

    def make(critic, q, target):
        state = critic.init(KEY, batch)
        column = lambda v: jnp.asarray(v)[:, None]
        params = constant(state.q.params, column(q))
        return dataclasses.replace(
            state, q=dataclasses.replace(state.q, params=params), target=constant(state.target, column(target))
        )

    return make


# --- QCritic and TD -----------------------------------------------------------------------------------------------
def test_q_and_next_q_reduce_online_and_target_networks(known, batch):
    critic = TD(hidden=(4,))
    state = known(critic, [1.0, 2.0], [3.0, 5.0])
    s, a = batch["observations"], batch["actions"]
    assert_close(critic.qs(state.q.params, s, a), [[1.0] * 2, [2.0] * 2])
    assert_close(critic.q(state, s, a), [1.0, 1.0])
    assert_close(dataclasses.replace(critic, aggregate="mean").q(state, s, a), [1.5, 1.5])
    assert_close(critic.next_q(state, s, a, KEY), [3.0, 3.0])
    assert_close(dataclasses.replace(critic, backup="mean").next_q(state, s, a, KEY), [4.0, 4.0])


def test_a_subset_backs_up_random_networks(known, batch):
    critic = TD(hidden=(4,), ensemble=3, subset=2)
    state = known(critic, [0.0] * 3, [1.0, 2.0, 3.0])
    q = lambda k: critic.next_q(state, batch["observations"], batch["actions"], k)[0]
    values = np.asarray(jax.vmap(q)(jax.random.split(KEY, 300)))
    assert set(values) == {1.0, 2.0}  # the lesser of two different ones: (1,2) (1,3) -> 1, (2,3) -> 2
    assert_close((values == 1).mean(), 2 / 3, atol=0.1)


def test_the_lower_bound_reduces_online_and_target_networks(known, batch):
    critic = TD(hidden=(4,), backup="lcb", aggregate="lcb", lcb_beta=2.0)
    state = known(critic, [1.0, 2.0], [3.0, 5.0])
    assert_close(critic.q(state, batch["observations"], batch["actions"]), [1.5 - 2 * 0.5] * 2)
    assert_close(critic.next_q(state, batch["observations"], batch["actions"], KEY), [4.0 - 2 * 1.0] * 2)


BOOTSTRAP = [TD(), SoftTD(entropy=False), SoftTD(), ReBRACCritic(target_noise=0.0), CQLCritic(samples=2),
             CQLCritic(samples=2, max_target_backup=True)]  # fmt: skip


@pytest.mark.parametrize("critic", BOOTSTRAP, ids=lambda c: type(c).__name__)
def test_every_critic_that_backs_up_q_can_take_a_subset(known, batch, fixed_policy, critic):
    critic = dataclasses.replace(critic, hidden=(4,), ensemble=3, subset=1, discount=1.0)
    state, actor = known(critic, [0.0] * 3, [1.0, 2.0, 3.0]), actor_of(fixed_policy(0.5), temperature=0.0)
    batch |= {"next_actions": jnp.full((2, 2), 0.5), "next_valids": jnp.ones(2)}
    seen = {round(float(critic.target(state, batch, actor, k)[0]), 4) for k in jax.random.split(KEY, 20)}
    assert seen == {2.0, 3.0, 4.0}  # the reward, and any one of the three


def test_td_target_stops_at_terminals_only(known, batch, fixed_policy):
    critic = TD(hidden=(4,), discount=0.9)
    state = known(critic, [1.0, 2.0], [3.0, 5.0])
    assert_close(critic.target(state, batch, actor_of(fixed_policy()), KEY), [1 + 0.9 * 3, 2.0])
    critic = dataclasses.replace(critic, backup="mean")
    assert_close(critic.target(state, batch, actor_of(fixed_policy()), KEY), [1 + 0.9 * 4, 2.0])


def test_td_update_reports_the_loss_and_moves_the_targets_at_their_period(known, batch, fixed_policy):
    critic = TD(hidden=(4,), discount=0.9, learning_rate=0.0, tau=0.25, target_period=2)
    state = known(critic, [1.0, 2.0], [3.0, 5.0])
    same, metrics = critic.update(state, batch, actor_of(fixed_policy(), step=0), KEY)
    assert_close(metrics["loss"], (2.7**2 + 1) / 2 + (1.7**2 + 0) / 2)
    assert_close(metrics["q"], 1.5)
    assert_close(metrics["target"], (3.7 + 2.0) / 2)
    value = lambda s: critic.qs(s.target, batch["observations"], batch["actions"])[:, 0]
    assert_close(value(same), [3.0, 5.0])  # the targets wait for the end of the update
    assert_close(value(critic.follow(same, 0)), [3.0, 5.0])
    assert_close(value(critic.follow(same, 1)), [0.75 * 3 + 0.25 * 1, 0.75 * 5 + 0.25 * 2])


def test_target_noise_is_clipped_twice():
    actions = jnp.full((1000, 1), 0.9)
    assert_close(np.unique(smooth(actions, 1e6, 0.05, KEY)), [0.85, 0.95])
    assert_close(np.unique(smooth(actions, 1e6, 0.5, KEY)), [0.4, 1.0])
    assert_close(smooth(actions, 0.0, 0.5, KEY), actions)
    assert_close(smooth(jnp.zeros((20_000, 1)), 0.1, 0.5, KEY).std(), 0.1, atol=0.002)


def test_td_values_the_smoothed_action(linear, batch, fixed_policy):
    critic = TD(hidden=(), ensemble=1, discount=1.0, target_noise=1e6, target_noise_clip=0.25)
    state = critic.init(KEY, batch)
    state = dataclasses.replace(state, target=linear(state.target, [0, 0, 0, 1, 0]))  # Q(s, a) = a_0
    target = critic.target(state, batch, actor_of(fixed_policy(0.5)), KEY)
    assert round(float(target[0]), 5) in (1.25, 1.75)


# --- categorical heads --------------------------------------------------------------------------------------------
@pytest.fixture
def with_odds(constant, batch):
    """with_odds(critic, q, target): its state with networks that give these odds [E, bins] whatever their input."""

    def make(critic, q, target):
        state = critic.init(KEY, batch)
        params = constant(state.q.params, jnp.log(jnp.array(q)))
        return dataclasses.replace(state, q=dataclasses.replace(state.q, params=params),
                                   target=constant(state.target, jnp.log(jnp.array(target))))  # fmt: skip

    return make


TWO_HOT = dict(hidden=(4,), head="two_hot", bins=3, v_min=0.0, v_max=4.0, discount=0.9, learning_rate=0.0)
ONLINE, TARGET = [[1.0, 1.0, 2.0], [2.0, 1.0, 1.0]], [[1.0, 2.0, 1.0], [1.0, 1.0, 2.0]]  # means 2.5 1.5, 2 2.5


def test_the_support_of_each_head():
    critic = TD(head="hl_gauss", bins=3, v_min=0.0, v_max=3.0)
    assert_close(critic.support, [0.5, 1.5, 2.5])
    assert_close(dataclasses.replace(critic, head="two_hot").support, [0.0, 1.5, 3.0])


def test_an_empty_range_is_refused(batch):
    algorithm = ActorCritic(critic=TD(head="hl_gauss", v_min=0.0), extraction=Imitate(), policy=Gaussian(action_size=2))
    with pytest.raises(SettingsError, match="critic.v_min is 0 and critic.v_max 0; a categorical head needs a range"):
        algorithm.check(batch)
    dataclasses.replace(algorithm, critic=TD(v_min=0.0)).check(batch)  # a scalar has no range


def test_targets_are_clipped_to_the_range_then_projected():
    critic = TD(head="hl_gauss", bins=3, v_min=0.0, v_max=3.0, sigma_ratio=0.5)
    mass = lambda x: 0.5 * math.erf(x / 0.5 / math.sqrt(2))  # of N(0, 0.5) between 0 and x
    inside = np.array([mass(1.2) - mass(0.2), mass(0.2) + mass(0.8), mass(1.8) - mass(0.8)])
    end = np.array([mass(1), mass(2) - mass(1), mass(3) - mass(2)])
    assert_close(critic.project(jnp.array([1.2, -7.0])), [inside / inside.sum(), end / end.sum()])
    wide = TD(head="hl_gauss", bins=3, v_min=-4.0, v_max=2.0, sigma_ratio=0.5)  # the same in bins of width 2
    assert_close(wide.project(jnp.array([-1.6, -9.0])), critic.project(jnp.array([1.2, -7.0])))
    assert_close(
        dataclasses.replace(critic, head="two_hot").project(jnp.array([0.75, 9.0])), [[0.5, 0.5, 0], [0, 0, 1]]
    )


def test_td_with_a_categorical_head(with_odds, batch, fixed_policy):
    critic = TD(**TWO_HOT)
    state, actor = with_odds(critic, ONLINE, TARGET), actor_of(fixed_policy())
    s, a = batch["observations"], batch["actions"]
    assert_close(critic.qs(state.q.params, s, a), [[2.5] * 2, [1.5] * 2])
    assert_close(critic.q(state, s, a), [1.5] * 2)
    assert_close(critic.target(state, batch, actor, KEY), [1 + 0.9 * 2, 2.0])
    _, metrics = critic.update(state, batch, actor, KEY)
    first = (0.6 * math.log(4) + 0.4 * math.log(2) + math.log(4)) / 2  # 2.8 is 0.6 of 2 and 0.4 of 4
    assert_close(metrics["loss"], first + math.log(4))
    assert_close([metrics[k] for k in ("q", "target", "clipped")], [2.0, 2.4, 0.0])
    beyond = batch | {"rewards": jnp.array([1.0, 5.0])}  # a target of 5 counts as 4
    _, metrics = critic.update(state, beyond, actor, KEY)
    assert_close(metrics["loss"], (0.6 * math.log(4) + 0.4 * math.log(2) + math.log(2)) / 2 + math.log(4))
    assert_close(metrics["clipped"], 0.5)
    assert "clipped" not in TD(hidden=(4,)).update(TD(hidden=(4,)).init(KEY, batch), batch, actor, KEY)[1]


def test_iql_with_a_categorical_head(with_odds, constant, batch):
    critic = IQLCritic(**TWO_HOT)
    state = with_odds(critic, ONLINE, TARGET)
    state = dataclasses.replace(state, v=dataclasses.replace(state.v, params=constant(state.v.params, 2.0)))
    assert_close(critic.advantage(state, batch["observations"], batch["actions"]), [0.0, 0.0])
    _, metrics = critic.update(state, batch, actor_of(None), KEY)
    assert_close(metrics["loss"], (0.6 * math.log(4) + 0.4 * math.log(2) + math.log(4)) / 2 + math.log(4))
    assert_close(metrics["v/v"], 2.0)


def test_cql_with_a_categorical_head_takes_its_gap_between_values(with_odds, batch, fixed_policy):
    critic = CQLCritic(**TWO_HOT, weight=3.0, samples=2)
    state = with_odds(critic, ONLINE, TARGET)
    _, metrics = critic.update(state, batch, actor_of(fixed_policy(log_prob=-2.0)), KEY)
    gap = math.log(2 * 2**2 + 4 * math.exp(2))  # the same for both networks: each is flat in the action
    td = (0.6 * math.log(4) + 0.4 * math.log(2) + math.log(4)) / 2 + math.log(4)
    assert_close([metrics[k] for k in ("td", "gap", "q", "q_sampled", "clipped")], [td, gap, 2.0, 2.0, 0.0])
    assert_close(metrics["loss"], td + 3.0 * 2 * gap)


def test_gradients_of_the_value_reach_the_action(linear, batch):
    critic = TD(hidden=(), ensemble=1, head="two_hot", bins=2, v_min=-1.0, v_max=3.0)
    state = critic.init(KEY, batch)
    kernel = jnp.zeros((5, 2)).at[3, 1].set(2.0)  # odds exp(2 a_0) of 3 against -1
    state = dataclasses.replace(state, q=dataclasses.replace(state.q, params=linear(state.q.params, kernel)))
    slope = jax.grad(lambda a: critic.q(state, batch["observations"], a).sum())(batch["actions"])
    p = 1 / (1 + np.exp(-2 * np.array([0.5, 0.0])))
    assert_close(critic.q(state, batch["observations"], batch["actions"]), -1 + 4 * p)
    assert_close(slope, np.stack([4 * 2 * p * (1 - p), np.zeros(2)], 1))


# --- dropout ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("critic", [*BOOTSTRAP, IQLCritic()], ids=lambda c: type(c).__name__)
def test_dropout_thins_the_networks_that_learn(batch, fixed_policy, critic):
    batch |= {"next_actions": jnp.full((2, 2), 0.5), "next_valids": jnp.ones(2)}
    actor, other = actor_of(fixed_policy(0.5)), jax.random.key(1)
    plain = dataclasses.replace(critic, hidden=(64, 64), learning_rate=0.0)
    thin = dataclasses.replace(plain, dropout=0.5)
    state = plain.init(KEY, batch)
    q = lambda critic, key: float(critic.update(state, batch, actor, key)[1]["q"])
    assert q(plain, KEY) == q(plain, other)
    assert len({q(plain, KEY), q(thin, KEY), q(thin, other)}) == 3
    s, a = batch["observations"], batch["actions"]
    np.testing.assert_array_equal(thin.q(state, s, a), plain.q(state, s, a))  # the policy and acting: all units


@pytest.mark.parametrize("critic", BOOTSTRAP, ids=lambda c: type(c).__name__)
def test_dropout_thins_the_networks_of_the_backup(batch, fixed_policy, critic):
    batch |= {"next_actions": jnp.full((2, 2), 0.5), "next_valids": jnp.ones(2)}
    actor, keys = actor_of(fixed_policy(0.5)), jax.random.split(KEY, 3)
    plain = dataclasses.replace(critic, hidden=(64,))
    state = plain.init(KEY, batch)
    seen = lambda critic: len({float(critic.target(state, batch, actor, k)[0]) for k in keys})
    assert (seen(plain), seen(dataclasses.replace(plain, dropout=0.5))) == (1, 3)


# --- IQL ----------------------------------------------------------------------------------------------------------
def test_iql_values_and_losses(known, constant, batch):
    critic = IQLCritic(hidden=(4,), discount=0.9, expectile=0.8, learning_rate=0.0)
    state = known(critic, [1.0, 2.0], [3.0, 5.0])
    v = dataclasses.replace(state.v, params=constant(state.v.params, 2.0))
    state = dataclasses.replace(state, v=v)
    assert_close(critic.advantage(state, batch["observations"], batch["actions"]), [1.0, 1.0])
    _, metrics = critic.update(state, batch, actor_of(None), KEY)
    assert_close(metrics["v/loss"], 0.8)  # u = 3 - 2
    assert_close(metrics["v/v"], 2.0)
    assert_close(metrics["target"], (1 + 0.9 * 2 + 2.0) / 2)
    assert_close(metrics["loss"], (1.8**2 + 1) / 2 + (0.8**2 + 0) / 2)
    learning = dataclasses.replace(critic, learning_rate=0.1)  # Adam's first step takes V from 2 to 2.1
    assert_close(learning.update(state, batch, actor_of(None), KEY)[1]["target"], (1 + 0.9 * 2.1 + 2.0) / 2)
    below = dataclasses.replace(state, v=dataclasses.replace(v, params=constant(v.params, 4.0)))
    assert_close(critic.update(below, batch, actor_of(None), KEY)[1]["v/loss"], 0.2)  # u = 3 - 4


# --- SoftTD -------------------------------------------------------------------------------------------------------
def test_soft_td_counts_the_entropy(known, batch, fixed_policy):
    critic = SoftTD(hidden=(4,), discount=0.9)
    state, actor = known(critic, [1.0, 2.0], [3.0, 5.0]), actor_of(fixed_policy(log_prob=-2.0), temperature=0.5)
    assert_close(critic.target(state, batch, actor, KEY), [1 + 0.9 * (3 + 1), 2.0])
    assert critic.needs == ("sample_and_log_prob",)
    plain = dataclasses.replace(critic, entropy=False)
    assert_close(plain.target(state, batch, actor, KEY), [1 + 0.9 * 3, 2.0])
    assert plain.needs == ()


def test_soft_td_backs_up_what_an_extraction_without_entropy_chooses(known, batch, fixed_policy):
    """Q of either action is its first entry; the policy's sample is 0, the extraction's choice 0.5."""
    critic, policy = SoftTD(hidden=(), discount=0.9), fixed_policy(action=0.0, log_prob=-2.0)
    state = critic.init(KEY, batch)
    chosen = lambda observations, key: jnp.full((len(observations), 2), 0.5)
    q = critic.next_q(state, batch["next_observations"], chosen(batch["next_observations"], KEY), KEY)
    actor = Actor(policy, (), chosen)
    assert_close(critic.target(state, batch, actor, KEY), batch["rewards"] + 0.9 * batch["masks"] * q)
    soft = critic.target(state, batch, dataclasses.replace(actor, temperature=0.0), KEY)
    assert not np.allclose(soft, critic.target(state, batch, actor, KEY))


# --- ReBRAC -------------------------------------------------------------------------------------------------------
def test_rebrac_pays_for_leaving_the_recorded_next_action_where_there_is_one(known, batch, fixed_policy):
    critic = ReBRACCritic(hidden=(4,), discount=0.9, penalty=2.0, target_noise=0.0)
    state = known(critic, [1.0, 2.0], [3.0, 5.0])
    batch |= {"masks": jnp.ones(2), "next_actions": jnp.zeros((2, 2)), "next_valids": jnp.array([1.0, 0.0])}
    target = critic.target(state, batch, actor_of(fixed_policy(0.5)), KEY)
    assert_close(target, [1 + 0.9 * (3 - 2 * 0.5), 2 + 0.9 * 3])  # |(.5, .5)|^2 = .5
    assert critic.requires - TD.requires == {"next_actions", "next_valids"}


# --- CQL and Cal-QL -----------------------------------------------------------------------------------------------
def test_cql_gap_prices_each_proposal_by_its_density(known, batch, fixed_policy):
    critic = CQLCritic(hidden=(4,), weight=3.0, samples=2, discount=0.9, learning_rate=0.0)
    state = known(critic, [1.0, 2.0], [3.0, 5.0])
    _, metrics = critic.update(state, batch, actor_of(fixed_policy(log_prob=-2.0)), KEY)
    gap = math.log(2 * 2**2 + 4 * math.exp(2))  # 2 uniform of density 1/4, 4 of the policy of density exp(-2)
    td = (2.7**2 + 1) / 2 + (1.7**2 + 0) / 2
    assert_close(metrics["gap"], gap)
    assert_close(metrics["td"], td)
    assert_close(metrics["loss"], td + 3.0 * 2 * gap)
    assert_close(metrics["q_sampled"], 1.5)
    with_bound = dataclasses.replace(critic, gap_max=1.5)
    assert_close(with_bound.update(state, batch, actor_of(fixed_policy()), KEY)[1]["gap"], 1.5)
    with_bound = dataclasses.replace(critic, gap_min=50.0)
    assert_close(with_bound.update(state, batch, actor_of(fixed_policy()), KEY)[1]["gap"], 50.0)


def test_cql_without_a_weight_is_plain_td_learning(known, batch, fixed_policy):
    actor, rate = actor_of(fixed_policy(log_prob=-2.0)), dict(hidden=(4,), discount=0.9, learning_rate=0.1)
    for calibrated in (False, True):
        critic = CQLCritic(weight=0.0, samples=2, calibrated=calibrated, max_target_backup=True, **rate)
        state = known(critic, [1.0, 2.0], [3.0, 5.0])
        new, metrics = critic.update(state, batch | {"mc_returns": jnp.full(2, 9.0)}, actor, KEY)
        assert_close(metrics["loss"], (2.7**2 + 1) / 2 + (1.7**2 + 0) / 2)  # y = (1 + .9 * 3, 2)
        assert_close(metrics["td"], metrics["loss"])
        assert metrics["gap"] == metrics["q_sampled"] == metrics.get("bound_rate", 0) == 0
        assert list(metrics)[:3] == ["q", "target", "q_sampled"] and list(metrics)[-2:] == ["gap", "loss"]
        soft = SoftTD(entropy=False, **rate)
        same, _ = soft.update(known(soft, [1.0, 2.0], [3.0, 5.0]), batch, actor, KEY)
        jax.tree.map(assert_close, new.q.params, same.q.params)


def test_cql_without_importance_counts_the_recorded_action_as_well(known, batch, fixed_policy):
    critic = CQLCritic(hidden=(4,), samples=2, importance=False, temperature=2.0)
    state = known(critic, [1.0, 2.0], [3.0, 5.0])
    assert_close(critic.update(state, batch, actor_of(fixed_policy()), KEY)[1]["gap"], 2 * math.log(7))


def test_cal_ql_bounds_the_policys_values_below_by_known_returns(known, batch, fixed_policy):
    critic = CQLCritic(hidden=(4,), ensemble=1, samples=1, calibrated=True)
    state = known(critic, [1.0], [3.0])
    gap = lambda mc: critic.update(state, batch | {"mc_returns": jnp.array(mc)}, actor_of(fixed_policy()), KEY)[1]
    plain = math.log(4 * math.e + 2 * math.exp(1 + 2)) - 1
    bounded = math.log(4 * math.e + 2 * math.exp(2.5 + 2)) - 1  # uniform actions keep their value
    assert_close(gap([-7.0, 0.5])["gap"], plain)
    assert_close(gap([2.5, -jnp.inf])["gap"], (bounded + plain) / 2)
    metrics = gap([2.5, -jnp.inf])
    assert_close(metrics["bound_rate"], 0.5)
    assert all(bool(jnp.isfinite(v)) for v in metrics.values())
    assert critic.requires - TD.requires == {"mc_returns"}
    assert CQLCritic().requires == TD.requires


def test_cql_gradients_stay_finite_where_returns_are_unknown(batch, fixed_policy):
    critic = CQLCritic(hidden=(4,), samples=1, calibrated=True)
    unknown = batch | {"mc_returns": jnp.full(2, -jnp.inf)}
    state, _ = critic.update(critic.init(KEY, unknown), unknown, actor_of(fixed_policy()), KEY)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state))


def test_cql_backs_up_the_best_of_its_samples(linear, batch, fixed_policy):
    critic = CQLCritic(hidden=(), ensemble=1, samples=5, discount=1.0, max_target_backup=True)
    state = critic.init(KEY, batch)
    state = dataclasses.replace(state, target=linear(state.target, [0, 0, 0, 1, 0]))  # Q(s, a) = a_0
    actor = actor_of(fixed_policy(action=None, log_prob=-3.0), temperature=0.5)
    key_actions = jax.random.split(KEY)[0]
    best = critic.draw(actor, batch, "next_observations", key_actions)[0][..., 0].max(0)
    assert_close(critic.target(state, batch, actor, KEY), [1 + best[0], 2.0])
    soft = dataclasses.replace(critic, entropy=True)
    assert_close(soft.target(state, batch, actor, KEY), [1 + best[0] + 1.5, 2.0])


@pytest.mark.parametrize("gap_target, direction", [(0.0, 1), (100.0, -1)])
def test_cql_lagrange_raises_its_multiplier_while_the_gap_exceeds_its_target(
    known, batch, fixed_policy, gap_target, direction
):
    critic = CQLCritic(hidden=(4,), ensemble=1, weight=2.0, samples=1, lagrange=True, gap_target=gap_target,
                       learning_rate=0.1, discount=0.9)  # fmt: skip
    state = known(critic, [1.0], [3.0])
    new, metrics = critic.update(state, batch, actor_of(fixed_policy()), KEY)
    gap = math.log(4 + 2 * math.exp(2))
    assert_close(metrics["loss"], (2.7**2 + 1) / 2 + 2 * math.e * (gap - gap_target))
    assert_close(new.multiplier.params, 1 + 0.1 * direction, rtol=1e-4)  # Adam's first step has the size of the rate
    assert_close(metrics["multiplier"], math.exp(1 + 0.1 * direction), rtol=1e-4)


# --- BC -----------------------------------------------------------------------------------------------------------
def test_no_critic_needs_only_observations_and_actions(batch):
    critic = NoCritic()
    assert critic.requires == {"observations", "actions"}
    assert critic.update(critic.init(KEY, batch), batch, None, KEY) == ((), {})
    assert_close(critic.q((), batch["observations"], batch["actions"]), [0.0, 0.0])
