"""H2O by hand: the ratio of dynamics, what a gap weighs, and a simulator that is found out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import understudy
from understudy.algorithms.h2o import H2OCritic, mean_over
from understudy.run.phases import Phase, settle

KEY = jax.random.key(0)


def test_losses_by_hand(monkeypatch):
    monkeypatch.setattr(H2OCritic, "predict", lambda self, params, *_: params)
    q = jnp.array([[1.0, 3.0, 2.0, 0.0]])  # rows 0 and 1 are of the data
    targets, ratio, gaps = jnp.array([0.0, 1.0, 0.0, 2.0]), jnp.array([9.0, 9.0, 0.5, 0.25]), jnp.array([7, 7, 1, 3.0])
    real = jnp.array([True, True, False, False])
    batch = dict.fromkeys(("observations", "actions"))
    value, metrics = H2OCritic(weight=0.1).loss(q, targets, ratio, gaps, real, batch)
    assert metrics["td"] == pytest.approx((1 + 4) / 2 + (0.5 * 4 + 0.25 * 4) / 2)
    penalty = np.log(0.25 * np.exp(2) + 0.75 * np.exp(0)) - 2
    assert metrics["penalty"] == pytest.approx(penalty, rel=1e-5)
    assert value == pytest.approx(4.0 + 0.1 * penalty, rel=1e-6)
    for alone in (jnp.ones(4, bool), jnp.zeros(4, bool)):  # offline, or without any data
        value, metrics = H2OCritic(weight=0.1).loss(q, targets, ratio, gaps, alone, batch)
        assert np.isfinite(value) and (metrics["penalty"] == 0) == bool(alone.all())
    assert mean_over(q, jnp.zeros(4, bool)) == 0


def test_classifiers_by_hand(monkeypatch):
    monkeypatch.setattr(H2OCritic, "logits", lambda self, params, *inputs: params)
    c, d = jnp.array([[1.0, 0.0], [0.0, 0.5]]), jnp.array([[0.5, -0.5], [1.0, 0.0]])
    real, params = jnp.array([True, False]), {"c": c, "d": d}
    loss, metrics = H2OCritic().classify(params, None, None, real)
    pair = np.log1p(np.exp(-1)) + np.log1p(np.exp(-0.5))  # of the right class, margins 1 and 1/2
    triple = np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))  # with d as well, margins 2 and -1/2
    assert metrics["pair"] == pytest.approx(pair, rel=1e-5) and metrics["triple"] == pytest.approx(triple, rel=1e-5)
    assert loss == pytest.approx(pair + triple, rel=1e-5)
    assert H2OCritic().classify(params, None, None, jnp.ones(2, bool))[0] == 0


def test_the_share_of_the_data_is_that_of_the_phase():
    phases = [Phase("offline", updates=9), Phase("online", env_steps=9, offline_share=0.25)]
    algorithm = understudy.make("h2o", 1)
    assert [settle(algorithm, phases, phase=p).critic.demo_share for p in phases] == [1.0, 0.25]
    assert settle(algorithm, phases).critic.demo_share == 0.25


def test_a_simulator_of_other_dynamics_is_found_out_and_trusted_less_where_it_differs():
    """s' = s + a; the simulator has s' = s + 2 a where s > 0. The ratio falls and the gap rises there only."""
    rng = np.random.default_rng(0)
    critic = H2OCritic(demo_share=0.5, hidden=(8,), classifier_hidden=(64, 64), classifier_rate=3e-3,
                       noise=0.02, spread=0.02)  # fmt: skip
    size = 512

    def batch():
        s, a = rng.uniform(-1, 1, (size, 1)), rng.choice([-0.8, 0.8], (size, 1))
        simulated = np.arange(size)[:, None] >= size // 2
        following = s + a * np.where(simulated & (s > 0), 2, 1)
        x = {"observations": s, "actions": a, "next_observations": following}
        return {k: jnp.asarray(v, jnp.float32) for k, v in x.items()} | {
            "rewards": jnp.zeros(size), "masks": jnp.zeros(size)}  # fmt: skip

    first = batch()
    state = critic.init(KEY, first)
    actor = understudy.algorithm.Actor(None, (), lambda s, key: jnp.zeros((len(s), 1)))
    update = jax.jit(lambda state, batch, key: critic.update(state, batch, actor, key)[0])
    for i in range(300):
        state = update(state, batch(), jax.random.fold_in(KEY, i))
    last = batch()
    pair = jnp.concatenate([last["observations"], last["actions"]], 1)
    real = jnp.arange(size) < size // 2
    ratio = np.exp(critic.log_ratio(state.classifiers.params, pair, last["next_observations"]))[size // 2 :]
    gaps = np.asarray(critic.gaps(state.classifiers.params, pair, last["next_observations"], real, KEY))[size // 2 :]
    wrong = np.asarray(last["observations"])[size // 2 :, 0] > 0
    assert np.median(ratio[wrong]) < 0.2 and np.median(ratio[~wrong]) > 0.5
    assert np.median(gaps[wrong]) > 1.5 and np.median(gaps[~wrong]) < 0.5
