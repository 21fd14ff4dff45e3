"""Deterministic episodes with exact restore, vectors of them, and vector steps as transitions."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from understudy.envs.making import make
from understudy.errors import EnvError


def reset_seed(seed: int, episode: int) -> int:
    """Return the seed that episode number `episode` of the stream `seed` is reset with."""
    return int(np.random.SeedSequence(seed, spawn_key=(episode,)).generate_state(1)[0])


class Episodes(gymnasium.Wrapper):
    """Episodes that depend on (seed, episode number, actions) and on nothing else, and so can be restored exactly.

    Every `reset()` starts the next episode of the stream; `next_episode` may be set to play a chosen one. What an
    environment draws inside an episode, from its own generator, its action space or the global `np.random`, is seeded
    at each reset, so the history of the object does not matter. The last step's `info` holds `episode_return`,
    `episode_length` and, where the task defines it, `episode_success` (1.0 if any step succeeded).

    Args:
      env: an environment from `make`.
      seed: names the stream of episodes.
      episode: number of the first episode.
    """

    def __init__(self, env: gymnasium.Env, seed: int, episode: int = 0):
        super().__init__(env)
        self.seed, self.next_episode, self.episode = int(seed), int(episode), -1
        self.length, self.return_, self.success = 0, 0.0, None
        self._actions = np.empty((64, *env.action_space.shape), np.float32)
        self._observation: np.ndarray | None = None
        self._global: dict | None = None  # state of np.random inside this episode
        # Only teleport mazes draw from np.random while stepping; swapping its state costs 30 us a step.
        self._draws = "teleport" in getattr(env, "id", "")

    @property
    def env_seed(self) -> int:
        """The reset seed of the episode being played."""
        return reset_seed(self.seed, self.episode)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Start the next episode. `seed` names another stream and starts its episode 0."""
        if seed is not None:
            self.seed, self.next_episode = int(seed), 0
        self.episode, self.next_episode = self.next_episode, self.next_episode + 1
        number = self.env_seed
        self.unwrapped.action_space.seed(number)
        self._global = np.random.RandomState(number).get_state(legacy=False)
        with self._own_random():
            observation, info = self.env.reset(seed=number, options=options)
        self.length, self.return_, self.success = 0, 0.0, None
        self._observation = observation
        return observation, info

    def step(self, action):
        if self.length == len(self._actions):
            self._actions = np.concatenate([self._actions, np.empty_like(self._actions)])
        self._actions[self.length] = action
        action = self._actions[self.length]
        if self._draws:
            with self._own_random():
                observation, reward, terminated, truncated, info = self.env.step(action)
        else:
            observation, reward, terminated, truncated, info = self.env.step(action)
        self.length += 1
        self.return_ += reward
        if "success" in info:
            self.success = max(self.success or 0.0, info["success"])
        self._observation = observation
        if terminated or truncated:
            info = info | {"episode_return": self.return_, "episode_length": self.length}
            if self.success is not None:
                info["episode_success"] = self.success
        return observation, reward, terminated, truncated, info

    def recipe(self) -> dict[str, Any]:
        """Return what `restore` needs: seed, episode, actions float32 [T, A] and the last observation [O]."""
        if self.episode < 0:
            raise RuntimeError("No episode has been started: call reset() first.")
        return {
            "seed": self.seed,
            "episode": self.episode,
            "actions": self._actions[: self.length].copy(),
            "observation": self._observation.copy(),
        }

    def restore(self, recipe: dict[str, Any]) -> np.ndarray:
        """Play the recorded actions again and return the observation [O] after the last, to go on from.

        Raises:
          EnvError: the episode does not come out as recorded (another version of the physics, hidden randomness).
        """
        self.seed, self.next_episode = int(recipe["seed"]), int(recipe["episode"])
        observation, _ = self.reset()
        actions = np.asarray(recipe["actions"], np.float32).reshape(-1, *self.env.action_space.shape)
        ended = False
        for action in actions:
            if ended:
                raise self._differs("ends before the recorded actions do")
            observation, _, terminated, truncated, _ = self.step(action)
            ended = terminated or truncated
        recorded = recipe.get("observation")
        if recorded is not None and not np.array_equal(observation, np.asarray(recorded)):
            raise self._differs(f"gives another observation after {len(actions)} steps")
        return observation

    def _differs(self, how: str) -> EnvError:
        name = getattr(self.env, "id", str(self.env))
        return EnvError(
            f"Environment '{name}' is not deterministic: episode {self.episode} of seed {self.seed} {how} than it did "
            "when it was recorded; use the package versions named in the run's manifest, or start a new run."
        )

    @contextlib.contextmanager
    def _own_random(self):
        """Let the environment draw from its own copy of the global `np.random`."""
        outside = np.random.get_state(legacy=False)
        np.random.set_state(self._global)
        try:
            yield
        finally:
            self._global = np.random.get_state(legacy=False)
            np.random.set_state(outside)


def vector(env_id: str, seeds: Sequence[int], *, start_episode: int = 0) -> gymnasium.vector.SyncVectorEnv:
    """Make one environment per seed, stepped together; an environment that ends is reset within the same step.

    `vector.envs[i]` are the `Episodes`. `final_obs` and `final_info` of a step hold what ended (see `transitions`).

    Args:
      env_id: as for `make`.
      seeds: one stream of episodes for each environment.
      start_episode: number of the first episode in each stream.
    """
    return gymnasium.vector.SyncVectorEnv(
        [lambda seed=seed: Episodes(make(env_id), seed, start_episode) for seed in seeds],
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )


def restore(vector: gymnasium.vector.SyncVectorEnv, recipes: Sequence[dict[str, Any]]) -> np.ndarray:
    """Restore every environment of a vector and return the observations [n, O] to go on from."""
    if len(recipes) != vector.num_envs:
        raise EnvError(f"Expected {vector.num_envs} episode recipes, one for each environment; got {len(recipes)}.")
    return np.stack([env.restore(recipe) for env, recipe in zip(vector.envs, recipes)])


def transitions(observations: np.ndarray, actions: np.ndarray, step_result: tuple) -> dict[str, np.ndarray]:
    """Turn one step of a `vector` into transitions for a replay buffer; nothing void or stale is among them.

    Args:
      observations: [n, O] that the actions were chosen from.
      actions: [n, A] as given to `vector.step`.
      step_result: what `vector.step` returned: (observations, rewards, terminated, truncated, info).

    Returns:
      observations [n, O], actions [n, A], rewards [n], masks [n] (1 - terminated), next_observations [n, O] (the final
      observation where the episode ended, not the first of the next one), ends [n] bool.
    """
    following, rewards, terminated, truncated, info = step_result
    ends = terminated | truncated
    if ends.any():
        following = following.copy()
        for i in np.flatnonzero(ends):
            following[i] = info["final_obs"][i]
    return {
        "observations": np.asarray(observations, np.float32),
        "actions": np.asarray(actions, np.float32),
        "rewards": np.asarray(rewards, np.float32),
        "masks": 1 - terminated.astype(np.float32),
        "next_observations": np.asarray(following, np.float32),
        "ends": ends,
    }


@dataclasses.dataclass(frozen=True)
class Finished:
    """An episode that ended: index of its environment, undiscounted return, success (None if undefined), steps."""

    env: int
    return_: float
    success: float | None
    length: int


def finished(step_result: tuple) -> list[Finished]:
    """Return the episodes that ended in one step of a `vector`."""
    final = step_result[4].get("final_info")
    if final is None:
        return []
    has = final.get("_episode_success")
    return [
        Finished(
            env=int(i),
            return_=float(final["episode_return"][i]),
            success=float(final["episode_success"][i]) if has is not None and has[i] else None,
            length=int(final["episode_length"][i]),
        )
        for i in np.flatnonzero(final["_episode_length"])
    ]
