"""The programs of a run whose policy lives outside the compiled code: the same calls as `run/programs.py`, in which the
policy proposes and is fitted on the host, update by update. One seed: there is one such policy.

What it is asked depends on (seed, update) and (seed, step) alone, and its arrays are in every checkpoint, so that a
resumed run takes the same steps. A phase that starts from fresh parameters starts the critic afresh, not the policy.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from understudy.data.replay import Buffer
from understudy.errors import CheckpointError, DivergenceError, SettingsError
from understudy.progress import say
from understudy.run import programs

FIT, PROPOSE = 1, 2  # streams of the policy's seeds
PREFIX = "external."


def policy_of(algo):
    """The policy outside, or None where the algorithm has none."""
    return getattr(getattr(algo, "external", None), "policy", None)


def programs_of(algo):
    """What a run of `algo` calls: the module `programs`, or the same with a policy on the host."""
    return programs if policy_of(algo) is None else HostPrograms(policy_of(algo))


def arrays_of(algo) -> dict[str, np.ndarray]:
    """The policy's arrays as a checkpoint names them; {} without one."""
    policy = policy_of(algo)
    return {} if policy is None else {PREFIX + k: np.asarray(v) for k, v in policy.state_dict().items()}


def restore(algo, arrays: dict[str, np.ndarray]) -> None:
    """Put the arrays of a checkpoint back into the policy outside, where there is one. Raises CheckpointError."""
    policy = policy_of(algo)
    if policy is None:
        return
    found = {k.removeprefix(PREFIX): v for k, v in arrays.items() if k.startswith(PREFIX)}
    if not found and policy.state_dict():
        raise CheckpointError("The checkpoint has no external policy; it was written by a run without one.")
    policy.load_state_dict(found)


def seed_of(key, *numbers: int) -> int:
    """A seed for the policy from a jax key and counters, below 2**32."""
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return int(np.random.SeedSequence([*words, *numbers]).generate_state(1)[0])


def propose(policy, observations, n: int, action_size: int, seed: int) -> np.ndarray:
    """The policy's proposals, checked, and cut at the bounds: [B, n, A]. Raises SettingsError where they are not what
    was asked for, and DivergenceError where they are no numbers."""
    return np.clip(_proposals(policy, observations, n, action_size, seed), -1, 1)


def _proposals(policy, observations, n: int, action_size: int, seed: int) -> np.ndarray:
    size, name = len(jax.tree.leaves(observations)[0]), getattr(policy, "name", type(policy).__name__)
    given = policy.sample(observations, n, seed)
    try:
        given = np.asarray(given, np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor that has a gradient, for one
        raise SettingsError(
            f"{name}.sample gave {type(given).__name__}, which NumPy cannot take ({error}); it must give an array "
            f"{[size, n, action_size]}."
        ) from None
    if given.shape != (size, n, action_size):
        raise SettingsError(
            f"{name}.sample gave actions {list(given.shape)}; "
            f"asked for {n} at each of {size} observations, it must give {[size, n, action_size]}."
        )
    if not np.isfinite(given).all():
        raise DivergenceError(
            f"{name}.sample gave NaN or infinity, which is the policy's own; look at what it makes of such "
            f"observations, and at the rate at which it learns."
        )
    return given


def probe(algo, batch) -> None:
    """Ask the policy outside, where there is one, for proposals once, before anything is written. Raises as `propose`,
    and warns where actions are not as they should be."""
    if (policy := policy_of(algo)) is None:
        return
    observations = jax.tree.map(np.asarray, batch["observations"])
    given = _proposals(policy, observations, algo.extraction.samples, algo.action_size, 0)
    if (outside := float((np.abs(given) > 1 + 1e-5).mean())) > 0.1:
        say(f"warning: {outside:.0%} of the actions that {getattr(policy, 'name', type(policy).__name__)}.sample gave "
            "lie outside [-1, 1] and are cut there; scale them from the environment's own range.")  # fmt: skip


@functools.partial(jax.jit, donate_argnums=(0,))
def store(replay: Buffer, slot):
    """The ring with one more slot [K, L, ...]."""
    ring = programs.replay_axes(replay)
    return programs.over_seeds(lambda replay, slot: (replay.add(slot),), (ring, 0), (ring,))(replay, slot)[0]


@jax.jit
def gather(sources, replay, sampler, keys, i, given, marks=None):
    """The batch of update i [K, B, ...] and its key [K], as `programs.chunk` draws them."""

    def one(replay, key, given, marks):
        key_sample, key_update = jax.random.split(jax.random.fold_in(key, i))
        every = sources if replay is None else sources | {"replay": replay}
        return sampler(every, key_sample, given, marks), key_update

    axes = (programs.replay_axes(replay) if replay is not None else None, 0, 0, 0)
    return programs.over_seeds(one, axes, (0, 0))(replay, keys, given, marks)


@functools.partial(jax.jit, static_argnames=("names",), donate_argnums=(1,))
def improve(algo, state, batch, keys, names):
    """One update: state, metrics [K, M], and what the policy is to imitate, [K, n, B, A] with weights [K, n, B]."""

    def one(state, batch, key):
        state, metrics, targets, weights = algo.improve(state, batch, key)
        return state, jnp.stack([jnp.asarray(metrics[n], jnp.float32) for n in names]), targets, weights

    return programs.over_seeds(one, (0, 0, 0), (0, 0, 0, 0))(state, batch, keys)


class HostPrograms:
    """`chunk`, `interact`, `act`, `empty_carry` and `Player` of `run/programs.py`, for an algorithm with a policy
    outside; what needs no policy is that module's own."""

    def __init__(self, policy):
        self.policy = policy

    def __getattr__(self, name: str):
        return getattr(programs, name)

    def chunk(self, algo, state, sources, replay, sampler, keys, start, stop, given, names, marks=None):
        total, bad = np.zeros((1, len(names)), np.float32), np.full((1, len(names)), programs.NEVER)
        for i in range(start, stop):
            now = jax.tree.map(lambda x: x[i - start], given)  # noqa: B023
            state, values = self._update(algo, state, sources, replay, sampler, keys, i, now, names, marks)
            total, bad = total + values, np.minimum(bad, np.where(np.isfinite(values), programs.NEVER, i))
        return state, total, bad

    def interact(self, algo, state, sources, replay, sampler, slot, observations, carry, keys, act_keys, start, step,
                 given, *, names, updates):  # fmt: skip
        replay = store(replay, slot)
        total = np.zeros((1, len(names)), np.float32)
        for i in range(updates):
            now = jax.tree.map(lambda x: x[i], given)  # noqa: B023
            state, values = self._update(algo, state, sources, replay, sampler, keys, start + i, now, names)
            total = total + values
        actions, carry = self.act(algo, state, observations, carry, None, act_keys, step, False)
        return state, replay, actions, carry, total / max(updates, 1)

    def _update(self, algo, state, sources, replay, sampler, keys, i, given, names, marks=None):
        """The policy proposes, the critic learns, the policy is fitted."""
        batch, update_keys = gather(sources, replay, sampler, keys, i, given, marks)
        only = lambda tree: jax.tree.map(lambda x: np.asarray(x[0]), tree)
        here, following = only(batch["observations"]), only(batch["next_observations"])
        both = jax.tree.map(lambda *x: np.concatenate(x), here, following)
        size, n = batch["actions"].shape[1], algo.extraction.samples
        proposals = propose(self.policy, both, n, algo.action_size, seed_of(keys[0], PROPOSE, i))
        batch = batch | {"candidates": proposals[None, :size], "next_candidates": proposals[None, size:]}
        state, values, targets, weights = improve(algo, state, batch, update_keys, names)
        values = np.array(values)
        if i >= algo.fit_from:
            targets, weights = np.asarray(targets[0]), np.asarray(weights[0])
            many = jax.tree.map(lambda x: np.concatenate([x] * len(targets)), here)
            loss = self.policy.fit(
                many, targets.reshape(-1, algo.action_size), weights.reshape(-1), seed_of(keys[0], FIT, i)
            )
            values[:, names.index("actor/imitation")] = loss
        return state, values

    def act(self, algo, state, observations, carry, begun, keys, step, greedy):
        lanes = jax.tree.map(lambda x: np.asarray(x[0]), observations)
        n, seed = algo.extraction.samples, seed_of(keys[0], PROPOSE, int(step))
        given = {"observations": observations,
                 "candidates": propose(self.policy, lanes, n, algo.action_size, seed)[None]}  # fmt: skip
        begun = np.zeros((1, len(jax.tree.leaves(lanes)[0])), bool)
        return programs.act(algo, state, given, (), begun, keys, step, greedy)

    def empty_carry(self, algo, state, observations, keys):
        return ()

    def Player(self, algo, state, keys, greedy: bool = True):
        return HostPlayer(self, algo, state, keys, greedy)


class HostPlayer:
    """`programs.Player` with the policy on the host."""

    def __init__(self, calls: HostPrograms, algo, state, keys, greedy: bool):
        self.calls, self.algo, self.state, self.keys, self.greedy, self.carry = calls, algo, state, keys, greedy, ()

    def __call__(self, observations, step: int, begun) -> np.ndarray:
        actions, _ = self.calls.act(self.algo, self.state, observations, (), begun, self.keys, step, self.greedy)
        return np.asarray(actions)
