"""One step of ARSQ against recorded numbers of the authors' program (README.md beside this file), and its equations
written again in NumPy."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import BATCH, KEY, assert_close, mlp

from understudy.algorithms.arsq import ARSQ, ARSQState
from understudy.core import adam, net

CASES = json.loads(pathlib.Path(__file__).with_name("arsq.json").read_text())
A = 2


def params_of(networks: list) -> dict:
    """Recorded networks as parameters [E, ...]."""
    one = [{name: mlp(layers, False) for name, layers in n.items()} for n in networks]
    return jax.tree.map(lambda *x: jnp.stack(x), *one)


def case_of(name: str):
    """The record, the algorithm and a state that holds the recorded networks.

    The recorded margin is the sum over all rows of the batch, demonstrations or not: 4 times the mean over all."""
    record = CASES[name]
    config = record["config"]
    rows, demo_share = (len(BATCH["actions"]), 1.0) if name == "margin" else (1, 0.5)
    algorithm = ARSQ(
        action_size=A, levels=config["levels"], bins=config["bins"], alpha=config["soft_alpha"], regulariser=name,
        weight=rows * config["cql_min_q_weight"], gap_min=config["cql_clip_diff_min"], demo_share=demo_share,
        hidden=(6, 5), discount=0.9, tau=0.25, learning_rate=3e-3,
    )  # fmt: skip
    q, target = (params_of(record["nets"][k]) for k in ("q", "q_target"))
    record = record | {"gap": np.divide(record["gap"], rows)}
    return record, algorithm, ARSQState(q=net(q, adam(3e-3)), target=target)


def assert_trees_close(ours, recorded, rtol=1e-5):
    """Within rtol of the largest recorded entry of all."""
    flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
    assert jax.tree.structure(ours) == jax.tree.structure(recorded)
    assert_close(flat(ours), flat(recorded), rtol)


@pytest.mark.parametrize("name", CASES)
def test_update(name):
    record, algorithm, state = case_of(name)
    targets = BATCH["rewards"] + 0.9 * BATCH["masks"] * algorithm.v(state.target, BATCH["next_observations"]).min(0)
    (value, metrics), grads = jax.value_and_grad(algorithm.loss, has_aux=True)(state.q.params, targets, BATCH)
    assert_close(value, record["loss"])
    for key in ("q", "v", "gap"):
        assert_close(metrics[key], np.mean(record[key]))
    assert_close(metrics["td"], record["td"])
    assert_close(metrics["target"], record["target"])
    assert_trees_close(grads, params_of(record["grad"]))
    after, _ = algorithm.update(state, BATCH, KEY)
    assert_trees_close(after.target, params_of(record["after"]["target"]))


@pytest.mark.parametrize("name", CASES)
def test_acting(name, monkeypatch):
    record, algorithm, state = case_of(name)
    actions, _ = algorithm.act(state, BATCH["observations"], KEY, greedy=True)
    assert_close(actions, record["greedy"])
    picks, drawn_from = jnp.array(record["picks"]), []

    def categorical(key, logits):
        jax.debug.callback(lambda x: drawn_from.append(np.asarray(x)), jax.nn.softmax(logits), ordered=True)
        return picks[key]

    monkeypatch.setattr(jax.random, "fold_in", lambda key, t: t)
    monkeypatch.setattr(jax.random, "categorical", categorical)
    actions, _ = algorithm.act(state, BATCH["observations"], KEY)
    jax.effects_barrier()
    assert_close(actions, record["sampled"])
    assert_close(drawn_from, record["probabilities"])


def test_the_value_of_an_action_against_the_equations():
    """Q = V + sum_t A_t for one action of two dimensions, 2 levels of 3 bins, in float64."""
    record, algorithm, state = case_of("logsumexp")
    s, alpha = np.array([[0.3, -0.2, 0.9]]), 0.5
    # 0.4 is in the last third of [-1, 1] and the first of that third: 2 0; -0.1 in the middle one and its middle: 1 1.
    tokens, centres = (2, 1, 0, 1), ([0, 0], [2 / 3, 0], [2 / 3, 0], [4 / 9, 0])
    batch = {"observations": jnp.asarray(s, jnp.float32), "actions": jnp.array([[0.4, -0.1]])}
    _, metrics = algorithm.loss(state.q.params, jnp.zeros(1), batch)
    expected, gaps = [], []
    for member in record["nets"]["q"]:
        value, gap = tanh_mlp(member["v"], s)[0, 0], 0.0
        for t, (token, centre) in enumerate(zip(tokens, centres)):
            u = tanh_mlp(member["u"], np.concatenate([s, [centre]], -1)).reshape(4, 3)[t]
            advantage = u - alpha * np.log(np.exp(u / alpha).sum())
            value += advantage[token]
            gap += max(np.log(np.exp(np.delete(advantage, token)).sum()) - advantage[token], -1.0)
        expected.append(value)
        gaps.append(gap)
    assert_close(metrics["q"], np.mean(expected))
    assert_close(metrics["td"], np.sum(np.square(expected)))
    assert_close(metrics["gap"], np.mean(gaps))


def tanh_mlp(layers: list, x):
    """A tanh network in float64."""
    for layer in layers[:-1]:
        x = np.tanh(x @ np.array(layer["kernel"]) + np.array(layer["bias"]))
    return x @ np.array(layers[-1]["kernel"]) + np.array(layers[-1]["bias"])
