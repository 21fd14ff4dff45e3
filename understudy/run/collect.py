"""The live side of a run: every seed's environments stepped together as one vector, and restored exactly."""

from __future__ import annotations

import time

import numpy as np

from understudy.data.dataset import monte_carlo_returns


class Collector:
    """K seeds x L lanes of one environment. Keeps the observations and pending actions between steps.

    Args:
      env_id: environment.
      seeds: training seeds [K]; lane e of seed s plays episodes derived from (s, e), whatever the other seeds are.
      lanes: parallel environments of each seed, L.
      mc_discount: where the algorithm needs Monte-Carlo returns of live episodes, else None.
      scale, bias: the reward stored is scale * reward + bias, as in the data set; episode returns are the
        environment's own.
    """

    def __init__(self, env_id: str, seeds, lanes: int = 1, *, mc_discount=None, scale: float = 1.0, bias: float = 0.0):
        from understudy.envs import vector

        self.shape = (len(seeds), lanes)
        bases = [int(np.random.SeedSequence([s, 7, e]).generate_state(1)[0]) for s in seeds for e in range(lanes)]
        self.env = vector(env_id, bases)
        self.observations = self.actions = None
        self.mc_discount, self.scale, self.bias = mc_discount, scale, bias
        self._rewards = [[] for _ in bases]
        self._masks = [[] for _ in bases]
        self.seconds = 0.0

    def start(self) -> None:
        """Begin the first episodes."""
        observations, _ = self.env.reset()
        self.observations = self._split(observations)

    def step(self) -> tuple[dict, list, list[tuple]]:
        """Play the pending actions.

        Returns:
          the transitions [K, L, ...]; finished episodes (`envs.Finished`, environment k L + e); and, where
          Monte-Carlo returns are kept, (seed index, lane, returns [T]) of each finished episode."""
        from understudy.envs import finished, transitions

        before, actions = self._join(self.observations), self._join(self.actions)
        begin = time.perf_counter()
        result = self.env.step(actions)
        self.seconds += time.perf_counter() - begin
        slot = transitions(before, actions, result)
        slot["rewards"] = (self.scale * slot["rewards"] + self.bias).astype(np.float32)
        self.observations = self._split(np.array(result[0]))
        ended = finished(result)
        returns = []
        if self.mc_discount is not None:
            slot["mc_returns"] = np.full(len(before), -np.inf, np.float32)
            for i, (reward, mask) in enumerate(zip(slot["rewards"], slot["masks"])):
                self._rewards[i].append(float(reward))
                self._masks[i].append(float(mask))
                if slot["ends"][i]:
                    returns.append((*divmod(i, self.shape[1]), self._episode_returns(i)))
                    self._rewards[i], self._masks[i] = [], []
        return {k: self._split(v) for k, v in slot.items()}, ended, returns

    def _episode_returns(self, i: int) -> np.ndarray:
        rewards, masks = np.array(self._rewards[i], np.float32), np.array(self._masks[i], np.float32)
        ends = np.zeros(len(rewards), bool)
        ends[-1] = True
        return monte_carlo_returns(rewards, masks, ends, self.mc_discount)

    def save(self) -> tuple[dict, dict]:
        """Arrays and JSON from which `load` goes on exactly."""
        arrays = {"collector.observations": self.observations, "collector.actions": self.actions}
        meta = []
        for i, env in enumerate(self.env.envs):
            recipe = env.recipe()
            arrays[f"collector.played.{i}"] = recipe["actions"]
            arrays[f"collector.rewards.{i}"] = np.array(self._rewards[i], np.float64)
            arrays[f"collector.masks.{i}"] = np.array(self._masks[i], np.float64)
            meta.append({k: v for k, v in recipe.items() if k not in ("actions", "observation")})
        return arrays, {"envs": meta}

    def load(self, arrays: dict, meta: dict) -> None:
        """Restore every environment by playing its actions since the last reset again."""
        self.observations, self.actions = arrays["collector.observations"], arrays["collector.actions"]
        flat = self._join(self.observations)
        for i, (env, recipe) in enumerate(zip(self.env.envs, meta["envs"])):
            env.restore(recipe | {"actions": arrays[f"collector.played.{i}"], "observation": flat[i]})
            if self.mc_discount is not None:  # else an old beginning would pass for the next episode's
                self._rewards[i] = [float(x) for x in arrays[f"collector.rewards.{i}"]]
                self._masks[i] = [float(x) for x in arrays[f"collector.masks.{i}"]]

    def close(self) -> None:
        self.env.close()

    def _split(self, x):
        return np.reshape(x, (*self.shape, *np.shape(x)[1:]))

    def _join(self, x):
        return np.reshape(x, (-1, *np.shape(x)[2:]))
