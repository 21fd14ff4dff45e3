"""MOORL: which rows an update sees, and what becomes of its steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import understudy
from understudy.algorithms.moorl import Meta, networks
from understudy.core import Net, pytree
from understudy.run.phases import Phase, settle

KEY = jax.random.key(0)


@pytree
class Counter:
    """Adds the mean of the rewards that it sees to both entries of its network."""

    requires = frozenset({"observations", "actions", "rewards"})

    def init(self, key, batch) -> Any:
        return {"net": Net(params={"w": jnp.zeros(2)}, opt=jnp.int32(0)), "other": jnp.float32(0)}

    def update(self, state, batch, key):
        mean = batch["rewards"].mean()
        net = Net(params={"w": state["net"].params["w"] + mean}, opt=state["net"].opt + 1)
        return {"net": net, "other": state["other"] + 1}, {"mean": mean}

    def act(self, state, observations, key, carry=(), *, greedy=False):
        return jnp.broadcast_to(state["net"].params["w"], (len(observations), 2)), carry


def batch_of(data, replay):
    rewards = jnp.concatenate([jnp.asarray(x, jnp.float32) for x in (data, replay)])
    return {"observations": rewards[:, None], "actions": jnp.zeros((len(rewards), 2)), "rewards": rewards}


@pytest.mark.parametrize(
    ("share", "live", "expected"),
    [(0.5, False, [1, 2, 3]), (0.5, True, [10, 20, 30]), (1 / 3, False, [1, 2, 1]), (1 / 3, True, [3, 10, 20]),
     (1.0, True, [1, 2, 3]), (0.0, False, [1, 2, 3])],
)  # fmt: skip
def test_an_update_sees_rows_of_one_kind(share, live, expected):
    meta = Meta(algorithm=Counter(), demo_share=share)
    seen = meta.part(batch_of([1, 2, 3], [10, 20, 30]), jnp.bool_(live))
    assert seen["rewards"].tolist() == expected and seen["observations"][:, 0].tolist() == expected


def test_the_parameters_go_a_part_of_the_way_after_each_adaptation():
    meta = Meta(algorithm=Counter(), meta_rate=0.25, meta_steps=3, demo_share=0.5)
    batch = batch_of([1, 1], [10, 10])
    state, phi, kinds = meta.init(KEY, batch), 0.0, []
    for turn in range(24):
        state, metrics = meta.update(state, batch, jax.random.fold_in(KEY, turn))
        kinds.append(float(metrics["mean"]))
        if turn % 3 == 2:
            one = kinds[-3:]
            assert len(set(one)) == 1, "one kind for all three updates"
            assert metrics["meta/apart"] == pytest.approx(0.75 * 3 * one[0] * np.sqrt(2), rel=1e-5)
            phi += 0.25 * 3 * one[0]
            np.testing.assert_allclose(state.inner["net"].params["w"], phi, rtol=1e-5)
        actions, _ = meta.act(state, jnp.zeros((1, 1)), KEY)
        np.testing.assert_allclose(actions[0], phi, rtol=1e-5)  # between meta-updates phi acts, not the adapted ones
    assert set(kinds) == {1.0, 10.0} and int(state.inner["net"].opt) == int(state.inner["other"]) == 24


def test_all_networks_of_sac_are_slow_and_a_rate_of_one_with_one_step_is_sac():
    algorithm = understudy.make("moorl", 2, {"critic.hidden": (8,), "policy.hidden": (8,), "meta_steps": 1,
                                             "meta_rate": 1.0, "demo_share": 1.0})  # fmt: skip
    rng = np.random.default_rng(0)
    f = lambda *shape: jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)
    batch = {"observations": f(8, 3), "actions": f(8, 2), "rewards": f(8), "masks": jnp.ones(8),
             "next_observations": f(8, 3)}  # fmt: skip
    state = algorithm.init(KEY, batch)
    nets = jax.tree.leaves(networks(state.inner), is_leaf=lambda x: isinstance(x, Net))
    assert len(nets) == 3, "policy, critics, temperature"
    after, _ = algorithm.update(state, batch, KEY)
    half = {k: x[:4] for k, x in batch.items()}
    alone, _ = algorithm.algorithm.update(state.inner, half, jax.random.split(KEY)[0])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), after.inner, alone)


def test_the_share_of_the_data_is_that_of_the_phase():
    algorithm = understudy.make("moorl", 1, {"history": 2})
    found = settle(algorithm, [], phase=Phase("online", env_steps=9, offline_share=0.25))
    while not isinstance(found, Meta):
        found = found.algorithm
    assert found.demo_share == 0.25
