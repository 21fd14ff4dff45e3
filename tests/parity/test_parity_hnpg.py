"""HNPG's critic and its policy's step against recorded numbers of the authors' program (README.md)."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import HIDDEN, assert_close, assert_layers_close, mlp

from understudy.algorithms.hnpg import HNPG
from understudy.core import adam, descend, net
from understudy.natural_gradient import natural_step
from understudy.policies.gaussian import Gaussian

RECORD = json.loads(pathlib.Path(__file__).with_name("hnpg.json").read_text())
DATA, NETS, RUN = {k: jnp.asarray(v, jnp.float32) for k, v in RECORD["data"].items()}, RECORD["nets"], RECORD["hnpg"]
POLICY = Gaussian(action_size=2, hidden=HIDDEN, activation="tanh", tanh_mean=False)
ROWS = {"observations": DATA["states"], "actions": DATA["actions"]}


def test_thirty_steps_of_the_critic_on_returns_and_on_data():
    algorithm, params = HNPG(policy=POLICY, hidden=HIDDEN), mlp(NETS["q"], False)
    played, batch = ({k: x[part] for k, x in ROWS.items()} for part in (slice(4), slice(4, 8)))
    q = net(params, adam(algorithm.learning_rate))
    args = (algorithm.q_loss, played, DATA["returns"], batch, DATA["targets"])
    for _ in range(algorithm.critic_steps):
        q, metrics = descend(q, adam(algorithm.learning_rate), *args)
    assert_close(metrics["online"], RUN["online"])
    assert_close(metrics["data"], RUN["data"])
    assert_layers_close(q.params["params"], RUN["q"])


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_step_of_the_policy(size):
    """The large one is halved until it gains what it should."""
    params, expected = {"network": mlp(NETS["policy"], False), "log_std": DATA["log_std"]}, RUN[size]
    log_prob = lambda p: POLICY.log_prob(p, ROWS["observations"], ROWS["actions"])
    after, metrics = jax.jit(natural_step, static_argnums=(0, 5))(
        log_prob, params, DATA["advantages"], expected["max_kl"], 0.1, 10
    )
    assert (float(metrics["share"]) == 1.0) == (size == "small")
    assert_close(metrics["gain"], expected["gain"])
    assert_layers_close(after["network"]["params"], expected["policy"])
    assert_close(after["log_std"], expected["log_std"])
    moved = np.concatenate([np.ravel(x) - np.ravel(y) for x, y in zip(*map(jax.tree.leaves, (after, params)))])
    assert np.abs(moved).max() > 0.05
