"""The command line, with a simulator that is wrong: python benchmarks/heavy.py train h2o ... --env HalfCheetahHeavy-v0

HalfCheetah-v5 under twice the gravity, one of the gaps between simulator and real system in H2O, arXiv:2206.13464.
"""

from __future__ import annotations

import gymnasium
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

HEAVY = "HalfCheetahHeavy-v0"


class Heavy(HalfCheetahEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.model.opt.gravity[:] *= 2


gymnasium.register(HEAVY, Heavy, max_episode_steps=1000)

if __name__ == "__main__":
    from understudy.cli import main

    raise SystemExit(main())
