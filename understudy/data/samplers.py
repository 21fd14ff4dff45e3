"""Batches from one or several sources: shares, n-step returns, next actions, action chunks, observation histories.
None crosses a trajectory's end, a ring's newest transition, or a termination."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from understudy.core import Batch, leaf, pytree, static

Marks = Mapping[str, tuple[jax.Array, jax.Array]]  # source -> marked positions [M] and how many of them count


def successes(rewards: Mapping[str, np.ndarray]) -> Marks:
    """Where each seed's steps of highest reward lie, among all its sources.

    Args:
      rewards: source -> [K, N], of K seeds.

    Returns:
      source -> (positions [K, M], padded with zeros; how many of them count [K]).
    """
    best = np.max([x.max(1) for x in rewards.values()], 0)[:, None]
    least = best - 1e-5 * (1 + np.abs(best))  # as single precision rounds it
    found = {}
    for name, x in rewards.items():
        marked = [np.flatnonzero(row) for row in x >= least]
        most = max(1, *map(len, marked))
        padded = np.stack([np.pad(row, (0, most - len(row))) for row in marked])
        found[name] = jnp.asarray(padded, jnp.int32), jnp.asarray([len(row) for row in marked], jnp.int32)
    return found


@pytree
class Sampler:
    """Draws batches, uniformly within each source.

    `shares` gives every batch a fixed share of each source, e.g. (("prior", 0.5), ("replay", 0.5)), rounded to whole
    transitions; the last source takes what rounding leaves. With `share` the batch is that share of the first of two
    sources instead, as a number that may change from step to step without compiling anew: a whole batch is drawn from
    both, and a row comes from the first or the second. The share of "successes", which is no place of its own, is drawn
    from the marked positions of all sources together."""

    batch_size: int = static(256, "transitions in a batch", symbol="B", low=1)
    shares: tuple[tuple[str, float], ...] = static((("prior", 1.0),), "share of each source in a batch")
    n_step: int = static(1, "steps summed into a return before bootstrapping", symbol="n", low=1)
    chunk: int = static(0, "actions in a chunk, 0: single actions", symbol="h", low=0)
    masked: bool = static(False, "leave out chunks that a termination cuts short")
    history: int = static(0, "observations in a history, oldest first, 0: single observations", symbol="H", low=0)
    next_actions: bool = static(False, "add next_actions [B, A] and next_valids [B]")
    discount: float = leaf(0.99, "discount inside n-step and chunk returns", symbol="gamma", low=0.0, high=1.0)
    share: float | None = leaf(None, "share of the first source, instead of the fixed ones", low=0.0, high=1.0)

    def sizes(self) -> dict[str, int]:
        """Transitions drawn from each source for one batch; the last source takes what rounding leaves."""
        names = [name for name, _ in self.shares]
        if self.share is not None:
            return dict.fromkeys(names, self.batch_size)
        sizes = [int(np.floor(self.batch_size * share + 0.5)) for _, share in self.shares[:-1]]
        return dict(zip(names, [*sizes, self.batch_size - sum(sizes)]))

    def positions(self, sizes: dict, key, marks: Marks | None = None) -> dict[str, jax.Array]:
        """Where one batch is drawn: source -> positions, for each source whose number of transitions is given. Those of
        a source in `marks` end with as many marked positions as there are successes in a batch."""
        keys = dict(zip((name for name, _ in self.shares), jax.random.split(key, len(self.shares))))
        rows, marks = self.sizes(), marks or {}
        drawn = {n: b for n, b in rows.items() if n in sizes and (b or n in marks)}
        found = {n: jax.random.randint(keys[n], (b,), 0, sizes[n]) for n, b in drawn.items()}
        for name in found.keys() & marks.keys():
            marked, count = marks[name]
            at = jax.random.randint(jax.random.fold_in(keys[name], 1), (rows["successes"],), 0, jnp.maximum(count, 1))
            found[name] = jnp.concatenate([found[name], marked[at]])
        return found

    def read(self, source, positions, rows: int | None = None, marked: int = 0) -> Batch:
        """The batch at `positions` [B] of one source; numpy from the host, jax from the device, equal values. Several
        batches of `rows` each may be read at once, of which the last `marked` are of marked positions: chunks end
        there, as the chunk that a success rewards is the one before it.

        With `chunk` = h: actions [B, h, A], the last one again where nothing was recorded any more, and rewards, masks
        and next_observations of the h steps together. With `history` = H every observation is [B, H, ...]."""
        xp = np if isinstance(positions, np.ndarray) else jnp
        names = [k for k in source.data if k != "ends"]
        learns = "rewards" in names
        steps = self.chunk or self.n_step
        if self.chunk:
            positions, whole = self.back(source, self.ending(source, positions, rows or len(positions), marked))
            positions = self.mended(positions, whole, rows or len(positions))
        batch = {k: source.take(k, positions) for k in names}
        plain = steps == 1 and not self.chunk and not self.next_actions
        last = positions
        if not plain:
            if learns:
                rewards, masks = batch["rewards"], batch["masks"]
            going = alive = xp.ones(positions.shape, bool)
            at, weight = positions, xp.ones(positions.shape, np.float32)
            actions = [batch["actions"]]
            for _ in range(steps - 1):
                onward, exists = source.successor(at)
                going = going & exists
                at = xp.where(going, onward, at)
                alive = going
                if learns:
                    # After a termination the mask is 0, so that nothing later is summed; a play trajectory may go on.
                    alive = alive & (masks > 0)
                    weight = xp.where(alive, weight * self.discount, weight)
                    rewards = rewards + xp.where(alive, weight * source.take("rewards", at), 0)
                    masks = xp.where(alive, masks * source.take("masks", at), masks)
                last = xp.where(alive, at, last)
                actions.append(source.take("actions", at))
            if self.chunk:
                batch["actions"] = xp.stack(actions, 1)  # [B, h, A]
            if steps > 1 and learns:
                # The bootstrap is gamma^n' away: one factor gamma is the critic's, the rest goes into the mask.
                batch["rewards"], batch["masks"] = rewards.astype(np.float32), (masks * weight).astype(np.float32)
            if self.next_actions:
                batch["next_actions"], batch["next_valids"] = self.onward(source, at if self.chunk else last, xp)
        if self.history:
            batch["observations"] = self.recall(source, "observations", positions, xp)
            batch["next_observations"] = self.recall(source, "next_observations", last, xp)
        elif not plain and steps > 1:
            batch["next_observations"] = source.take("next_observations", last)
        if not plain and steps > 1 and "next_candidates" in names:
            batch["next_candidates"] = source.take("next_candidates", last)
        return batch

    def ending(self, source, positions, rows: int, marked: int):
        """Positions where chunks begin that end at the last `marked` of each batch of `rows`; the others stay."""
        xp = np if isinstance(positions, np.ndarray) else jnp
        last = xp.arange(len(positions)) % rows >= rows - marked
        for _ in range((self.chunk - 1) * (marked > 0)):
            before, exists = source.predecessor(positions)
            positions = xp.where(last & exists, before, positions)
        return positions

    def back(self, source, positions) -> tuple:
        """Where chunks begin: a chunk that a trajectory's end cuts short, other than by a termination, begins as many
        steps earlier as it lacks, so that it ends with the trajectory; and whether there were so many, or, where it was
        a termination, whether the chunk stays."""
        xp = np if isinstance(positions, np.ndarray) else jnp
        going, at, missing = xp.ones(positions.shape, bool), positions, xp.zeros(positions.shape, np.int32)
        terminated = xp.zeros(positions.shape, bool)
        for _ in range(self.chunk - 1):
            if "masks" in source.data:
                terminated = terminated | (source.take("masks", at) == 0)
            onward, exists = source.successor(at)
            going = going & exists
            at = xp.where(going, onward, at)
            missing = missing + ~going
        if "masks" in source.data:
            terminated = terminated | (source.take("masks", at) == 0)
        whole = ~(terminated & (missing > 0)) if self.masked else xp.ones(positions.shape, bool)
        missing = xp.where(terminated, 0, missing)
        for i in range(self.chunk - 1):
            before, exists = source.predecessor(positions)
            whole = whole & (exists | (missing <= i))
            positions = xp.where((missing > i) & exists, before, positions)
        return positions, whole

    @staticmethod
    def mended(positions, whole, rows: int):
        """In each batch of `rows`, another of its chunks in the place of one that is not whole, from a trajectory that
        is too short: the one before it, or the last; the same where there is no other."""
        xp = np if isinstance(positions, np.ndarray) else jnp
        places = xp.arange(rows)
        found = xp.where(whole.reshape(-1, rows), places, -1)
        found = np.maximum.accumulate(found, 1) if xp is np else jax.lax.cummax(found, 1)
        found = xp.where(found < 0, found[:, -1:], found)
        return xp.take_along_axis(positions.reshape(-1, rows), xp.where(found < 0, places, found), 1).reshape(-1)

    def onward(self, source, last, xp):
        """The action after `last`, [B, A], or the chunk of them, [B, h, A]; and whether all were recorded [B]."""
        actions, going = [], xp.ones(last.shape, bool)
        for _ in range(self.chunk or 1):
            following, exists = source.successor(last)
            going = going & exists
            last = xp.where(going, following, last)
            actions.append(source.take("actions", last))
        return xp.stack(actions, 1) if self.chunk else actions[0], going.astype(np.float32)

    def recall(self, source, name: str, positions, xp):
        """The last H observations up to `positions`, oldest first: [B, H, ...]; before a trajectory's first
        observation that one is repeated."""
        frames, at = [source.take(name, positions)], positions
        if name == "next_observations" and self.history > 1:
            frames.append(source.take("observations", at))
        while len(frames) < self.history:
            before, exists = source.predecessor(at)
            at = xp.where(exists, before, at)
            frames.append(source.take("observations", at))
        return jax.tree.map(lambda *x: xp.stack(x[::-1], 1), *frames)

    def __call__(self, sources: dict, key, given: dict | None = None, marks: Marks | None = None) -> Batch:
        """One batch. `given` holds parts already read on the host, by source name; `marks` is of one seed."""
        given, marks = given or {}, marks or {}
        positions = self.positions({n: sources[n].size for n in sources}, key, marks)
        names = [n for n, b in self.sizes().items() if n in marks or (b and n != "successes")]
        few = {n: self.sizes()["successes"] for n in marks}
        parts = [given[n] if n in given else self.read(sources[n], positions[n], marked=few.get(n, 0)) for n in names]
        if len(parts) == 1 and not marks:
            return parts[0]
        common = set(parts[0]).intersection(*parts[1:])
        parts = [{k: part[k] for k in common} for part in parts]
        if marks:
            parts = self.pool(dict(zip(names, parts)), marks, jax.random.fold_in(key, len(self.shares)))
        if self.share is not None:
            first = jnp.arange(self.batch_size) < jnp.floor(self.batch_size * self.share + 0.5)
            return jax.tree.map(lambda x, y: jnp.where(first.reshape(-1, *[1] * (x.ndim - 1)), x, y), *parts)
        return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    def pool(self, parts: dict[str, Batch], marks: Marks, key) -> list[Batch]:
        """The parts without their marked rows, and one more: at each row that of one source, drawn in proportion to how
        many are marked there."""
        rows = self.sizes()
        bounds = jnp.cumsum(jnp.stack([marks[name][1] for name in parts]))
        at = jax.random.randint(key, (rows["successes"],), 0, bounds[-1])
        source = (at[:, None] >= bounds).sum(1)
        row = jnp.arange(rows["successes"])
        plain = [jax.tree.map(lambda x: x[: rows[n]], part) for n, part in parts.items()]  # noqa: B023
        marked = [jax.tree.map(lambda x: x[rows[n] :], part) for n, part in parts.items()]  # noqa: B023
        return [*plain, jax.tree.map(lambda *x: jnp.stack(x)[source, row], *marked)]
