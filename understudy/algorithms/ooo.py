"""OOO. Mark, Sharma, Tajwar, Rafailov, Levine and Finn 2023, "Offline Retraining for Online RL: Decoupled Policy
Learning to Mitigate Exploration Bias", arXiv:2310.08558. Around any algorithm; here IQL.

1. Offline: the algorithm as it is.
2. Online, it explores: each update, with f a fixed random network and g one that learns to predict it (random network
   distillation, Burda et al. 2018, arXiv:1810.12894),
       b  = max_j (f_j(s') - g_j(s'))^2 / sigma_b,  s' normalised by running moments and clipped to +-5
       the algorithm's update with r + c b instead of r
       g <- descend  E mean_j (f_j(s') - g_j(s'))^2,  on a random share of the rows
3. At the end, a fresh policy is trained from scratch on everything, with c = 0 and successes sampled more often: a
   share of each batch from the steps of highest reward. That policy is evaluated and deployed.
2 and 3 are the phases `online` and `retrain` of the run; c is `bonus`, a setting of the online phase and 0 in others;
the share is `successes` of the switch.
Deviations: g learns in every phase, and offline c is 0, where their IQL has its bonus there too; retraining neither
clips targets nor lets a rate fall. b is that of g before its step and of moments with this batch; in the authors' code
that of g after its step and of moments without the batch, which are those of s; and sigma_b there is that of bonuses
already divided by it. For Kitchen the authors' successes are all steps of the trajectories that reach that reward.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithm import Algorithm, check_keys
from understudy.algorithms.iql import iql
from understudy.core import Batch, Net, Params, adam, descend, leaf, net, prefix, pytree, scratch, static, through
from understudy.moments import Moments
from understudy.networks import MLP, features
from understudy.wrappers import Wrapper


@pytree
class BonusState:
    """`inner`: the algorithm's; the rest is only for training."""

    inner: Any
    predictor: Net = scratch()
    target: Params = scratch()
    seen: Moments = scratch()
    novelty: Moments = scratch()


@pytree
class Bonus(Wrapper):
    """Rewards for what has not been seen often, around any algorithm."""

    algorithm: Algorithm = through()
    bonus: float = leaf(0.0, "weight of the bonus in the reward", symbol="c", low=0.0)
    bonus_learning_rate: float = leaf(1e-4, "Adam's rate for the predictor", low=0.0)
    bonus_share: float = leaf(0.25, "share of the rows that the predictor learns from", low=0.0, high=1.0)
    bonus_hidden: tuple[int, ...] = static((512,), "widths of the hidden layers of both networks", low=1)
    bonus_features: int = static(512, "outputs of both networks", low=1)

    @property
    def requires(self) -> frozenset[str]:
        return self.algorithm.requires | {"next_observations", "rewards"}

    @property
    def network(self) -> MLP:
        return MLP(self.bonus_features, self.bonus_hidden)

    def init(self, key, batch: Batch) -> BonusState:
        key_inner, key_predictor, key_target = jax.random.split(key, 3)
        check_keys("Bonus", self.requires, batch)
        inner, x = self.algorithm.init(key_inner, batch), self.states(batch)
        return BonusState(
            inner=inner,
            predictor=net(self.network.init(key_predictor, x), adam(self.bonus_learning_rate)),
            target=self.network.init(key_target, x),
            seen=Moments.of(x),
            novelty=Moments.of(jnp.zeros(1)),
        )

    def states(self, batch: Batch):
        """Where each step led: vectors [B, ...]."""
        return features(jax.tree.map(lambda x: x.reshape(len(x), -1), batch["next_observations"]))

    def distillation_loss(self, params, x, target, chosen):
        errors = ((self.network.apply(params, x) - target) ** 2).mean(-1)
        return (errors * chosen).sum() / jnp.maximum(chosen.sum(), 1), {}

    def update(self, state: BonusState, batch: Batch, key) -> tuple[BonusState, dict]:
        key_inner, key_chosen = jax.random.split(key)
        x = self.states(batch)
        seen = state.seen.add(x)
        x = jnp.clip((x - seen.mean) / jnp.sqrt(seen.variance + 1e-8), -5, 5)
        target = self.network.apply(state.target, x)
        novelty = ((self.network.apply(state.predictor.params, x) - target) ** 2).max(-1)
        known = state.novelty.add(novelty)
        b = novelty / jnp.sqrt(known.variance + 1e-8)
        inner, metrics = self.algorithm.update(
            state.inner, batch | {"rewards": batch["rewards"] + self.bonus * b}, key_inner
        )
        chosen = jax.random.bernoulli(key_chosen, self.bonus_share, b.shape)
        predictor, bonus_metrics = descend(
            state.predictor, adam(self.bonus_learning_rate), self.distillation_loss, x, target, chosen
        )
        state = dataclasses.replace(state, inner=inner, predictor=predictor, seen=seen, novelty=known)
        return state, metrics | prefix("bonus", bonus_metrics | {"bonus": b.mean()})

    def act(self, state: BonusState, observations, key, carry=(), *, greedy: bool = False):
        return self.algorithm.act(state.inner, observations, key, carry, greedy=greedy)


def ooo(action_size: int) -> Bonus:
    """Offline, explore with a bonus, then retrain offline on everything: around IQL."""
    return Bonus(algorithm=iql(action_size))
