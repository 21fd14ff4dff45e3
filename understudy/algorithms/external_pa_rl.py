"""PA-RL (algorithms/pa_rl.py) for a policy outside: Mark et al. 2024, arXiv:2412.06685, section on OpenVLA.

Compiled code sees the policy's proposals in the batch, [B, k, A] at s and at s', and knows no more of it:
    update: Q_i <- descend, and optimised actions for the policy to imitate
    act:    the best proposal after its steps up Q
Between compiled calls the run (run/external.py) lets the policy propose and fits it. Deviation: theirs is sampled ahead
of time for whole epochs, this one for each batch, as it is by then.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import Actor, Critic, check_keys
from understudy.algorithms.cql import CQLCritic
from understudy.algorithms.pa_rl import ActionOptimisation
from understudy.core import Batch, Metrics, leaf, prefix, pytree, static
from understudy.errors import SettingsError
from understudy.policies.external import ExternalPolicy, Held


@pytree
class ExternalState:
    """What is compiled: the critic, and how many updates it has had."""

    critic: object
    step: jax.Array


@pytree
class ExternalPARL:
    """A critic, action optimisation over given proposals, and the policy that makes them, which only the run calls."""

    run = {"switch": "reset-optimizer"}  # as PA-RL's, see registry.Entry
    critic: Critic
    extraction: ActionOptimisation
    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    fit_from: float = leaf(-1.0, "updates before the policy is fitted at all; -1: the offline phase", low=-1.0)
    external: Held = static(help="the policy outside, seen by the run only")

    @property
    def requires(self) -> frozenset[str]:
        return self.critic.requires | self.extraction.requires

    def check(self, batch: Batch) -> None:
        check_keys(type(self).__name__, self.requires, batch)
        if self.critic.needs:
            raise SettingsError(
                f"{type(self.critic).__name__} needs a policy with {', '.join(self.critic.needs)}, which an external "
                f"one has not. Use a critic without densities: CQLCritic(importance=False), TD(), IQLCritic()."
            )

    def init(self, key, batch: Batch) -> ExternalState:
        self.check(batch)
        return ExternalState(critic=self.critic.init(key, batch), step=jnp.int32(0))

    def improve(self, state: ExternalState, batch: Batch, key) -> tuple[ExternalState, Metrics, jax.Array, jax.Array]:
        """An update, and what the policy is to imitate: actions [n, B, A], weights [n, B]."""
        key_critic, key_targets = jax.random.split(key)
        q = lambda o, a: self.critic.q(state.critic, o, a)
        prepared, chosen = self.extraction.prepare(None, (), q, batch, key_targets, state.step)
        actor = Actor(None, (), None, step=state.step, chosen=chosen)
        critic, metrics = self.critic.update(state.critic, batch, actor, key_critic)
        critic = self.critic.follow(critic, state.step)
        metrics = prefix("critic", metrics) | {"actor/imitation": jnp.zeros(()), "actor/gain": prepared["gains"].mean()}
        return ExternalState(critic=critic, step=state.step + 1), metrics, prepared["targets"], prepared["weights"]

    def update(self, state: ExternalState, batch: Batch, key) -> tuple[ExternalState, Metrics]:
        """The compiled part; actor/imitation is what the run has the policy report, 0 where it was not fitted."""
        return self.improve(state, batch, key)[:2]

    def act(self, state: ExternalState, observations, key, carry=(), *, greedy: bool = False):
        """`observations`: {"observations": [B, ...], "candidates": [B, k, A]}."""
        q = lambda o, a: self.critic.q(state.critic, o, a)
        proposals = jnp.swapaxes(observations["candidates"], 0, 1)
        return self.extraction.select(q, observations["observations"], proposals), carry


def external_pa_rl(action_size: int, policy: ExternalPolicy) -> ExternalPARL:
    """PA-RL for a policy outside, which is fitted live, after an offline phase in which only the critic learns."""
    critic = CQLCritic(calibrated=True, weight=0.005, importance=False, repeat=True, ensemble=10, subset=2,
                       aggregate="mean", layer_norm="before")  # fmt: skip
    return ExternalPARL(critic=critic, extraction=ActionOptimisation(cached=True), action_size=action_size,
                        external=Held(policy))  # fmt: skip
