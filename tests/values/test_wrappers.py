"""Chunks of actions and histories of observations, step by step and lane by lane."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from understudy import registry
from understudy import settings as fields
from understudy.algorithms.bc import bc
from understudy.core import pytree, static
from understudy.errors import SettingsError
from understudy.run import programs
from understudy.wrappers import Chunked, History, shaped

KEY = jax.random.key(0)


@pytree
class Echo:
    """Emits what it sees: chunk or single action (o, o + 1, ...) / 100 of the observation's first entry."""

    action_size: int = static(1, "size of the action vector")
    requires = frozenset({"observations", "actions"})

    def init(self, key, batch):
        return {"width": jnp.zeros(batch["observations"].shape[-1])}

    def update(self, state, batch, key):
        return state, {"seen": batch["actions"].sum()}

    def act(self, state, observations, key, carry=(), *, greedy=False):
        return (observations[:, -1:] + jnp.arange(self.action_size)) / 100, carry


def play(algorithm, observations, resets=()):
    """Actions at each step for one seed and the given observations [T, L]; `resets` are (step, lane)."""
    observations = np.asarray(observations, np.float32)[:, None, :, None]  # [T, K, L, O]
    batch = {"observations": jnp.zeros((1, 1)), "actions": jnp.zeros((1, 1))}
    keys = programs.seed_keys([0], programs.ACT)
    state = jax.tree.map(lambda x: x[None], algorithm.init(KEY, shaped(algorithm, batch)))
    player, out = programs.Player(algorithm, state, keys), []
    for t, seen in enumerate(observations):
        begun = np.array([[t == 0 or (t, lane) in resets for lane in range(seen.shape[1])]])
        out.append(player(seen, t, begun)[0, :, 0] * 100)
    return np.array(out)


def test_a_chunk_is_played_to_its_end_and_each_lane_begins_anew_at_its_own_reset():
    algorithm = Chunked(algorithm=Echo(), chunk=3)
    steps = np.arange(7)
    seen = np.stack([10 * steps, 10 * steps + 5], 1)
    alone = play(algorithm, seen)
    np.testing.assert_allclose(alone[:, 0], [0, 1, 2, 30, 31, 32, 60], atol=1e-4)
    np.testing.assert_allclose(alone[:, 1], [5, 6, 7, 35, 36, 37, 65], atol=1e-4)
    reset = play(algorithm, seen, resets=[(2, 1)])
    np.testing.assert_allclose(reset[:, 0], alone[:, 0])
    np.testing.assert_allclose(reset[:, 1], [5, 6, 25, 26, 27, 55, 56], atol=1e-4)


def test_a_history_holds_the_last_observations_of_this_episode_only():
    @pytree
    class Window(Echo):
        def act(self, state, observations, key, carry=(), *, greedy=False):
            return (observations * 10 ** jnp.arange(observations.shape[1])[::-1]).sum(1, keepdims=True) / 100, carry

    algorithm = History(algorithm=Window(), history=3)
    got = play(algorithm, [[1, 5], [2, 6], [3, 7], [4, 8]], resets=[(2, 1)])
    np.testing.assert_allclose(got[:, 0], [111, 112, 123, 234], atol=1e-3)
    np.testing.assert_allclose(got[:, 1], [555, 556, 777, 778], atol=1e-3)


def test_chunks_of_histories_replan_from_the_newest_window():
    algorithm = History(algorithm=Chunked(algorithm=Echo(), chunk=2), history=2)
    got = play(algorithm, [[1], [2], [3], [4], [5]])
    np.testing.assert_allclose(got[:, 0], [1, 2, 3, 4, 5], atol=1e-4)
    np.testing.assert_allclose(play(algorithm, [[10], [20], [30]], resets=[(1, 0)])[:, 0], [10, 20, 21], atol=1e-4)


def test_the_inner_algorithm_sees_flat_chunks_and_flat_histories():
    algorithm = registry.make("bc", 2, {"chunk": 3, "history": 2, "policy.hidden": "8"})
    assert isinstance(algorithm, History) and isinstance(algorithm.algorithm, Chunked)
    rng = np.random.default_rng(0)
    batch = {"observations": jnp.asarray(rng.normal(size=(4, 2, 5)), jnp.float32),
             "actions": jnp.asarray(rng.uniform(-1, 1, (4, 3, 2)), jnp.float32)}  # fmt: skip
    state = algorithm.init(KEY, batch)
    flat = {"observations": batch["observations"].reshape(4, 10), "actions": batch["actions"].reshape(4, 6)}
    alone = bc(6)
    alone = fields.apply(alone, {"policy.hidden": "8"})
    same = alone.init(KEY, flat)
    jax.tree.map(np.testing.assert_array_equal, state, same)
    _, metrics = algorithm.update(state, batch, KEY)
    _, expected = alone.update(same, flat, KEY)
    assert metrics["actor/imitation"] == expected["actor/imitation"]


def test_a_transformer_attends_to_each_observation_of_a_history():
    """The action is what stood in the first of three observations, wherever the others are."""
    algorithm = registry.make("bc", 1, {"history": 3, "policy": "tokens", "policy.width": 16, "policy.bins": 4,
                                        "policy.heads": 2, "policy.layers": 1, "learning_rate": 1e-2})  # fmt: skip
    assert algorithm.inner.policy.network.frames == 3
    seen = jax.random.uniform(KEY, (256, 3, 1), minval=-1, maxval=1)
    batch = {"observations": seen, "actions": jnp.sign(seen[:, 0]) / 2}
    start = algorithm.init(KEY, batch)
    assert start.actor.params["params"]["places"].shape == (3, 16)  # two more frames, then the observation's own
    body = lambda state, i: algorithm.update(state, batch, jax.random.fold_in(KEY, i))
    state, metrics = jax.jit(lambda s: jax.lax.scan(body, s, jnp.arange(150)))(start)
    assert metrics["actor/imitation"][0] > 1.3 and metrics["actor/imitation"][-1] < 0.1  # log 4 bins; one is certain


def test_settings_keep_their_names_inside_wrappers():
    algorithm = registry.make("iql", 2, {"chunk": 4, "history": 2, "expectile": 0.8, "policy": "flow"})
    names = {s.name: s.value for s in fields.fields(algorithm)}
    assert names["chunk"] == 4 and names["history"] == 2 and names["critic.expectile"] == 0.8
    assert not any(name.startswith("algorithm.") for name in names) and "policy.steps" in names
    recorded = registry.overrides(registry.make("iql", 2), {"chunk": 4, "expectile": 0.8, "policy": "flow"})
    assert recorded == {"chunk": 4, "critic.expectile": 0.8, "policy": "flow"}
    assert registry.adjust(registry.make("iql", 2), recorded) == registry.make("iql", 2, recorded)
    more = registry.overrides(registry.make("iql", 2), {"history": 3}, before=recorded)
    assert more == recorded | {"history": 3}
    assert registry.make("qc", 2, {"chunk": 7}).chunk == 7
    assert (
        registry.make("qc", 2, {"masked": "true", "history": 2}).masked
        and not registry.make("iql", 2, {"chunk": 2}).masked
    )


def test_batches_of_another_shape_are_refused():
    algorithm = registry.make("bc", 2, {"chunk": 3})
    single = {"observations": jnp.zeros((4, 5)), "actions": jnp.zeros((4, 2))}
    with pytest.raises(
        SettingsError, match=r"need batches with actions \[B, 3, A\]; got \[4, 2\]. .*Sampler\(chunk=3\)"
    ):
        algorithm.init(KEY, single)
    with pytest.raises(SettingsError, match=r"observations \[B, 2, ...\]; got \[\[4, 5\]\]"):
        registry.make("bc", 2, {"history": 2}).init(KEY, single)
    with pytest.raises(SettingsError, match="chunk is 0; give a whole number of at least 1"):
        registry.make("bc", 2, {"chunk": 0})
