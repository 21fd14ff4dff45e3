"""PA-RL. Mark et al. 2024, "Policy Agnostic RL: Offline RL and Online RL Fine-Tuning of Any Class and Backbone",
arXiv:2412.06685.

Any policy that can be sampled and can imitate is improved by supervised learning on optimised actions. At each s:
    a_1 .. a_k ~ pi(.|s);  keep the m of highest Q(s, a)                                   (global optimisation)
    T times  a_j <- clip(a_j + alpha grad_a Q(s, a_j), -1, 1), then the best a_j on its way  (local optimisation)
    pi*(s) = argmax_j Q(s, a_j), which acts, live and in evaluation, and is backed up
Each update:
    Q_i  <- descend  the loss of Cal-QL (algorithms/cal_ql.py) with pi* in the backup and, N times, in the gap
    phi  <- descend  E loss(s, a*),  a* drawn by softmax_j Q(s, a_j), the recorded action, which has climbed as well,
            in the place of the worst of the m; over the offline phase a* is the recorded action itself
Q is the mean of the networks throughout. Deviations from the authors' code: at the switch it starts the critic's
optimiser afresh, here the policy's as well; it trains the policy before, not while the critic learns offline, and
critic and policy live by turns, an episode each, on batches of their own; here they share each batch and its optimised
actions, which the critic has not yet followed. There the gap counts two networks drawn at random, here all; their draws
may be twice the same. Its critic is categorical, with the same small weight of the gap, and its networks share their
output layer; its policy acts and is sampled as a Polyak average.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import ActorCritic, Extraction
from understudy.algorithms.cql import CQLCritic
from understudy.core import leaf, pytree, static
from understudy.extractions import candidates, pick
from understudy.policies.flow import Flow

CANDIDATES = {"observations": "candidates", "next_observations": "next_candidates"}


def values(q, observations, actions) -> jax.Array:
    """Q of several actions at each observation: [N, B, A] -> [N, B]."""
    return jax.vmap(lambda a: q(observations, a))(actions)


@pytree
class ActionOptimisation(Extraction):
    """Act with the best of the policy's samples after steps up Q, and imitate such actions: any policy class."""

    samples: int = static(32, "actions that the policy proposes", symbol="k", low=1)
    keep: int = static(10, "of these, how many take the steps, the best by Q", symbol="m", low=1)
    steps: int = static(10, "gradient steps up Q", symbol="T", low=0)
    step_size: float = leaf(3e-4, "size of such a step", symbol="alpha", low=0.0)
    distil: str = static(
        "softmax", "what the policy imitates: one optimised action drawn by softmax of Q, the best, or all of them, "
        "weighted by that softmax", choices=("softmax", "best", "all"),
    )  # fmt: skip
    imitation_steps: float = leaf(
        0.0, "updates in which the policy imitates the data before it follows Q; -1: the offline phase", low=-1.0
    )
    cached: bool = static(False, "without live steps, take proposals that were sampled ahead for all of the data")
    refill: int = static(5000, "updates after which these are sampled anew", low=1)

    @property
    def requires(self) -> frozenset[str]:
        return frozenset(CANDIDATES.values()) if self.cached else frozenset()

    def propose(self, policy, params, observations, key):
        """k samples of the policy: [k, B, A]."""
        return candidates(policy, params, observations, key, self.samples)

    def best(self, q, observations, proposals):
        """The m proposals of highest Q, best first: [k, B, A] -> [m, B, A]."""
        _, index = jax.lax.top_k(values(q, observations, proposals).T, min(self.keep, len(proposals)))  # [B, m]
        return jnp.take_along_axis(proposals, index.T[..., None], 0)

    def climb(self, q, observations, actions):
        """T steps up Q from each action: the best on its way, [N, B, A], and its value, [N, B]."""

        def total(actions):
            v = values(q, observations, actions)
            return v.sum(), v

        def keep(actions, v, best, top):
            return jnp.where((v >= top)[..., None], actions, best), jnp.maximum(v, top)

        def step(_, carry):
            actions, best, top = carry
            (_, v), slope = jax.value_and_grad(total, has_aux=True)(actions)
            return jnp.clip(actions + self.step_size * slope, -1, 1), *keep(actions, v, best, top)

        start = actions, actions, jnp.full(actions.shape[:2], -jnp.inf)
        actions, best, top = jax.lax.fori_loop(0, self.steps, step, start)
        return keep(actions, total(actions)[1], best, top)

    def select(self, q, observations, proposals):
        """pi*: the best proposal after its climb, [k, B, A] -> [B, A]."""
        actions, v = self.climb(q, observations, self.best(q, observations, proposals))
        return pick(actions, v.argmax(0))

    def choose(self, policy, params, q, observations, key, *, greedy=False):
        return self.select(q, observations, self.propose(policy, params, observations, key))

    def prepare(self, policy, params, q, batch, key, step):
        keys = dict(zip(CANDIDATES, jax.random.split(key)))
        proposals = {
            name: jnp.swapaxes(batch[given], 0, 1) if self.cached else
            self.propose(policy, params, batch[name], keys[name])
            for name, given in CANDIDATES.items() if name in batch
        }  # fmt: skip
        return self.optimise(q, batch, proposals, jax.random.fold_in(key, 2), step)

    def optimise(self, q, batch, proposals, key, step):
        """`prepare` from proposals [k, B, A] by the batch key of their observations: adds what the policy imitates,
        targets [n, B, A] with weights [n, B], and the gains of Q over the proposals [B]."""
        chosen = {name: self.select(q, batch[name], p) for name, p in proposals.items() if name != "observations"}
        here = self.best(q, batch["observations"], proposals["observations"])
        m = len(here)
        actions, v = self.climb(q, batch["observations"], jnp.concatenate([here, batch["actions"][None]]))
        chosen["observations"] = pick(actions[:m], v[:m].argmax(0))
        gains = v[:m].max(0) - values(q, batch["observations"], proposals["observations"]).mean(0)
        replaced = lambda x: jnp.concatenate([x[: m - 1], x[m:]])  # the recorded action in the place of the worst
        targets, weights = self.targets(replaced(actions), replaced(v), key)
        targets = jnp.where(step < self.imitation_steps, batch["actions"], targets)
        return batch | {"targets": targets, "weights": weights, "gains": gains}, chosen

    def targets(self, actions, v, key):
        """What is imitated of optimised actions [m, B, A] of values [m, B]: actions [n, B, A] and weights [n, B]."""
        if self.distil == "all":
            return actions, jax.nn.softmax(v, axis=0)
        index = jax.random.categorical(key, v, axis=0) if self.distil == "softmax" else v.argmax(0)
        return pick(actions, index)[None], jnp.ones((1, v.shape[1]))

    def loss(self, params, aux, policy, critic, critic_state, batch, key):
        one = lambda actions, key: policy.loss(params, batch["observations"], actions, key)
        imitation = jax.vmap(one)(batch["targets"], jax.random.split(key, len(batch["targets"])))  # [n, B]
        loss = (batch["weights"] * imitation).sum(0).mean()
        return loss, {"imitation": loss, "gain": batch["gains"].mean()}


def pa_rl(action_size: int) -> ActorCritic:
    """Policy-agnostic RL: a flow policy, or any other, imitates the best of its samples after steps up Q."""
    return ActorCritic(
        critic=CQLCritic(calibrated=True, weight=0.005, importance=False, repeat=True, ensemble=10, subset=2,
                         aggregate="mean", layer_norm="before"),
        extraction=ActionOptimisation(imitation_steps=-1.0),
        policy=Flow(action_size=action_size),
        decay_steps=-1.0,
        after_decay=1 / 6,
    )  # fmt: skip
