"""Sinks: what was given is in the event file; W&B is offline; a missing package says how to get it."""

from __future__ import annotations

import struct
import sys
import types

import pytest

from understudy.errors import SettingsError
from understudy.run import sinks


def events(folder) -> list:
    """Every event of a folder's event files, in the order they were written."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))  # 8 length, 4 its checksum
            at += 12 + length + 4
    return found


def scalars(folder) -> list[tuple[str, int, float]]:
    return [(v.tag, e.step, v.simple_value) for e in events(folder) for v in e.summary.value]


def test_tensorboard_events_hold_what_was_given(tmp_path):
    pytest.importorskip("tensorboardX")
    sink = sinks.open_sink("tensorboard", tmp_path)
    sink.scalars(500, 0, {"critic/q": -2.5, "actor/loss": 0.25})
    sink.scalars(1000, 64, {"critic/q": -1.5})
    sink.close()
    sink.close()
    assert scalars(tmp_path / "tensorboard") == [
        ("critic/q", 500, -2.5),
        ("actor/loss", 500, 0.25),
        ("progress/env_steps", 500, 0.0),
        ("critic/q", 1000, -1.5),
        ("progress/env_steps", 1000, 64.0),
    ]


def test_tensorboard_hides_what_a_killed_process_wrote_beyond_the_checkpoint(tmp_path):
    pytest.importorskip("tensorboardX")
    sink = sinks.open_sink("tensorboard", tmp_path, {"resumes": [{"updates": 300}, {"updates": 700}]})
    sink.scalars(800, 0, {"critic/q": 1.0})
    sink.close()
    starts = [e.step for e in events(tmp_path / "tensorboard") if e.HasField("session_log")]
    assert starts == [701]  # TensorBoard drops earlier events from this step on; 700 itself stands


@pytest.mark.parametrize("name, package", [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=rf"{package}.*pip install understudy\[{name}\]"):
        sinks.open_sink(name, tmp_path)


def test_an_unknown_sink_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(SettingsError, match="Did you mean 'tensorboard'"):
        sinks.open_sink("tensorbord", tmp_path)


@pytest.fixture
def fake_wandb(monkeypatch):
    """A module that records what the adapter calls."""

    class Run:
        def __init__(self):
            self.logged, self.defined, self.finished = [], [], 0

        def define_metric(self, name, step_metric):
            self.defined.append((name, step_metric))

        def log(self, row):
            self.logged.append(row)

        def finish(self):
            self.finished += 1

    module = types.ModuleType("wandb")
    module.run = Run()
    module.init = lambda **given: setattr(module, "given", given) or module.run
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return module


def test_wandb_is_offline_and_gets_values_with_both_counters(tmp_path, fake_wandb):
    folder = tmp_path / "run-1"
    sink = sinks.open_sink("wandb", folder, {"algorithm": "iql", "settings": {"critic.tau": 0.005}, "resumes": []})
    sink.scalars(500, 20, {"critic/q": -2.5})
    sink.close()
    sink.close()
    assert fake_wandb.given == {
        "project": "understudy",
        "name": "run-1",
        "dir": str(folder),
        "mode": "offline",
        "config": {"algorithm": "iql", "settings": {"critic.tau": 0.005}},
    }
    assert fake_wandb.run.defined == [("*", "updates")]
    assert fake_wandb.run.logged == [{"critic/q": -2.5, "updates": 500, "env_steps": 20}]
    assert fake_wandb.run.finished == 1


def test_wandb_goes_online_only_when_asked(tmp_path, fake_wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    sinks.open_sink("wandb", tmp_path).close()
    assert fake_wandb.given["mode"] == "online"


def test_wandb_itself_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    sink = sinks.open_sink("wandb", tmp_path, {"algorithm": "iql"})
    sink.scalars(500, 0, {"critic/q": -2.5})
    sink.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
