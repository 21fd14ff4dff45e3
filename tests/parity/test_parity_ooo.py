"""The novelty bonus of OOO and IQL's step with it against recorded numbers of the authors' program (README.md)."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from test_parity import (
    BATCH,
    HIDDEN,
    KEY,
    assert_close,
    assert_ensemble_close,
    assert_layers_close,
    iql_algorithm,
    mlp,
    with_weights,
)
from test_parity_frozen import seen

from understudy.algorithm import ActorCritic
from understudy.algorithms.ooo import Bonus
from understudy.moments import Moments

RECORD = json.loads(pathlib.Path(__file__).with_name("ooo.json").read_text())


def of_many(mean, variance) -> Moments:
    """Moments of so many rows that four more do not move them."""
    return Moments(mean=jnp.asarray(mean), variance=jnp.asarray(variance), count=jnp.float32(1e12))


def test_running_moments():
    moments = Moments.of(BATCH["observations"]).add(BATCH["observations"]).add(BATCH["next_observations"])
    for name in ("mean", "variance", "count"):
        assert_close(getattr(moments, name), RECORD["running"][name])


def test_ooo(monkeypatch):
    algorithm = Bonus(algorithm=iql_algorithm(), bonus=2.0, bonus_share=RECORD["share"], bonus_hidden=HIDDEN[:1],
                      bonus_features=HIDDEN[1])  # fmt: skip
    state, moments = algorithm.init(KEY, BATCH), RECORD["moments"]
    state = dataclasses.replace(
        state,
        inner=dataclasses.replace(state.inner, critic=with_weights(state.inner.critic, False)),
        predictor=dataclasses.replace(state.predictor, params=mlp(RECORD["predictor"], False)),
        target=mlp(RECORD["target"], False),
        seen=of_many(moments["mean"], moments["var"]),
        novelty=of_many(0.0, moments["reward_var"]),
    )
    given, _ = seen(monkeypatch, ActorCritic, "update")
    learned, distillation = seen(monkeypatch, Bonus, "distillation_loss")
    monkeypatch.setattr(jax.random, "bernoulli", lambda key, p, shape: jnp.asarray(RECORD["mask"]) < p)
    state, metrics = algorithm.update(state, BATCH, KEY)

    assert_close((given["args"][0]["rewards"] - BATCH["rewards"]) / 2, RECORD["bonus"])
    assert_close(metrics["bonus/bonus"], np.mean(RECORD["bonus"]))
    assert_close(metrics["bonus/loss"], RECORD["rnd_loss"])
    grads = jax.grad(lambda p: distillation(algorithm, p, *learned["args"])[0])(mlp(RECORD["predictor"], False))
    assert_layers_close(grads["params"], RECORD["rnd_grad"])
    assert_close(metrics["critic/v/loss"], RECORD["value_loss"])
    assert_close(metrics["critic/target"], RECORD["backup"])
    assert_close(metrics["critic/loss"], 2 * RECORD["critic_loss"])  # theirs is a mean over the ensemble
    assert_layers_close(state.inner.critic.v.params["params"], RECORD["after"]["v"])
    assert_ensemble_close(state.inner.critic.q.params, RECORD["after"]["q"])
