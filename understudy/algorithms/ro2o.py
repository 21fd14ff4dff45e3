"""RO2O. Wen et al. 2023, "Towards Robust Offline-to-Online Reinforcement Learning via Uncertainty and Smoothness",
arXiv:2309.16973.

SAC with E critics and three terms against values and actions that change abruptly, the same offline and online. With
s_1 .. s_n drawn within eps of s, each coordinate uniform, each update:
    y       = r + gamma m (min_j Qbar_j(s', a') - alpha log pi(a'|s'))
    theta_i <- descend  E (Q_i(s, a) - y)^2
                        + eta_1 E max_k mean_i |1(d > 0) - tau| d^2,  d = Q_i(s_k, a) - Q_i(s, a)     smooth values
                        + eta_2 E mean_i (Q_i(s_k, a_k) - y_i)^2,  a_k ~ pi(.|s_k),              outside the data
                          y_i = Q_i(s_k, a_k) - beta std_j Q_j(s_k, a_k), a constant
    phi     <- descend  E [alpha log pi(a|s) - min_j Q_j(s, a)]
                        + eta_3 E max_k J(pi(.|s), pi(.|s_k)),  J = KL + KL reversed             a smooth policy
beta falls linearly from penalty to penalty_min. AntMaze climbs mean - c std of Q (LCB) and adds imitation there.
Deviations: critic before policy, where the authors step temperature, policy, critic. Perturbations are in the units of
the observations; offline the authors' are in deviations of the data. In their code all rows of a batch share the same n
perturbations, and its online script for locomotion keeps neither the three terms nor the entropy.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import ActorCritic
from understudy.algorithms.sac import Entropic, soft_next_value
from understudy.core import Batch, Metrics, leaf, pytree, static
from understudy.critics import BootstrapCritic, QState
from understudy.losses import expectile_loss, most
from understudy.policies.tanh_gaussian import TanhGaussian


def perturbed(observations, epsilon, n: int, key):
    """n neighbours of each observation, every coordinate within epsilon: leaves [B, ...] -> [n B, ...], k-major."""
    leaves, structure = jax.tree.flatten(observations)
    noise = [jax.random.uniform(k, (n, *x.shape), minval=-1.0, maxval=1.0)
             for x, k in zip(leaves, jax.random.split(key, len(leaves)))]  # fmt: skip
    return structure.unflatten([(x + epsilon * u).reshape(-1, *x.shape[1:]) for x, u in zip(leaves, noise)])


def jeffreys(mean, log_std, other_mean, other_log_std):
    """KL(p|q) + KL(q|p) of diagonal Gaussians: [..., A] -> [...]."""
    p, q, distance = jnp.exp(2 * log_std), jnp.exp(2 * other_log_std), (mean - other_mean) ** 2
    return ((p + distance) / (2 * q) + (q + distance) / (2 * p) - 1).sum(-1)


@pytree
class RO2OCritic(BootstrapCritic):
    """Soft TD learning, smooth around the data, and pessimistic about the policy's actions there."""

    needs = ("sample_and_log_prob",)
    ensemble: int = static(10, "number of Q networks", symbol="E", low=2)
    smoothness: float = leaf(1e-4, "weight of the smoothness of Q", symbol="eta_1", low=0.0)
    epsilon: float = leaf(0.01, "size of the perturbations for it", symbol="eps_Q", low=0.0)
    expectile: float = leaf(0.8, "weight of a value that rises; one that falls has the rest", symbol="1-tau",
                            low=0.0, high=1.0)  # fmt: skip
    ood: float = leaf(0.1, "weight of the penalty on actions outside the data", symbol="eta_2", low=0.0)
    ood_epsilon: float = leaf(0.01, "size of the perturbations for it", symbol="eps_ood", low=0.0)
    penalty: float = leaf(1.0, "deviations of the ensemble that it takes off, at first", symbol="beta", low=0.0)
    penalty_min: float = leaf(0.1, "deviations that it takes off in the end", low=0.0)
    penalty_decay: float = leaf(5e-7, "decrease of the penalty per update", low=0.0)
    samples: int = static(20, "perturbations of each observation", symbol="n", low=1)

    def loss(self, params, targets, near, far, far_actions, penalty, batch: Batch, key=None):
        predictions = self.predict(params, batch["observations"], batch["actions"], key)
        q = self.values(predictions)  # [E, B]
        moved = self.qs(params, near, jnp.tile(batch["actions"], (self.samples, 1)))  # [E, n B], without dropout
        still = self.qs(params, batch["observations"], batch["actions"]) if self.dropout else q
        changes = moved.reshape(len(q), self.samples, -1) - still[:, None]
        smoothness = most(expectile_loss(changes, self.expectile).mean(0)).mean()
        outside = self.qs(params, far, far_actions)
        pessimistic = jax.lax.stop_gradient(outside - penalty * outside.std(0, ddof=1))
        ood = ((outside - pessimistic) ** 2).mean()
        td, metrics = self.regress(predictions, targets)
        metrics |= {"q": q.mean(), "target": targets.mean(), "td": td, "smoothness": smoothness, "ood": ood}
        return td + self.smoothness * smoothness + self.ood * ood, metrics

    def update(self, state: QState, batch: Batch, actor, key) -> tuple[QState, Metrics]:
        key_target, key_near, key_far, key_actions = jax.random.split(key, 4)
        value = soft_next_value(self, state, batch, actor, key_target, entropy=True)
        targets = batch["rewards"] + self.discount * batch["masks"] * value
        near = perturbed(batch["observations"], self.epsilon, self.samples, key_near)
        far = perturbed(batch["observations"], self.ood_epsilon, self.samples, key_far)
        far_actions = actor.policy.sample(actor.params, far, key_actions)
        penalty = jnp.maximum(self.penalty - self.penalty_decay * actor.step, self.penalty_min)
        return self.learn(state, self.loss, targets, near, far, far_actions, penalty, batch, key)


@pytree
class SmoothMaxEnt(Entropic):
    """alpha log pi(a|s) - Q(s, a), and the policy's largest change within epsilon of s, in closed form."""

    made_for = TanhGaussian
    smoothness: float = leaf(1.0, "weight of the smoothness of the policy", symbol="eta_3", low=0.0)
    epsilon: float = leaf(0.01, "size of the perturbations for it", symbol="eps_P", low=0.0)
    samples: int = static(20, "perturbations of each observation", symbol="n", low=1)

    def loss(self, params, aux, policy, critic, critic_state, batch: Batch, key):
        key_actions, key_near = jax.random.split(key)
        actions, log_probs = policy.sample_and_log_prob(params, batch["observations"], key_actions)
        q = critic.q(critic_state, batch["observations"], actions)
        soft, metrics = self.soft_loss(aux, log_probs, q, actions.shape[-1])
        near = policy.moments(params, perturbed(batch["observations"], self.epsilon, self.samples, key_near))
        near = [x.reshape(self.samples, *actions.shape) for x in near]
        change = most(jeffreys(*policy.moments(params, batch["observations"]), *near)).mean()
        return soft + self.smoothness * change, metrics | {"change": change}


def ro2o(action_size: int) -> ActorCritic:
    """RO2O: SAC with ten critics, smooth and pessimistic around the data; the same loss offline and online."""
    return ActorCritic(
        critic=RO2OCritic(hidden=(256, 256, 256)),
        extraction=SmoothMaxEnt(),
        policy=TanhGaussian(action_size=action_size, hidden=(256, 256, 256), log_std_min=-5.0),
    )
