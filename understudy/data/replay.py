"""Where transitions live while training: a ring on the device, or a data set on the host that is never copied whole.

Both answer the same questions, so that a sampler draws the same batch from either for the same key:
`take(name, positions)`, `successor(positions) -> (positions, exists)` and `predecessor`. A successor is the next
transition of the same trajectory; it does not exist at a trajectory's end, nor after the newest transition of a ring.
A predecessor is the one before; it does not exist at a trajectory's beginning, nor before the oldest of a ring.
"""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np

from understudy.core import Batch, pytree, static

PER_SEED = ("candidates", "next_candidates")  # columns that each seed has of its own, whatever the source


@pytree
class Buffer:
    """A ring of transitions with leaves [C, ...]. With L lanes (parallel environments) slot t of lane e lies at
    t L + e. A data set is a full ring with one lane that is never written.

    `data` holds observations, actions, rewards, masks, next_observations, ends [C] bool and declared extras."""

    data: Batch
    size: jax.Array  # transitions held
    head: jax.Array  # where the next slot goes
    lanes: int = static(1, "parallel environments that write one slot together")

    @classmethod
    def full(cls, data: Batch) -> Buffer:
        """A ring that holds exactly `data` (leaves [N, ...])."""
        data = jax.tree.map(jnp.asarray, data)
        return cls(data=data, size=jnp.int32(len(data["ends"])), head=jnp.int32(0))

    @classmethod
    def empty(cls, example: Batch, capacity: int, lanes: int = 1) -> Buffer:
        """A ring for `capacity` transitions (rounded up to whole slots) shaped like `example` (leaves [1, ...])."""
        slots = -(-capacity // lanes)
        data = jax.tree.map(lambda x: jnp.zeros((slots * lanes, *np.shape(x)[1:]), jnp.asarray(x).dtype), example)
        return cls(data=data, size=jnp.int32(0), head=jnp.int32(0), lanes=lanes)

    @property
    def capacity(self) -> int:
        return self.data["ends"].shape[-1]

    def add(self, slot: Batch) -> Buffer:
        """Write one slot, leaves [L, ...], over the oldest."""
        write = lambda ring, x: jax.lax.dynamic_update_slice_in_dim(ring, x.astype(ring.dtype), self.head, 0)
        return Buffer(
            data=jax.tree.map(write, self.data, {k: slot[k] for k in self.data}),
            size=jnp.minimum(self.size + self.lanes, self.capacity),
            head=(self.head + self.lanes) % self.capacity,
            lanes=self.lanes,
        )

    def beside(self, columns: Batch) -> Buffer:
        """The same with more columns [C, ...]."""
        return Buffer(data=self.data | columns, size=self.size, head=self.head, lanes=self.lanes)

    def take(self, name: str, positions):
        return jax.tree.map(lambda x: x[positions], self.data[name])

    def successor(self, positions):
        newest = (positions - self.head + self.lanes) % self.capacity < self.lanes
        exists = ~self.data["ends"][positions] & ~newest
        return (positions + self.lanes) % self.capacity, exists

    def predecessor(self, positions):
        before = (positions - self.lanes) % self.capacity
        oldest = jnp.where(self.size == self.capacity, self.head, 0)
        first = (positions - oldest) % self.capacity < self.lanes
        return before, ~self.data["ends"][before] & ~first


class HostBuffer:
    """A data set in host memory or memory-mapped files, read transition by transition; T+1 observations a trajectory,
    so that nothing is stored twice."""

    lanes = 1

    def __init__(self, dataset, mc_discount: float | None = None):
        self._columns = dict(actions=dataset.actions, masks=dataset.masks, ends=np.asarray(dataset.ends))
        if dataset.rewards is not None:
            self._columns["rewards"] = dataset.rewards
        if mc_discount is not None:
            from understudy.data.dataset import monte_carlo_returns

            self._columns["mc_returns"] = monte_carlo_returns(dataset.rewards, dataset.masks, dataset.ends, mc_discount)
        self._observations, self._rows = dataset.observations, np.asarray(dataset.rows)
        self.size = len(self._rows)

    def beside(self, columns: dict[str, np.ndarray]) -> HostBuffer:
        """The same with more columns [N, ...]."""
        other = copy.copy(self)
        other._columns = self._columns | columns
        return other

    @property
    def data(self):
        """The names that `take` knows."""
        return dict.fromkeys([*self._columns, "observations", "next_observations"])

    def take(self, name: str, positions):
        if name in ("observations", "next_observations"):
            rows = self._rows[positions] + (name == "next_observations")
            return jax.tree.map(lambda x: np.asarray(x[rows]), self._observations)
        return np.asarray(self._columns[name][positions])

    def successor(self, positions):
        return (positions + 1) % self.size, ~self._columns["ends"][positions]

    def predecessor(self, positions):
        before = (positions - 1) % self.size
        return before, ~self._columns["ends"][before] & (positions > 0)


def example(data: Batch) -> Batch:
    """The first transition of a dict of columns [N, ...], as a batch of one."""
    return jax.tree.map(lambda x: np.asarray(x[:1]), data)
