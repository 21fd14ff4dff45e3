"""Networks of known output, so that expected numbers can be worked out by hand."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest


def _replace_last(params, change):
    """Zero every array, then let `change` edit the output layer {'kernel', 'bias'}."""
    params = jax.tree.map(jnp.zeros_like, params)
    layers = params["params"]
    layers = layers.get("VmapMLP_0", layers)
    last = max(name for name in layers if name.startswith("Dense"))
    change(layers[last])
    return params


@pytest.fixture
def constant():
    """constant(params, values): the same network with the given outputs whatever its input."""

    def make(params, values):
        def change(layer):
            layer["bias"] = jnp.broadcast_to(jnp.asarray(values, jnp.float32), layer["bias"].shape)

        return _replace_last(params, change)

    return make


@pytest.fixture
def linear():
    """linear(params, weights): the output layer's kernel; with `hidden=()` the network is that linear map."""

    def make(params, weights):
        def change(layer):
            layer["kernel"] = jnp.asarray(weights, jnp.float32).reshape(layer["kernel"].shape)

        return _replace_last(params, change)

    return make


@dataclasses.dataclass(frozen=True)
class FixedPolicy:
    """Always the same action and log-probability, or uniform actions where `action` is None."""

    action: float | None = 0.5
    log_prob: float = -2.0
    action_size: int = 2

    def sample(self, params, observations, key):
        shape = (observations.shape[0], self.action_size)
        return jax.random.uniform(key, shape) if self.action is None else jnp.full(shape, self.action)

    def sample_and_log_prob(self, params, observations, key):
        return self.sample(params, observations, key), jnp.full(observations.shape[0], self.log_prob)


@pytest.fixture
def fixed_policy():
    return FixedPolicy


@pytest.fixture
def batch():
    """Two transitions, the second terminal: 3 observation and 2 action dimensions."""
    return {
        "observations": jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        "actions": jnp.array([[0.5, 0.0], [0.0, -0.5]]),
        "rewards": jnp.array([1.0, 2.0]),
        "masks": jnp.array([1.0, 0.0]),
        "next_observations": jnp.array([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]),
    }
