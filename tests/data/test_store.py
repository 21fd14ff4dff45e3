from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from understudy import data
from understudy.data import store
from understudy.errors import DataError


@pytest.fixture
def dataset(rows, save):
    return data.load(save(rows))


def assert_same(a, b):
    x, y = a.transitions(mc_discount=0.9), b.transitions(mc_discount=0.9)
    assert x.keys() == y.keys()
    for key in x:
        np.testing.assert_array_equal(x[key], y[key])
        assert x[key].dtype == y[key].dtype


def test_a_store_gives_back_the_same_mapped(dataset, tmp_path):
    folder = store.write(dataset, tmp_path / "store")
    back = data.load(folder)
    assert_same(dataset, back)
    assert isinstance(back.observations, np.memmap) and isinstance(back.actions, np.memmap)
    assert (back.env, back.lengths.tolist(), len(back.sha256)) == (dataset.env, [3, 2], 64)
    assert back.sha256 == data.load(folder).sha256
    assert data.check(folder)[-1].level == "info" and data.info(folder)["layout"] == "store"
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_nested_observations_and_no_rewards(tmp_path):
    o = {"state": np.arange(4.0)[:, None], "camera": {"front": np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)}}
    d = data.from_arrays(o, np.zeros((4, 2)), truncations=[0, 0, 0, 1])
    back = store.open(store.write(d, tmp_path / "s"))
    assert back.rewards is None
    t, b = d.transitions(), back.transitions()
    np.testing.assert_array_equal(b["next_observations"]["state"], t["next_observations"]["state"])
    np.testing.assert_array_equal(b["observations"]["camera"]["front"], t["observations"]["camera"]["front"])


def test_damage_is_found(dataset, tmp_path):
    folder = store.write(dataset, tmp_path / "s")
    file = folder / "rewards.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\x00\x00\x00\x01")
    assert data.check(folder)[0].level == "error" and "damaged" in data.check(folder)[0].message
    for broken, message in ((whole[:-4], "cut short"), (b"", "cut short"), (None, "missing")):
        file.unlink()
        if broken is not None:
            file.write_bytes(broken)
        with pytest.raises(DataError, match=message):
            store.open(folder)
        file.write_bytes(whole)
    index = json.loads((folder / store.INDEX).read_text())
    arrays = index["arrays"]
    for change, message in (
        ({"format": 99}, "format 99"),
        ({"arrays": arrays | {"rewards": arrays["rewards"] | {"file": "../../x.npy"}}}, "names the file"),
        ({"arrays": {k: v for k, v in arrays.items() if k != "actions"}}, "actions"),
        ({"arrays": arrays | {"actions": 5}}, "damaged in its list of arrays"),
        ({"arrays": arrays | {"actions": {"file": "actions.npy"}}}, "damaged in its list of arrays"),
        ({"arrays": [1]}, "damaged in its list of arrays"),
    ):
        (folder / store.INDEX).write_text(json.dumps(index | change))
        with pytest.raises(DataError, match=message):
            store.open(folder)
    (folder / store.INDEX).write_text("{")
    with pytest.raises(DataError, match="could not be read"):
        store.open(folder)
    with pytest.raises(DataError, match="without dataset.json"):
        data.load(tmp_path)


def test_a_full_disk_leaves_nothing(dataset, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device.*free space"):
        store.write(dataset, tmp_path / "s")
    assert not (tmp_path / "s").exists() and not [p for p in tmp_path.iterdir() if "partial" in p.name]


def test_what_is_there_is_kept(dataset, tmp_path):
    folder = store.write(dataset, tmp_path / "s")
    with pytest.raises(DataError, match="exists already"):
        store.write(dataset, folder)
    assert_same(dataset, store.open(folder))


def test_another_environment_or_no_rewards(dataset, tmp_path):
    folder = store.write(dataset, tmp_path / "s")
    assert data.load(folder, env="Other-v0").env == "Other-v0"
    assert data.load(folder, rewards="none").rewards is None
    with pytest.raises(DataError, match="no rule"):
        data.load(folder, rewards="relabel", env="Other-v0")


def test_a_task_goes_with_its_rewards_from_a_store_as_from_a_file(rows, save, tmp_path):
    file = save(rows, "cube-single-play-singletask-v0.npz")
    folder = store.write(data.load(file, rewards="file"), tmp_path / "s")
    assert data.load(folder, rewards="file").terminations.any()
    for bare in (data.load(folder, rewards="none"), data.load(file, rewards="none")):
        assert bare.rewards is None and not bare.terminations.any()


def test_the_host_path_reads_a_store_as_memory(dataset, tmp_path):
    from understudy.data.replay import HostBuffer

    back = store.open(store.write(dataset, tmp_path / "s"))
    a, b = HostBuffer(dataset, 0.9), HostBuffer(back, 0.9)
    where = np.array([4, 0, 2])
    for key in a.data:
        np.testing.assert_array_equal(a.take(key, where), b.take(key, where))
