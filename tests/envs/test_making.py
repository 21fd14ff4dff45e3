"""What `make` and `describe` promise, and what unusable ids get."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from understudy.envs import describe, make
from understudy.errors import DivergenceError, EnvError

CUBE = "cube-single-play-singletask-v0"


def test_the_scripted_environment_is_mapped_and_reduced(scripted):
    env = make(scripted)
    observation, info = env.reset(seed=0)
    assert observation.dtype == np.float32 and observation.shape == (2,) and info == {}
    for given, own in [(-1.0, 0.0), (0.0, 2.0), (0.25, 2.5), (7.0, 4.0)]:  # [-1, 1] -> [0, 4], clipped
        env.reset(seed=0)
        observation, reward, terminated, truncated, info = env.step(np.array([given], np.float32))
        assert env.unwrapped.received == pytest.approx(own)
    assert info == {"success": 1.0} and terminated and reward == 10.0 and observation.dtype == np.float32
    spec = describe(scripted)
    assert spec.observation_shape == (2,) and spec.action_size == 1 and spec.max_episode_steps == 4
    assert spec.has_success and spec.score is None and spec.normalised(3.0) is None
    assert spec.action_low.tolist() == [0] and spec.action_high.tolist() == [4]


def test_an_action_that_is_no_number_or_does_not_fit_is_refused(scripted):
    env = make(scripted)
    env.reset(seed=0)
    with pytest.raises(DivergenceError, match="not a number"):
        env.step(np.array([np.nan], np.float32))
    with pytest.raises(EnvError, match=r"takes actions \(1,\); got \(2,\)"):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("name", "shape", "size", "limit", "success"),
    [
        (CUBE, (28,), 5, 200, True),
        ("cube-single-play-singletask-task3-v0", (28,), 5, 200, True),
        ("pointmaze-medium-navigate-singletask-v0", (2,), 2, 1000, True),
        ("antmaze-large-explore-singletask-task5-v0", (29,), 8, 1000, True),
        ("AdroitHandDoorSparse-v1", (39,), 28, 200, True),
        ("HalfCheetah-v5", (17,), 6, 1000, False),
        ("Pendulum-v1", (3,), 1, 200, False),
    ],
)
def test_benchmarks_are_described(name, shape, size, limit, success, capfd):
    spec = describe(name)
    assert (spec.observation_shape, spec.action_size, spec.max_episode_steps, spec.has_success) == (
        shape,
        size,
        limit,
        success,
    )
    env = make(name)
    observation, _ = env.reset(seed=1)
    assert observation.shape == shape and observation.dtype == np.float32
    assert ("mujoco" in spec.versions) == (name != "Pendulum-v1")
    assert capfd.readouterr().err == ""  # nothing noisy reaches the user


@pytest.mark.parametrize(
    ("name", "task"),
    [(CUBE, 2), ("cube-single-play-singletask-task3-v0", 3), ("cube-single-noisy-singletask-task4-v0", 4)],
)
def test_task_names_choose_the_task(name, task):
    env = make(name)
    env.reset(seed=0)
    assert env.unwrapped.cur_task_id == task  # the default task of cubes is the second


def test_the_normalised_score_is_d4rl_s_for_half_cheetah_and_none_for_adroit():
    cheetah = describe("HalfCheetah-v5")
    assert cheetah.normalised(-280.178953) == pytest.approx(0) and cheetah.normalised(12135.0) == pytest.approx(100)
    assert describe("AdroitHandDoorSparse-v1").score is None and describe(CUBE).score is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cube-single-play-v0", "goal-conditioned.*use 'cube-single-play-singletask-v0'"),
        ("pointmaze-medium-v0", "goal-conditioned.*use 'pointmaze-medium-navigate-singletask-v0'"),
        ("antmaze-large-stitch-oraclerep-v0", "goal-conditioned.*use 'antmaze-large-stitch-singletask-v0'"),
        ("cube-singel-play-singletask-v0", "Unknown.*Did you mean 'cube-single-play-singletask-v0'"),
        ("cube-single-play-singletask-task9-v0", "Unknown.*Did you mean 'cube-single-play-singletask-task"),
        ("cube-single-navigate-singletask-v0", "Unknown.*Did you mean 'cube-single-"),
        ("ogbench/cube-single-play-singletask-v0", "Unknown.*Did you mean 'cube-single-play-singletask-v0'"),
        ("visual-cube-single-play-singletask-v0", "gives images"),
        ("HalfChetah-v5", "Unknown.*Did you mean 'HalfCheetah-v"),
        ("zzz", "Unknown environment 'zzz'. Examples: cube-single"),
        ("CartPole-v1", r"takes actions Discrete\(2\)"),
        ("os:system-v0", "names a module"),
        ("", "Expected an environment id"),
    ],
)
def test_unusable_ids_get_one_sentence(name, words):
    with pytest.raises(EnvError, match=words) as error:
        make(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "package"), [(CUBE, "ogbench"), ("AdroitHandDoorSparse-v9", "gymnasium_robotics")])
def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch, name, package):
    real = builtins.__import__

    def absent(module, *args, **kwargs):
        if module.split(".")[0] == package:
            raise ImportError(f"No module named '{package}'")
        return real(module, *args, **kwargs)

    import importlib

    real_import_module = importlib.import_module
    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setattr(
        importlib, "import_module", lambda m, *a: absent(m) if m == package else real_import_module(m, *a)
    )
    with pytest.raises(EnvError, match=r"pip install 'understudy\[envs\]'"):
        make(name)


def test_no_success_is_reported_where_the_task_defines_none():
    env = make("Pendulum-v1")
    env.reset(seed=0)
    assert env.step(np.zeros(1, np.float32))[-1] == {}


def test_the_cube_is_rewarded_for_the_state_before_the_action():
    """As the relabelled data: reaching the goal pays and terminates one step later (ogbench 1.2.2)."""
    env = make(CUBE)
    env.reset(seed=0)
    own = env.unwrapped
    step = lambda: env.step(np.zeros(5, np.float32))[1:3] + (env.env.unwrapped._success,)
    assert step() == (-1.0, False, False)
    own._data.joint("object_joint_0").qpos[:3] = own._data.mocap_pos[own._cube_target_mocap_ids[0]]
    own._data.joint("object_joint_0").qvel[:] = 0
    own._success = False
    import mujoco

    mujoco.mj_forward(own._model, own._data)
    own.post_step()  # the state now holds the cube at its goal
    assert step()[:2] == (0.0, True)


def test_cubes_share_one_model_and_play_as_if_they_did_not(monkeypatch):
    from understudy.envs import Episodes, ogbench

    first, second = make(CUBE), make(CUBE)
    assert first.unwrapped._model is second.unwrapped._model and first.unwrapped._data is not second.unwrapped._data
    monkeypatch.setattr(ogbench, "_newest", {})
    alone = make(CUBE)
    assert alone.unwrapped._model is not first.unwrapped._model
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 5)).astype(np.float32)
    first, second, alone = Episodes(first, 3), Episodes(second, 8), Episodes(alone, 8)
    first.reset()
    assert np.array_equal(second.reset()[0], alone.reset()[0])
    for action in actions:
        first.step(-action)  # the other one moves too, between the steps
        assert np.array_equal(second.step(action)[0], alone.step(action)[0])
    scenes = [make("scene-play-singletask-v0").unwrapped for _ in range(2)]
    for scene in scenes:
        scene.reset(seed=0)
    assert scenes[0]._model is not scenes[1]._model  # its steps write damping into the model
