from __future__ import annotations

import contextlib
import errno
import os

import numpy as np
import pytest

from understudy import data
from understudy.data import generate, players
from understudy.errors import DataError

pytest.importorskip("ogbench")
MAZE = "ogbench/pointmaze-medium-navigate-singletask-v0"
CUBE = "ogbench/cube-single-play-singletask-v0"


def columns(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_published_protocols():
    assert players.protocol("cube-single-play-v0") == players.Protocol("cube-single", "play", 1001, 0.1, 0.0, None)
    assert players.protocol("cube-triple-noisy-v0").random == 0.1
    assert players.protocol("puzzle-4x5-noisy-v0").random == 0.2
    assert players.protocol("pointmaze-giant-navigate-v0").rows == 2001
    name = "pointmaze-large-stitch-singletask-task3-v0"
    assert players.protocol(name) == players.Protocol("pointmaze-large", "stitch", 201, 0.5, 0.0, name)
    assert len(players.names()) == 28


@pytest.mark.parametrize(
    "name, message",
    [
        ("ogbench/cube-singel-play-v0", "Did you mean 'cube-single-play-v0'"),
        ("cube-singel-play-singletask-v0", "Did you mean 'cube-single-play-singletask-v0'"),
        ("visual-cube-single-play-v0", "images"),
        ("antmaze-medium-navigate-v0", "trained walkers"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(DataError, match=message):
        data.make(name)


@pytest.mark.parametrize("setting", [dict(episodes=0), dict(seed=-1), dict(workers=0), dict(steps=1.5)])
def test_settings_out_of_range(setting, tmp_path):
    with pytest.raises(DataError, match=f"{next(iter(setting))} is"):
        data.make(MAZE, tmp_path, **setting)


def test_the_result_does_not_depend_on_the_workers(tmp_path):
    """Three short episodes by one process and by two; a fourth changes none of them."""
    one = data.make(CUBE, tmp_path / "one", episodes=3, steps=12, workers=1, progress=False)
    two = data.make(CUBE, tmp_path / "two" / "named.npz", episodes=3, steps=12, workers=2, progress=False, validation=1)
    assert one.name == "cube-single-play-singletask-v0.npz" and two.name == "named.npz"
    a, b = columns(one), columns(two)
    assert a.keys() == b.keys() == {"observations", "actions", "terminals", "qpos", "qvel", "rewards", "masks"}
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    assert a["observations"].shape == (39, 28) and np.flatnonzero(a["terminals"]).tolist() == [12, 25, 38]
    assert not np.array_equal(a["observations"][0], a["observations"][13])  # episodes differ
    d = data.load(one)
    assert (d.size, d.lengths.tolist(), d.env) == (36, [12, 12, 12], CUBE.removeprefix("ogbench/"))
    assert data.load(tmp_path / "two" / "named-val.npz").size == 12
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"named.npz", "named-val.npz"}


def test_the_ogbench_package_reads_it(tmp_path):
    from ogbench.relabel_utils import relabel_dataset
    from ogbench.utils import load_dataset

    from understudy import envs

    path = data.make(MAZE, tmp_path, episodes=2, steps=40, workers=1, progress=False)
    theirs, ours = load_dataset(str(path), add_info=True), data.load(path).transitions()
    for key in ("observations", "actions", "next_observations"):
        np.testing.assert_array_equal(ours[key], theirs[key])
    relabel_dataset(MAZE, envs.make(MAZE.removeprefix("ogbench/")).unwrapped, theirs)
    np.testing.assert_array_equal(ours["rewards"], theirs["rewards"])


def test_describing_a_state_once_changes_nothing():
    """The arm's environment answers from memory within a step; the package's own class gives the same episode."""
    settings = players.Protocol("puzzle-3x3", "noisy", 30, 0.1, 0.2)
    quick = players.player(settings)
    plain = players.player(settings)
    own = type(plain.env)
    plain.env.__class__ = own.__mro__[1]
    assert type(plain.env).__name__ == "PuzzleEnv"
    quick.episode(5, 0, lambda n: None)  # what was played before does not matter
    a, b = quick.episode(5, 1, lambda n: None), plain.episode(5, 1, lambda n: None)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    assert a["button_states"].shape == (30, 9)


def test_the_point_follows_shortest_paths():
    free = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool)
    assert players._at_distance(free, (1, 1), 2) == [(3, 1), (1, 3)]
    assert players._at_distance(free, (1, 1), 40) == [(1, 1)]
    assert players._hallway(free, 2, 1) and players._hallway(free, 1, 2)
    assert not players._hallway(free, 1, 1) and not players._hallway(free, 1, 3)
    point = players.player(players.Protocol("pointmaze-medium", "navigate", 300, 0.0))
    recorded = point.episode(0, 0, lambda n: None)
    steps = np.linalg.norm(np.diff(recorded["qpos"], axis=0), axis=1)
    assert np.median(steps) == pytest.approx(0.2, abs=0.01)  # unit actions of 0.2


def test_progress_counts_every_step():
    point = players.player(players.Protocol("pointmaze-medium", "stitch", 120, 0.5))
    told = []
    point.episode(0, 0, told.append)
    assert told == [50, 50, 20]


def test_scene_episodes_with_the_cube_out_of_sight_are_recorded_again():
    place = lambda y, z: np.concatenate([np.zeros((1, 15)), [[y, z]]], 1)
    assert players._in_sight(place(0.0, 0.02)) and players._in_sight(place(-0.31, 0.07))
    assert not players._in_sight(place(0.3, 0.02)) and not players._in_sight(place(-0.31, 0.02))


@pytest.fixture
def started(monkeypatch):
    """The recording processes that were started."""
    from understudy.envs import process

    children = []

    class Watched(process.Child):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            children.append(self)

    monkeypatch.setattr(process, "Child", Watched)
    return children


def test_a_process_that_dies_is_reported(tmp_path, started, monkeypatch):
    send = generate._send

    def kill(child, tag, value):
        send(child, tag, value)
        if tag == b"N":
            child.process.kill()

    monkeypatch.setattr(generate, "_send", kill)
    with pytest.raises(DataError, match="killed, as when memory runs out.*workers=1"):
        data.make(MAZE, tmp_path / "new", episodes=2, workers=2, progress=False)
    assert not list((tmp_path / "new").iterdir())
    assert started and all(c.process.poll() is not None for c in started)


def test_an_interrupt_stops_the_processes_and_leaves_nothing(tmp_path, started, monkeypatch):
    class Impatient:
        def advance(self, n):
            raise KeyboardInterrupt

    monkeypatch.setattr(generate.shown, "bar", lambda *args, **kwargs: contextlib.nullcontext(Impatient()))
    with pytest.raises(KeyboardInterrupt):
        data.make(MAZE, tmp_path / "new", episodes=2, workers=1)
    assert not list((tmp_path / "new").iterdir())
    assert started and all(c.process.poll() is not None for c in started)


def test_what_is_there_is_kept_and_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    there = tmp_path / "pointmaze-medium-navigate-singletask-v0.npz"
    there.write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        data.make(MAZE, tmp_path)
    assert there.read_text() == "mine"
    with pytest.raises(DataError, match="MB free"):
        data.make(MAZE, tmp_path / "x.npz", episodes=10**12)
    with pytest.raises(DataError, match="written as .npz"):
        data.make(MAZE, tmp_path / "x.hdf5")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be written"):
        data.make(MAZE, tmp_path / "file" / "x.npz")
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path))
    with pytest.raises(DataError, match="exists already"):
        data.make(MAZE)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        generate.write_npz(tmp_path / "x.npz", {"a": np.zeros(3)})
    assert not list(tmp_path.iterdir())
