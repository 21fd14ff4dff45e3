"""Policies that write an action as a row of tokens, each drawn given those before. Uniform bins as in RT-1, Brohan et
al. 2022, arXiv:2212.06817; a small transformer as in PA-RL, Mark et al. 2024, arXiv:2412.06685; coarse to fine as in
CQN, Seo et al. 2024, arXiv:2407.07787, and ARSQ, Liu et al. 2025, arXiv:2502.00288.

With b bins and L levels each dimension of [-1, 1] has n = b^L equal cells. The number of an action's cell, written with
L digits to the base b, gives its tokens: the first digits of all A dimensions, then the second digits, ..., so that
each level zooms into the bin of the level before. A transformer reads the observation and gives the distributions:
    p(token_t | s, token_<t) = softmax(logits_t(s, token_<t) / T)
    pi(a|s) = prod_t p(token_t | s, token_<t) (n / 2)^A           uniform inside the cell
    loss    = -sum_t log softmax(logits_t)[token_t]               cross-entropy, T = 1
A sample is uniform inside its cell, so that `log_prob` is the true density on [-1, 1]^A. Samples do not pass gradients
to the parameters: there is no rsample.

The defaults suit small data. Fitted to 20,000 transitions of cube-single-play, the best log density of held-out actions
was 4.21 with 128 bins (PA-RL's number), width 64 and 2 layers, and 4.10 with 64 bins; at width 128 and 3 layers it was
4.02, and 4.03 with 256 bins (RT-1's number), which overfitted sooner.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import Policy
from understudy.core import leaf, pytree, static
from understudy.errors import SettingsError
from understudy.networks import Transformer

CELLS = 2**20  # more are not told apart in float32


@pytree
class TokenPolicy(Policy):
    """Abstract: everything but the number of levels, which a final class gives."""

    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    bins: int = static(128, "bins of a token", symbol="b", low=2)
    width: int = static(64, "width of the transformer", low=1)
    heads: int = static(4, "attention heads; they divide the width", low=1)
    layers: int = static(2, "layers of the transformer", low=1)
    frames: int = static(0, "observations of a history, which the transformer attends to one by one; 0: all that there "
                            "are, or one", symbol="H", low=0)  # fmt: skip
    temperature: float = leaf(1.0, "temperature that actions are sampled at", symbol="T", low=1e-3)

    @property
    def cells(self) -> int:
        """Cells of each dimension, n."""
        return self.bins**self.levels

    @property
    def network(self) -> Transformer:
        if self.width % self.heads:
            raise SettingsError(f"width is {self.width} and heads {self.heads}; give a width that heads divides.")
        if self.cells > CELLS:
            raise SettingsError(
                f"bins is {self.bins} and levels {self.levels}, {self.cells} cells; give at most {CELLS}."
            )
        length, frames = self.action_size * self.levels, max(self.frames, 1)
        return Transformer(self.bins, length, self.width, self.heads, self.layers, frames)

    def init(self, key, observations, actions):
        widths = {x.shape[-1] for x in jax.tree.leaves(observations)}
        if any(width % max(self.frames, 1) for width in widths):
            raise SettingsError(
                f"Observations of {sorted(widths)} numbers are not {self.frames} frames of one size; leave frames at 0 "
                f"and give --history."
            )
        return self.network.init(key, observations, self.encode(actions))

    def encode(self, actions):
        """The tokens of actions: [B, A] -> [B, L A], integers from 0 to b - 1."""
        cells = jnp.clip(jnp.floor((actions + 1) / 2 * self.cells), 0, self.cells - 1).astype(jnp.int32)
        return jnp.concatenate([cells // self.bins**i % self.bins for i in reversed(range(self.levels))], -1)

    def decode(self, tokens, inside):
        """Actions [B, A] in the cells of tokens [B, L A], `inside` from 0 to 1 from the lower edge to the upper."""
        digits = jnp.split(tokens, self.levels, -1)
        cells = sum(digit * self.bins**i for i, digit in enumerate(reversed(digits)))
        return jnp.clip((cells + inside) * 2 / self.cells - 1, -1, 1)

    def cross_entropy(self, params, observations, actions, temperature):
        """-sum_t log softmax(logits_t / T)[token_t]: [B]."""
        tokens = self.encode(actions)
        log_probs = jax.nn.log_softmax(self.network.apply(params, observations, tokens) / temperature)
        return -jnp.take_along_axis(log_probs, tokens[..., None], -1)[..., 0].sum(-1)

    def density(self, log_probs):
        """The log density inside a cell whose log probability is given: each edge is 2 / n long."""
        return log_probs + self.action_size * jnp.log(self.cells / 2)

    def write(self, params, observations, pick):
        """One token after another, `pick(logits [B, b], t) -> [B]` at temperature T: tokens [B, L A], their log
        probabilities [B]."""
        network = self.network

        def step(carry, t):
            x, past = carry
            logits, past = network.apply(params, x, past, t, method="step")
            logits = jax.nn.log_softmax(logits / self.temperature)
            token = pick(logits, t)
            chosen = jnp.take_along_axis(logits, token[:, None], -1)[:, 0]
            return (network.apply(params, token, method="embed"), past), (token, chosen)

        start = network.apply(params, observations, method="start")
        _, (tokens, log_probs) = jax.lax.scan(step, start, jnp.arange(network.length))
        return tokens.T, log_probs.sum(0)

    def sample_and_log_prob(self, params, observations, key):
        key_tokens, key_inside = jax.random.split(key)
        draw = lambda logits, t: jax.random.categorical(jax.random.fold_in(key_tokens, t), logits)
        tokens, log_probs = self.write(params, observations, draw)
        inside = jax.random.uniform(key_inside, (len(tokens), self.action_size))
        return self.decode(tokens, inside), self.density(log_probs)

    def sample(self, params, observations, key):
        return self.sample_and_log_prob(params, observations, key)[0]

    def mode(self, params, observations):
        """The centre of the cell whose tokens are the likeliest, one after another."""
        tokens, _ = self.write(params, observations, lambda logits, t: logits.argmax(-1))
        return self.decode(tokens, 0.5)

    def log_prob(self, params, observations, actions):
        return self.density(-self.cross_entropy(params, observations, actions, self.temperature))

    def loss(self, params, observations, actions, key):
        return self.cross_entropy(params, observations, actions, 1.0)


@pytree
class Tokens(TokenPolicy):
    """One token for each dimension: L = 1."""

    levels = 1


@pytree
class CoarseToFine(TokenPolicy):
    """L tokens for each dimension, of few bins: 7 and 2 are ARSQ's on hopper, 5 and 3 CQN's on RLBench."""

    bins: int = static(7, "bins of a token", symbol="b", low=2)
    levels: int = static(2, "levels, each of which zooms into a bin of the one before", symbol="L", low=1)
