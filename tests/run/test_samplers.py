"""Batches by hand: n-step returns, chunks and next actions at every kind of boundary, on device and host alike."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from understudy.data import from_arrays
from understudy.data.replay import Buffer, HostBuffer
from understudy.data.samplers import Sampler, successes

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


def test_a_chunk_that_a_time_out_would_cut_begins_earlier():
    buffer = Buffer.full(columns([0, 0, 0, 1, 0, 1]))
    batch = read(buffer, [0, 1, 2, 3, 4, 5], chunk=3)
    # Transitions 2 and 3 have no three successors; the last trajectory has only two, and the chunk before takes over.
    np.testing.assert_allclose(batch["observations"][:, 0], [0, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(batch["actions"][..., 0], [[0, 10, 20], *[[10, 20, 30]] * 5])
    np.testing.assert_allclose(batch["rewards"], [1 + 1 + 1, *[2 + 2 + 2] * 5])
    np.testing.assert_allclose(batch["masks"], 0.25)
    np.testing.assert_allclose(batch["next_observations"][:, 0], [2.5, *[3.5] * 5])


def test_a_chunk_that_is_not_whole_gives_its_place_to_another_of_its_own_batch():
    buffer = Buffer.full(columns([0, 0, 0, 1, 0, 1]))  # chunks of 3 begin at 0 and 1
    for as_given in (lambda x: x, jax.numpy.asarray):
        begins = lambda at, rows=None: Sampler(chunk=3).read(buffer, as_given(np.array(at)), rows)  # noqa: B023
        first = lambda batch: batch["observations"][:, 0].tolist()
        assert first(begins([0, 4, 1])) == [0, 0, 1]
        assert first(begins([5, 4, 1, 0])) == [0, 0, 1, 0], "the last stands in for those before the first"
        assert first(begins([0, 4, 5, 2], 2)) == [0, 0, 1, 1], "two batches"
        alone = begins([4, 5])
        assert first(alone) == [4, 4] and alone["actions"][..., 0].tolist() == [[40, 50, 50]] * 2, "there is no other"


def test_a_chunk_that_a_termination_cuts_stays_where_it_is_and_is_padded():
    buffer = Buffer.full(columns([0, 0, 0, 1, 0, 0, 0], masks=[1, 1, 1, 0, 1, 1, 1]))
    batch = read(buffer, [1, 2, 3], chunk=3)
    np.testing.assert_allclose(batch["actions"][..., 0], [[10, 20, 30], [20, 30, 30], [30, 30, 30]])
    np.testing.assert_allclose(batch["rewards"], [2 + 2 + 2, 4 + 4, 8])
    np.testing.assert_allclose(batch["masks"], [0, 0, 0])
    for as_given in (lambda x: x, jax.numpy.asarray):  # or another of its batch has its place
        batch = Sampler(chunk=3, masked=True).read(buffer, as_given(np.array([0, 2, 3, 1, 5])))
        np.testing.assert_allclose(batch["observations"][:, 0], [0, 0, 0, 1, 4])


def test_a_chunk_goes_on_where_a_recording_goes_on_after_a_success():
    buffer = Buffer.full(columns([0, 0, 0, 0, 1], masks=[1, 0, 1, 1, 1]))
    batch = read(buffer, [0, 1], chunk=3, next_actions=True)
    np.testing.assert_allclose(batch["actions"][..., 0], [[0, 10, 20], [10, 20, 30]])
    np.testing.assert_allclose(batch["rewards"], [1 + 1, 2])  # nothing after the success counts
    np.testing.assert_allclose(batch["masks"], [0, 0])
    np.testing.assert_allclose(batch["next_actions"][..., 0], [[30, 40, 40], [40, 40, 40]])
    np.testing.assert_allclose(batch["next_valids"], [0, 0])


def test_histories_repeat_the_first_observation_and_never_cross_a_beginning():
    buffer = Buffer.full(columns([0, 0, 1, 0, 0]))
    batch = read(buffer, [0, 1, 2, 3, 4], history=3)
    np.testing.assert_allclose(batch["observations"][..., 0], [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 3, 4]])
    np.testing.assert_allclose(
        batch["next_observations"][..., 0], [[0, 0, 0.5], [0, 1, 1.5], [1, 2, 2.5], [3, 3, 3.5], [3, 4, 4.5]]
    )
    batch = read(buffer, [0, 3], history=2, n_step=2)
    np.testing.assert_allclose(batch["next_observations"][..., 0], [[1, 1.5], [4, 4.5]])


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("slots", [3, 5, 8])
def test_histories_end_at_the_oldest_transition_of_a_ring(lanes, slots):
    buffer = ring(5 * lanes, lanes, slots)
    batch = read(buffer, np.arange(min(slots, 5) * lanes), history=3)
    newest = batch["observations"][:, -1, 0]
    lane, time = newest // 100, newest % 100
    oldest = max(slots - 5, 0)
    expected = [100 * lane + np.maximum(time - back, oldest) for back in (2, 1, 0)]
    np.testing.assert_allclose(batch["observations"][..., 0], np.stack(expected, 1))


@pytest.mark.parametrize("options", [{"chunk": 3, "next_actions": True}, {"history": 3, "n_step": 2}])
def test_the_host_gives_the_same_chunks_and_histories_as_the_device(options):
    rng, lengths = np.random.default_rng(0), [4, 7, 2, 9]
    n = sum(lengths)
    data = from_arrays(
        rng.normal(size=(n, 2)), rng.uniform(-1, 1, (n, 1)), rng.normal(size=n),
        terminations=np.arange(n) == 10, truncations=np.isin(np.arange(n), np.cumsum(lengths) - 1),
    )  # fmt: skip
    at = np.arange(data.size)
    device = read(Buffer.full(data.transitions()), at, **options)
    host = Sampler(discount=GAMMA, **options).read(HostBuffer(data), at)
    assert device.keys() == host.keys()
    for name, value in device.items():
        np.testing.assert_array_equal(value, host[name], err_msg=name)


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


# --- successes


def test_the_steps_of_highest_reward_among_all_sources_of_a_seed():
    prior = np.array([0, 1, 0, 1], np.float32)
    replay = np.array([[1, 0, 1 - 1e-6], [0, 5, 0]], np.float32)  # of two seeds; 1e-6 is rounding
    found = successes({"prior": np.broadcast_to(prior, (2, 4)), "replay": replay})
    held = {n: [set(np.asarray(p[k][: c[k]]).tolist()) for k in (0, 1)] for n, (p, c) in found.items()}
    assert held == {"prior": [{1, 3}, set()], "replay": [{0, 2}, {1}]}


def marked(n, at):
    return {n: (jax.numpy.array([*at, 0], jax.numpy.int32), jax.numpy.int32(len(at)))}


def test_a_share_of_each_batch_is_drawn_from_the_successes_of_all_sources_together():
    data, other = columns([0] * 10), columns([0] * 10)
    other["observations"] = other["observations"] + 100
    sources = {"prior": Buffer.full(data), "replay": Buffer.full(other)}
    sampler = Sampler(batch_size=1000, shares=(("prior", 0.3), ("replay", 0.1), ("successes", 0.6)))
    assert sampler.sizes() == {"prior": 300, "replay": 100, "successes": 600}
    batch = sampler(sources, jax.random.key(0), None, marked("prior", [3]) | marked("replay", [2, 4, 7]))
    x = np.asarray(batch["observations"])[:, 0]
    assert set(x[:300]) == set(range(10)) and set(x[300:400]) == set(range(100, 110))
    places, counts = np.unique(x[400:], return_counts=True)
    assert places.tolist() == [3, 102, 104, 107]  # each as often as any other: one in four
    np.testing.assert_allclose(counts / 600, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 600))
    np.testing.assert_array_equal(batch["actions"][:, 0], 10 * (x % 100))  # whole rows
    alone = sampler(sources, jax.random.key(0), None, marked("prior", []) | marked("replay", [8]))
    assert set(np.asarray(alone["observations"])[400:, 0]) == {108}


def test_successes_begin_returns_of_several_steps_and_come_from_the_host_as_from_the_device():
    n = 12
    data = from_arrays(
        np.arange(n + 1, dtype=np.float32)[:n, None], np.zeros((n, 1)), np.arange(n) % 4 == 2,
        truncations=np.arange(n) % 6 == 5,
    )  # fmt: skip
    device, host = Buffer.full(data.transitions()), HostBuffer(data)
    marks = marked("prior", np.flatnonzero(data.rewards))
    sampler = Sampler(batch_size=20, shares=(("prior", 0.5), ("successes", 0.5)), n_step=2, discount=GAMMA)
    key = jax.random.key(3)
    batch = sampler({"prior": device}, key, None, marks)
    rows = sampler.read(host, np.asarray(sampler.positions({"prior": host.size}, key, marks)["prior"]))
    given = sampler({"prior": device}, key, {"prior": rows}, marks)
    jax.tree.map(np.testing.assert_array_equal, batch, given)
    x = np.asarray(batch["observations"])[10:, 0]
    assert set(x % 4) == {2} and len(x) == 10
    np.testing.assert_allclose(batch["rewards"][10:], 1)


@pytest.mark.parametrize("masked", [False, True])
def test_chunks_of_successes_end_with_them(masked):
    """Trajectories of six steps of which the last is the success that terminates them, but for the first."""
    n, ends = 30, np.arange(30) % 6 == 5
    rewards = (ends & (np.arange(n) > 5)).astype(np.float32)
    data = from_arrays(np.arange(n, dtype=np.float32)[:, None], np.arange(n)[:, None] / 100, rewards,
                       terminations=rewards > 0, truncations=ends & (rewards == 0))  # fmt: skip
    device, host = Buffer.full(data.transitions()), HostBuffer(data)
    marks = marked("prior", np.flatnonzero(data.rewards))
    shares = (("prior", 0.5), ("successes", 0.5))
    sampler = Sampler(batch_size=16, shares=shares, chunk=3, masked=masked, discount=GAMMA)
    key = jax.random.key(3)
    batch = sampler({"prior": device}, key, None, marks)
    at = np.asarray(sampler.positions({"prior": host.size}, key, marks)["prior"])
    rows = sampler.read(host, at, marked=8)
    jax.tree.map(np.testing.assert_array_equal, batch, sampler({"prior": device}, key, {"prior": rows}, marks))
    x = np.asarray(batch["observations"])[8:, 0]
    assert set(x % 6) == {3} and 3 not in x and len(set(x)) > 1  # two steps before the success
    np.testing.assert_array_equal(batch["rewards"][8:], GAMMA**2)
    np.testing.assert_array_equal(batch["masks"][8:], 0)
    np.testing.assert_allclose(batch["actions"][8:, :, 0], (x[:, None] + [0, 1, 2]) / 100, rtol=1e-6)
