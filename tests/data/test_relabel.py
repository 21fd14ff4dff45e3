from __future__ import annotations

import numpy as np
import pytest

from understudy import data
from understudy.data import relabel
from understudy.errors import DataError

pytest.importorskip("ogbench")
CUBE, MAZE = "cube-single-play-singletask-v0", "pointmaze-medium-navigate-singletask-v0"


def test_names():
    assert relabel.env_of("cube-single-play-singletask-v0") == "cube-single-play-singletask-v0"
    assert relabel.env_of("puzzle-4x4-play-singletask-task3-v0-val") == "puzzle-4x4-play-singletask-task3-v0"
    assert relabel.env_of("cube-single-play-v0") is None and relabel.env_of("adroit-door-human") is None
    assert relabel.family("antsoccer-arena-navigate-v0") == "antsoccer" and relabel.family("HalfCheetah-v5") is None


def test_mazes_relabel_as_the_ogbench_package_does(shared_data):
    import ogbench

    path = shared_data("pointmaze-medium-navigate-v0.npz")
    shared_data("pointmaze-medium-navigate-v0-val.npz")
    env, theirs, _ = ogbench.make_env_and_datasets(MAZE, dataset_path=str(path))
    before = np.random.get_state()
    d = data.load(path, env=MAZE)
    np.testing.assert_array_equal(d.rewards, theirs["rewards"])
    np.testing.assert_array_equal(d.masks, theirs["masks"])
    assert (d.rewards == 0).sum() == d.terminations.sum() > 1000
    assert str(np.random.get_state()) == str(before)  # the global stream is left alone
    assert data.load(path).rewards is None and data.load(path, env=MAZE, rewards="none").rewards is None


def test_positions_in_the_observations_give_the_recorded_rewards(shared_data):
    """The cube file has no qpos; its recorded rewards came from qpos."""
    path = shared_data(f"{CUBE}.npz")
    recorded, derived = data.load(path), data.load(path, rewards="relabel")
    assert (recorded.rewards != derived.rewards).sum() == 0
    assert (recorded.terminations != derived.terminations).sum() == 0
    other = data.load(path, env="cube-single-play-singletask-task3-v0")
    assert (other.rewards != recorded.rewards).mean() > 0.01 and other.env.endswith("task3-v0")


def cubes(distance: float) -> dict[str, np.ndarray]:
    """Four rows; the cube is `distance` from the goal of the default task (0.50, 0.0, 0.02) in rows 1 and 3."""
    qpos = np.zeros((4, 21), np.float32)
    qpos[:, 14:17] = [0.35, 0.0, 0.02]
    qpos[[1, 3], 14:17] = [0.50 + distance, 0.0, 0.02]
    return dict(observations=np.zeros((4, 28)), actions=np.zeros((4, 5)), qpos=qpos,
                terminals=np.array([0, 0, 0, 1], bool))  # fmt: skip


def test_reward_belongs_to_the_state_before_the_action(save):
    d = data.load(save(cubes(0.039), "cube-single-play-v0.npz"), env=CUBE)
    assert d.rewards.tolist() == [-1, 0, -1] and d.masks.tolist() == [1, 0, 1]  # row 3 is no transition
    d = data.load(save(cubes(0.041), "far.npz"), env=CUBE)
    assert d.rewards.tolist() == [-1, -1, -1]


def test_a_reward_free_file_is_relabelled_by_the_name_of_the_task(save, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path))
    save(cubes(0.0), "cube-single-play-v0.npz")
    d = data.load(f"ogbench/{CUBE}")
    assert d.env == CUBE and d.rewards.tolist() == [-1, 0, -1]


def test_recorded_rewards_of_another_task_are_not_taken(save):
    columns = cubes(0.0) | {"rewards": np.full(4, -5.0), "masks": np.ones(4)}
    path = save(columns, f"{CUBE}.npz")
    assert data.load(path).rewards.tolist() == [-5] * 3
    assert data.load(path, env="cube-single-play-singletask-task3-v0").rewards.tolist() == [0, -1, 0]
    assert data.load(path, env="cube-single-play-singletask-task3-v0", rewards="file").rewards.tolist() == [-5] * 3


def test_what_a_rule_needs_and_does_not_find(save, rows):
    with pytest.raises(DataError, match="21 joint positions"):
        data.load(save(cubes(0) | {"qpos": np.zeros((4, 2))}, "a.npz"), env=CUBE)
    del rows["rewards"], rows["masks"]
    with pytest.raises(DataError, match="no qpos in the file"):
        data.load(save(rows, "b.npz"), env=CUBE)
    with pytest.raises(DataError, match="no button_states"):
        data.load(save(cubes(0) | {"qpos": np.zeros((4, 25))}, "c.npz"), env="scene-play-singletask-v0")
    with pytest.raises(DataError, match="no rule derives rewards for HalfCheetah-v5"):
        data.load(save(rows, "d.npz"), env="HalfCheetah-v5", rewards="relabel")
    with pytest.raises(DataError, match="rewards is 'fiel'"):
        data.load(save(rows, "e.npz"), rewards="fiel")
    with pytest.raises(DataError, match="39 entries"):
        data.load(save(rows, "f.npz"), env=relabel.DOOR)


def test_rewards_of_the_file_are_not_replaced_without_a_word(save):
    columns = cubes(0.0) | {"rewards": np.array([0.5, 0, -1, 0.0]), "masks": np.ones(4)}
    path = save(columns, "own.npz")
    notes = data.load(path, env=CUBE).notes
    assert any(n.startswith("warning: The file's own rewards were replaced") and "rewards='file'" in n for n in notes)
    assert data.load(path, env=CUBE, rewards="file").rewards.max() == 0.5
    assert not any("replaced" in n for n in data.load(path, env=CUBE, rewards="relabel").notes)


def test_check_tells_the_older_reward_timing(save):
    columns = cubes(0.0)
    place = (columns["qpos"][:, 14:17] - [0.425, 0, 0]) * 10
    columns["observations"][:, 19:22] = place
    now = {"rewards": np.array([-1, 0, -1, 0.0]), "masks": np.array([1, 0, 1, 0.0])}
    older = {"rewards": np.array([0, -1, 0, 0.0]), "masks": np.array([0, 1, 0, 0.0])}
    texts = [[f.message for f in data.check(save(columns | r, f"{CUBE}.npz"))] for r in (now, older)]
    assert any("agree with the environment's" in t for t in texts[0])
    assert any("as before ogbench 1.2.0" in t for t in texts[1])
