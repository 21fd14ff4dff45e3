"""features, MLP, Ensemble and Transformer: order of inputs, shapes, where the layer norm sits, what a step sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

from understudy.networks import MLP, Ensemble, Transformer, features


def test_features_concatenate_trees_in_key_order_then_arrays():
    observations = {"state": jnp.array([[1.0, 2.0]]), "goal": jnp.array([[3.0]])}
    assert_close(features(observations, jnp.array([[4.0]])), [[3.0, 1.0, 2.0, 4.0]])  # goal before state


def test_mlp_has_the_widths_it_was_given_and_zero_biases():
    params = MLP(2, (5, 6), "relu", "after").init(jax.random.key(0), jnp.ones((4, 3)))["params"]
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == {
        "Dense_0": {"kernel": (3, 5), "bias": (5,)}, "LayerNorm_0": {"scale": (5,), "bias": (5,)},
        "Dense_1": {"kernel": (5, 6), "bias": (6,)}, "LayerNorm_1": {"scale": (6,), "bias": (6,)},
        "Dense_2": {"kernel": (6, 2), "bias": (2,)},
    }  # fmt: skip
    assert all(float(jnp.abs(layer["bias"]).max()) == 0 for layer in params.values())


def test_final_scale_shrinks_only_the_output_layer():
    x = jnp.ones((1, 64))
    plain, small = (MLP(64, (64,), final_scale=s).init(jax.random.key(0), x)["params"] for s in (1, 0.01))
    assert_close(plain["Dense_0"]["kernel"], small["Dense_0"]["kernel"])
    assert_close(plain["Dense_1"]["kernel"], 10 * small["Dense_1"]["kernel"])  # the scale is on the variance
    limit = np.sqrt(6 / (64 + 64))  # Glorot
    assert 0.95 * limit < float(jnp.abs(plain["Dense_1"]["kernel"]).max()) <= limit


def normalise(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("layer_norm", ["none", "before", "after"])
def test_layer_norm_sits_before_or_after_the_activation(layer_norm):
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    net = MLP(2, (8,), "relu", layer_norm)
    params = net.init(jax.random.key(0), x)
    layers = jax.tree.map(np.asarray, params["params"])
    h = x @ layers["Dense_0"]["kernel"]
    h = {"none": lambda h: np.maximum(h, 0), "before": lambda h: np.maximum(normalise(h), 0),
         "after": lambda h: normalise(np.maximum(h, 0))}[layer_norm](h)  # fmt: skip
    assert_close(net.apply(params, x), h @ layers["Dense_1"]["kernel"])


def test_ensemble_is_that_many_different_mlps():
    x, a = jnp.ones((4, 3)), jnp.ones((4, 2))
    net = Ensemble(3, (5,), "gelu", "after")
    params = net.init(jax.random.key(0), x, a)
    q = net.apply(params, x, a)
    assert q.shape == (3, 4)
    for i in range(3):
        one = {"params": jax.tree.map(lambda p: p[i], params["params"]["VmapMLP_0"])}  # noqa: B023
        assert_close(MLP(1, (5,), "gelu", "after").apply(one, x, a)[:, 0], q[i])
    assert len(np.unique(np.asarray(q[:, 0]))) == 3
    assert net.apply(params, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2))).shape == (3, 7, 4)


def test_an_ensemble_with_bins_gives_logits():
    x, a = jnp.ones((4, 3)), jnp.ones((4, 2))
    net = Ensemble(3, (5,), bins=6)
    params = net.init(jax.random.key(0), x, a)
    logits = net.apply(params, x, a)
    assert logits.shape == (3, 4, 6)
    one = {"params": jax.tree.map(lambda p: p[1], params["params"]["VmapMLP_0"])}
    assert_close(MLP(6, (5,)).apply(one, x, a), logits[1])


def test_dropout_sits_after_the_product_before_the_norm_and_only_where_a_key_is_given():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    net, plain = MLP(2, (400,), "relu", "before", dropout=0.25), MLP(2, (400,), "relu", "before")
    params = net.init(jax.random.key(0), x)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), params, plain.init(jax.random.key(0), x)))
    np.testing.assert_array_equal(net.apply(params, x), plain.apply(params, x))
    out, seen = net.apply(params, x, rngs={"dropout": jax.random.key(1)}, capture_intermediates=True)
    layers, seen = jax.tree.map(np.asarray, params["params"]), seen["intermediates"]
    product = np.asarray(seen["Dense_0"]["__call__"][0])
    dropped = np.asarray(seen["Dropout_0"]["__call__"][0])
    kept = dropped != 0
    np.testing.assert_allclose(kept.mean(), 0.75, atol=0.05)
    assert_close(dropped, kept * product / 0.75)
    assert_close(out, np.maximum(normalise(dropped), 0) @ layers["Dense_1"]["kernel"])


def test_an_ensemble_drops_other_units_in_each_network():
    x = jnp.ones((4, 3))
    net = Ensemble(2, (64,), dropout=0.5)
    params = jax.tree.map(lambda p: jnp.broadcast_to(p[:1], p.shape), net.init(jax.random.key(0), x))
    same = net.apply(params, x)
    assert_close(same[0], same[1])
    thinned = net.apply(params, x, rngs={"dropout": jax.random.key(1)})
    assert (jnp.abs(thinned[0] - thinned[1]) > 1e-3).all()


# --- Transformer --------------------------------------------------------------------------------------------------
@pytest.fixture(params=[1, 3])
def transformer(request):
    """A transformer of 5 words and 4 places with logits that are not near 0, over an observation of so many frames: the
    module, parameters, observations."""
    network = Transformer(vocabulary=5, length=4, width=8, heads=2, layers=2, frames=request.param)
    s = jnp.linspace(-1, 1, 6 * request.param).reshape(2, 3 * request.param)
    params = jax.jit(network.init)(jax.random.key(0), s, TOKENS)
    head = params["params"]["head"]
    head["kernel"] = jax.random.normal(jax.random.key(1), head["kernel"].shape)
    return network, params, s


TOKENS = jnp.array([[0, 1, 2, 3], [4, 3, 2, 1]])


def test_a_transformers_logits_hang_on_the_observation_and_the_tokens_before(transformer):
    network, params, s = transformer
    apply = jax.jit(network.apply)
    logits = apply(params, s, TOKENS)
    assert logits.shape == (2, 4, 5)
    for i in range(4):
        changed = apply(params, s, TOKENS.at[:, i].add(1) % 5)
        assert_close(changed[:, : i + 1], logits[:, : i + 1])
        assert i == 3 or (jnp.abs(changed - logits).max(-1)[:, i + 1 :] > 1e-3).all()
    for i in range(network.frames):
        frame = jnp.arange(3 * network.frames) // 3 == i
        assert (jnp.abs(apply(params, s + 0.5 * frame, TOKENS) - logits).max(-1) > 1e-4).all()


def test_a_transformers_steps_give_the_logits_of_the_whole_sequence(transformer):
    network, params, s = transformer

    @jax.jit
    def stepwise(params, s):
        (x, past), rows = network.apply(params, s, method="start"), []
        for i in range(4):
            logits, past = network.apply(params, x, past, i, method="step")
            x = network.apply(params, TOKENS[:, i], method="embed")
            rows.append(logits)
        return jnp.stack(rows, 1)

    np.testing.assert_allclose(stepwise(params, s), network.apply(params, s, TOKENS), rtol=1e-4, atol=1e-5)
