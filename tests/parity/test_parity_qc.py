"""One step of QC and QC-FQL against recorded numbers of the authors' program (README.md beside this file)."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
from test_parity import (
    GELU,
    HIDDEN,
    KEY,
    A,
    actor_of,
    assert_close,
    assert_ensemble_close,
    assert_layers_close,
    ensemble,
    gradient,
    mlp,
)

from understudy import extractions
from understudy.algorithm import Actor, ActorCritic
from understudy.algorithms.fql import Distil
from understudy.critics import TD
from understudy.data.replay import Buffer
from understudy.data.samplers import Sampler
from understudy.extractions import BestOfN
from understudy.policies.flow import Flow
from understudy.policies.one_step_flow import OneStepFlow
from understudy.wrappers import Chunked

RECORD = json.loads(pathlib.Path(__file__).with_name("qc.json").read_text())
NETS, DRAWS = RECORD["nets"], {k: np.array(v) for k, v in RECORD["draws"].items()}
CHUNK, SAMPLES = 2, 3
ZERO = np.zeros((4, CHUNK * A))  # the target noise of a critic that has none
CRITIC = TD(discount=0.9, tau=0.25, learning_rate=3e-3, backup="mean", aggregate="mean", **GELU)


def chunks() -> dict:
    """Chunks of the recorded trajectories, drawn by our sampler at the recorded positions."""
    data = {k: jnp.asarray(v, jnp.float32) for k, v in RECORD["data"].items()}
    buffer = Buffer.full(data | {"ends": data.pop("terminals") > 0})
    return Sampler(batch_size=4, chunk=CHUNK, discount=0.9).read(buffer, jnp.array(RECORD["positions"]))


def chunked(extraction, policy) -> Chunked:
    return Chunked(
        algorithm=ActorCritic(critic=CRITIC, extraction=extraction, policy=policy, learning_rate=3e-3), chunk=CHUNK
    )


def started(algorithm: Chunked, params) -> tuple:
    """The inner algorithm, its state with the recorded networks, and the flat batch."""
    batch, inner = algorithm.flat(chunks()), algorithm.inner
    state = algorithm.init(KEY, chunks())
    q = dataclasses.replace(state.critic.q, params=ensemble(NETS["q"], True))
    critic = dataclasses.replace(state.critic, q=q, target=ensemble(NETS["q_target"], True))
    actor = dataclasses.replace(state.actor, params=params)
    return inner, dataclasses.replace(state, critic=critic, actor=actor), batch


def one_by_one(policy, params, observations, key, n: int):
    """extractions.candidates without vmap, which would ask for one draw only."""
    return jnp.stack([policy.sample(params, observations, key) for _ in range(n)])


def test_chunks_are_those_of_the_authors():
    """Two whole ones of the first trajectory, one that ends with a termination, one of the second's beginning."""
    ours, theirs = chunks(), RECORD["batch"]
    for name in ("observations", "actions", "rewards", "next_observations"):
        assert_close(ours[name], theirs[name])
    assert_close(0.9 * ours["masks"], 0.9**CHUNK * np.array(theirs["masks"]))  # one discount is the critic's
    assert theirs["masks"] == [1, 1, 0, 1]


def test_qc(request, monkeypatch):
    record, flow = RECORD["qc"], mlp(NETS["flow"], False)
    monkeypatch.setattr(extractions, "candidates", one_by_one)
    algorithm = chunked(BestOfN(samples=SAMPLES), Flow(action_size=A, hidden=HIDDEN))
    inner, state, batch = started(algorithm, flow)
    replay = request.getfixturevalue("replay")  # from here on random numbers are the recorded ones
    backup = list(DRAWS["backup"].swapaxes(0, 1))
    choose = lambda s, key: inner._choose(state, flow, s, key)
    replay(*backup)
    assert_close(choose(batch["next_observations"], KEY), record["chosen"])
    replay(*backup, ZERO)
    targets = inner.critic.target(state.critic, batch, Actor(inner.policy, flow, choose), KEY)
    value, metrics, grads = gradient(inner.critic.q_loss, state.critic.q.params, targets, batch)
    assert_close(value, 2 * record["critic_loss"])
    assert_close(metrics["q"], record["q_mean"])
    assert_ensemble_close(grads, record["critic_grad"], scale=2)
    replay(DRAWS["noise"][0], DRAWS["time"])
    value, _, grads = gradient(inner.extraction.loss, flow, (), inner.policy, inner.critic, state.critic, batch, KEY)
    assert_close(value, record["actor_loss"])
    assert_layers_close(grads["params"], record["flow_grad"])


def test_qc_after_one_update(request, monkeypatch):
    record = RECORD["qc"]["after"]
    monkeypatch.setattr(extractions, "candidates", one_by_one)
    algorithm = chunked(BestOfN(samples=SAMPLES), Flow(action_size=A, hidden=HIDDEN))
    _, state, _ = started(algorithm, mlp(NETS["flow"], False))
    replay = request.getfixturevalue("replay")  # from here on random numbers are the recorded ones
    replay(*DRAWS["backup"].swapaxes(0, 1), ZERO, DRAWS["noise"][0], DRAWS["time"])
    state, _ = algorithm.update(state, chunks(), KEY)
    assert_ensemble_close(state.critic.q.params, record["q"])
    assert_layers_close(state.actor.params["params"], record["flow"])


def test_qc_fql(request):
    record = RECORD["qc_fql"]
    params = {"flow": mlp(NETS["flow"], False), "one_step": mlp(NETS["one_step"], False)}
    algorithm = chunked(Distil(alpha=2.5, normalise=False), OneStepFlow(action_size=A, hidden=HIDDEN))
    inner, state, batch = started(algorithm, params)
    replay = request.getfixturevalue("replay")  # from here on random numbers are the recorded ones
    replay(DRAWS["noise"][2], ZERO)
    targets = inner.critic.target(state.critic, batch, actor_of(inner.policy, params), KEY)
    value, _, grads = gradient(inner.critic.q_loss, state.critic.q.params, targets, batch)
    assert_close(value, 2 * record["critic_loss"])
    assert_ensemble_close(grads, record["critic_grad"], scale=2)
    replay(DRAWS["noise"][0], DRAWS["time"], DRAWS["noise"][1])
    value, metrics, grads = gradient(
        inner.extraction.loss, params, (), inner.policy, inner.critic, state.critic, batch, KEY
    )
    assert_close(value, record["actor_loss"])
    assert_close(metrics["flow_matching"], record["flow"])
    assert_close(metrics["distillation"], record["distill"])
    assert_layers_close(grads["flow"]["params"], record["flow_grad"])
    assert_layers_close(grads["one_step"]["params"], record["one_step_grad"])
