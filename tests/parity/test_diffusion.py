"""IDQL and Diffusion-QL against recorded numbers of the authors' programs (README.md beside this file)."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import BATCH, HIDDEN, KEY, A, assert_close, assert_ensemble_close, gradient, mlp, with_weights

from understudy.algorithm import Actor, ActorCritic, ActorCriticState
from understudy.algorithms import diffusion_ql as dql
from understudy.algorithms.idql import Implicit
from understudy.algorithms.iql import IQLCritic
from understudy.core import polyak
from understudy.policies.diffusion import Diffusion, signal

RECORD = json.loads(pathlib.Path(__file__).with_name("diffusion.json").read_text())
NETS, IDQL, DQL = RECORD["inputs"]["nets"], RECORD["idql"], RECORD["diffusion_ql"]
DRAWS = {k: np.array(v) for k, v in RECORD["inputs"]["draws"].items()}
FIRST = BATCH["observations"][:1]


@pytest.fixture
def times(monkeypatch):
    """Answer jax.random.randint with the recorded times, then with whatever is put behind them."""
    queue = [DRAWS["time"][:, None]]
    monkeypatch.setattr(jax.random, "randint", lambda *_, **__: jnp.asarray(queue.pop(0)))
    return queue


def ln_resnet(nets) -> dict:
    """Recorded layers as parameters of a Denoiser with an LNResNet and learned frequencies."""
    dense = lambda layer: {k: jnp.asarray(layer[k], jnp.float32) for k in ("kernel", "bias")}
    body = {"Dense_0": dense(nets["first"])}
    for i, block in enumerate(nets["blocks"]):
        norm = {"scale": block["scale"], "bias": block["shift"]}
        body |= {f"LayerNorm_{i}": jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), norm, is_leaf=is_list)}
        body |= {f"Dense_{1 + 2 * i}": dense(block["up"]), f"Dense_{2 + 2 * i}": dense(block["down"])}
    body |= {f"Dense_{1 + 2 * len(nets['blocks'])}": dense(nets["last"])}
    time = {"frequencies": jnp.asarray(nets["frequencies"], jnp.float32)} | {
        "MLP_0": mlp(nets["time"], False)["params"]
    }
    return {"params": {"TimeFeatures_0": time, "LNResNet_0": body}}


def plain(nets) -> dict:
    """Recorded layers as parameters of a Denoiser with an MLP and fixed frequencies."""
    time = {"MLP_0": mlp(nets["time"], False)["params"]}
    return {"params": {"TimeFeatures_0": time, "MLP_0": mlp(nets["mlp"], False)["params"]}}


is_list = lambda x: isinstance(x, list)


def assert_trees_close(ours, recorded, scale=1.0, rtol=1e-5):
    """The largest recorded entry sets the scale."""
    assert jax.tree.structure(ours) == jax.tree.structure(recorded)
    flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
    assert_close(flat(ours), scale * flat(recorded), rtol)


# --- IDQL ---------------------------------------------------------------------------------------------------------
POLICY = Diffusion(action_size=A, network="ln_resnet", hidden=(6, 6), activation="swish", time="fourier", time_size=4,
                   clip="noisy", variance="beta", temperature=0.8)  # fmt: skip


@pytest.mark.parametrize("schedule", ["vp", "cosine"])
def test_schedules(schedule):
    assert_close(signal(schedule, 5), IDQL["schedules"][schedule], 1e-7)


def test_idql_policy_and_its_average(replay, times):
    params = ln_resnet(NETS)
    replay(DRAWS["normal"][0])
    critic = IQLCritic(hidden=HIDDEN, discount=0.9, expectile=0.8, tau=0.25)
    state = with_weights(critic.init(KEY, BATCH), False)
    value, _, grads = gradient(Implicit().loss, params, (), POLICY, critic, state, BATCH, KEY)
    assert_close(A * value, IDQL["actor_loss"])  # theirs is a sum over dimensions
    assert_trees_close(jax.tree.map(lambda x: A * x, grads), ln_resnet(IDQL["actor_grad"]))
    after = jax.tree.map(lambda p, g: p - A * g, params, grads)  # plain descent at rate 1
    assert_trees_close(polyak(params, after, 0.25), ln_resnet(IDQL["average"]))
    value, _ = critic.value_loss(state.v.params, critic.q(state, BATCH["observations"], BATCH["actions"]), BATCH)
    assert_close(value, IDQL["value_loss"])


def test_idql_samples_and_acts(replay, monkeypatch):
    params, draws = ln_resnet(NETS), DRAWS["act"][:, :6]
    replay(draws[0], draws[1:])
    samples = POLICY.sample(params, jnp.repeat(FIRST, 6, 0), KEY)
    assert_close(samples, IDQL["samples"])

    critic = IQLCritic(hidden=HIDDEN, expectile=0.8)
    shifted = with_weights(critic.init(KEY, BATCH), False)
    v = jax.tree.map(jnp.copy, shifted.v.params)
    v["params"]["Dense_2"]["bias"] += IDQL["value_shift"]
    shifted = dataclasses.replace(shifted, v=dataclasses.replace(shifted.v, params=v))
    weights = {}
    monkeypatch.setattr("understudy.algorithms.idql.candidates", lambda *_: samples[:, None])
    monkeypatch.setattr(jax.random, "categorical", lambda key, x, axis: weights.update(x=x) or x.argmax(axis))
    algorithm = ActorCritic(critic=critic, extraction=Implicit(live="expectile"), policy=POLICY, act_average=True)
    state = ActorCriticState(actor=None, critic=shifted, target=params, aux=(), step=0, seen={})
    chosen, _ = algorithm.act(state, FIRST, KEY, greedy=True)
    assert_close(chosen[0], IDQL["chosen"])
    algorithm.act(state, FIRST, KEY)
    assert_close(jax.nn.softmax(weights["x"][:, 0]), IDQL["probabilities"])


# --- Diffusion-QL -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, samples, network", [("first", 1, 0), ("second", 10, 1)])
def test_diffusion_ql(replay, times, monkeypatch, name, samples, network):
    """One backup action or the best of ten; the first or the second network climbed."""
    record, params = DQL[name], plain(NETS)
    policy = Diffusion(action_size=A, hidden=HIDDEN, time_size=4)
    average = jax.tree.map(jnp.copy, params)
    average["params"]["MLP_0"]["Dense_2"]["bias"] *= 0.5
    critic = dql.DiffusionQLCritic(hidden=HIDDEN, activation="mish", discount=0.9, backup_samples=samples)
    state = with_weights(critic.init(KEY, BATCH), False)
    one_by_one = lambda policy, params, s, key, n: jnp.stack([policy.sample(params, s, key) for _ in range(n)])
    monkeypatch.setattr(dql, "candidates", one_by_one)
    draws = DRAWS["backup"].swapaxes(1, 2).swapaxes(0, 1) if samples > 1 else DRAWS["normal"][None, :6]
    replay(*(part for row in draws for part in (row[0], row[1:])))
    targets = critic.target(state, BATCH, Actor(policy, average, None), KEY)
    value, _, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, record["critic_loss"])
    assert_ensemble_close(grads, record["critic_grad"])

    times.append(np.array(network))
    normal = DRAWS["normal"]
    replay(normal[6], normal[7], normal[[8, 9, 0, 1, 2]])
    extraction = dql.Guide(eta=0.7)
    value, metrics, grads = gradient(extraction.loss, params, (), policy, critic, state, BATCH, KEY)
    assert_close(metrics["imitation"], record["bc_loss"])
    assert_close(value - metrics["imitation"], 0.7 * record["ql_loss"])  # the two nearly cancel in one record
    assert_trees_close(grads, plain(record["actor_grad"]))


def test_diffusion_ql_acts_by_softmax_over_its_samples(replay, monkeypatch):
    policy, params = Diffusion(action_size=A, hidden=HIDDEN, time_size=4), plain(NETS)
    critic = dql.DiffusionQLCritic(hidden=HIDDEN, activation="mish")
    state, seen = with_weights(critic.init(KEY, BATCH), False), {}
    replay(DRAWS["act"][0], DRAWS["act"][1:])
    actions = policy.sample(params, jnp.repeat(FIRST, 50, 0), KEY)[:, None]
    monkeypatch.setattr(dql, "candidates", lambda *_: actions)
    monkeypatch.setattr(jax.random, "categorical", lambda key, x, axis: seen.update(x=x) or jnp.array([3]))
    q = dql.Guide().compare(critic, state)
    assert_close(dql.Guide().choose(policy, params, q, FIRST, KEY, greedy=True)[0], DQL["fourth"])
    assert_close(jax.nn.softmax(seen["x"][:, 0]), DQL["probabilities"])
