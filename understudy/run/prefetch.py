"""Batches of a host source, read ahead in a thread while the device works."""

from __future__ import annotations

import concurrent.futures

import jax
import numpy as np

from understudy.run import programs


class Prefetch:
    """`take(start, count)` gives the host's part of updates start ... start + count of every seed, by source name
    [count, K, B, ...], or {} where no source is on the host. What comes next is read while the caller computes."""

    def __init__(self, host, sampler, keys, ahead: int, marks=None):
        self._host = host if sampler.sizes().get("prior") else None
        self._sampler, self._keys, self._ahead = sampler, keys, ahead
        self._marks = {k: v for k, v in (marks or {}).items() if k == "prior"}
        self._pool = concurrent.futures.ThreadPoolExecutor(1) if self._host is not None else None
        self._next: dict[tuple[int, int], concurrent.futures.Future] = {}
        self._hosts = [self._host]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def beside(self, columns: dict[str, np.ndarray]) -> None:
        """Give the host's batches these columns [K, N, ...] from now on, those that were read ahead as well."""
        seeds = len(next(iter(columns.values())))
        self._hosts = [self._host.beside({k: v[i] for k, v in columns.items()}) for i in range(seeds)]
        self._next = {}

    def take(self, start: int, count: int) -> dict:
        if self._host is None:
            return {}
        future = self._next.pop((start, count), None)
        batches = future.result() if future else self._read(start, count)
        self._next = {(start + count, count): self._pool.submit(self._read, start + count, count)}
        return {"prior": batches}

    def _read(self, start: int, count: int):
        sizes = {name: self._host.size for name, _ in self._sampler.shares}
        numbers = np.arange(count)
        positions = programs.draw_positions(self._sampler, sizes, self._keys, start, numbers, self._marks)["prior"]
        hosts = self._hosts
        parts = np.split(np.asarray(positions), len(hosts), 1)  # [n, K, B], or [n, 1, B] of each seed
        shaped = lambda batch, at: jax.tree.map(lambda x: x.reshape(*at.shape, *x.shape[1:]), batch)
        marked = self._sampler.sizes()["successes"] if self._marks else 0
        batches = lambda host, at: self._sampler.read(host, at.reshape(-1), at.shape[-1], marked)
        read = [shaped(batches(host, at), at) for host, at in zip(hosts, parts)]
        return read[0] if len(read) == 1 else jax.tree.map(lambda *x: np.concatenate(x, 1), *read)
