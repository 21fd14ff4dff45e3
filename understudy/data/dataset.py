"""The one schema of recorded data and what is derived from it; its checks at the border are in `checks`.

A trajectory of T transitions has T+1 observations, so that nothing is stored twice and no successor is ever missing.
Time-outs end a trajectory; only terminations cut a bootstrap.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from understudy.data.checks import Report, scale_actions
from understudy.errors import DataError

Tree = Any  # an array, or nested dictionaries of arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """N transitions in E recorded trajectories, in memory or memory-mapped.

    Attributes:
      observations: [N + E, ...] or nested dictionaries of such: trajectory after trajectory, T+1 rows each; float32,
        images uint8.
      actions: [N, A] float32 in [-1, 1].
      rewards: [N] float32, or None for data without rewards.
      terminations: [N] bool, a success or failure state with nothing to bootstrap from; in relabelled play data these
        may stand in mid-trajectory.
      truncations: [N] bool, the last transition of a trajectory that was cut off; never cuts a bootstrap.
      lengths: [E] int, transitions of each trajectory; sums to N.
      name: short name.
      source: where it came from.
      sha256: identity of the content, hexadecimal: of the file, else of the arrays.
      env: id of the environment that it belongs to, where known.
      action_low, action_high: [A] the original range, mapped affinely to [-1, 1].
      notes: what loading did and found, one sentence each.
    """

    observations: Tree
    actions: np.ndarray
    rewards: np.ndarray | None
    terminations: np.ndarray
    truncations: np.ndarray
    lengths: np.ndarray
    name: str
    source: str
    sha256: str
    env: str | None
    action_low: np.ndarray
    action_high: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Transitions, N."""
        return len(self.actions)

    @property
    def episodes(self) -> int:
        """Trajectories, E."""
        return len(self.lengths)

    @functools.cached_property
    def masks(self) -> np.ndarray:
        """[N] float32, 1 - terminations: the weight of the bootstrap."""
        return 1 - np.asarray(self.terminations, np.float32)

    @functools.cached_property
    def ends(self) -> np.ndarray:
        """[N] bool, the last transition of its trajectory."""
        ends = np.zeros(self.size, bool)
        ends[np.cumsum(self.lengths) - 1] = True
        return ends

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """[N] int, the row of a transition's observation; its successor is in the next row."""
        return np.arange(self.size) + np.repeat(np.arange(self.episodes), self.lengths)

    def transitions(self, *, mc_discount: float | None = None) -> dict[str, Tree]:
        """Columns [N, ...]: observations, actions, rewards (where there are any), masks, next_observations, ends.

        Args:
          mc_discount: also give mc_returns, the discounted sum of rewards to come, with this discount in [0, 1).

        Raises:
          DataError: mc_returns of data without rewards.
        """
        columns = {
            "observations": tree_map(lambda x: np.asarray(x[self.rows]), self.observations),
            "actions": np.asarray(self.actions),
            "masks": self.masks,
            "next_observations": tree_map(lambda x: np.asarray(x[self.rows + 1]), self.observations),
            "ends": self.ends,
        }
        if self.rewards is not None:
            columns["rewards"] = np.asarray(self.rewards)
        if mc_discount is not None:
            if self.rewards is None:
                raise DataError(f"{self.name} has no rewards, so it has no returns; name an environment that defines "
                                f"them (env=...).")  # fmt: skip
            columns["mc_returns"] = monte_carlo_returns(self.rewards, self.masks, self.ends, mc_discount)
        return columns

    def subset(self, transitions: int) -> Dataset:
        """The first whole trajectories that hold at least so many transitions (all of them where there are fewer)."""
        if transitions < 1:
            raise DataError(f"subset({transitions}): expected at least 1 transition.")
        count = min(int(np.searchsorted(np.cumsum(self.lengths), transitions)) + 1, self.episodes)
        if count == self.episodes:
            return self
        n = int(self.lengths[:count].sum())
        part = {k: getattr(self, k)[:n] for k in ("actions", "terminations", "truncations")}
        return dataclasses.replace(
            self,
            **part,
            observations=tree_map(lambda x: x[: n + count], self.observations),
            rewards=None if self.rewards is None else self.rewards[:n],
            lengths=self.lengths[:count],
            sha256=hashlib.sha256(f"{self.sha256} trajectories {count}".encode()).hexdigest(),
            notes=(*self.notes, f"the first {count:,} of {self.episodes:,} trajectories"),
        )

    def __repr__(self) -> str:
        rewards = "without rewards" if self.rewards is None else "with rewards"
        env = f", env {self.env}" if self.env else ""
        return (f"Dataset({self.name}: {self.size:,} transitions in {self.episodes:,} trajectories, observations "
                f"{shapes(self.observations)}, {self.actions.shape[1]} actions, {rewards}{env})")  # fmt: skip

    @staticmethod
    def from_arrays(*args, **kwargs) -> Dataset:
        """See `from_arrays`."""
        return from_arrays(*args, **kwargs)


def monte_carlo_returns(rewards, masks, ends, discount: float) -> np.ndarray:
    """Discounted sums of rewards to come, G_i = r_i + discount masks_i G_{i+1}, within each trajectory.

    Where a trajectory ends without termination, its last reward goes on, if that is below 0, else nothing more comes:
    min(r_last, 0) / (1 - discount).

    Args:
      rewards: [N]. masks: [N], 0 where terminated. ends: [N] bool, last transitions of trajectories.
      discount: gamma in [0, 1).

    Returns:
      [N] float32.

    Source: Cal-QL (arXiv:2303.05479), where a failed trajectory of a sparse task has the return r_min / (1 - gamma) and
    a successful one that of what was recorded: both are this. Of other rewards it takes what was recorded, which is too
    much where they are negative.
    """
    if not 0 <= discount < 1:
        raise DataError(f"The discount of Monte-Carlo returns is {discount}; give one in [0, 1).")
    rewards = np.asarray(rewards, np.float64)
    if not len(rewards):
        return np.zeros(0, np.float32)
    factors = (discount * np.asarray(masks, np.float64)).tolist()
    out, following, backwards = [], 0.0, reversed(np.asarray(ends, bool).tolist())
    for reward, factor, end in zip(reversed(rewards.tolist()), reversed(factors), backwards):
        following = reward + factor * (min(reward, 0.0) / (1 - discount) if end else following)
        out.append(following)
    return np.array(out[::-1], np.float32)


# --- trees -----------------------------------------------------------------------------------------------------------


def tree_map(function: Callable, tree: Tree) -> Tree:
    """`function` of every array of a nested dictionary."""
    if isinstance(tree, Mapping):
        return {k: tree_map(function, v) for k, v in tree.items()}
    return function(tree)


def named_map(function: Callable, tree: Tree, name: str = "observations") -> Tree:
    """`function(dotted name, array)` of every array of a nested dictionary."""
    if isinstance(tree, Mapping):
        return {k: named_map(function, v, f"{name}.{k}") for k, v in tree.items()}
    return function(name, tree)


def leaves(tree: Tree, name: str = "observations") -> dict[str, np.ndarray]:
    """{dotted name: array}, in sorted order."""
    if isinstance(tree, Mapping):
        return {k: v for key in sorted(tree) for k, v in leaves(tree[key], f"{name}.{key}").items()}
    return {name: tree}


def shapes(tree: Tree) -> Any:
    """The shape of one row: a tuple, or a dictionary of tuples."""
    return tree_map(lambda x: tuple(int(n) for n in x.shape[1:]), tree)


def from_arrays(
    observations: Tree,
    actions,
    rewards=None,
    terminations=None,
    truncations=None,
    next_observations: Tree = None,
    *,
    env: str | None = None,
    name: str = "arrays",
    action_range: tuple[Any, Any] | None = None,
) -> Dataset:
    """A data set of arrays in memory.

    Args:
      observations: [N, ...], or [N + E, ...] with each trajectory's last observation in place, or nested dictionaries.
      actions: [N, A].
      rewards: [N], or None.
      terminations: [N] bool, states with nothing to bootstrap from; they end a trajectory.
      truncations: [N] bool, trajectories cut off there. The last transition always ends one.
      next_observations: [N, ...]; without it (and with N observations) a trajectory that was cut off loses its last
        transition, which has no successor.
      env: environment id. name: for reports.
      action_range: (low, high), numbers or [A], that is mapped to [-1, 1]; default [-1, 1] itself.

    Raises:
      DataError: shapes, types or numbers that do not fit the schema; says which and where.
    """
    from understudy.data.formats import flat

    columns = {
        "observations": observations, "actions": actions, "rewards": rewards, "terminations": terminations,
        "truncations": truncations, "next_observations": next_observations,
    }  # fmt: skip
    columns = {k: tree_map(np.asarray, v) for k, v in columns.items() if v is not None}
    report = Report(name)
    return finish(
        flat(columns, report), report, name=name, source="arrays in memory", sha256=digest(columns), env=env,
        action_range=action_range,
    )  # fmt: skip


def finish(parts: dict, report: Report, *, name, source, sha256, env, action_range=None) -> Dataset | None:
    """The data set of checked parts, with actions scaled; None where `report` keeps an error."""
    if report.failed:
        return None
    low, high = (-1.0, 1.0) if action_range is None else action_range
    actions, low, high = scale_actions(parts["actions"], low, high, action_range is not None, report)
    if report.failed:
        return None
    return Dataset(
        **(parts | {"actions": actions}), name=name, source=source, sha256=sha256, env=env, action_low=low,
        action_high=high, notes=report.notes,
    )  # fmt: skip


def digest(columns: Mapping[str, Tree]) -> str:
    """SHA-256 of named arrays: names, types, shapes and bytes."""
    total = hashlib.sha256()
    for key in sorted(columns):
        for name, x in leaves(columns[key], key).items():
            x = np.ascontiguousarray(x)
            total.update(f"{name} {x.dtype.str} {x.shape}\n".encode())
            total.update(x.reshape(-1).view(np.uint8).data if x.dtype.kind != "O" else b"")
    return total.hexdigest()
