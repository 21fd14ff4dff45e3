"""A run that was killed and resumed ends bitwise equal to one that was not."""

from __future__ import annotations

import json
import pathlib
import signal
import time

import numpy as np
import pytest

from understudy import registry, settings
from understudy.run import checkpoint


def end_state(out) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint: parameters, optimisers, replay, environments."""
    arrays, meta = checkpoint.latest(out)
    counters = {k: np.array(v) for k, v in meta["counters"].items() if k != "seconds"}
    return arrays | {f"counters.{k}": v for k, v in counters.items()}


def assert_same_end(one, other) -> None:
    a, b = end_state(one), end_state(other)
    assert a.keys() == b.keys()
    different = [k for k in a if not np.array_equal(a[k], b[k], equal_nan=True)]
    assert not different, f"{len(different)} of {len(a)} arrays differ: {different[:5]}"
    rows = [(pathlib.Path(p) / "episodes.jsonl").read_text() for p in (one, other)]
    assert rows[0] == rows[1]


def wait(process, timeout=300):
    _, err = process.communicate(timeout=timeout)
    return process.returncode, err


def progress(out: pathlib.Path) -> int:
    """Updates and environment steps up to the newest checkpoint, TOTAL at the end of the run."""
    names = checkpoint.names(out)
    return sum(int(x) for x in names[-1].split("-")[-2:]) if names else 0


LENGTHS = (400, 120, 2 * 400, 300)  # offline, warm-up, online with an update a step, retrain
TOTAL = sum(LENGTHS)


@pytest.fixture(scope="session")
def uninterrupted(start, tmp_path_factory):
    """Finished runs that nobody touched, by number of seeds and algorithm."""
    runs = {}

    def get(*what) -> pathlib.Path:
        if what not in runs:
            out = tmp_path_factory.mktemp(f"whole{what[0]}") / "run"
            code, err = wait(start(out, *what))
            assert code == 0, err
            runs[what] = out
        return runs[what]

    return get


TEN = (3, 2, 3, 2)  # kills in each phase


@pytest.mark.parametrize("seeds, kills", [(3, (1, 0, 1, 1)), pytest.param(1, TEN, marks=pytest.mark.slow),
                                          pytest.param(3, TEN, marks=pytest.mark.slow)])  # fmt: skip
def test_killed_at_random_moments_and_resumed_ends_bitwise_equal(start, uninterrupted, tmp_path, seeds, kills):
    whole = uninterrupted(seeds)
    assert progress(whole) == TOTAL
    out, rng = tmp_path / "run", np.random.default_rng(seeds)
    starts = np.cumsum((0, *LENGTHS[:-1]))
    each = zip(starts, LENGTHS, kills)
    moments = np.concatenate([s + np.sort(rng.uniform(0, 0.4 * n, k)) for s, n, k in each])
    phases = []
    for moment in moments:
        process = start(out, seeds)
        deadline = time.monotonic() + 120
        while process.poll() is None and progress(out) < moment and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))  # not only just after a checkpoint
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        phases.append(checkpoint.latest(out)[1]["counters"]["phase"] if checkpoint.names(out) else 0)
    assert len(phases) == sum(kills) and set(phases) >= {0, 2, 3}, f"kills fell into phases {phases}"
    code, err = wait(start(out, seeds))
    assert code == 0, err
    assert_same_end(whole, out)


def assert_kills_change_nothing(start, what, whole, out, moments) -> None:
    """Killed at each of these moments and resumed, the run ends as the one that nobody touched."""
    rng = np.random.default_rng(5)
    for moment in moments:
        process = start(out, *what)
        while process.poll() is None and progress(out) < moment:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.wait()
    code, err = wait(start(out, *what))
    assert code == 0, err
    assert_same_end(whole, out)


def test_what_acting_remembers_is_resumed_too(start, uninterrupted, tmp_path):
    """Killed in the middle of chunks, with a history: the rest of each chunk is played as it was planned."""
    what = (2, "qc_fql chunk=5 history=2 policy.steps=2 policy.hidden=32 critic.hidden=32")
    whole = uninterrupted(*what)
    carried = [k for k in end_state(whole) if "['carry']" in k]
    assert len(carried) == 4, carried  # plan, left, past, begun
    assert_kills_change_nothing(start, what, whole, tmp_path / "run", (450, 900))  # in the warm-up and online


def test_what_an_on_policy_algorithm_has_just_played_is_resumed_too(start, uninterrupted, tmp_path):
    """In chunks, so that what led to a step is resumed with it."""
    what = (2, "ppo chunk=4 steps_per_rollout=64 epochs=2 minibatches=4 policy.hidden=32 offline=0 warmup=0 retrain=0")
    whole = uninterrupted(*what)
    assert end_state(whole)["counters.played"] == 400 % 64
    assert_kills_change_nothing(start, what, whole, tmp_path / "run", (100, 200, 330))


SHORT = {"steps_per_rollout": 64, "minibatches": 4, "horizon": 10, "rollouts": 16, "steps": 3}  # where there are such


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_whatever_the_algorithm_killed_in_the_middle_of_live_episodes_it_ends_bitwise_equal(start, tmp_path, name):
    """What an algorithm keeps beside its state: rollouts, carries, returns of an episode that is not over."""
    algorithm = registry.make(name, 1)
    live_only = hasattr(algorithm, "burst") and not getattr(algorithm, "learns_offline", False)
    words = [f"offline={0 if live_only else 60}", "warmup=0", "online=260", "retrain=0"]
    for setting in settings.fields(algorithm):
        last = setting.name.rpartition(".")[2]
        words += [f"{setting.name}=16"] if last == "hidden" else []
        words += [f"{setting.name}={SHORT[last]}"] if setting.static and last in SHORT else []
    what, out = (1, " ".join([name, *words])), tmp_path / "run"
    code, err = wait(start(tmp_path / "whole", *what))
    assert code == 0, err
    for steps in (150, 90):  # an episode has 200
        code, err = wait(start(out, *what, dies_after=steps))
        assert code == -signal.SIGKILL, err
        assert checkpoint.latest(out)[1]["counters"]["env_steps"] > 0
    code, err = wait(start(out, *what))
    assert code == 0, err
    assert_same_end(tmp_path / "whole", out)


def test_killed_on_both_sides_of_its_switch_and_resumed_ends_bitwise_equal(start, tmp_path):
    arguments = (1, "td3_bc", "anneal:0.5->0+reset-optimizer+reset-critic")
    code, err = wait(start(tmp_path / "whole", *arguments))
    assert code == 0, err
    out, phases = tmp_path / "run", []
    online = LENGTHS[0] + LENGTHS[1]
    for moment in (LENGTHS[0] - 20, online - 40, online, online + 200):
        process = start(out, *arguments)
        deadline = time.monotonic() + 120
        while process.poll() is None and progress(out) < moment and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        phases.append(checkpoint.latest(out)[1]["counters"]["phase"])
    assert set(phases) & {0, 1} and 2 in phases, f"kills fell into phases {phases}"
    code, err = wait(start(out, *arguments))
    assert code == 0, err
    assert_same_end(tmp_path / "whole", out)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_and_says_how_to_go_on(start, uninterrupted, tmp_path, signum):
    whole, out = uninterrupted(1), tmp_path / "run"
    process = start(out)
    while process.poll() is None and progress(out) < TOTAL / 2:
        time.sleep(0.005)
    before = time.monotonic()
    process.send_signal(signum)
    code, err = wait(process)
    assert time.monotonic() - before < 30
    assert code != 0 and f"understudy resume {out}" in err
    code, err = wait(start(out))
    assert code == 0, err
    assert_same_end(whole, out)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(start, uninterrupted, tmp_path):
    whole, out = uninterrupted(1), tmp_path / "run"
    process = start(out)
    while process.poll() is None and progress(out) < TOTAL / 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    newest = out / "checkpoints" / checkpoint.names(out)[-1] / "arrays.safetensors"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    code, err = wait(start(out))
    assert code == 0, err
    assert "does not match its checksum" in err and "before it" in err
    assert_same_end(whole, out)


def test_a_live_run_keeps_its_folder_to_itself(start, tmp_path):
    out = tmp_path / "run"
    process = start(out)
    while process.poll() is None and not progress(out):
        time.sleep(0.01)
    code, err = wait(start(out))
    assert code != 0 and "in use by a live run" in err and "Traceback" not in err
    process.kill()
    process.wait()


def test_every_log_line_is_whole_and_the_result_is_written(uninterrupted):
    whole = uninterrupted(3)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [r["phase"] for r in rows if r["phase"] == "offline"] and rows[-1]["phase"] == "retrain"
    assert all(len(v) == 3 for v in rows[0]["metrics"].values())
    ended = [r["episodes"] for r in rows if "episodes" in r]
    assert sorted(s for e in ended for s in e["seed"]) == [0, 0, 1, 1, 2, 2]  # 520 steps, 200 an episode
    assert all(len(e["seed"]) == len(e["return"]) for e in ended)
    result = json.loads((whole / "result.json").read_text())
    assert len(result["switch"]["by_seed"]) == 3 and np.isfinite(result["switch"]["q_before"])
    assert result["success"] is None and np.isfinite(result["return"]) and result["updates"] == 400 + 400 + 300
    assert result["env_steps"] == 520
