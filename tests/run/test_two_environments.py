"""Runs that learn live in a simulator and are evaluated in the system that their data are of."""

from __future__ import annotations

import json

import gymnasium
import pytest
from small import SMALL, small

import understudy
from understudy.errors import EnvError
from understudy.run.collect import Collector

SIMULATOR = "HeavyPendulum-v0"


@pytest.fixture
def simulator():
    gymnasium.register(SIMULATOR, "gymnasium.envs.classic_control.pendulum:PendulumEnv", max_episode_steps=200,
                       kwargs={"g": 20.0})  # fmt: skip
    yield SIMULATOR
    del gymnasium.registry[SIMULATOR]


def test_live_steps_are_of_the_one_and_evaluations_of_the_other(pendulum, tmp_path, simulator, monkeypatch):
    from understudy import envs
    from understudy.evaluate import rollouts

    live, played, filmed, rolled = [], [], [], rollouts.rollouts
    init = Collector.__init__
    monkeypatch.setattr(Collector, "__init__", lambda self, env, *a, **k: live.append(env) or init(self, env, *a, **k))
    monkeypatch.setattr(rollouts, "rollouts", lambda act, env, **k: played.append(env) or rolled(act, env, **k))
    monkeypatch.setattr("understudy.evaluate.video.record", lambda player, env, *a, **k: filmed.append(env))
    settings = SMALL | {"critic.classifier_hidden": (8,), "critic.samples": 2}
    run = small(pendulum, tmp_path / "run", "h2o", offline=0, online=6, env=simulator, eval_env="Pendulum-v1",
                evaluate=True, settings=settings)  # fmt: skip
    assert live == [simulator] and set(played) == {"Pendulum-v1"}
    assert (run.manifest["env"], run.manifest["plan"]["eval_env"]) == (simulator, "Pendulum-v1")
    [online] = run.manifest["phases"]
    assert (online["name"], online["offline_share"]) == ("online", 0.5)
    metrics = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()][-1]["metrics"]
    assert metrics["critic/pair"][0] > 0 and metrics["critic/ratio"][0] > 0
    run = understudy.resume(run, online=8)
    assert live == [simulator] * 2 and set(played) == {"Pendulum-v1"}
    played.clear()
    run.evaluate(episodes=1)
    run.record()
    assert played == filmed == ["Pendulum-v1"]
    assert "evaluated in</th><td>Pendulum-v1" in (run.path / "report.html").read_text().replace("\n", "")
    assert envs.describe(simulator).action_size == 1


def test_an_environment_of_other_sizes_is_refused(pendulum, tmp_path):
    with pytest.raises(EnvError, match="takes|differ"):
        small(pendulum, tmp_path / "run", "h2o", offline=0, online=6, eval_env="MountainCarContinuous-v0")
    with pytest.raises(EnvError, match="differ in the sizes of observations or actions; evaluate in one that fits"):
        small(None, tmp_path / "run", "sac", offline=0, online=6, eval_env="MountainCarContinuous-v0")
    assert not (tmp_path / "run").exists()
