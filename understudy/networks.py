"""Neural networks: the only file that imports flax. Modules are frozen and hashable: the static half of a policy."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "tanh": jnp.tanh, "swish": nn.swish, "mish": jax.nn.mish}
LAYER_NORM = ("none", "before", "after")  # the activation: RLPD normalises before it, OGBench after it
DENOISERS = ("mlp", "ln_resnet")
TIMES = ("sinusoidal", "fourier")  # what a denoiser is told of time: fixed frequencies, or learned ones


def features(*inputs) -> jax.Array:
    """Concatenate arrays and the leaves of observation trees (in key order) along the last axis."""
    return jnp.concatenate([x for tree in inputs for x in jax.tree.leaves(tree)], -1)


def spread(observations, n: int):
    """The same observations for n actions each: [B, ...] -> [n, B, ...]."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), observations)


class MLP(nn.Module):
    """Hidden layers of the given widths and a linear output [..., out]; Glorot-uniform weights, zero biases."""

    out: int
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    layer_norm: str = "none"
    final_scale: float = 1.0  # factor on the variance of the output layer's initial weights
    dropout: float = 0.0  # rate after each hidden product, where a "dropout" key is given (DroQ); else off

    @nn.compact
    def __call__(self, *inputs):
        x = features(*inputs)
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=nn.initializers.xavier_uniform())(x)
            if self.dropout and self.has_rng("dropout"):
                x = nn.Dropout(self.dropout, deterministic=False)(x)
            if self.layer_norm == "before":
                x = nn.LayerNorm()(x)
            x = ACTIVATIONS[self.activation](x)
            if self.layer_norm == "after":
                x = nn.LayerNorm()(x)
        init = nn.initializers.variance_scaling(self.final_scale, "fan_avg", "uniform")
        return nn.Dense(self.out, kernel_init=init)(x)


class Ensemble(nn.Module):
    """`size` independent MLPs with one scalar output each, [E, B], or with logits over `bins`, [E, B, bins]."""

    size: int
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    layer_norm: str = "none"
    dropout: float = 0.0
    bins: int = 0  # 0: a scalar

    @nn.compact
    def __call__(self, *inputs):
        many = nn.vmap(MLP, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
                       in_axes=None, out_axes=0, axis_size=self.size)  # fmt: skip
        out = many(self.bins or 1, self.hidden, self.activation, self.layer_norm, dropout=self.dropout)(*inputs)
        return out if self.bins else out[..., 0]


class LNResNet(nn.Module):
    """Residual blocks x + W act(W' LN(x)), one for each width, four times as wide inside; linear output [..., out].
    The LN_Resnet of IDQL, Hansen-Estruch et al. 2023, arXiv:2304.10573. `train` drops activations: rng "dropout"."""

    out: int
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "swish"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, *inputs, train: bool = False):
        x = nn.Dense(self.hidden[0], kernel_init=nn.initializers.xavier_uniform())(features(*inputs))
        for width in self.hidden:
            inner = nn.LayerNorm()(nn.Dropout(self.dropout, deterministic=not train)(x))
            inner = nn.Dense(4 * width)(inner)
            inner = nn.Dense(width)(ACTIVATIONS[self.activation](inner))
            x = inner + (x if x.shape[-1] == width else nn.Dense(width)(x))
        return nn.Dense(self.out, kernel_init=nn.initializers.xavier_uniform())(ACTIVATIONS[self.activation](x))


class TimeFeatures(nn.Module):
    """Times [..., 1] -> [..., size]: sines and cosines of t, then two dense layers. The frequencies fall geometrically
    from 1 to 1/10000 ("sinusoidal"; Ho et al. 2020, arXiv:2006.11239), or are learned ("fourier")."""

    size: int = 16
    kind: str = "sinusoidal"
    activation: str = "mish"

    @nn.compact
    def __call__(self, t):
        half = self.size // 2
        if self.kind == "fourier":
            frequencies = 2 * jnp.pi * self.param("frequencies", nn.initializers.normal(0.2), (half,))
        else:
            frequencies = 10_000.0 ** -jnp.linspace(0, 1, half)
        waves = jnp.concatenate([jnp.sin(t * frequencies), jnp.cos(t * frequencies)], -1)
        return MLP(self.size, (2 * self.size,), self.activation)(waves)


class Denoiser(nn.Module):
    """The noise in a noisy action: observations, x [..., A] and its time t [..., 1] -> [..., out]."""

    out: int
    body: str = "mlp"
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "mish"
    layer_norm: str = "none"
    dropout: float = 0.0
    time: str = "sinusoidal"
    time_size: int = 16

    @nn.compact
    def __call__(self, observations, x, t, train: bool = False):
        t = TimeFeatures(self.time_size, self.time, self.activation)(t)
        if self.body == "ln_resnet":
            return LNResNet(self.out, self.hidden, self.activation, self.dropout)(observations, x, t, train=train)
        return MLP(self.out, self.hidden, self.activation, self.layer_norm)(observations, x, t)


class Block(nn.Module):
    """Causal self-attention, then a GELU layer of four times the width; each normalises its input and adds to it."""

    heads: int

    @nn.compact
    def __call__(self, x, past=None, at=0):
        """x [B, S, W], the tokens from number `at` on -> the same shape, and the (keys, values) read, [B, T, heads,
        W / heads] each. `past`: those of the tokens before; none where x is the whole sequence."""
        width = x.shape[-1]
        # No biases: that of the keys shifts all scores of a query alike, and Adam would step along rounding errors.
        qkv = nn.DenseGeneral((3, self.heads, width // self.heads), use_bias=False)(nn.LayerNorm()(x))
        q, k, v = (qkv[..., i, :, :] for i in range(3))
        if past is not None:
            k, v = (jax.lax.dynamic_update_slice_in_dim(old, new, at, 1) for old, new in zip(past, (k, v)))
        causal = jnp.arange(k.shape[1]) <= at + jnp.arange(x.shape[1])[:, None]
        attended = jax.nn.dot_product_attention(q, k, v, mask=causal[None, None])
        x = x + nn.Dense(width)(attended.reshape(x.shape))
        return x + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x)))), (k, v)


class Transformer(nn.Module):
    """Causal transformer over an observation, or the `frames` of one, and `length` tokens of one vocabulary: the logits
    of each token, given the observation and the tokens before it. Pre-norm, learned positions; the logits start out
    near 0.

    `__call__` scores whole sequences. To decode: (x, past) = start(observations), then in turn (logits, past) = step(x,
    past, number of the token) and x = embed(tokens). `step` keeps the keys and values of what was before (on two CPU
    cores, batch 256, width 128 and 3 layers, decoding 5, 8, 24, 40 tokens takes 16, 28, 149, 282 ms so, and 33, 108,
    878, 2433 ms if each step computes the sequence again; at batch 1 too it is 1.6 to 7 times as fast)."""

    vocabulary: int
    length: int
    width: int = 128
    heads: int = 4
    layers: int = 2
    frames: int = 1

    def setup(self):
        self.first = nn.Dense(self.width)
        self.table = nn.Embed(self.vocabulary, self.width)
        self.places = self.param("places", nn.initializers.normal(0.02), (self.frames - 1 + self.length, self.width))
        self.blocks = [Block(self.heads) for _ in range(self.layers)]
        self.norm = nn.LayerNorm()
        self.head = nn.Dense(self.vocabulary, kernel_init=nn.initializers.variance_scaling(1e-2, "fan_avg", "uniform"))

    def __call__(self, observations, tokens):
        """tokens [B, T] -> logits [B, T, vocabulary]; the last token is not read."""
        x = jnp.concatenate([self.observe(observations), self.embed(tokens[:, :-1])], 1) + self.places
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x[:, self.frames - 1 :]))

    def observe(self, observations):
        """Observations whose leaves [B, F ...] are F frames one after the other -> [B, F, W]."""
        apart = lambda x: x.reshape(x.shape[0], self.frames, -1)
        return self.first(features(jax.tree.map(apart, observations)))

    def embed(self, tokens):
        """The input of the step after these tokens: [...] -> [..., W]."""
        return self.table(tokens)

    def start(self, observations):
        """The input of step 0, [B, W], and what it is to know of the frames before the last."""
        x = self.observe(observations)
        empty = jnp.zeros((len(x), len(self.places), self.heads, self.width // self.heads))
        past = [(empty, empty)] * self.layers
        if self.frames > 1:
            _, past = self.read(x[:, :-1] + self.places[: self.frames - 1], past, 0)
        return x[:, -1], past

    def step(self, x, past, at):
        """x [B, W], the input of step number `at` -> the logits of that token [B, vocabulary], and the new past."""
        at = at + self.frames - 1
        x, past = self.read((x + self.places[at])[:, None], past, at)
        return self.head(self.norm(x))[:, 0], past

    def read(self, x, past, at):
        """x [B, S, W], what stands at the places from number `at` on, through all blocks; and the new past."""
        kept = []
        for block, before in zip(self.blocks, past):
            x, keys_values = block(x, before, at)
            kept.append(keys_values)
        return x, kept
