"""Uni-O4 against recorded numbers of the authors' program (README.md beside this file)."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import (
    BATCH,
    HIDDEN,
    KEY,
    NETS,
    A,
    assert_close,
    assert_layers_close,
    mlp,
    with_weights,
)

from understudy.algorithms.uni_o4 import UniO4
from understudy.core import Net
from understudy.dynamics import Dynamics, Trial
from understudy.policies.gaussian import Gaussian

RECORD = json.loads(pathlib.Path(__file__).with_name("uni_o4.json").read_text())["uni_o4"]
POLICY = Gaussian(action_size=A, hidden=HIDDEN, deviation="state", log_std_max=0.0)
ALGORITHM = UniO4(policy=POLICY, clones=2, disagreement=0.5, clip=0.25, hidden=HIDDEN, activation="relu",
                  model=Dynamics(hidden=(4,)), rollouts=3, offline_steps=10.0, improvement=1.0)  # fmt: skip
both = lambda *factors: jax.tree.map(
    lambda x: jnp.stack([f * x for f in factors]), {"network": mlp(NETS["gauss"], False)}
)
NEW, ACCEPTED = both(1.0, 1.2), both(0.9, 1.1)


@pytest.fixture(scope="module")
def state():
    """After the first of ten improving updates, so that clip and rate are 0.9 of what they were."""
    start = jax.jit(ALGORITHM.init)(KEY, BATCH)
    critic = with_weights(start.critic, False)
    critic = dataclasses.replace(critic, target=critic.q.params)  # theirs has no use for target networks here
    clones = Net(params=NEW, opt=start.clones.opt)
    return dataclasses.replace(start, critic=critic, clones=clones, accepted=ACCEPTED, updates=jnp.int32(1))


def test_improvement(replay, state):
    """Their deviation of the advantages is that of n - 1."""
    s, actions, advantages = BATCH["observations"], jnp.array(RECORD["actions"]), jnp.array(RECORD["advantages"])
    for i in range(2):
        assert_close(ALGORITHM.advantages(state.critic, s, actions[i]), np.sqrt(4 / 3) * advantages[i])
    draws = np.array(RECORD["draws"])
    replay(draws)  # the entropy, of no weight
    (loss, _), grads = jax.jit(jax.value_and_grad(ALGORITHM.improvement_loss, has_aux=True))(
        NEW, ACCEPTED, s, actions, advantages, 0.225, KEY
    )
    np.testing.assert_allclose(loss, sum(RECORD["losses"]), rtol=1e-5)
    for i, recorded in enumerate(RECORD["grads"]):
        assert_layers_close(jax.tree.map(lambda x: x[i], grads["network"]["params"]), recorded)  # noqa: B023
    replay(draws, draws)
    _, metrics = jax.jit(ALGORITHM.improve)(state, BATCH, KEY)
    np.testing.assert_allclose(metrics["actor/loss"], np.sqrt(4 / 3) * sum(RECORD["losses"]), rtol=1e-5)


def test_value_in_a_model(state):
    """Five steps of the greedy policies in a given model, where some episodes end on the way."""
    move = lambda s, a: s + 0.3 * jnp.stack([a[:, 0], a[:, 1], a[:, 0] * a[:, 1]], 1)
    trial = Trial.begin(NEW, jnp.stack([BATCH["observations"]] * 2))
    q = lambda s, a: ALGORITHM.critic.q(state.critic, s, a)
    for _ in range(5):
        trial = trial.play(POLICY.mode, q, lambda s, a: (move(s, a), 1.0 - (s[:, 0] > 0.5)))
    assert_close(trial.value, RECORD["values"])


def test_imitation():
    """Where another clone is the better imitator; where a clone is the best its own density is left alone."""
    log_probs = np.array(RECORD["log_probs"])
    row = lambda i: {k: v[i : i + 1] for k, v in BATCH.items()}
    best = log_probs >= log_probs.max(0)
    assert best.any(1).all() and not best.all(1).any()
    expected = np.where(best, -log_probs, RECORD["imitation"]).sum(0)
    assert_close([ALGORITHM.imitation_loss(ACCEPTED, row(i))[0] for i in range(4)], expected)
