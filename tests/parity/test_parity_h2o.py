"""One step of H2O against recorded numbers of the authors' program (README.md)."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from test_parity import BATCH, HIDDEN, KEY, assert_close, assert_ensemble_close, assert_layers_close, mlp, with_weights

from understudy.algorithm import Actor
from understudy.algorithms.h2o import H2OCritic

RECORD = json.loads(pathlib.Path(__file__).with_name("h2o.json").read_text())
DRAWS, H2O = {k: np.array(v) for k, v in RECORD["draws"].items()}, RECORD["h2o"]


def test_h2o(replay, monkeypatch):
    critic = H2OCritic(hidden=HIDDEN, discount=0.9, demo_share=0.5, weight=0.7, gap_max=0.5, samples=3, spread=0.8,
                       classifier_hidden=(6, 6))  # fmt: skip
    state = with_weights(critic.init(KEY, BATCH), False)
    classifiers = {name: mlp(RECORD["nets"][name], False) for name in ("c", "d")}
    state = dataclasses.replace(state, classifiers=dataclasses.replace(state.classifiers, params=classifiers))
    found, loss, classify = {}, H2OCritic.loss, H2OCritic.classify
    monkeypatch.setattr(H2OCritic, "loss", lambda self, p, *args: found.update(loss=args) or loss(self, p, *args))
    spied = lambda self, p, *args: found.update(classify=args) or classify(self, p, *args)
    monkeypatch.setattr(H2OCritic, "classify", spied)
    replay(DRAWS["noise_pair"], DRAWS["noise_next"], DRAWS["near"])
    actor = Actor(None, (), lambda s, key: jnp.asarray(DRAWS["next_actions"], jnp.float32))
    still = dataclasses.replace(critic, classifier_rate=0.0)
    _, metrics = still.update(state, BATCH, actor, KEY)
    assert_close(metrics["pair"], H2O["pair"])
    assert_close(metrics["triple"], H2O["triple"])
    grads = jax.grad(lambda p: classify(critic, p, *found["classify"])[0])(classifiers)
    for name in ("c", "d"):
        assert_layers_close(grads[name]["params"], H2O[f"grad_{name}"])
    _, ratio, gaps, real, *_ = found["loss"]
    assert real.tolist() == [True, True, False, False]
    assert_close(ratio[2:], np.clip(H2O["ratio"], 1e-5, 1.0))
    assert_close(gaps[2:], H2O["gaps"])
    assert_close(metrics["td"], sum(H2O["td"]))
    assert_close(metrics["penalty"], sum(H2O["penalty"]))
    assert_ensemble_close(jax.grad(lambda p: loss(critic, p, *found["loss"])[0])(state.q.params), H2O["grad_q"])
