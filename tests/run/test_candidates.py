"""Runs of PA-RL with proposals sampled ahead: when, from which policy, and the same again after a kill."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from small import arrays_of, small

import understudy
from understudy.data.replay import Buffer, HostBuffer
from understudy.run import candidates, checkpoint, programs

SETTINGS = {"critic.hidden": (8, 8), "critic.ensemble": 2, "critic.subset": 0, "critic.samples": 2,
            "policy.hidden": (8, 8), "policy.steps": 2, "extraction.samples": 4, "extraction.keep": 2,
            "extraction.steps": 1, "extraction.cached": True, "extraction.refill": 8}  # fmt: skip
KEY = jax.random.key(3)


class Killed(BaseException):
    """Nothing in the library catches it."""


def test_device_and_host_hold_the_same_proposals(pendulum):
    data = understudy.data.load(pendulum)
    algorithm = understudy.make("pa_rl", 1, SETTINGS)
    example = {k: v[:1] for k, v in data.transitions(mc_discount=0.99).items()}
    params = algorithm.policy.init(KEY, example["observations"], example["actions"])
    device = candidates.columns(algorithm, params, Buffer.full(data.transitions()), KEY)
    host = candidates.columns(algorithm, params, HostBuffer(data), KEY, rows=300)
    assert host["next_candidates"].shape == (data.size, 4, 1) and isinstance(host["candidates"], np.ndarray)
    for name in ("candidates", "next_candidates"):
        np.testing.assert_allclose(host[name], device[name], rtol=1e-5, atol=1e-6)
    inside = np.flatnonzero(~data.ends)[0]
    assert np.abs(host["next_candidates"][inside] - host["candidates"][inside + 1]).max() > 1e-3, "draws of their own"


@pytest.mark.parametrize("place", ["device", pytest.param("host", marks=pytest.mark.slow)])
def test_proposals_are_drawn_anew_when_due_and_a_kill_changes_nothing(pendulum, tmp_path, monkeypatch, place):
    calls, killed, chunk = [], [None], programs.chunk

    def spy(algo, state, sources, replay, sampler, keys, start, stop, given, *rest):
        if killed[0] is not None and start >= killed[0]:
            raise Killed
        params = jax.tree.map(np.asarray, candidates.proposer_of(algo, state))
        held = sources["prior"].data["candidates"] if place == "device" else given["prior"]["candidates"]
        ring = None if replay is None else np.asarray(replay.data["candidates"])
        calls.append((start, stop, params, np.asarray(held), ring, algo.extraction.cached))
        return chunk(algo, state, sources, replay, sampler, keys, start, stop, given, *rest)

    monkeypatch.setattr(programs, "chunk", spy)
    options = dict(algorithm="pa_rl", offline=20, online=6, retrain=10, seeds=2, data_on=place, settings=SETTINGS)
    whole = small(pendulum, tmp_path / "whole", **options)
    drawn = {}  # what the calls of each period saw
    for start, stop, params, held, ring, cached in calls:
        period = start // 8 if start < 20 else 3 + (start - 26) // 8
        assert cached and start < stop <= (20 if start < 20 else 36)
        assert start >= 20 or stop <= 8 * (period + 1)  # no call goes over a time when new ones are due
        drawn.setdefault(period, []).append((start, params, held, ring))
    assert sorted(drawn) == [0, 1, 2, 3, 4]
    if place == "device":
        data = Buffer.full(understudy.data.load(pendulum).transitions())
        algorithm = understudy.make("pa_rl", 1, SETTINGS)
        keys = programs.seed_keys((0, 1), programs.PROPOSE)
        for period, seen in drawn.items():
            start, params = seen[0][:2]
            assert all(np.array_equal(held, seen[0][2]) for _, _, held, _ in seen)
            for seed in (0, 1):
                key = jax.random.fold_in(jax.random.fold_in(keys[seed], start), 0)
                mine = jax.tree.map(lambda x: x[seed], params)  # noqa: B023
                expected = candidates.columns(algorithm, mine, data, key)["candidates"]
                np.testing.assert_allclose(seen[0][2][seed], expected, rtol=1e-5, atol=1e-6)
            assert (seen[0][3] is None) == (period < 3)
    for at in (13, 31):  # between two fills: offline, and retraining with the replay
        killed[0] = at
        out = tmp_path / f"run{at}"
        for most in ("HOST_CHUNK", "CHUNK_MOST"):
            monkeypatch.setattr(f"understudy.run.loop.{most}", 3)
        with pytest.raises(Killed):
            small(pendulum, out, checkpoint_every=0.0, **options)
        killed[0] = None
        counters = checkpoint.latest(out)[1]["counters"]
        assert counters["unit"] % 8 and counters["phase"] == (0 if at == 13 else 2)
        a, b = arrays_of(understudy.resume(out)), arrays_of(whole)
        assert a.keys() == b.keys() and not [k for k in a if not np.array_equal(a[k], b[k], equal_nan=True)]
    assert any(k.startswith("['proposer']") for k in b)


def test_live_steps_take_samples_of_the_policy_as_it_is(pendulum, tmp_path, monkeypatch):
    seen, interact = [], programs.interact
    spy = lambda algo, *args, **kwargs: seen.append(algo.extraction.cached) or interact(algo, *args, **kwargs)
    monkeypatch.setattr(programs, "interact", spy)
    run = small(pendulum, tmp_path / "run", "pa_rl", offline=3, online=3, settings=SETTINGS)
    assert seen == [False] * 3 and run.manifest["settings"]["extraction.cached"] is True
    assert not any(k.startswith("['proposer']") for k in arrays_of(run)), "nothing is drawn from it any more"
