"""JSRL. Uchendu et al. 2022, "Jump-Start Reinforcement Learning", arXiv:2204.02372. Around any algorithm; here IQL.

Offline, the algorithm learns a policy. At the switch a copy of it becomes the guide and never changes again. Online,
each episode plays the guide for its first h steps, the learner after them, and the learner is updated on all of it:
    curriculum   h = H, then H (n - 1) / n, ..., 0: the next stage begins when the mean return of the last episodes is
                 at least the best mean so far, but for a tolerance                                      (Algorithm 1)
    random       h uniform in {0 ... H} for each episode                                                 (JSRL-Random)
`follow` is 1 offline, where the guide follows the learner, and 0 online: a setting of the phase.
Deviations: the returns that a stage is judged by are those of the training episodes, as an exponential mean over about
`window` of them, not of separate evaluations; greedy acting, that is evaluation and deployment, is the learner alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithm import Algorithm
from understudy.algorithms.iql import iql
from understudy.core import Batch, batch_size, leaf, pytree, scratch, static, through
from understudy.wrappers import Wrapper, anew


@pytree
class JumpStartState:
    """`guide`: a copy of the learner's state; `stage` of the curriculum; mean and best return, episodes in this stage;
    `running` [L]: return of each lane's current episode."""

    inner: Any
    guide: Any
    stage: jax.Array
    mean: jax.Array = scratch()
    best: jax.Array = scratch()
    episodes: jax.Array = scratch()
    running: jax.Array = scratch()


@pytree
class JumpStart(Wrapper):
    """A guide plays the beginning of each episode, around any algorithm."""

    algorithm: Algorithm = through()
    follow: float = leaf(1.0, "1: the guide follows the learner; 0: it stays as it is", low=0.0, high=1.0)
    tolerance: float = leaf(0.05, "fall of the mean return, as a share of the best, that still ends a stage",
                            symbol="beta", low=0.0)  # fmt: skip
    window: float = leaf(10.0, "episodes that a stage is judged by", low=1.0)
    horizon: int = static(100, "the most steps that the guide plays", symbol="H", low=1)
    stages: int = static(10, "stages of the curriculum", symbol="n", low=1)
    variant: str = static("curriculum", "how the guide's steps are chosen", choices=("curriculum", "random"))
    lanes: int = static(0, "environments of each seed; 0: as many as the run has", symbol="L", low=0)

    def init(self, key, batch: Batch) -> JumpStartState:
        inner = self.algorithm.init(key, batch)
        return JumpStartState(
            inner=inner, guide=jax.tree.map(jnp.copy, inner), stage=jnp.int32(0), mean=jnp.float32(0),
            best=jnp.float32(-1e30), episodes=jnp.int32(0), running=jnp.zeros(max(self.lanes, 1)),
        )  # fmt: skip

    def update(self, state: JumpStartState, batch: Batch, key) -> tuple[JumpStartState, dict]:
        inner, metrics = self.algorithm.update(state.inner, batch, key)
        guide = jax.tree.map(lambda old, new: jnp.where(self.follow > 0, new, old), state.guide, inner)
        metrics["guide/stage"] = state.stage.astype(jnp.float32)
        return dataclasses.replace(state, inner=inner, guide=guide), metrics

    def observe(self, state: JumpStartState, slot: Batch, carry) -> JumpStartState:
        """Judge the stage by the episodes that have ended, once the learner learns: a warm-up passes none."""
        running = state.running + slot["rewards"]
        for lane in range(len(running)):
            state = self.judge(state, running[lane], (slot["ends"][lane] > 0) & (self.follow <= 0))
        return dataclasses.replace(state, running=jnp.where(slot["ends"], 0.0, running))

    def judge(self, state: JumpStartState, episode_return, ended) -> JumpStartState:
        episodes = state.episodes + ended
        rate = 1 / jnp.clip(episodes, 1, self.window)
        mean = jnp.where(ended, state.mean + rate * (episode_return - state.mean), state.mean)
        passed = ended & (episodes >= self.window) & (mean >= state.best - self.tolerance * jnp.abs(state.best))
        return dataclasses.replace(
            state, stage=jnp.minimum(state.stage + passed, self.stages), mean=jnp.where(passed, 0.0, mean),
            best=jnp.where(passed, jnp.maximum(state.best, mean), state.best), episodes=jnp.where(passed, 0, episodes),
        )  # fmt: skip

    def act(self, state: JumpStartState, observations, key, carry=(), *, greedy: bool = False):
        lanes, (key_guide, key_roll) = batch_size(observations), jax.random.split(key)
        inner, guiding = ((), ()) if carry == () else (carry["inner"], carry["guide"])
        step = jnp.zeros(lanes, jnp.int32) if carry == () else carry["step"]
        if "steps" in carry and not greedy:  # while the guide plays, no chunk of the learner's is begun
            inner = anew(inner, step <= carry["steps"])
        actions, inner = self.algorithm.act(state.inner, observations, key, inner, greedy=greedy)
        guided, guiding = self.algorithm.act(state.guide, observations, key_guide, guiding)
        if self.variant == "random":
            drawn = jax.random.randint(key_roll, (lanes,), 0, self.horizon + 1)
            steps = drawn if carry == () else jnp.where(step == 0, drawn, carry["steps"])
        else:
            steps = jnp.full(lanes, self.horizon * (self.stages - state.stage) // self.stages)
        if not greedy:
            actions = jnp.where((step < steps)[:, None], guided, actions)
        return actions, {"inner": inner, "guide": guiding, "step": step + 1, "steps": steps}


def jsrl(action_size: int) -> JumpStart:
    """Jump-start: the offline policy plays the beginning of each live episode, ever less of it; around IQL."""
    return JumpStart(algorithm=iql(action_size))
