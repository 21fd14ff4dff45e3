"""CQL(H), SAC with a conservative critic. Kumar et al. 2020, "Conservative Q-Learning for Offline Reinforcement
Learning", arXiv:2006.04779. Each update:
    y        = r + gamma m min_j Qbar_j(s', a'),  a' ~ pi(.|s') or the best of N such
    gap_i    = E [log sum_{a^} exp(Q_i(s, a^) - log mu(a^)) - Q_i(s, a)]                      (eq. 4)
               over a^: N uniform, N ~ pi(.|s), N ~ pi(.|s'), mu the density each was drawn from (appendix F)
    theta_i  <- descend  E (Q_i(s, a) - y)^2 + alpha gap_i
    Lagrange: alpha becomes alpha' alpha,  log alpha' <- ascend  alpha' alpha (mean_i gap_i - gap target)
    thetabar, phi, temperature as in SAC (algorithms/sac.py)
Cal-QL (algorithms/cal_ql.py) is `calibrated`. Deviations, as in the authors' later code: the sum is not divided by
its number of terms (a constant), and samples of pi(.|s') are valued at s.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from understudy.algorithm import ActorCritic
from understudy.algorithms.sac import MaxEnt, soft_next_value
from understudy.core import TRANSITION, Batch, Metrics, Net, descend, leaf, net, pytree, static
from understudy.critics import BootstrapCritic, QState
from understudy.losses import conservative_gap
from understudy.networks import spread
from understudy.policies.tanh_gaussian import TanhGaussian


@pytree
class CQLState(QState):
    """Q networks, their targets, and log alpha' of the Lagrange form, or ()."""

    multiplier: Net | tuple


@pytree
class CQLCritic(BootstrapCritic):
    """TD learning that pushes values of sampled actions below those of recorded ones."""

    without = "a critic without densities: --critic.importance false --critic.entropy false"
    weight: float = leaf(5.0, "weight of the conservative gap; 0 leaves it out", symbol="alpha", low=0.0)
    temperature: float = leaf(1.0, "temperature of the log-sum-exp", low=1e-6)
    gap_min: float = leaf(-1e9, "lower bound of a row's gap; Lagrange recipes use -200")
    gap_max: float = leaf(1e9, "upper bound of a row's gap")
    samples: int = static(10, "actions from each of the three proposals", symbol="N", low=1)
    importance: bool = static(True, "divide by the density that an action was drawn from")
    repeat: bool = static(False, "draw one action of the policy and count it N times, where choosing is slow (PA-RL)")
    max_target_backup: bool = static(False, "back up the best of N sampled actions")
    entropy: bool = static(False, "count the policy's entropy in backups")
    lagrange: bool = static(False, "learn the weight's multiplier so that the gap meets gap_target")
    gap_target: float = leaf(0.8, "gap that the Lagrange form aims at", symbol="tau")
    calibrated: bool = static(False, "bound values of the policy's actions below by Monte-Carlo returns (Cal-QL)")

    @property
    def requires(self) -> frozenset[str]:
        return TRANSITION | {"mc_returns"} if self.calibrated else TRANSITION

    @property
    def needs(self) -> tuple[str, ...]:
        return ("sample_and_log_prob",) * (self.importance or self.entropy)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What an update measures; 0 where the weight is, and the term is left out."""
        bounds, head = ("bound_rate",) * self.calibrated, ("clipped",) * (self.head != "scalar")
        return "q", "target", "q_sampled", *bounds, "td", "gap", *head, "loss"

    def init(self, key, batch: Batch) -> CQLState:
        params = self.networks.init(key, batch["observations"], batch["actions"])
        multiplier = net(jnp.float32(1.0), self.optimiser) if self.lagrange else ()  # log alpha' = 1, as in the code
        return CQLState(q=net(params, self.optimiser), target=jax.tree.map(jnp.copy, params), multiplier=multiplier)

    def draw(self, actor, batch: Batch, which: str, key):
        """n actions at batch[which], N of them or one that counts N times: actions [n, B, A], log_probs [n, B]."""
        return actor.draw(batch, which, key, 1 if self.repeat else self.samples, densities=bool(self.needs))

    def counted(self, x):
        """What N uniform and 2n actions of the policy have, [..., N + 2n, B], as often as it counts: [..., 3N, B]."""
        uniform, policy = jnp.split(x, [self.samples], -2)
        return jnp.concatenate([uniform, jnp.repeat(policy, self.samples if self.repeat else 1, -2)], -2)

    def target(self, state: CQLState, batch: Batch, actor, key) -> jax.Array:
        if self.max_target_backup:
            key_actions, key_subset = jax.random.split(key)
            actions, log_probs = self.draw(actor, batch, "next_observations", key_actions)  # [n, B, A], [n, B]
            q = self.next_q(state, spread(batch["next_observations"], len(actions)), actions, key_subset)
            value = q.max(0)
            if self.entropy and actor.temperature is not None:
                value -= actor.temperature * jnp.take_along_axis(log_probs, q.argmax(0)[None], 0)[0]
        else:
            value = soft_next_value(self, state, batch, actor, key, self.entropy)
        return batch["rewards"] + self.discount * batch["masks"] * value

    def proposals(self, batch: Batch, actor, key):
        """Actions to push down, N uniform and 2n of the policy, and log densities: [N + 2n, B, A], [N + 2n, B]."""
        key_uniform, *keys = jax.random.split(key, 3)
        uniform = jax.random.uniform(key_uniform, (self.samples, *batch["actions"].shape), minval=-1.0, maxval=1.0)
        log_uniform = jnp.full(uniform.shape[:2], -uniform.shape[-1] * jnp.log(2.0))
        drawn = [self.draw(actor, batch, which, k) for which, k in zip(("observations", "next_observations"), keys)]
        actions, log_densities = zip((uniform, log_uniform), *drawn)
        return jnp.concatenate(actions), jnp.concatenate(log_densities)

    def loss(self, params, targets, actions, log_densities, weight, offset, batch: Batch, key=None):
        everything = jnp.concatenate([actions, batch["actions"][None]])  # one call of the networks for all
        predictions = self.predict(params, spread(batch["observations"], len(everything)), everything, key)
        q = self.values(predictions)  # [E, N + 2n + 1, B]
        q_sampled, q_data, log_densities = self.counted(q[:, :-1]), q[:, -1], self.counted(log_densities)
        metrics = {"q": q_data.mean(), "target": targets.mean(), "q_sampled": q_sampled.mean()}
        if self.calibrated:
            uniform, policy = jnp.split(q_sampled, [self.samples], 1)
            metrics["bound_rate"] = (policy < batch["mc_returns"]).mean()
            q_sampled = jnp.concatenate([uniform, jnp.maximum(policy, batch["mc_returns"])], 1)
        pushed = q_sampled - log_densities if self.importance else jnp.concatenate([q_sampled, q_data[:, None]], 1)
        gap = conservative_gap(pushed, q_data, self.temperature).clip(self.gap_min, self.gap_max).mean(-1)  # [E]
        td, td_metrics = self.regress(predictions[:, -1], targets)
        return td + weight * (gap - offset).sum(), metrics | {"td": td, "gap": gap.mean()} | td_metrics

    def update(self, state: CQLState, batch: Batch, actor, key) -> tuple[CQLState, Metrics]:
        key_target, key_drawn = jax.random.split(key)
        targets = self.target(state, batch, actor, key_target)
        multiplier, offset = state.multiplier, self.gap_target if self.lagrange else 0.0
        weight = self.weight * self.price(multiplier.params) if self.lagrange else self.weight

        def conservative(state):
            return self.learn(
                state, self.loss, targets, *self.proposals(batch, actor, key_drawn), weight, offset, batch, key
            )

        def plain(state):  # without the term, at a thirtieth of the cost
            learned, metrics = self.learn(state, self.q_loss, targets, batch, key)
            return learned, dict.fromkeys(self.metrics, jnp.float32(0)) | metrics | {"td": metrics["loss"]}

        learned, metrics = jax.lax.cond(self.weight > 0, conservative, plain, state)
        metrics = {name: metrics[name] for name in self.metrics}  # in this order
        if self.lagrange:
            multiplier, _ = descend(multiplier, self.optimiser, self.multiplier_loss, metrics["gap"])
            metrics["multiplier"] = self.price(multiplier.params)
        return dataclasses.replace(learned, multiplier=multiplier), metrics

    def price(self, log_multiplier):
        return jnp.minimum(jnp.exp(log_multiplier), 1e6)  # alpha', bounded as in the authors' code

    def multiplier_loss(self, log_multiplier, gap):
        return -self.price(log_multiplier) * self.weight * (gap - self.gap_target), {}


def cql(action_size: int) -> ActorCritic:
    """Conservative Q-learning: SAC whose critic undervalues actions that the data lack."""
    return ActorCritic(critic=CQLCritic(), extraction=MaxEnt(), policy=TanhGaussian(action_size=action_size))
