"""The novelty bonus and the guide's roll-in, step by step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from understudy import registry
from understudy.algorithms.jsrl import JumpStart
from understudy.algorithms.ooo import Bonus
from understudy.core import pytree, static
from understudy.moments import Moments
from understudy.run.programs import ACT, Player, seed_keys
from understudy.wrappers import Chunked, Wrapper, core_of, shaped

KEY = jax.random.key(0)


@pytree
class Stub:
    """Sums the rewards that it is given; acts its state, the number of its updates."""

    action_size: int = static(1, "size of the action vector")
    requires = frozenset({"observations", "actions", "rewards", "next_observations"})

    def init(self, key, batch):
        return {"count": jnp.float32(0)}

    def update(self, state, batch, key):
        return {"count": state["count"] + 1}, {"rewards": batch["rewards"].mean()}

    def act(self, state, observations, key, carry=(), *, greedy=False):
        return jnp.full((len(observations), 1), state["count"]), carry


def batch_at(x, n=32):
    x = jnp.full((n, 2), x) + 0.01 * jax.random.normal(KEY, (n, 2))
    return {"observations": x, "actions": jnp.zeros((n, 1)), "rewards": jnp.ones(n), "next_observations": x}


def test_running_moments_are_those_of_all_rows():
    x = np.random.default_rng(0).normal(3, 2, size=(30, 4))
    moments = Moments.of(jnp.zeros((1, 4)))
    for part in np.split(x, [5, 17]):
        moments = moments.add(jnp.asarray(part))
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, x.var(0), rtol=1e-3)


def test_what_is_seen_often_earns_less_and_weight_0_earns_nothing():
    algorithm = Bonus(algorithm=Stub(), bonus=2.0, bonus_hidden=(32,), bonus_features=16, bonus_learning_rate=1e-2)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch_at(0.0), batch_at(1.0))
    state = algorithm.init(KEY, mixed)
    update = jax.jit(lambda algorithm, state, batch, i: algorithm.update(state, batch, jax.random.fold_in(KEY, i)))
    for i in range(5):  # both have been seen, so that the moments know the difference
        state, _ = update(algorithm, state, mixed, i)
    for i in range(200):
        state, metrics = update(algorithm, state, batch_at(0.0), i)
    _, often = update(algorithm, state, batch_at(0.0), 0)
    _, seldom = update(algorithm, state, batch_at(1.0), 0)
    assert float(seldom["bonus/bonus"]) > 2 * float(often["bonus/bonus"])
    np.testing.assert_allclose(seldom["rewards"], 1 + 2 * seldom["bonus/bonus"], rtol=1e-5)
    _, none = update(dataclasses.replace(algorithm, bonus=0.0), state, batch_at(1.0), 0)
    assert none["rewards"] == 1.0


def play(algorithm, state, steps, carry=()):
    out = []
    for i in range(steps):
        actions, carry = algorithm.act(state, jnp.zeros((1, 2)), jax.random.fold_in(KEY, i), carry)
        out.append(float(actions[0, 0]))
    return out


def test_the_guide_follows_offline_stays_as_it_is_online_and_plays_the_beginning():
    algorithm = JumpStart(algorithm=Stub(), horizon=4, stages=2, window=2.0, lanes=1)
    state = algorithm.init(KEY, batch_at(0.0))
    for _ in range(3):
        state, _ = algorithm.update(state, batch_at(0.0), KEY)
    online = dataclasses.replace(algorithm, follow=0.0)
    for _ in range(4):
        state, _ = online.update(state, batch_at(0.0), KEY)
    assert play(online, state, 6) == [3, 3, 3, 3, 7, 7]
    assert float(online.act(state, jnp.zeros((1, 2)), KEY, greedy=True)[0][0, 0]) == 7
    ended = lambda r: {"rewards": jnp.array([r]), "ends": jnp.array([True])}
    state = online.observe(state, {"rewards": jnp.array([0.25]), "ends": jnp.array([False])}, ())
    state = online.observe(state, ended(0.75), ())  # one episode of return 1
    assert int(state.stage) == 0
    state = online.observe(state, ended(2.0), ())
    assert int(state.stage) == 1 and float(state.best) == 1.5
    assert play(online, state, 4) == [3, 3, 7, 7]
    for bad in (1.0, 1.0):  # below the best by more than the tolerance
        state = online.observe(state, ended(bad), ())
    assert int(state.stage) == 1
    for good in (2.0, 2.0, 2.0, 2.0):
        state = online.observe(state, ended(good), ())
    assert int(state.stage) == 2 and play(online, state, 2) == [7, 7]


CURRICULUM = {  # return of an episode -> (stage, steps of the guide) after it
    # Means over two: 3 passes as the first; then 2.7 is the bound, missed by 2.6 and met by 2.75; then by 9 and 9.
    "gains": [(2, 0, 12), (4, 1, 8), (2, 1, 8), (3.2, 1, 8), (2.9, 2, 4), (9, 2, 4), (9, 3, 0), (20, 3, 0), (20, 3, 0)],
    # The tolerance is a share of |best|: -10, then -11 is the bound, missed by -11.1 and met by -10.9.
    "losses": [(-10, 0, 12), (-10, 1, 8), (-11.2, 1, 8), (-11, 1, 8), (-10.7, 2, 4)],
}


@pytest.mark.parametrize("name", CURRICULUM)
def test_a_stage_ends_when_the_mean_return_is_within_the_tolerance_of_the_best(name):
    algorithm = JumpStart(algorithm=Stub(), horizon=12, stages=3, window=2.0, tolerance=0.1, lanes=1)
    state = algorithm.init(KEY, batch_at(0.0))
    for _ in range(9):  # of a warm-up, which the guide follows, none counts
        state = algorithm.observe(state, {"rewards": jnp.array([50.0]), "ends": jnp.array([True])}, ())
    assert (int(state.stage), int(state.episodes)) == (0, 0)
    algorithm = dataclasses.replace(algorithm, follow=0.0)
    for episode_return, stage, steps in CURRICULUM[name]:
        half = {"rewards": jnp.array([episode_return / 2])}
        for ends in (False, True):
            state = algorithm.observe(state, half | {"ends": jnp.array([ends])}, ())
        _, carry = algorithm.act(state, jnp.zeros((1, 2)), KEY)
        assert (int(state.stage), int(carry["steps"][0])) == (stage, steps), episode_return


def test_a_guide_around_a_history_is_evaluated_with_the_carry_of_live_acting():
    algorithm = registry.make("jsrl", 1, {"history": 2, "policy.hidden": "8", "critic.hidden": "8"})
    batch = shaped(algorithm, batch_at(0.0) | {"masks": jnp.ones(32)})
    state = jax.tree.map(lambda x: x[None], algorithm.init(KEY, batch))
    player = Player(algorithm, state, seed_keys([0], ACT))
    for step in range(3):
        actions = player(np.zeros((1, 4, 2), np.float32), step, np.full((1, 4), step == 0))
        assert actions.shape == (1, 4, 1) and np.isfinite(actions).all()


def test_random_roll_ins_differ_by_episode_and_hold_within_one():
    algorithm = JumpStart(algorithm=Stub(), horizon=9, variant="random", lanes=64)
    state = algorithm.init(KEY, batch_at(0.0))
    state = dataclasses.replace(state, inner={"count": jnp.float32(1)})
    carry, guided = (), []
    for i in range(12):
        actions, carry = algorithm.act(state, jnp.zeros((64, 2)), jax.random.fold_in(KEY, i), carry)
        guided.append(np.asarray(actions[:, 0]) == 0)
    steps = np.sum(guided, 0)
    assert (np.diff(np.array(guided).astype(int), axis=0) <= 0).all(), "the guide only ever plays the beginning"
    assert set(steps) == set(range(10)), "0 to 9 steps, each for some lane"


def test_the_learner_plans_anew_where_it_takes_over():
    """Chunks of 3 that write when they were planned: the guide plays 4 steps, then the learner plans at step 4."""

    @pytree
    class Planner(Stub):
        def act(self, state, observations, key, carry=(), *, greedy=False):
            return jnp.repeat(observations[:, :1] + 100 * state["count"], 3, 1), carry

    algorithm = JumpStart(algorithm=Chunked(algorithm=Planner(), chunk=3), horizon=4, stages=1, lanes=1, follow=0.0)
    batch = batch_at(0.0)
    state = algorithm.init(KEY, batch | {"actions": jnp.zeros((32, 3, 1))})
    state, carry, played = dataclasses.replace(state, inner={"count": jnp.float32(1)}), (), []
    for step in range(9):
        actions, carry = algorithm.act(state, jnp.full((1, 2), float(step)), KEY, carry)
        played.append(float(actions[0, 0]))
    assert played == [0, 0, 0, 3, 104, 104, 104, 107, 107]


def test_chunks_and_histories_go_inside_other_wrappers():
    algorithm = registry.make("ooo", 2, {"history": 2, "chunk": 3, "expectile": 0.8})
    kinds = []
    while isinstance(algorithm, Wrapper):
        kinds.append(type(algorithm).__name__)
        assert algorithm.chunk == 3 and (algorithm.history == 2 or kinds[-1] == "Chunked")
        algorithm = algorithm.algorithm
    assert kinds == ["Bonus", "History", "Chunked"] and core_of(algorithm) is algorithm
