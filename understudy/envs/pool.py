"""Many environments that play a given list of episodes, in this process or shared among worker processes."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Sequence

import numpy as np

from understudy import progress
from understudy.envs.episodes import Episodes
from understudy.envs.making import describe, make
from understudy.envs.process import Child
from understudy.errors import DivergenceError, EnvError

# Columns of what a step reports for each slot: 1 if its episode ended, then that episode's figures.
ENDED, RETURN, SUCCESS, LENGTH = range(4)


class Slots:
    """Environments side by side; slot i plays its own list of episode numbers and then idles."""

    def __init__(self, env_id: str, count: int):
        self.envs = [Episodes(make(env_id), 0) for _ in range(count)]
        self._todo: list[list[int]] = [[] for _ in self.envs]
        self._playing = [False] * count
        self._observations = np.zeros((count, *self.envs[0].observation_space.shape), np.float32)

    def begin(self, seed: int, schedule: Sequence[Sequence[int]]) -> np.ndarray:
        self._observations[:] = 0
        for i, episodes in enumerate(schedule):
            self.envs[i].seed = seed
            self._todo[i] = list(episodes)
            self._next(i)
        return self._observations.copy()

    def _next(self, i: int) -> None:
        self._playing[i] = bool(self._todo[i])
        if self._playing[i]:
            self.envs[i].next_episode = self._todo[i].pop(0)
            self._observations[i], _ = self.envs[i].reset()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        report = np.zeros((len(self.envs), 4))
        for i, env in enumerate(self.envs):
            if not self._playing[i]:
                continue
            self._observations[i], _, terminated, truncated, _ = env.step(actions[i])
            if terminated or truncated:
                report[i] = 1, env.return_, np.nan if env.success is None else env.success, env.length
                self._next(i)
        return self._observations.copy(), report

    def close(self) -> None:
        for env in self.envs:
            env.close()


class Pool:
    """Environments kept between evaluations, shared among worker processes where that pays.

    Starts at once and in the background: the first `begin` waits for what is left of it. Closing is automatic when the
    pool is forgotten or the program ends in any way, and the next `begin` starts it again.

    Args:
      env_id: as for `make`.
      num_envs: environments in all (policies x environments of each for `rollouts`).
      workers: processes; 0 steps in this one. By default one per core if a step of all environments takes over a
        millisecond in this process, else 0. The episodes are the same in either case.

    Raises:
      EnvError: as `make`; an environment process that ended.
    """

    def __init__(self, env_id: str, num_envs: int, workers: int | None = None):
        self.env_id, self.num_envs, self.spec = env_id, num_envs, describe(env_id)
        if workers is None:
            workers = cores() if cores() > 1 and self.spec.step_seconds * num_envs > 1e-3 else 0
        self.workers = min(workers, num_envs)
        bounds = np.linspace(0, num_envs, max(self.workers, 1) + 1).round().astype(int)
        self._shares = [slice(int(a), int(b)) for a, b in zip(bounds[:-1], bounds[1:])]
        self._children: list[Child] = []
        self._finalizer = None
        self._local: Slots | None = None
        self._start()

    def _start(self) -> None:
        if self.workers:
            # One environment does not gain from threads, and their start costs memory in every worker.
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._children = [Child("understudy.envs.worker", threads) for _ in self._shares]
            self._finalizer = weakref.finalize(self, _close, self._children)
            for child, share in zip(self._children, self._shares):
                self._send(child, b"M", {"env": self.env_id, "count": share.stop - share.start})
            self._ready = False
        else:
            self._local = Slots(self.env_id, self.num_envs)

    def begin(self, seed: int, schedule: Sequence[Sequence[int]]) -> np.ndarray:
        """Start the first episode of every slot and return the observations [num_envs, O] (0 where none is to play).

        Args:
          seed: stream of the episodes.
          schedule: for each slot the episode numbers that it plays, one after the other.
        """
        schedule = [[int(j) for j in episodes] for episodes in schedule]
        schedule += [[]] * (self.num_envs - len(schedule))
        if not self._children and self._local is None:
            self._start()
        with self._whole():
            if self._children and not self._ready:
                self._wait()
            if self._local is not None:
                return self._local.begin(seed, schedule)
            for child, share in zip(self._children, self._shares):
                self._send(child, b"B", {"seed": int(seed), "schedule": schedule[share]})
            shares = zip(self._children, self._shares)
            return np.concatenate([self._observations(child, share) for child, share in shares])

    def _wait(self) -> None:
        try:
            for child in self._children:
                self._receive(child)
            self._ready = True
        except EnvError as error:  # known to this process only (registered by the user's program): stay in it
            progress.say(f"Worker processes could not make '{self.env_id}' ({error}); stepping in this one.")
            self.close()
            self.workers, self._shares = 0, [slice(0, self.num_envs)]
            self._start()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Step every slot that plays.

        Args:
          actions: [num_envs, A] in [-1, 1].

        Returns:
          observations [num_envs, O], of the next episode where one ended; report [num_envs, 4]: 1 if the episode ended,
          its return, its success (nan if undefined) and its length.

        Raises:
          DivergenceError: an action is not a number.
          EnvError: a worker process ended.
        """
        actions = np.ascontiguousarray(actions, np.float32)
        if not np.isfinite(actions).all():
            raise DivergenceError(f"'{self.env_id}' was given an action that is not a number; expected [-1, 1].")
        if self._local is not None:
            return self._local.step(actions)
        with self._whole():
            for child, share in zip(self._children, self._shares):
                self._send(child, b"S", actions[share].tobytes())
            observations, reports = [], []
            for child, share in zip(self._children, self._shares):
                observations.append(self._observations(child, share))
                reports.append(np.frombuffer(self._receive(child)).reshape(-1, 4))
            return np.concatenate(observations), np.concatenate(reports)

    @contextlib.contextmanager
    def _whole(self):
        """An exchange that is cut off, by an interrupt too, leaves messages behind: the next one needs new workers."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the worker processes and free the environments; the next `begin` starts them again."""
        if self._finalizer is not None:
            self._finalizer()
        self._children, self._finalizer = [], None
        if self._local is not None:
            self._local.close()
            self._local = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _send(self, child: Child, tag: bytes, value) -> None:
        try:
            child.send(tag, value) if isinstance(value, bytes) else child.send_json(tag, value)
        except OSError:
            raise self._ended(child) from None

    def _receive(self, child: Child) -> bytes:
        try:
            tag, payload = child.receive()
        except (EOFError, OSError):
            raise self._ended(child) from None
        if tag == b"E":
            raise EnvError(payload.decode())
        return payload

    def _observations(self, child: Child, share: slice) -> np.ndarray:
        payload = self._receive(child)
        return np.frombuffer(payload, np.float32).reshape(share.stop - share.start, *self.spec.observation_shape)

    def _ended(self, child: Child) -> EnvError:
        status = child.close()
        return EnvError(
            f"A process that steps '{self.env_id}' ended by itself (exit status {status}); expected it to go on: "
            "look for a lack of memory, or use workers=0 to step in one process."
        )


def _close(children: list[Child]) -> None:
    for child in children:
        child.process.stdin.close() if not child.process.stdin.closed else None
    for child in children:
        child.close()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
