"""The baseline: RLPD from scratch beside a run, with as many live steps, updates and critics, and resumable with it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import understudy
from understudy.errors import SettingsError
from understudy.evaluate.summary import summary
from understudy.run import baseline, checkpoint
from understudy.run.collect import Collector

SMALL = {"critic.hidden": (8, 8), "policy.hidden": (16, 8), "critic.ensemble": 3, "critic.discount": 0.9}


def small(data, out, algorithm="td3_bc", **options):
    options = dict(env="Pendulum-v1", offline=6, online=10, warmup=4, batch_size=8, episodes=1, settings=SMALL,
                   eval_every=5, baseline=True, utd=2, seeds=[3, 5]) | options  # fmt: skip
    return understudy.train(algorithm, data, out=out, **options)


class Killed(BaseException):
    """Nothing in the library catches it."""


def arrays_of(path) -> dict[str, np.ndarray]:
    return checkpoint.latest(path)[0]


def test_the_baseline_has_the_same_budget_and_is_finished_extended_and_reported_with_its_run(
    pendulum, tmp_path, monkeypatch
):
    run = small(pendulum, tmp_path / "run", command=["typed"])
    folder = run.path / "baseline"
    ours, theirs = run.manifest, json.loads((folder / "manifest.json").read_text())
    assert theirs["algorithm"] == "rlpd" and ours["baseline"] and not theirs["baseline"]
    assert [(p["name"], p["env_steps"], p["utd"], p["offline_share"]) for p in theirs["phases"]] == [
        ("warmup", 4, 0, 0.5), ("online", 10, 2, 0.5)]  # fmt: skip
    assert theirs["phases"][0]["random_actions"] and theirs["seeds"] == ours["seeds"] == [3, 5]
    assert theirs["dataset"] == ours["dataset"] and theirs["plan"] | {"evaluate_start": False} == ours["plan"]
    settings = {k: theirs["settings"][k] for k in (*SMALL, "critic.subset", "critic.layer_norm")}
    assert settings == {"critic.hidden": [8, 8], "policy.hidden": [16, 8], "critic.ensemble": 3, "critic.discount": 0.9,
                        "critic.subset": 2, "critic.layer_norm": "before"}  # fmt: skip

    found = run.result["baseline"]
    assert (found["algorithm"], found["ensemble"], found["utd"]) == ("rlpd", 3, 2)
    assert (found["env_steps"], found["updates"], found["finished"]) == (14, 20, True)
    assert found["return"] == summary(folder)["return"] and found["run"] == str(folder)
    assert found["area"] == summary(folder)["switch"]["area"]
    page = (run.path / "report.html").read_text()
    assert "Beside the baseline" in page and "rlpd from scratch" in page and 'class="mean baseline"' in page

    before = (folder / "manifest.json").read_text()
    understudy.resume(run)
    assert (folder / "manifest.json").read_text() == before, "a finished baseline is left alone"

    step, steps = Collector.step, 0

    def stepped(self):  # killed in the third step of the longer baseline
        nonlocal steps
        steps += 1
        if steps == 10 + 3:
            raise Killed
        return step(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Collector, "step", stepped)
        understudy.resume(run, online=20)
    assert run.result["env_steps"] == 24 and run.result["baseline"]["env_steps"] < 24
    run = understudy.resume(run.path)
    assert run.result["env_steps"] == run.result["baseline"]["env_steps"] == 24
    whole = small(pendulum, tmp_path / "whole", online=20)
    for name in (".", "baseline"):
        a, b = arrays_of(run.path / name), arrays_of(whole.path / name)
        assert a.keys() == b.keys() and not [k for k in a if not np.array_equal(a[k], b[k], equal_nan=True)]


def test_a_baseline_that_was_killed_before_it_began_is_made_by_a_resume(pendulum, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(baseline, "finish", lambda *_: (_ for _ in ()).throw(Killed()))
        small(pendulum, tmp_path / "run", seeds=1, eval_every=0)
    assert understudy.load(tmp_path / "run").result["baseline"] is None
    run = understudy.resume(tmp_path / "run")
    assert run.result["baseline"]["updates"] == 20 and run.result["baseline"]["return"] < 0


def test_a_run_may_get_its_baseline_when_it_goes_live(pendulum, tmp_path):
    data = understudy.load(pendulum)  # in memory: it is passed on
    run = small(data, tmp_path / "run", online=0, warmup=0, baseline=False, seeds=1, eval_every=0)
    run = understudy.resume(run, online=5, utd=1, baseline=True)
    assert run.result["baseline"]["env_steps"] == 5 and run.manifest["baseline"]


def manifest_of(**changes) -> dict:
    """What the baseline's arguments are made from."""
    return {
        "algorithm": "fql", "preset": None, "settings": {}, "overrides": {}, "env": "E", "seeds": [0], "log": [],
        "data_on": "device", "phases": [{"name": "online", "env_steps": 9, "utd": 1.0}],
        "plan": dict.fromkeys((*baseline.SAME, "reward_scale", "reward_bias"), 1),
    } | changes  # fmt: skip


def test_one_critic_has_no_pair_to_draw():
    found = baseline.arguments(manifest_of(settings={"critic.ensemble": 1}))
    assert found["settings"] == {"critic.ensemble": 1, "critic.subset": 1}
    assert baseline.arguments(manifest_of())["settings"] == {"critic.ensemble": 10, "critic.subset": 2}  # RLPD's own


def test_with_a_preset_the_baseline_takes_its_own_numbers_of_it():
    plan = manifest_of()["plan"] | {"reward_scale": 10 / 10.1, "reward_bias": 1 / 10.1 - 5}
    manifest = manifest_of(algorithm="cal_ql", preset="adroit-sparse", plan=plan, overrides={"critic.discount": 0.97},
                           settings={"critic.ensemble": 2, "critic.hidden": [512] * 3})  # fmt: skip
    found = baseline.arguments(manifest)
    assert found["settings"] == {"critic.ensemble": 2, "critic.subset": 2, "critic.discount": 0.97}
    assert (found["reward_scale"], found["reward_bias"]) == (1 / 10.1, -10 / 10.1)
    assert (found["preset"], found["warmup"], found["utd"]) == ("adroit-sparse", 0, 1.0)
    manifest["plan"] = plan | {"reward_scale": 2.0}  # the user's own
    assert baseline.arguments(manifest)["reward_scale"] == 2.0


def test_a_stopped_baseline_goes_on_with_its_run(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"baseline": True}))
    assert baseline.owner(tmp_path / "baseline") == tmp_path
    assert baseline.owner(tmp_path / "other") == tmp_path / "other"
    (tmp_path / "manifest.json").write_text("{}")
    assert baseline.owner(tmp_path / "baseline") == tmp_path / "baseline"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(online=0, warmup=0), "--baseline compares live learning; give --online N as well"),
        (dict(algorithm="rlpd", offline=0), "--baseline is RLPD, and so is this run; leave it out."),
        (dict(data=None, algorithm="sac", offline=0), "--baseline is RLPD on the same data, and there are none"),
    ],
)
def test_nothing_to_compare_with(pendulum, tmp_path, options, message):
    with pytest.raises(SettingsError) as error:
        small(**dict(data=pendulum, out=tmp_path / "run", settings=None) | options)
    assert message in str(error.value) and not (tmp_path / "run").exists()
