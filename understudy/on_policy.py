"""What on-policy algorithms share: the steps that the policy has just played, their advantages, and the bursts of
updates on them. A chunk of actions is one decision, in the steps that it lasts; one that goes on beyond what was played
is cut there and bootstrapped."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithm import Policy, check_keys
from understudy.core import Batch, Net, Params, adam, descend, leaf, lockstep, net, prefix, pytree, scratch, static
from understudy.errors import SettingsError
from understudy.losses import generalised_advantages
from understudy.networks import ACTIVATIONS, LAYER_NORM, MLP

PLAYED = ("observations", "actions", "next_observations", "rewards", "masks", "ends", "begins")


@pytree
class Rollout:
    """T steps of L environments, in their order. A state holds it in a `scratch` field.

    `steps`: leaves [T, L, ...], `begins` among them: 0 where a chunk of actions went on; `filled`: steps ever added;
    `advantages` and `returns` [T, L], of the last `assess`; `order` [T L]: the rows of the current epoch, shuffled."""

    steps: Batch
    filled: jax.Array
    advantages: jax.Array
    returns: jax.Array
    order: jax.Array

    @classmethod
    def empty(cls, batch: Batch, steps: int, lanes: int, besides=()) -> Rollout:
        """Room for T = `steps` steps of L = `lanes` environments, shaped like `batch` (leaves [B, ...]); `besides`:
        {name: shape} of what else a step keeps."""
        shape = (steps, lanes)
        like = {k: batch["actions"] if k == "actions" else batch["observations"] for k in PLAYED[:3]}
        many = lambda x: jnp.zeros((*shape, *x.shape[1:]))
        played = {k: jax.tree.map(many, x) for k, x in like.items()} | {k: jnp.zeros(shape) for k in PLAYED[3:]}
        played |= {k: jnp.zeros((*shape, *more)) for k, more in dict(besides).items()}
        return cls(steps=played, filled=jnp.int32(0), advantages=jnp.zeros(shape), returns=jnp.zeros(shape),
                   order=jnp.arange(math.prod(shape)))  # fmt: skip

    def add(self, slot: Batch) -> Rollout:
        """Write one step of every environment, leaves [L, ...]."""
        slot = {"begins": jnp.ones_like(slot["rewards"])} | slot
        at = self.filled % len(self.advantages)
        write = lambda kept, x: kept.at[at].set(x.astype(kept.dtype))
        steps = jax.tree.map(write, self.steps, {k: slot[k] for k in self.steps})
        return dataclasses.replace(self, steps=steps, filled=self.filled + 1)

    def assess(self, value: Callable, discount, trace) -> Rollout:
        """With the advantages of its steps under `value(observations [T, L, ...]) -> [T, L]`."""
        steps, values = self.steps, value(self.steps["observations"])
        following = value(steps["next_observations"])
        advantages = generalised_advantages(
            steps["rewards"], values, following, steps["masks"], steps["ends"], steps["begins"], discount, trace
        )
        return dataclasses.replace(self, advantages=advantages, returns=advantages + values)

    def minibatch(self, part, parts: int, key, steps_per_action: int = 1) -> tuple[Rollout, Batch]:
        """Minibatch `part` of `parts` of an epoch, shuffled anew at its first; with returns, and advantages brought to
        mean 0 and deviation 1. Where an action lasts h = `steps_per_action` steps, an epoch has T L / h of those that
        were chosen, which are no fewer."""
        count = self.order.size
        size = count // steps_per_action // parts
        shuffled = jax.random.permutation(key, count)
        if steps_per_action > 1:  # those that began come first
            shuffled = shuffled[jnp.argsort(self.steps["begins"].reshape(count)[shuffled] == 0, stable=True)]
        order = jnp.where(part == 0, shuffled, self.order)
        rows = jax.lax.dynamic_slice_in_dim(order, part * size, size)
        flat = lambda x: x.reshape(count, *x.shape[2:])[rows]
        advantages = flat(self.advantages)
        batch = jax.tree.map(flat, self.steps) | {
            "advantages": (advantages - advantages.mean()) / (advantages.std() + 1e-8),
            "returns": flat(self.returns),
        }
        return dataclasses.replace(self, order=order), batch


def check_split(steps: int, lanes: int, minibatches: int, steps_per_action: int = 1) -> None:
    """Raise SettingsError where a rollout does not split into equal minibatches."""
    if steps % steps_per_action or steps // steps_per_action * lanes % minibatches:
        of = f" of chunks of {steps_per_action} actions" if steps_per_action > 1 else ""
        raise SettingsError(
            f"{steps} steps of {lanes} environments do not split into {minibatches} equal minibatches{of}; give "
            f"another number of minibatches or of steps_per_rollout."
        )


@pytree
class OnPolicyState:
    """`old`: the policy that played the rollout; `turn`: updates made since."""

    actor: Net
    value: Net
    old: Params = scratch()
    rollout: Rollout = scratch()
    turn: jax.Array = scratch()


@pytree
class OnPolicy:
    """Abstract: bursts of minibatch steps on what the policy has just played, which `observe` keeps in the state; the
    sampler's batch is not used. A final class adds `policy_loss(params, old, batch, key)` and `act`."""

    policy: Policy
    discount: float = leaf(0.99, "weight of the next step's value", symbol="gamma", low=0.0, high=1.0)
    trace: float = leaf(0.95, "decay of the advantage's trace", symbol="lambda", low=0.0, high=1.0)
    clip: float = leaf(0.2, "bound of the probability ratio", symbol="epsilon", low=0.0)
    learning_rate: float = leaf(3e-4, "Adam's rate for the policy", low=0.0)
    value_learning_rate: float = leaf(3e-4, "Adam's rate for the value", low=0.0)
    hidden: tuple[int, ...] = static((256, 256), "widths of the value's hidden layers", low=1)
    activation: str = static("tanh", "activation of the value's hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm, before or after the activation", choices=LAYER_NORM)
    steps_per_rollout: int = static(256, "steps of each environment between bursts of updates", symbol="T", low=2)
    epochs: int = static(10, "passes over what was played", low=1)
    minibatches: int = static(8, "minibatches in a pass", low=1)
    lanes: int = static(0, "environments of each seed; 0: as many as the run has", symbol="L", low=0)
    steps_per_action: int = static(0, "steps that an action of the policy lasts; 0: as many as a chunk has", low=0)

    requires = frozenset({"observations", "actions"})

    @property
    def burst(self) -> tuple[int, int]:
        """Steps of each environment between bursts, and updates in one."""
        return self.steps_per_rollout, self.epochs * self.minibatches

    @property
    def carried(self) -> dict[str, tuple[int, ...]]:
        """What the rollout keeps from the carry that led to a step: {name: shape}, [L, *shape] in the carry."""
        return {}

    @property
    def value_network(self) -> MLP:
        return MLP(1, self.hidden, self.activation, self.layer_norm)

    def v(self, params, observations):
        return self.value_network.apply(params, observations)[..., 0]

    def check(self, batch: Batch) -> None:
        check_keys(type(self).__name__, self.requires, batch)
        check_split(self.steps_per_rollout, max(self.lanes, 1), self.minibatches, max(self.steps_per_action, 1))

    def init(self, key, batch: Batch) -> OnPolicyState:
        self.check(batch)
        key_actor, key_value = jax.random.split(key)
        params = self.policy.init(key_actor, batch["observations"], batch["actions"])
        return OnPolicyState(
            actor=net(params, adam(self.learning_rate)),
            value=net(self.value_network.init(key_value, batch["observations"]), adam(self.value_learning_rate)),
            old=jax.tree.map(jnp.copy, params),
            rollout=Rollout.empty(batch, self.steps_per_rollout, max(self.lanes, 1), self.carried),
            turn=jnp.int32(0),
        )

    def observe(self, state: OnPolicyState, slot: Batch, carry: Any = ()) -> OnPolicyState:
        played = slot | {k: carry[k] for k in self.carried}
        return dataclasses.replace(state, rollout=state.rollout.add(played))

    def begin(self, state: OnPolicyState) -> OnPolicyState:
        """A burst of updates begins: the advantages of what was played, and the policy that played it."""
        v = lambda observations: self.v(state.value.params, observations)
        rollout = state.rollout.assess(v, self.discount, self.trace)
        return dataclasses.replace(state, rollout=rollout, old=state.actor.params)

    def value_loss(self, params, batch: Batch):
        v = self.v(params, batch["observations"])
        return ((v - batch["returns"]) ** 2).mean(), {"v": v.mean()}

    def update(self, state: OnPolicyState, batch: Batch, key) -> tuple[OnPolicyState, dict]:
        key_order, key_loss = jax.random.split(key)
        state = jax.lax.cond(lockstep(state.turn) == 0, self.begin, lambda state: state, state)
        which = state.turn % self.minibatches
        rollout, part = state.rollout.minibatch(which, self.minibatches, key_order, max(self.steps_per_action, 1))
        actor, metrics = descend(state.actor, adam(self.learning_rate), self.policy_loss, state.old, part, key_loss)
        value, value_metrics = descend(state.value, adam(self.value_learning_rate), self.value_loss, part)
        turn = (state.turn + 1) % (self.epochs * self.minibatches)
        state = dataclasses.replace(state, actor=actor, value=value, rollout=rollout, turn=turn)
        return state, prefix("critic", value_metrics) | prefix("actor", metrics)


@pytree
class Cloning(OnPolicy):
    """Abstract: on-policy learning from a clone. In phases that do not act the policy imitates the data, by its own
    loss, and the value rests."""

    imitation: float = leaf(-1.0, "1: imitate the data; 0: learn from what was played; -1: as the phase does", low=-1.0,
                            high=1.0)  # fmt: skip

    learns_offline = True

    def clone(self, state: OnPolicyState, batch: Batch, key) -> tuple[OnPolicyState, dict]:
        def loss(params):
            each = self.policy.loss(params, batch["observations"], batch["actions"], key)
            return each.mean(), {}

        actor, metrics = descend(state.actor, adam(self.learning_rate), loss)
        v = self.v(state.value.params, batch["observations"]).mean()
        return dataclasses.replace(state, actor=actor), {"actor/imitation": metrics["loss"], "critic/v": v}

    def update(self, state: OnPolicyState, batch: Batch, key) -> tuple[OnPolicyState, dict]:
        improve = super().update
        names = {"actor/imitation", *jax.eval_shape(improve, state, batch, key)[1]}

        def alike(learn, *args):
            state, metrics = learn(*args)
            return state, {k: jnp.float32(metrics.get(k, 0)) for k in sorted(names)}

        branches = (functools.partial(alike, learn) for learn in (self.clone, improve))
        return jax.lax.cond(self.imitation > 0, *branches, state, batch, key)
