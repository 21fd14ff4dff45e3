"""Small recordings whose every number can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    """OGBench as published: two trajectories of 3 and 2 transitions; the last row of each holds none.

    Observation row r is [r, -r]; the action of row r is r / 10; reward and mask 0 mark success, once in
    mid-trajectory (row 1). Rows without a transition hold what would be wrong if it were read."""
    r = np.arange(7.0)
    terminals = np.array([0, 0, 0, 1, 0, 0, 1], bool)
    return {
        "observations": np.stack([r, -r], 1).astype(np.float32),
        "actions": (r[:, None] / 10).astype(np.float32),
        "terminals": terminals,
        "rewards": np.array([-1, 0, -1, np.nan, -1, -1, np.nan], np.float32),
        "masks": np.array([1, 0, 1, 0, 1, 1, 0], np.float32),
    }


@pytest.fixture
def save(tmp_path):
    """save(columns, name="data.npz") -> path of an .npz or .hdf5."""

    def write(columns, name="data.npz", attributes=None):
        path = tmp_path / name
        if path.suffix == ".npz":
            np.savez(path, **columns)
        else:
            import h5py

            with h5py.File(path, "w") as file:
                for key, x in columns.items():
                    file[key] = x
                file.attrs.update(attributes or {})
        return path

    return write


@pytest.fixture
def flat() -> dict[str, np.ndarray]:
    """D4RL: 6 rows; a trajectory that terminates after 3, one that is cut off after 3."""
    r = np.arange(6.0)
    return {
        "observations": np.stack([r, -r], 1).astype(np.float32),
        "actions": (r[:, None] / 10).astype(np.float32),
        "rewards": r.astype(np.float32),
        "terminals": np.array([0, 0, 1, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 0, 0, 1], bool),
    }
