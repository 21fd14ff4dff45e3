"""What stands in for every random number of a recorded program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture
def replay(monkeypatch):
    """replay(*draws): these answer the next calls of jax.random.normal and uniform, in order."""
    queue = []

    def draw(key, shape=(), dtype=None, minval=0.0, maxval=1.0):
        assert queue, "more random numbers are drawn than were recorded"
        value = queue.pop(0)
        assert value.shape == tuple(shape), (value.shape, shape)
        return jnp.asarray(value, jnp.float32)

    monkeypatch.setattr(jax.random, "normal", draw)
    monkeypatch.setattr(jax.random, "uniform", draw)

    def load(*draws):
        assert not queue, "fewer random numbers were drawn than recorded"
        queue.extend(draws)

    yield load
    assert not queue, "fewer random numbers were drawn than recorded"
