"""ARSQ. Liu et al. 2025, "Learning from Suboptimal Data in Continuous Control via Auto-Regressive Soft Q-Network",
arXiv:2502.00288.

An action is a row of T = L A tokens, coarse to fine (policies/tokens.py). Before token t the intervals chosen so far
have the centres x_t in [-1, 1]^A. One network scores the bins, u(s, x_t), another is V(s); the critic is the policy:
    A_i(t, .)   = u_i(s, x_t)_t - alpha log sum_b exp(u_i(s, x_t)_tb / alpha)         so that sum_b exp(A_i / alpha) = 1
    Q_i(s, a)   = V_i(s) + sum_t A_i(t, token_t)
    pi(token_t) = softmax(min_i A_i(t, .) / alpha), greedy its argmax; the action is the centre of the last intervals
Each update, for i = 1, 2:
    y        = r + gamma m min_i Vbar_i(s')
    theta_i <- descend  E (Q_i(s, a) - y)^2 + lambda E_demonstrations gap_i(s, a)
    gap      = sum_t max(log sum_{b != token_t} exp A(t, b) - A(t, token_t), c), or with regulariser "margin"
               sum_t mean_{b != token_t} max(A(t, b) - A(t, token_t), c)
    thetabar <- (1 - tau) thetabar + tau theta
Online from the start, half of each batch from the demonstrations: no offline phase, offline_share 0.5, utd 1, batch
512. The defaults are the authors' for D4RL's hopper-medium (2 levels of 7 bins; halfcheetah and walker2d have 1 of 41);
on other data sets their lambda runs from .03 to 10. Deviations: the live half of a batch holds live transitions only
(theirs all data too); Glorot-uniform weights (theirs orthogonal); the margin is a mean over demonstrations, while their
D4RL code sums it over all 512 rows, so that a lambda of .1 there weighs as 51 here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithm import check_keys
from understudy.core import TRANSITION, Batch, Net, adam, batch_size, descend, leaf, net, polyak, prefix, pytree, static
from understudy.losses import td_loss
from understudy.networks import ACTIVATIONS, LAYER_NORM, MLP
from understudy.policies.tokens import CoarseToFine


@pytree
class ARSQState:
    """V and score networks [E, ...], and their Polyak average."""

    q: Net
    target: Any


@pytree
class ARSQ:
    """Soft Q-learning whose advantages, token by token, are the log-probabilities of the policy."""

    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    levels: int = static(2, "levels, each of which zooms into a bin of the one before", symbol="L", low=1)
    bins: int = static(7, "bins of a token", symbol="b", low=2)
    hidden: tuple[int, ...] = static((512, 512, 512), "widths of the hidden layers", low=1)
    activation: str = static("tanh", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm, before or after the activation", choices=LAYER_NORM)
    ensemble: int = static(2, "number of critics", symbol="E", low=1)
    discount: float = leaf(0.99, "weight of the next step's value", symbol="gamma", low=0.0, high=1.0)
    tau: float = leaf(0.005, "rate of the target networks' Polyak average", symbol="tau", low=0.0, high=1.0)
    learning_rate: float = leaf(3e-4, "Adam's rate", low=0.0)
    alpha: float = leaf(0.01, "temperature of the soft value and of the policy", symbol="alpha", low=1e-6)
    regulariser: str = static("logsumexp", "how other bins count in the gap", choices=("logsumexp", "margin"))
    weight: float = leaf(0.5, "weight of the gap on demonstrations", symbol="lambda", low=0.0)
    gap_min: float = leaf(-1.0, "lower bound of a token's gap, below which it is not pushed", symbol="c")
    demo_share: float = leaf(-1.0, "share of a batch, its start, that are demonstrations; -1: the live offline_share",
                             low=-1.0, high=1.0)  # fmt: skip
    requires = TRANSITION

    @property
    def grid(self) -> CoarseToFine:
        """The tokens of an action."""
        return CoarseToFine(action_size=self.action_size, bins=self.bins, levels=self.levels)

    def network(self, out: int) -> MLP:
        return MLP(out, self.hidden, self.activation, self.layer_norm, final_scale=1e-4)

    def init(self, key, batch: Batch) -> ARSQState:
        check_keys("ARSQ", self.requires, batch)

        def one(key):
            key_v, key_u = jax.random.split(key)
            scores = self.network(self.levels * self.action_size * self.bins)
            v = self.network(1).init(key_v, batch["observations"])
            return {"v": v, "u": scores.init(key_u, batch["observations"], batch["actions"])}

        params = jax.vmap(one)(jax.random.split(key, self.ensemble))
        return ARSQState(q=net(params, adam(self.learning_rate)), target=jax.tree.map(jnp.copy, params))

    def v(self, params, observations):
        """V_i(s): [E, B]."""
        return jax.vmap(lambda p: self.network(1).apply(p, observations)[..., 0])(params["v"])

    def advantages(self, params, observations, centres, t):
        """A_i(t, .) of the tokens numbered t [S], given the centres [B, S, A] before them: [E, B, S, b]."""
        length = self.levels * self.action_size
        repeated = jax.tree.map(lambda o: jnp.repeat(o[:, None], len(t), 1), observations)
        u = jax.vmap(lambda p: self.network(length * self.bins).apply(p, repeated, centres))(params["u"])
        u = u.reshape(*u.shape[:-1], length, self.bins)[:, :, jnp.arange(len(t)), t]
        return self.alpha * jax.nn.log_softmax(u / self.alpha)

    def moves(self, tokens, t):
        """How far the tokens numbered t [S] move the centres: [B, S] -> [B, S, A]."""
        level, dimension = jnp.divmod(t, self.action_size)
        lengths = (tokens - (self.bins - 1) / 2) * 2 / self.bins ** (level + 1.0)
        return lengths[..., None] * jax.nn.one_hot(dimension, self.action_size)

    def gap(self, advantages, chosen, tokens):
        """By how much other bins exceed the token's own, summed over tokens: [E, B]."""
        others = tokens[..., None] != jnp.arange(self.bins)
        if self.regulariser == "margin":
            over = jnp.maximum(advantages - chosen[..., None], self.gap_min)
            return (over * others).sum((-2, -1)) / (self.bins - 1)
        return jnp.maximum(jax.nn.logsumexp(advantages, -1, where=others) - chosen, self.gap_min).sum(-1)

    def score(self, params, observations, actions):
        """V [E, B], the tokens [B, T] of the actions, the advantages of all bins [E, B, T, b] and of the tokens."""
        t, tokens = jnp.arange(self.levels * self.action_size), self.grid.encode(actions)
        moves = self.moves(tokens, t)
        advantages = self.advantages(params, observations, moves.cumsum(1) - moves, t)
        chosen = jnp.take_along_axis(advantages, tokens[None, ..., None], -1)[..., 0]
        return self.v(params, observations), tokens, advantages, chosen

    def loss(self, params, targets, batch: Batch):
        v, tokens, advantages, chosen = self.score(params, batch["observations"], batch["actions"])
        q = v + chosen.sum(-1)
        demos = jnp.arange(len(targets)) < jnp.floor(self.demo_share * len(targets) + 0.5)  # as samplers round
        gap = (self.gap(advantages, chosen, tokens) * demos).sum(-1) / jnp.maximum(demos.sum(), 1)  # [E]
        td = td_loss(q, targets)
        metrics = {"td": td, "gap": gap.mean(), "q": q.mean(), "v": v.mean(), "target": targets.mean()}
        return td + self.weight * gap.sum(), metrics

    def update(self, state: ARSQState, batch: Batch, key) -> tuple[ARSQState, dict]:
        v = self.v(state.target, batch["next_observations"]).min(0)
        targets = batch["rewards"] + self.discount * batch["masks"] * v
        q, metrics = descend(state.q, adam(self.learning_rate), self.loss, targets, batch)
        return ARSQState(q=q, target=polyak(state.target, q.params, self.tau)), prefix("critic", metrics)

    def act(self, state: ARSQState, observations, key, carry=(), *, greedy: bool = False):
        def zoom(centres, t):
            logits = self.advantages(state.q.params, observations, centres[:, None], t[None]).min(0)[:, 0] / self.alpha
            tokens = logits.argmax(-1) if greedy else jax.random.categorical(jax.random.fold_in(key, t), logits)
            return centres + self.moves(tokens[:, None], t[None])[:, 0], None

        start = jnp.zeros((batch_size(observations), self.action_size))
        return jax.lax.scan(zoom, start, jnp.arange(self.levels * self.action_size))[0], carry


def arsq(action_size: int) -> ARSQ:
    """Soft Q-learning over tokens of the action, from demonstrations and live steps, half each."""
    return ARSQ(action_size=action_size)
