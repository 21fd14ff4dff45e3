"""Deterministic episodes, exact restore, vectors and their transitions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from understudy.envs import Episodes, finished, make, reset_seed, restore, transitions, vector
from understudy.errors import EnvError

NAMES = [
    "cube-single-play-singletask-v0",
    "scene-play-singletask-v0",
    "pointmaze-medium-navigate-singletask-v0",
    "pointmaze-teleport-navigate-singletask-v0",
    "AdroitHandDoorSparse-v1",
    "Pendulum-v1",
]


def play(env, actions) -> np.ndarray:
    rows = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append([*observation, reward, terminated, truncated, info.get("success", -1)])
    return np.array(rows)


def actions_for(env, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_goes_on_bitwise_in_another_object_with_another_past(name):
    original, other = Episodes(make(name), 7), Episodes(make(name), 9)
    actions = actions_for(original, 90)
    original.reset()
    original.reset()
    play(original, actions[:30])
    recipe = original.recipe()
    assert set(recipe) == {"seed", "episode", "actions", "observation"} and recipe["actions"].shape[0] == 30
    assert (recipe["seed"], recipe["episode"]) == (7, 1)
    for _ in range(3):
        other.reset()
        play(other, actions[30:60])
    restored = other.restore(recipe)
    assert np.array_equal(restored, recipe["observation"])
    expected = play(original, actions[60:])
    np.random.rand(5)  # nobody else's draws matter
    assert np.array_equal(play(other, actions[60:]), expected)
    assert (other.length, other.return_, other.success) == (original.length, original.return_, original.success)
    assert np.array_equal(original.reset()[0], other.reset()[0])  # and the episode after that


def test_an_episode_goes_on_bitwise_in_another_process(tmp_path):
    env = Episodes(make(NAMES[0]), 7)
    actions = actions_for(env, 60)
    env.reset()
    play(env, actions[:30])
    np.savez(tmp_path / "recipe.npz", **env.recipe(), rest=actions[30:])
    program = (
        "import sys, numpy as np\n"
        "from understudy.envs import Episodes, make\n"
        "recipe = dict(np.load(sys.argv[1]))\n"
        f"env = Episodes(make({NAMES[0]!r}), 0)\n"
        "env.reset(); env.step(np.ones(5, np.float32)); env.restore(recipe)\n"
        "np.save(sys.argv[2], [env.step(a)[0] for a in recipe['rest']])\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "recipe.npz", tmp_path / "out.npy"], check=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), [env.step(a)[0] for a in actions[30:]])


@pytest.mark.parametrize("name", ["cube-single-play-singletask-v0", "puzzle-3x3-play-singletask-v0"])
def test_a_reset_leaves_the_same_hidden_state_whatever_came_before(name):
    """OGBench's arms take random steps inside reset; controls and the solver's warm start must not differ by them."""
    import mujoco

    def state(env):
        own = env.unwrapped
        out = np.empty(mujoco.mj_stateSize(own._model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(own._model, own._data, out, mujoco.mjtState.mjSTATE_INTEGRATION)
        return np.concatenate([out, own._data.cfrc_ext.ravel()])

    fresh, used = Episodes(make(name), 7), Episodes(make(name), 1)
    used.reset()
    play(used, actions_for(used, 20))
    used.reset(seed=7)
    fresh.reset()
    assert np.array_equal(state(fresh), state(used))


def test_teleports_are_the_same_whatever_others_draw():
    envs = [Episodes(make("pointmaze-teleport-navigate-singletask-v0"), 0) for _ in range(2)]
    landed = []
    for i, env in enumerate(envs):
        np.random.seed(i)
        env.reset()
        gate = np.array(env.unwrapped._teleport_info["teleport_in_xys"][0], float)
        path = []
        for _ in range(12):
            env.unwrapped.set_xy(gate)
            env.step(np.zeros(2, np.float32))
            path.append(env.unwrapped.get_xy().tolist())
        landed.append(path)
    assert landed[0] == landed[1]
    assert len({tuple(xy) for xy in landed[0]}) > 1  # there was something to draw


def test_the_global_generator_is_left_alone():
    env = Episodes(make("pointmaze-teleport-navigate-singletask-v0"), 0)
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    env.reset()
    env.step(np.ones(2, np.float32))
    assert np.array_equal(np.random.get_state()[1], before)


def test_a_recipe_that_does_not_come_out_is_refused(scripted):
    env = Episodes(make(scripted), 0)
    env.reset()
    env.step(np.zeros(1, np.float32))
    recipe = env.recipe()
    with pytest.raises(EnvError, match="is not deterministic.*another observation after 1 steps"):
        env.restore(recipe | {"observation": recipe["observation"] + 1})
    with pytest.raises(EnvError, match="ends before the recorded actions do"):
        env.restore(recipe | {"actions": np.zeros((5, 1), np.float32)})
    env.restore({key: recipe[key] for key in ("seed", "episode", "actions")})  # the observation is optional
    with pytest.raises(RuntimeError, match="reset"):
        Episodes(make(scripted), 0).recipe()


def test_streams_differ_and_count(scripted):
    env = Episodes(make(scripted), 3, episode=4)
    starts = []
    for number in (4, 5):
        starts.append(env.reset()[0][0])
        assert env.episode == number and env.env_seed == reset_seed(3, number)
    assert starts[0] != starts[1]
    assert env.reset(seed=8)[0][0] == Episodes(make(scripted), 8).reset()[0][0] and env.episode == 0
    assert len({reset_seed(s, e) for s in (0, 1, 5, 2**32 + 5) for e in range(3)}) == 12


def test_a_vector_step_becomes_transitions_with_nothing_void(scripted):
    envs = vector(scripted, [0, 1])
    observations, _ = envs.reset()
    starts = [[Episodes(make(scripted), s, e).reset()[0][0] for e in range(3)] for s in (0, 1)]
    assert observations.tolist() == [[starts[0][0], 0], [starts[1][0], 0]]
    # Environment 0 succeeds with its second action; both are cut at 4 steps otherwise. Rewards are 10, 11, 12, 13.
    script = [(0, 0), (1, 0), (0, 0), (0, 0), (0, 0), (0, 0)]
    got, over = [], []
    for pair in script:
        actions = np.array(pair, np.float32)[:, None]
        result = envs.step(actions)
        got.append(transitions(observations, actions, result))
        over.append(finished(result))
        observations = result[0]
    column = lambda key, i: [step[key][i].tolist() for step in got]
    a, b = starts[0], starts[1]
    assert column("observations", 0) == [[a[0], 0], [a[0], 1], [a[1], 0], [a[1], 1], [a[1], 2], [a[1], 3]]
    assert column("next_observations", 0) == [[a[0], 1], [a[0], 2], [a[1], 1], [a[1], 2], [a[1], 3], [a[1], 4]]
    assert column("rewards", 0) == [10, 11, 10, 11, 12, 13]
    assert column("masks", 0) == [1, 0, 1, 1, 1, 1]  # the time limit at the end does not cut the bootstrap
    assert column("ends", 0) == [False, True, False, False, False, True]
    assert column("next_observations", 1) == [[b[0], 1], [b[0], 2], [b[0], 3], [b[0], 4], [b[1], 1], [b[1], 2]]
    assert column("observations", 1) == [[b[0], 0], [b[0], 1], [b[0], 2], [b[0], 3], [b[1], 0], [b[1], 1]]
    assert column("masks", 1) == [1] * 6 and column("ends", 1) == [False] * 3 + [True] + [False] * 2
    assert {key: value.dtype.name for key, value in got[1].items()} == {
        "observations": "float32",
        "actions": "float32",
        "rewards": "float32",
        "masks": "float32",
        "next_observations": "float32",
        "ends": "bool",
    }
    assert [len(o) for o in over] == [0, 1, 0, 1, 0, 1]
    first, second, third = over[1][0], over[3][0], over[5][0]
    assert (first.env, first.return_, first.success, first.length) == (0, 21.0, 1.0, 2)
    assert (second.env, second.return_, second.success, second.length) == (1, 46.0, 0.0, 4)
    assert (third.env, third.return_, third.success, third.length) == (0, 46.0, 0.0, 4)
    assert observations.tolist() == [[a[2], 0], [b[1], 2]]


def test_a_vector_is_restored_mid_episode(scripted):
    one, two = vector(scripted, [0, 1]), vector(scripted, [5, 6])
    one.reset()
    two.reset()
    step = np.zeros((2, 1), np.float32)
    for _ in range(6):
        observations = one.step(step)[0]
    assert np.array_equal(restore(two, [env.recipe() for env in one.envs]), observations)
    for _ in range(6):
        for left, right in zip(one.step(step)[:4], two.step(step)[:4]):
            assert np.array_equal(left, right)
    with pytest.raises(EnvError, match="Expected 2 episode recipes"):
        restore(two, [])


def test_no_success_stays_none_in_a_vector():
    envs = vector("Pendulum-v1", [0])
    envs.reset()
    for _ in range(200):
        result = envs.step(np.zeros((1, 1), np.float32))
    (episode,) = finished(result)
    assert episode.success is None and episode.length == 200 and result[3][0] and not result[2][0]
