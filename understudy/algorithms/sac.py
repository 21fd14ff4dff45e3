"""SAC. Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905.

Algorithm 1, each update:
    a'       ~ pi(.|s')
    y        = r + gamma m (min_j Qbar_j(s', a') - alpha log pi(a'|s'))                       (eq. 3)
    theta_i  <- descend  E (Q_i(s, a) - y)^2                                                  (eq. 5)
    thetabar <- (1 - tau) thetabar + tau theta
    phi      <- descend  E [alpha log pi(a|s) - min_j Q_j(s, a)],  a ~ pi(.|s)                (eq. 7)
    alpha    <- descend  E [-alpha (log pi(a|s) + H)],  H = -A                                (eq. 18)
Deviation: alpha is stepped after the policy from the same sample, and over log alpha, as in the authors' code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import ActorCritic, Extraction
from understudy.core import Batch, Metrics, Net, adam, descend, leaf, net, pytree, static
from understudy.critics import BootstrapCritic, QState
from understudy.policies.tanh_gaussian import TanhGaussian


def soft_next_value(critic: BootstrapCritic, state: QState, batch: Batch, actor, key, entropy: bool) -> jax.Array:
    """min_j Qbar_j(s', a') - alpha log pi(a'|s') with one a' ~ pi(.|s'): [B]; without the last term if not `entropy`
    or where the extraction seeks none, and then the action is the extraction's choice."""
    key_action, key_subset = jax.random.split(key)
    if not entropy or actor.temperature is None:
        actions = actor.choose_at(batch, "next_observations", key_action)
        return critic.next_q(state, batch["next_observations"], actions, key_subset)
    actions, log_probs = actor.policy.sample_and_log_prob(actor.params, batch["next_observations"], key_action)
    return critic.next_q(state, batch["next_observations"], actions, key_subset) - actor.temperature * log_probs


@pytree
class SoftTD(BootstrapCritic):
    """TD learning of the soft value: the policy's entropy counts as reward."""

    without = "a critic without densities: --critic.entropy false"
    entropy: bool = static(True, "count the policy's entropy in backups (a soft value)")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("sample_and_log_prob",) if self.entropy else ()

    def target(self, state: QState, batch: Batch, actor, key) -> jax.Array:
        value = soft_next_value(self, state, batch, actor, key, self.entropy)
        return batch["rewards"] + self.discount * batch["masks"] * value

    def update(self, state: QState, batch: Batch, actor, key) -> tuple[QState, Metrics]:
        return self.learn(state, self.q_loss, self.target(state, batch, actor, key), batch, key)


@pytree
class Entropic(Extraction):
    """Abstract: a temperature alpha, learned so that the entropy meets its target. A final class adds `loss`."""

    needs = ("sample_and_log_prob", "rsample")  # the sample passes gradients of Q
    target_entropy: float = leaf(-1.0, "target entropy per action dimension: H = target_entropy A", symbol="H/A")
    initial_temperature: float = leaf(1.0, "temperature at the start", symbol="alpha_0", low=1e-8)
    learning_rate: float = leaf(3e-4, "Adam's rate for the temperature; 0 keeps it as it is", low=0.0)

    def init(self) -> Net:
        return net(jnp.log(jnp.float32(self.initial_temperature)), adam(self.learning_rate))

    def temperature(self, aux: Net):
        return jnp.exp(aux.params)

    def temperature_loss(self, log_alpha, excess):
        return jnp.exp(log_alpha) * excess, {}

    def adapt(self, aux: Net, metrics: Metrics) -> Net:
        excess = metrics["entropy"] - metrics["target_entropy"]
        return descend(aux, adam(self.learning_rate), self.temperature_loss, excess)[0]

    def soft_loss(self, aux: Net, log_probs, q, action_size: int):
        """E [alpha log pi - Q] with its metrics: log_probs and q [B]."""
        alpha, entropy = self.temperature(aux), -log_probs.mean()
        target = jnp.float32(self.target_entropy * action_size)
        metrics = {"q": q.mean(), "entropy": entropy, "target_entropy": target, "temperature": alpha}
        return (alpha * log_probs - q).mean(), metrics


@pytree
class MaxEnt(Entropic):
    """alpha log pi(a|s) - Q(s, a), with the temperature alpha learned so that the entropy meets its target."""

    def loss(self, params, aux, policy, critic, critic_state, batch: Batch, key):
        actions, log_probs = policy.sample_and_log_prob(params, batch["observations"], key)
        q = critic.q(critic_state, batch["observations"], actions)
        return self.soft_loss(aux, log_probs, q, actions.shape[-1])


def sac(action_size: int) -> ActorCritic:
    """Soft actor-critic: maximum-entropy learning, for online phases; offline data alone will mislead it."""
    return ActorCritic(critic=SoftTD(), extraction=MaxEnt(), policy=TanhGaussian(action_size=action_size))
