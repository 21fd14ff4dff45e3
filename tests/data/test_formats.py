from __future__ import annotations

import numpy as np
import pytest

from understudy import data
from understudy.data import loading
from understudy.errors import DataError


def assert_equal(a: data.Dataset, b: data.Dataset) -> None:
    x, y = a.transitions(), b.transitions()
    assert x.keys() == y.keys()
    for key in x:
        np.testing.assert_array_equal(x[key], y[key], key)


def test_ogbench_rows_by_hand(rows, save):
    d = data.load(save(rows))
    t = d.transitions()
    assert t["observations"][:, 0].tolist() == [0, 1, 2, 4, 5]
    assert t["next_observations"][:, 0].tolist() == [1, 2, 3, 5, 6]
    assert t["actions"][:, 0] == pytest.approx([0, 0.1, 0.2, 0.4, 0.5])
    assert t["rewards"].tolist() == [-1, 0, -1, -1, -1]
    assert t["masks"].tolist() == [1, 0, 1, 1, 1]  # success in mid-trajectory cuts the bootstrap, not the trajectory
    assert t["ends"].tolist() == [False, False, True, False, True]
    assert d.truncations.tolist() == [False, False, True, False, True]
    assert d.lengths.tolist() == [3, 2]


def test_ogbench_without_rewards(rows, save):
    del rows["rewards"], rows["masks"]
    d = data.load(save(rows))
    assert d.rewards is None and not d.terminations.any() and "no rewards" in d.notes[0]


def test_what_the_ogbench_loader_makes_of_a_file_reads_the_same(rows, save):
    """Its rows with `valids` and its rows with `next_observations`, saved again, are the same data."""
    from ogbench.utils import load_dataset

    path = save({k: rows[k] for k in ("observations", "actions", "terminals")})
    expected = data.load(path)
    for compact in (True, False):
        assert_equal(data.load(save(load_dataset(str(path), compact_dataset=compact), f"again{compact}.npz")), expected)


def test_rows_with_successors_that_are_not_the_next_rows_are_trajectories_of_their_own(rows, save):
    from ogbench.utils import load_dataset

    path = save({k: rows[k] for k in ("observations", "actions", "terminals")})
    compact = load_dataset(str(path), compact_dataset=False)
    order = np.arange(len(compact["actions"]))[::-1]  # as from a replay buffer
    d = data.load(save({k: v[order] for k, v in compact.items()}, "shuffled.npz"))
    t = d.transitions()
    np.testing.assert_array_equal(t["observations"], compact["observations"][order])
    np.testing.assert_array_equal(t["next_observations"], compact["next_observations"][order])
    assert any("followed by another trajectory" in note for note in d.notes)
    for width in (1, 3):
        wrong = compact | {"next_observations": np.zeros((len(order), width), np.float32)}
        with pytest.raises(DataError, match="observations are .* and next_observations .*; expected the same"):
            data.load(save(wrong, f"wrong{width}.npz"))


@pytest.mark.parametrize("name", ["cube-single-play-singletask-v0.npz", "pointmaze-medium-navigate-v0.npz"])
def test_row_for_row_as_the_ogbench_loader(shared_data, name):
    from ogbench.utils import load_dataset

    path = shared_data(name)
    theirs, d = load_dataset(str(path)), data.load(path)
    ours = d.transitions()
    for key in ("observations", "actions", "next_observations"):
        np.testing.assert_array_equal(ours[key], theirs[key])
    np.testing.assert_array_equal(ours["ends"], theirs["terminals"] == 1)
    assert (d.size, d.episodes) == (1_000_000, 1_000)
    if "cube" in name:
        with np.load(path) as file:
            used = ~file["terminals"]
            np.testing.assert_array_equal(ours["rewards"], file["rewards"][used])
            np.testing.assert_array_equal(ours["masks"], file["masks"][used])
        assert d.env == "cube-single-play-singletask-v0" and d.notes == ()


def test_d4rl_by_hand(flat, save):
    d = data.load(save(flat, "data.hdf5"))
    t = d.transitions()
    assert t["observations"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert t["next_observations"][:, 0].tolist() == [1, 2, 2, 4, 5]
    assert t["masks"].tolist() == [1, 1, 0, 1, 1]
    assert d.lengths.tolist() == [3, 2]


def test_masks_stand_for_terminals_where_there_are_none(flat, save):
    expected = data.load(save(flat, "terminals.hdf5"))
    flat["masks"] = 1.0 - flat.pop("terminals")
    assert_equal(data.load(save(flat, "masks.hdf5")), expected)


def test_d4rl_with_successors_loses_nothing(flat, save):
    flat["next_observations"] = flat["observations"] + [1, -1]
    d = data.load(save(flat, "data.hdf5"))
    assert d.size == 6 and d.transitions()["next_observations"][:, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_d4rl_in_an_npz_and_gymnasiums_words_read_the_same(flat, save):
    expected = data.load(save(flat, "a.hdf5"))
    assert_equal(data.load(save(flat, "b.npz")), expected)
    words = {"terminals": "terminations", "timeouts": "truncations"}
    assert_equal(data.load(save({words.get(k, k): v for k, v in flat.items()}, "c.npz")), expected)


def test_terminals_alone_mean_what_each_project_means(rows, flat, save):
    """OGBench: end of trajectory. D4RL: real termination."""
    del flat["timeouts"]
    assert data.load(save(flat, "a.hdf5")).masks.tolist() == [1, 1, 0, 1, 1]
    del rows["rewards"], rows["masks"]
    assert data.load(save(rows, "b.npz")).masks.tolist() == [1] * 5


def test_door_demonstrations(shared_data):
    path = shared_data("adroit-door-human.hdf5")
    d = data.load(path, env="AdroitHandDoorSparse-v1")
    assert (d.size, d.episodes) == (6729 - 25, 25)  # the last of each has no successor
    assert d.actions.min() >= -1 and d.actions.max() <= 1
    assert any("5.6% of action entries" in note for note in d.notes)
    hinge = d.observations[d.rows + 1, 28]
    np.testing.assert_array_equal(d.rewards, np.where(hinge >= 1.35, np.float32(10), np.float32(-0.1)))
    assert not d.terminations.any() and d.truncations.sum() == 25
    assert data.load(path).env == "AdroitHandDoor-v1"


def test_door_rewards_are_those_that_the_environment_pays():
    """Turn the hinge by hand: reward and hinge column of the step's own observation obey the derived rule."""
    envs = pytest.importorskip("understudy.envs")
    env = envs.make("AdroitHandDoorSparse-v1")
    env.reset(seed=0)
    own, seen = env.unwrapped, set()
    for angle in (0.0, 1.2, 1.34, 1.36, 1.5):
        state = own.get_env_state()
        state["qpos"][own.door_hinge_addrs] = angle
        own.set_env_state(state)
        observation, reward, terminated, _, info = env.step(np.zeros(28, np.float32))
        solved = observation[28] >= np.float32(1.35)
        seen.add(bool(solved))
        assert reward == (10.0 if solved else -0.1) and bool(info["success"]) == solved and not terminated
    assert seen == {False, True}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x80\x04\x95abc", "a pickle, which is never opened"),
        (b"\x93NUMPY\x01\x00", "a single .npy"),
        (b"PK\x03\x04 and then nothing", "damaged or cut short"),
        (b"\x89HDF\r\n\x1a\n and then nothing", "damaged or cut short"),
        (b"hello", "of a kind that is not known"),
    ],
)
def test_wrong_files(tmp_path, content, message):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        data.load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("name", ["data.npz", "data.hdf5"])
def test_files_cut_short_anywhere_never_end_in_another_error(rows, flat, save, name, tmp_path):
    whole = save(rows if name.endswith("npz") else flat, name).read_bytes()
    for size in range(1, len(whole), max(1, len(whole) // 60)):
        path = tmp_path / f"cut{size}{name}"
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            data.load(path)


def test_a_flipped_byte_is_found(rows, tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **rows)
    content = bytearray(path.read_bytes())
    content[len(content) // 5] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        data.load(path)


@pytest.mark.parametrize("name", ["data.npz", "data.hdf5"])
def test_flipped_bytes_anywhere_never_end_in_another_error(rows, flat, save, name, tmp_path):
    """A flipped byte may ask for an unknown compression, a name that is no text, or a link in a circle."""
    whole = save(rows if name.endswith("npz") else flat, name).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        content = bytearray(whole)
        for i in rng.integers(0, len(content), 5):
            content[i] ^= int(rng.integers(1, 256))
        path = tmp_path / f"flipped{name}"
        path.write_bytes(content)
        try:
            data.load(path)
        except DataError:
            refused += 1
    assert refused > 30, refused


def test_rows_of_no_numbers_are_an_error(rows, save):
    for key in ("actions", "observations"):
        with pytest.raises(DataError, match=rf"{key} has the shape \[., 0\], rows of no numbers"):
            data.load(save(rows | {key: np.zeros((7, 0), np.float32)}))


def test_python_objects_are_never_opened(rows, save):
    class Trap:
        def __reduce__(self):
            raise AssertionError("written, not read")

    rows["rewards"] = np.array([{}] * 7, object)
    with pytest.raises(DataError, match="Python objects in 'rewards', which are never opened"):
        data.load(save(rows))


def test_links_to_other_files_are_not_followed(flat, save, tmp_path):
    import h5py

    other = save(flat, "other.hdf5")
    with h5py.File(tmp_path / "links.hdf5", "w") as file:
        for key in flat:
            file[key] = h5py.ExternalLink(str(other), key)
    with pytest.raises(DataError, match="no 'observations'"):
        data.load(tmp_path / "links.hdf5")


def test_missing_keys_are_named(rows, save):
    rows["observation"] = rows.pop("observations")
    with pytest.raises(DataError, match="no 'observations' among .*Did you mean 'observation'"):
        data.load(save(rows))


def test_not_a_number_is_reported_with_its_row_in_the_file(rows, save):
    rows["actions"][5, 0] = np.nan  # the fourth transition from the end of the file is row 5
    with pytest.raises(DataError, match="actions holds NaN, first in row 5"):
        data.load(save(rows))


def test_marks_of_trajectory_ends(rows, save):
    last = rows["terminals"]
    last[-1] = False
    d = data.load(save(rows, "a.npz"))
    assert d.lengths.tolist() == [3, 2] and "ends no trajectory" in d.notes[0]
    last[:] = False
    d = data.load(save(rows | {"rewards": np.zeros(7)}, "b.npz"))
    assert d.lengths.tolist() == [6] and "one trajectory" in d.notes[0]
    last[:] = [0, 0, 1, 1, 0, 0, 1]
    d = data.load(save(rows, "c.npz"))
    assert d.lengths.tolist() == [2, 2] and d.transitions()["next_observations"][:, 0].tolist() == [1, 2, 5, 6]
    last[:] = True
    with pytest.raises(DataError, match="no row holds a transition"):
        data.load(save(rows, "d.npz"))


def test_masks_that_are_none(rows, save):
    rows["masks"][2] = 0.5
    with pytest.raises(DataError, match="masks holds 0.5 in row 2; expected 0 or 1"):
        data.load(save(rows))


def test_other_projects_are_recognised(tmp_path):
    import h5py

    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((2, 1))
    with pytest.raises(DataError, match="layout of robomimic"):
        data.load(tmp_path / "r.hdf5")


def test_names_are_looked_up(rows, save, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    name = "cube-single-play-singletask-v0"
    with pytest.raises(DataError, match=f"make it with: understudy data make ogbench/{name}"):
        data.load(f"ogbench/{name}")
    path = save(rows, f"{name}.npz")
    for given in (f"ogbench/{name}", name, path):
        d = data.load(given)
        assert d.env == name
    assert loading.locate("ogbench/cube-single-play-singletask-v0") == path
    with pytest.raises(DataError, match="Did you mean 'cube-single-play-singletask-v0.npz'"):
        data.load(tmp_path / "cube-single-play-singletsk-v0.npz")
    with pytest.raises(DataError, match="Did you mean 'ogbench/cube-single"):
        data.load("ogbench/cube-singel-play-singletask")
    for odd in ("x" * 5000 + ".npz", "a\0b.npz"):
        with pytest.raises(DataError, match="There is no file"):
            data.load(odd)


def test_info(rows, save):
    about = data.info(save(rows))
    assert about["transitions"] == 5 and about["episodes"] == 2
    assert about["length"] == {"min": 2, "median": 2.5, "max": 3}
    assert about["observation_shape"] == [2] and about["action_size"] == 1
    assert about["rewards"] == {"min": -1.0, "mean": pytest.approx(-0.8), "max": 0.0}
    assert about["share_terminated"] == 0.2 and about["episodes_with_termination"] == 1
    assert about["layout"] == "OGBench" and len(about["sha256"]) == 64
    import hashlib
    import json
    import pathlib

    assert about["sha256"] == hashlib.sha256(pathlib.Path(about["path"]).read_bytes()).hexdigest()
    json.dumps(about)


def test_check_collects_instead_of_raising(rows, save):
    assert [f.level for f in data.check(save(rows))] == ["info"]
    rows["rewards"][0], rows["masks"][1] = np.inf, 7
    found = data.check(save(rows))
    assert [(f.level, f.key, f.row) for f in found] == [("error", "rewards", 0), ("error", "masks", 1)]
    assert all(f.mend for f in found)
    assert [f.level for f in data.check("/nowhere/at/all.npz")] == ["error"]


def test_check_says_of_images_that_nothing_learns_from_them_yet(rows, save):
    rows["observations"] = np.zeros((7, 4, 4, 3), np.uint8)
    error = data.check(save(rows))[0]
    assert (error.level, error.key) == ("error", "observations") and "[N, 4, 4, 3]" in error.message


def test_the_range_of_the_environment_is_used_where_the_actions_leave_the_unit_box(flat, save):
    flat["actions"] = np.array([[-2], [-1], [0], [1], [2], [0.5]], np.float32)
    d = data.load(save(flat, "raw.hdf5"), env="Pendulum-v1")  # its own range is [-2, 2]
    assert d.actions[:, 0].tolist() == [-1, -0.5, 0, 0.5, 1] and d.action_high.tolist() == [2]
    flat["actions"] /= 2
    d = data.load(save(flat, "scaled.hdf5"), env="Pendulum-v1")
    assert d.actions[:, 0].tolist() == [-1, -0.5, 0, 0.5, 1] and d.action_high.tolist() == [1]
    assert any("already scaled" in note for note in d.notes)
