"""BC, behaviour cloning. Pomerleau 1988, "ALVINN: An Autonomous Land Vehicle in a Neural Network", NeurIPS 1.

Each update:
    phi <- descend  E loss(s, a),  the policy's own imitation loss: -log pi(a|s) for a Gaussian, flow matching for a
           flow, squared error for a deterministic policy
There is no critic, so neither rewards nor next observations are needed. Online it imitates its own actions as well.
"""

from __future__ import annotations

import jax.numpy as jnp

from understudy.algorithm import ActorCritic, Critic
from understudy.core import batch_size, pytree
from understudy.extractions import Imitate
from understudy.policies.gaussian import Gaussian


@pytree
class NoCritic(Critic):
    """Learns nothing and values every action at 0; asks for observations and actions only."""

    requires = frozenset({"observations", "actions"})

    def init(self, key, batch):
        return ()

    def q(self, state, observations, actions):
        return jnp.zeros(batch_size(observations))

    def update(self, state, batch, actor, key):
        return state, {}


def bc(action_size: int) -> ActorCritic:
    """Behaviour cloning: imitate the data, whatever its rewards."""
    return ActorCritic(critic=NoCritic(), extraction=Imitate(), policy=Gaussian(action_size=action_size))
