"""What an algorithm is, and the one composition that most of them are: critic x extraction x policy.

An algorithm has `requires` (batch keys) and three pure methods:

    init(key, batch) -> state                                  arrays only
    update(state, batch, key) -> (state, metrics)              no counter, key or mode hidden inside
    act(state, observations, key, carry=(), *, greedy=False) -> (actions, carry)

and may have more:

    observe(state, slot, carry) -> state      sees every live step, leaves [L, ...], with the carry that led to it
    burst = (steps, updates)                  learns in bursts: so many updates after so many live steps
    learns_offline = True                     and from data as well, where there are bursts
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from understudy.core import (
    CAPABILITIES,
    TRANSITION,
    Batch,
    Metrics,
    Net,
    Params,
    adam,
    descend,
    leaf,
    lockstep,
    net,
    polyak,
    prefix,
    pytree,
    static,
)
from understudy.errors import SettingsError


class Algorithm(Protocol):
    """Anything with these members trains, resumes, evaluates and deploys through the same loop."""

    requires: frozenset[str]

    def init(self, key: jax.Array, batch: Batch) -> Any: ...
    def update(self, state: Any, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]: ...
    def act(self, state: Any, observations, key, carry=(), *, greedy: bool = False) -> tuple[jax.Array, Any]: ...


class Policy:
    """A class of policies. Two methods are required, so that any class can be improved:

    `init(key, observations, actions) -> params`; `sample(params, observations, key) -> actions [B, A]`, and
    `loss(params, observations, actions, key) -> [B]`, the per-example imitation loss. More are capabilities
    (`core.CAPABILITIES`), declared by having the method."""


class Critic:
    """How values are learned. `requires`: batch keys; `needs`: capabilities of the policy.

    `init(key, batch) -> state`, `update(state, batch, actor, key) -> (state, metrics)`,
    `q(state, observations, actions) -> [B]`; critics with a value function also have
    `advantage(state, observations, actions) -> [B]`."""

    requires: frozenset[str] = TRANSITION
    needs: tuple[str, ...] = ()
    without: str = "a critic that asks for less, such as --critic iql"  # the way out of what it needs

    def check(self) -> None:
        """Raise SettingsError where its numbers contradict one another; traced or swept ones are taken as they are."""

    def follow(self, state, step):
        """What ends an update, after the policy's step: target networks follow. `step`: updates before this one."""
        return state


class Extraction:
    """How the policy improves, and which of its samples acts. `requires`: batch keys, `needs`: capabilities of the
    policy, `needs_critic`: methods of the critic, `made_for`: the class of the policy where it reaches into its parts.
    `init` gives what it learns itself (a temperature), if anything."""

    requires: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()
    needs_critic: tuple[str, ...] = ()
    made_for: type[Policy] | None = None

    def init(self):
        """State of the extraction itself, e.g. SAC's temperature."""
        return ()

    def adapt(self, aux, metrics: Metrics):
        """Update that state from the metrics of the policy's loss."""
        return aux

    def temperature(self, aux):
        """Weight of the policy's entropy in soft backups; None: no entropy is sought, and none counts."""

    def compare(self, critic, state) -> Callable:
        """The function (observations, actions) -> [B] that `choose` is given."""
        return lambda observations, actions: critic.q(state, observations, actions)

    def choose(self, policy, params, q: Callable, observations, key, *, greedy: bool = False):
        """The action used in backups and at deployment: a sample, or the mode where one exists and is asked for."""
        return mode_or_sample(policy, params, observations, key, greedy)

    def prepare(self, policy, params, q: Callable, batch: Batch, key, step) -> tuple[Batch, dict[str, jax.Array]]:
        """What an update computes once for the critic and the policy: the batch with what `loss` needs besides, and
        chosen actions [B, A] by the batch key of their observations. `step`: updates before this one."""
        return batch, {}

    def explore(self, actions, key):
        """Noise added when collecting data online."""
        return actions

    def loss(self, params, aux, policy, critic, critic_state, batch: Batch, key):
        """Scalar loss of the policy's parameters, and metrics."""
        raise TypeError(f"{type(self).__name__} defines no policy loss.")


@dataclasses.dataclass(frozen=True)
class Actor:
    """The policy as a critic sees it inside one update: parameters bound, actions chosen as the extraction chooses."""

    policy: Any
    params: Params
    choose: Callable  # (observations, key) -> actions [B, A]
    temperature: Any = None
    step: Any = 0
    chosen: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)  # what `Extraction.prepare` has chosen

    def choose_at(self, batch: Batch, which: str, key) -> jax.Array:
        """The action chosen at batch[which], "observations" or "next_observations": [B, A]."""
        return self.chosen[which] if which in self.chosen else self.choose(batch[which], key)

    def draw(self, batch: Batch, which: str, key, n: int, densities: bool) -> tuple[jax.Array, jax.Array]:
        """n samples of the policy at batch[which] with their log-probabilities, [n, B, A] and [n, B]; without
        `densities` n actions as the extraction chooses them, and zeros."""

        def one(key):
            if densities:
                return self.policy.sample_and_log_prob(self.params, batch[which], key)
            actions = self.choose_at(batch, which, key)
            return actions, jnp.zeros(len(actions))

        return jax.vmap(one)(jax.random.split(key, n))


@pytree
class ActorCriticState:
    """`target`: Polyak average of the policy, for backups or for acting, or (); `aux`: the extraction's own state;
    `seen`: the last metrics of the policy, repeated on the steps that a delayed policy sits out."""

    actor: Net
    critic: Any
    target: Any
    aux: Any
    step: jax.Array
    seen: Metrics


@pytree
class ActorCritic:
    """critic x extraction x policy; in each update the critic first, then the policy with the new critic, then
    the critic's target networks."""

    critic: Critic
    extraction: Extraction
    policy: Policy
    learning_rate: float = leaf(3e-4, "Adam's rate for the policy", low=0.0)
    decay_steps: float = leaf(
        0.0, "steps of the policy over which its rate falls to 0 along a half cosine; 0: never, -1: the offline phase, "
        "and a retraining", low=-1.0,
    )  # fmt: skip
    after_decay: float = leaf(0.1, "share of the rate that there is again after those steps", low=0.0)
    target_policy: bool = static(False, "back up with a Polyak average of the policy (TD3)")
    target_policy_tau: float = leaf(0.005, "rate of that average", symbol="tau", low=0.0, high=1.0)
    act_average: bool = static(False, "act, be evaluated and be deployed with that average")
    policy_delay: int = static(
        1, "critic updates per policy update (TD3: 2); 0: one policy update per live step, whatever the utd",
        symbol="d", low=0,
    )  # fmt: skip

    @property
    def requires(self) -> frozenset[str]:
        return self.critic.requires | self.extraction.requires

    def check(self, batch: Batch) -> None:
        """Refuse a product that cannot work, with the reason and the way out. Raises SettingsError."""
        self.critic.check()
        for part in (self.critic, self.extraction):
            check_keys(type(part).__name__, part.requires, batch)
        check_policy(type(self.extraction).__name__, self.extraction.needs, self.policy)
        check_policy(type(self.critic).__name__, self.critic.needs, self.policy, self.critic.without)
        made_for = self.extraction.made_for
        if made_for is not None and not isinstance(self.policy, made_for):
            refuse_policy(type(self.extraction).__name__, f"of the class {made_for.__name__}", self.policy)
        for need in self.extraction.needs_critic:
            if not hasattr(self.critic, need):
                raise SettingsError(
                    f"{type(self.extraction).__name__} needs a critic with {need}; {type(self.critic).__name__} "
                    f"has none. Use a critic that learns a state value, such as IQL's."
                )

    def init(self, key, batch: Batch) -> ActorCriticState:
        self.check(batch)
        key_actor, key_critic, key_loss = jax.random.split(key, 3)
        params = self.policy.init(key_actor, batch["observations"], batch["actions"])
        critic, aux = self.critic.init(key_critic, batch), self.extraction.init()
        q = self.extraction.compare(self.critic, critic)

        def first_loss(params):
            prepared, _ = self.extraction.prepare(self.policy, params, q, batch, key_loss, jnp.int32(0))
            return self.extraction.loss(params, aux, self.policy, self.critic, critic, prepared, key_loss)

        _, seen = jax.eval_shape(first_loss, params)
        seen = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), seen | {"loss": jax.ShapeDtypeStruct((), "float32")})
        return ActorCriticState(
            actor=net(params, self.optimiser),
            critic=critic,
            target=jax.tree.map(jnp.copy, params) if self.averages else (),
            aux=aux,
            step=jnp.int32(0),
            seen=seen,
        )

    @property
    def optimiser(self):
        return adam(self.learning_rate, self.decay_steps, self.after_decay)

    @property
    def acts_with(self) -> tuple:
        """What acts in the place of what learns: (place in the state, place of what learns), outermost first."""
        return ((".target", ".actor.params"),) if self.act_average else ()

    @property
    def averages(self) -> bool:
        """Whether a Polyak average of the policy is kept."""
        return self.target_policy or self.act_average

    def update(self, state: ActorCriticState, batch: Batch, key) -> tuple[ActorCriticState, Metrics]:
        key_critic, key_actor = jax.random.split(key)
        prepared, chosen = self._prepare(state, batch, jax.random.fold_in(key, 2))
        backup_actor = self._backup_actor(state, chosen)
        critic, critic_metrics = self.critic.update(state.critic, batch, backup_actor, key_critic)

        def improve(actor, target, aux, _):
            actor, metrics = descend(
                actor, self.optimiser, self.extraction.loss, aux, self.policy, self.critic, critic, prepared, key_actor
            )
            if self.averages:
                target = polyak(target, actor.params, self.target_policy_tau)
            return actor, target, self.extraction.adapt(aux, metrics), metrics

        held = (state.actor, state.target, state.aux, state.seen)
        if self.policy_delay <= 1:
            held = improve(*held)
        else:
            turn = (lockstep(state.step) + 1) % self.policy_delay == 0
            held = jax.lax.cond(turn, improve, lambda *held: held, *held)
        actor, target, aux, seen = held
        critic = self.critic.follow(critic, state.step)
        state = ActorCriticState(actor=actor, critic=critic, target=target, aux=aux, step=state.step + 1, seen=seen)
        return state, prefix("critic", critic_metrics) | prefix("actor", seen)

    def act(self, state, observations, key, carry=(), *, greedy: bool = False):
        key_choose, key_explore = jax.random.split(key)
        params = state.target if self.act_average else state.actor.params
        actions = self._choose(state, params, observations, key_choose, greedy=greedy)
        return actions if greedy else self.extraction.explore(actions, key_explore), carry

    def _choose(self, state, params, observations, key, *, greedy=False):
        q = self.extraction.compare(self.critic, state.critic)
        return self.extraction.choose(self.policy, params, q, observations, key, greedy=greedy)

    def _prepare(self, state, batch: Batch, key):
        params = state.target if self.target_policy else state.actor.params
        q = self.extraction.compare(self.critic, state.critic)
        return self.extraction.prepare(self.policy, params, q, batch, key, state.step)

    def _backup_actor(self, state, chosen) -> Actor:
        params = state.target if self.target_policy else state.actor.params
        choose = lambda observations, key: self._choose(state, params, observations, key)
        return Actor(self.policy, params, choose, self.extraction.temperature(state.aux), state.step, chosen)


# What to do about a batch key that is missing.
REMEDIES = {
    "rewards": "Give a data set with rewards, or name an environment that defines them (--env).",
    "mc_returns": "Load the data with Monte-Carlo returns: dataset.transitions(mc_discount=...).",
    "next_actions": "Ask the sampler for them: Sampler(next_actions=True).",
    "next_valids": "Ask the sampler for them: Sampler(next_actions=True).",
    "candidates": "Let the policy be sampled anew in each update: extraction.cached = False.",
    "next_candidates": "Let the policy be sampled anew in each update: extraction.cached = False.",
}


def check_keys(who: str, requires: frozenset[str], batch: Batch) -> None:
    """Raise SettingsError where `batch` lacks a required key, with what to do about it."""
    missing = sorted(requires - batch.keys())
    if missing:
        todo = " ".join(dict.fromkeys(REMEDIES.get(k, "Give data that have it.") for k in missing))
        raise SettingsError(f"{who} needs batch keys {missing}; got {sorted(batch)}. {todo}")


LESS = "an algorithm whose extraction only samples (iql, ifql, bc)"


def check_policy(who: str, needs: Iterable[str], policy: Any, instead: str = LESS) -> None:
    """Raise SettingsError where `policy` lacks a capability, with what to do about it."""
    for need in needs:
        if not hasattr(policy, need):
            refuse_policy(who, f"with {need} ({CAPABILITIES[need]})", policy, instead)


def refuse_policy(who: str, needed: str, policy: Any, instead: str = LESS) -> None:
    raise SettingsError(
        f"{who} needs a policy {needed}; {type(policy).__name__} is not one. Use one (understudy list policies) or "
        f"{instead}."
    )


def mode_or_sample(policy, params, observations, key, greedy: bool) -> jax.Array:
    """The policy's mode where it is asked for and exists, else a sample: [B, A]."""
    if greedy and hasattr(policy, "mode"):
        return policy.mode(params, observations)
    return policy.sample(params, observations, key)
