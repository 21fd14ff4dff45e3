"""Small recorded data of a real environment, and runs in processes of their own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest
from quick import as_a_user

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory) -> pathlib.Path:
    """Five episodes of Pendulum-v1 under random torques, in D4RL's layout; actions scaled to [-1, 1]."""
    from understudy.envs import make

    env, rng = make("Pendulum-v1"), np.random.default_rng(0)
    rows = {k: [] for k in ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")}
    for episode in range(5):
        observation, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = rng.uniform(-1, 1, 1).astype(np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
            for k, v in zip(rows, (observation, action, reward, terminated, truncated, following)):
                rows[k].append(v)
            observation = following
    path = tmp_path_factory.mktemp("data") / "pendulum.hdf5"
    with h5py.File(path, "w") as file:
        for k, v in rows.items():
            file[k] = np.array(v, bool if k in ("terminals", "timeouts") else np.float32)
    return path


@pytest.fixture(scope="session")
def start(pendulum, tmp_path_factory):
    """Start `small_run.py` in a process: start(out, seeds, algorithm, switch) -> Popen. TD3+BC alone is compiled as for
    a user; what is named with settings or a switch is compiled quickly."""
    cache = tmp_path_factory.mktemp("cache")

    def go(out, seeds=1, algorithm="td3_bc", *switch: str, dies_after: int | None = None) -> subprocess.Popen:
        command = [sys.executable, str(HERE / "small_run.py"), str(out), str(pendulum), str(seeds), algorithm, *switch]
        env = dict(os.environ) if switch or " " in algorithm else as_a_user()
        env |= {"UNDERSTUDY_CACHE": str(cache)}
        env |= {"DIES_AFTER": str(dies_after)} if dies_after is not None else {}
        return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    return go
