"""Batches by hand: n-step returns, chunks and next actions at every kind of boundary, on device and host alike."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from understudy.data.replay import Buffer
from understudy.data.samplers import Sampler

GAMMA = 0.5


def columns(ends, masks=None):
    """Transitions 0, 1, 2, ...: observation i, action 10 i, reward 2^i, next observation i + 0.5."""
    n = len(ends)
    i = np.arange(n, dtype=np.float32)
    return dict(
        observations=i[:, None], actions=10 * i[:, None], rewards=2**i,
        masks=np.ones(n, np.float32) if masks is None else np.array(masks, np.float32),
        next_observations=i[:, None] + 0.5, ends=np.array(ends, bool),
    )  # fmt: skip


def read(buffer, at, **options):
    batch = Sampler(discount=GAMMA, **options).read(buffer, jax.numpy.asarray(at))
    return jax.tree.map(np.asarray, batch)


def test_three_step_returns_stop_at_the_end_of_a_trajectory_and_bootstrap_there():
    buffer = Buffer.full(columns([0, 0, 0, 0, 1, 0, 0, 1]))
    batch = read(buffer, [0, 2, 3, 4, 5, 7], n_step=3)
    np.testing.assert_allclose(batch["rewards"], [1 + 1 + 1, 4 + 4 + 4, 8 + 8, 16, 32 + 32 + 32, 128])
    # One gamma is the critic's own: three steps leave gamma^2 in the mask, two gamma, one 1. A time-out keeps it.
    np.testing.assert_allclose(batch["masks"], [0.25, 0.25, 0.5, 1, 0.25, 1])
    np.testing.assert_allclose(batch["next_observations"][:, 0], [2.5, 4.5, 4.5, 4.5, 7.5, 7.5])
    np.testing.assert_allclose(batch["observations"][:, 0], [0, 2, 3, 4, 5, 7])


def test_n_step_returns_stop_at_a_termination_even_where_the_recording_goes_on():
    buffer = Buffer.full(columns([0, 0, 0, 1], masks=[1, 0, 1, 1]))
    batch = read(buffer, [0, 1, 2], n_step=3)
    np.testing.assert_allclose(batch["rewards"], [1 + 1, 2, 4 + 4])
    np.testing.assert_allclose(batch["masks"], [0, 0, 0.5])


def test_chunks_are_padded_and_marked_past_the_end():
    buffer = Buffer.full(columns([0, 0, 1, 0, 1]))
    batch = read(buffer, [0, 1, 2, 3], chunk=3)
    np.testing.assert_allclose(batch["actions"][..., 0], [[0, 10, 20], [10, 20, 20], [20, 20, 20], [30, 40, 40]])
    np.testing.assert_allclose(batch["valids"], [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]])
    np.testing.assert_allclose(batch["rewards"], [1 + 1 + 1, 2 + 2, 4, 8 + 8])
    np.testing.assert_allclose(batch["masks"], [0.25, 0.5, 1, 0.5])


def test_next_actions_exist_only_inside_a_trajectory():
    buffer = Buffer.full(columns([0, 0, 1, 0, 1]))
    batch = read(buffer, [0, 1, 2, 3, 4], next_actions=True)
    np.testing.assert_allclose(batch["next_valids"], [1, 1, 0, 1, 0])
    np.testing.assert_allclose(batch["next_actions"][[0, 1, 3], 0], [10, 20, 40])


def ring(capacity, lanes, slots):
    """A ring into which slot t of lane e wrote observation 100 e + t; no trajectory ends."""
    data = columns([0] * 1)
    buffer = Buffer.empty(data, capacity, lanes)
    for t in range(slots):
        x = np.array([100.0 * e + t for e in range(lanes)], np.float32)
        buffer = buffer.add(dict(
            observations=x[:, None], actions=x[:, None], rewards=np.ones(lanes, np.float32),
            masks=np.ones(lanes, np.float32), next_observations=x[:, None] + 0.5, ends=np.zeros(lanes, bool),
        ))  # fmt: skip
    return buffer


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("slots", [3, 5, 8])  # part full, exactly full, wrapped
def test_nothing_crosses_the_newest_transition_of_a_ring(lanes, slots):
    buffer = ring(5 * lanes, lanes, slots)
    held = min(slots, 5) * lanes
    assert int(buffer.size) == held
    batch = read(buffer, np.arange(held), n_step=3, next_actions=True)
    start = batch["observations"][:, 0]
    time = start % 100
    steps = np.minimum(3, slots - time)  # steps that exist from there on: the newest slot is slots - 1
    np.testing.assert_allclose(batch["rewards"], [1 + 0.5 * (n > 1) + 0.25 * (n > 2) for n in steps])
    np.testing.assert_allclose(batch["next_observations"][:, 0], start + steps - 0.5)
    last_exists = time + 3 < slots
    np.testing.assert_allclose(batch["next_valids"], last_exists)
    np.testing.assert_allclose(batch["next_actions"][last_exists, 0], start[last_exists] + 3)
    assert sorted(time) == sorted(np.repeat(np.arange(slots)[-5:], lanes))  # the oldest were overwritten


def test_shares_are_whole_transitions_of_each_source():
    data = columns([0, 1])
    other = columns([0, 1])
    other["observations"] = other["observations"] + 1000
    sampler = Sampler(batch_size=10, shares=(("prior", 0.3), ("replay", 0.7)))
    batch = sampler({"prior": Buffer.full(data), "replay": Buffer.full(other)}, jax.random.key(0))
    assert (np.asarray(batch["observations"]) >= 1000).sum() == 7
    everything = Sampler(batch_size=10, shares=(("replay", 1.0),))
    batch = everything({"prior": Buffer.full(data), "replay": Buffer.full(other)}, jax.random.key(0))
    assert (np.asarray(batch["observations"]) >= 1000).all()


def test_every_transition_of_a_full_ring_is_drawn():
    buffer = ring(8, 1, 11)
    sampler = Sampler(batch_size=256, shares=(("replay", 1.0),))
    batch = sampler({"replay": buffer}, jax.random.key(1))
    assert sorted(set(np.asarray(batch["observations"])[:, 0])) == list(range(3, 11))
