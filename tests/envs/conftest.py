"""A tiny environment whose every number can be worked out by hand."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest


class Scripted(gymnasium.Env):
    """Observation [start, t]. Step t pays 10 + t. Terminates at once with success when the action is above 0.5;
    otherwise the time limit of 4 steps cuts it. `start` is drawn at reset. Actions have the range [0, 4]."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(np.float32(0), np.float32(4), (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.start = 0, self.np_random.uniform(100, 200)
        self.received = None
        return np.array([self.start, 0.0]), {"noise": 1}

    def step(self, action):
        self.received = np.array(action)
        self.t += 1
        solved = bool(action[0] > 3)  # 0.5 in [-1, 1]
        return np.array([self.start, self.t]), 9.0 + self.t, solved, False, {"success": solved, "noise": np.zeros(3)}


@pytest.fixture(scope="session")
def scripted() -> str:
    """Id of the scripted environment, known to this process only."""
    name = "UnderstudyScripted-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=Scripted, max_episode_steps=4)
    return name
