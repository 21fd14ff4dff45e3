"""Shortcut policy: targets, loss and gradient against recorded numbers of the authors' program (README.md)."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from test_parity import HIDDEN, KEY, A, assert_close, assert_layers_close, gradient, mlp

from understudy.policies.shortcut import Shortcut

RECORD = json.loads(pathlib.Path(__file__).with_name("shortcut.json").read_text())
POLICY = Shortcut(action_size=A, hidden=HIDDEN, halvings=3, every=4)
# Theirs has the three rows that jump first, and then nine of the flow with the same actions from the first on.
ROWS = np.insert(np.arange(3, 12), [0, 3, 6], [0, 1, 2])  # where each of our rows is there
SOURCE = np.where(ROWS < 3, ROWS, ROWS - 3)  # where its observation and its action are
LEVELS = np.where(ROWS < 3, np.take(RECORD["levels"], ROWS, mode="clip"), 3)[:, None]


def recorded(name: str, rows) -> jnp.ndarray:
    return jnp.asarray(np.array(RECORD[name])[rows], jnp.float32)


def test_shortcut(replay, monkeypatch):
    params, observations = mlp(RECORD["net"], False), recorded("observations", SOURCE)
    times = recorded("times", ROWS)[:, None]
    jumps = POLICY.jump(params, observations[::4], recorded("x", slice(3)), times[::4], LEVELS[::4])
    assert_close(jumps, RECORD["target"][:3])

    monkeypatch.setattr(jax.random, "randint", lambda *_: jnp.asarray(LEVELS))
    replay(recorded("noise", ROWS), times + 0.5**LEVELS / 2)  # rounded down to multiples of the step
    actions = recorded("actions", SOURCE)

    def loss(params):
        rows = POLICY.loss(params, observations, actions, KEY)
        return rows.mean(), {"jump": rows[::4].mean(), "flow": rows.reshape(-1, 4)[:, 1:].mean()}

    value, metrics, grads = gradient(loss, params)
    assert_close(value, RECORD["loss"])
    assert_close(metrics["jump"], RECORD["loss_jump"])
    assert_close(metrics["flow"], RECORD["loss_flow"])
    assert_layers_close(grads["params"], RECORD["grad"])
