"""HNPG. Zhou, Sekhari, Song and Sun 2023, "Offline Data Enhanced On-Policy Policy Gradient with Provable Guarantees",
arXiv:2311.08384. As its authors run it: with the trust region of Schulman et al. 2015, arXiv:1502.05477.

T steps of each of L environments under pi, B; a batch of off-policy data, D; then, with V(s) the mean of Q(s, a) over a
few a ~ pi(.|s):
    G     = the returns that followed in B, and V where an episode was cut off
    y     = r + gamma m Q(s', a'),  a' ~ pi(.|s'),  on D
    theta <- descend  E_B (Q(s, a) - G)^2 + lambda E_D (Q(s, a) - y)^2,  K times, G and y fixed       (Algorithm 2)
    A     = on B the generalised advantages under V;  on the states of D, Q(s, a) - V(s), a ~ pi(.|s)
    w     = argmin  E (w . grad log pi(a|s) - A(s, a))^2,  by conjugate gradients                      (eq. 4)
            so that w = F^-1 E [A grad log pi],  F = E [grad log pi grad log pi^T], and damped
    phi   <- phi + beta w,  beta = sqrt(2 delta / w F w), halved until E [A pi'/pi] gains 0.1 of what is expected
Deviations: one policy and one Q, with a discount (theirs: one for each step of a finite horizon); Adam goes on from
iteration to iteration; F is that of drawn actions, as in the paper (their code has the Hessian of the KL divergence,
which F estimates); an action beyond [-1, 1] is clipped before it is played, and has the density of the clipped one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithm import Policy, check_keys, check_policy, mode_or_sample
from understudy.core import TRANSITION, Batch, Net, adam, descend, leaf, net, prefix, pytree, scratch, static
from understudy.natural_gradient import natural_step
from understudy.networks import ACTIVATIONS, LAYER_NORM, MLP
from understudy.on_policy import Rollout
from understudy.policies.gaussian import Gaussian


@pytree
class HNPGState:
    """The policy has no optimiser: its Net holds parameters alone."""

    actor: Net
    critic: Net
    rollout: Rollout = scratch()


@pytree
class HNPG:
    """Natural gradient on what the policy has just played, with a critic that learns from other data as well."""

    policy: Policy
    discount: float = leaf(0.99, "weight of the next step's value", symbol="gamma", low=0.0, high=1.0)
    trace: float = leaf(0.97, "decay of the advantage's trace", low=0.0, high=1.0)
    data_weight: float = leaf(1.0, "weight of the off-policy data in the critic's loss", symbol="lambda", low=0.0)
    learning_rate: float = leaf(3e-4, "Adam's rate for the critic", low=0.0)
    max_kl: float = leaf(0.01, "size of the policy's step, as a KL divergence", symbol="delta", low=0.0)
    damping: float = leaf(0.1, "added to the diagonal of the Fisher matrix", low=0.0)
    iterations: int = static(10, "iterations of conjugate gradients", low=1)
    critic_steps: int = static(30, "steps of the critic for one of the policy", symbol="K", low=1)
    samples: int = static(10, "actions that a state's value averages over", low=1)
    hidden: tuple[int, ...] = static((256, 256), "widths of the critic's hidden layers", low=1)
    activation: str = static("tanh", "activation of the critic's hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm, before or after the activation", choices=LAYER_NORM)
    steps_per_rollout: int = static(1000, "steps of each environment between updates", symbol="T", low=2)
    lanes: int = static(0, "environments of each seed; 0: as many as the run has", symbol="L", low=0)

    requires = TRANSITION

    @property
    def burst(self) -> tuple[int, int]:
        """Steps of each environment between updates, and one update of both networks."""
        return self.steps_per_rollout, 1

    @property
    def network(self) -> MLP:
        return MLP(1, self.hidden, self.activation, self.layer_norm)

    def check(self, batch: Batch) -> None:
        check_keys("HNPG", self.requires, batch)
        check_policy("HNPG", ("log_prob",), self.policy)

    def init(self, key, batch: Batch) -> HNPGState:
        self.check(batch)
        key_actor, key_q = jax.random.split(key)
        q = self.network.init(key_q, batch["observations"], batch["actions"])
        return HNPGState(
            actor=Net(params=self.policy.init(key_actor, batch["observations"], batch["actions"]), opt=()),
            critic=net(q, adam(self.learning_rate)),
            rollout=Rollout.empty(batch, self.steps_per_rollout, max(self.lanes, 1)),
        )

    def observe(self, state: HNPGState, slot: Batch, carry=()) -> HNPGState:
        return dataclasses.replace(state, rollout=state.rollout.add(slot))

    def q(self, params, observations, actions):
        return self.network.apply(params, observations, actions)[..., 0]

    def v(self, params, policy, observations, key):
        """V(s): [B]."""
        one = lambda key: self.q(params, observations, self.policy.sample(policy, observations, key))
        return jax.vmap(one)(jax.random.split(key, self.samples)).mean(0)

    def q_loss(self, params, played: Batch, returns, batch: Batch, targets):
        here, there = (self.q(params, rows["observations"], rows["actions"]) for rows in (played, batch))
        online, data = ((here - returns) ** 2).mean(), ((there - targets) ** 2).mean()
        metrics = {"online": online, "data": data, "q": here.mean(), "target": targets.mean()}
        return online + self.data_weight * data, metrics

    def update(self, state: HNPGState, batch: Batch, key) -> tuple[HNPGState, dict]:
        key_next, key_return, key_advantage, key_data, key_value = jax.random.split(key, 5)
        policy, rollout = state.actor.params, state.rollout
        flat = lambda tree: jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

        def assess(q, key, trace):
            v = lambda observations: self.v(q, policy, flat(observations), key).reshape(rollout.advantages.shape)
            return rollout.assess(v, self.discount, trace)

        returns = assess(state.critic.params, key_return, 1.0).returns.reshape(-1)
        following = self.policy.sample(policy, batch["next_observations"], key_next)
        targets = self.q(state.critic.params, batch["next_observations"], following)
        targets = batch["rewards"] + self.discount * batch["masks"] * targets
        played = flat(rollout.steps)
        step = lambda q: descend(q, adam(self.learning_rate), self.q_loss, played, returns, batch, targets)
        q = jax.lax.fori_loop(0, self.critic_steps - 1, lambda _, q: step(q)[0], state.critic)
        q, critic_metrics = step(q)
        actions = self.policy.sample(policy, batch["observations"], key_data)
        here = self.v(q.params, policy, batch["observations"], key_value)
        rows = {
            "observations": (played["observations"], batch["observations"]),
            "actions": (played["actions"], actions),
            "advantages": (assess(q.params, key_advantage, self.trace).advantages.reshape(-1),
                           self.q(q.params, batch["observations"], actions) - here),
        }  # fmt: skip
        rows = {k: jax.tree.map(lambda *x: jnp.concatenate(x), *pair) for k, pair in rows.items()}
        log_prob = lambda p: self.policy.log_prob(p, rows["observations"], rows["actions"])
        sizes = (self.max_kl, self.damping, self.iterations)
        policy, metrics = natural_step(log_prob, policy, rows["advantages"], *sizes)
        state = HNPGState(actor=Net(params=policy, opt=()), critic=q, rollout=rollout)
        return state, prefix("critic", critic_metrics) | prefix("actor", metrics)

    def act(self, state: HNPGState, observations, key, carry: Any = (), *, greedy: bool = False):
        return mode_or_sample(self.policy, state.actor.params, observations, key, greedy), carry


def hnpg(action_size: int) -> HNPG:
    """Hybrid natural policy gradient: on-policy, live only, with a critic that off-policy data help to fit."""
    return HNPG(policy=Gaussian(action_size=action_size))
