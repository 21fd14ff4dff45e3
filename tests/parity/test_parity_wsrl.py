"""One step of WSRL, offline and online, against recorded numbers of the authors' program (README.md)."""

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
    DRAWS,
    HIDDEN,
    KEY,
    NETS,
    A,
    actor_of,
    assert_close,
    assert_layers_close,
    ensemble,
    gradient,
    mlp,
)
from test_parity import assert_ensemble_close as assert_members_close

from understudy import registry
from understudy.algorithms.cql import CQLCritic

RECORD = json.loads(pathlib.Path(__file__).with_name("wsrl.json").read_text())
SETTINGS = {"critic.hidden": HIDDEN, "policy.hidden": HIDDEN, "critic.ensemble": 2, "critic.samples": 3,
            "critic.discount": 0.9, "critic.weight": 2.5, "extraction.target_entropy": -0.5,
            "extraction.initial_temperature": RECORD["alpha"]}  # fmt: skip
PARAMS = {"network": mlp(NETS["gauss"], True)}
MANY = DRAWS["many"].swapaxes(1, 2)  # [., N, B, A]


@pytest.fixture
def one_by_one(monkeypatch):
    """CQLCritic.draw without vmap, which would ask for one draw only."""

    def draw(self, actor, batch, which, key):
        rows = [actor.policy.sample_and_log_prob(actor.params, batch[which], key) for _ in range(self.samples)]
        return jnp.stack([r[0] for r in rows]), jnp.stack([r[1] for r in rows])

    monkeypatch.setattr(CQLCritic, "draw", draw)


def started(**settings):
    """The recipe on small networks, and its critic's state; theirs share an output layer, here each has the first's."""
    algorithm = registry.make("wsrl", A, SETTINGS | settings)
    shared = lambda members: ensemble([[*member[:2], members[0][2]] for member in members], True)
    state = algorithm.critic.init(KEY, BATCH)
    q = dataclasses.replace(state.q, params=shared(NETS["q"]))
    return algorithm, dataclasses.replace(state, q=q, target=shared(NETS["q_target"]))


def critic_close(grads, record):
    """Their losses are means over the two networks where ours are sums."""
    grads = dict(grads["params"]["VmapMLP_0"])
    output = grads.pop("Dense_2")
    assert_members_close({"params": {"VmapMLP_0": grads}}, record["critic_grad"], scale=2)
    for name in ("kernel", "bias"):
        assert_close(output[name].sum(0), 2 * np.array(record["shared_output_grad"][name]))


def test_wsrl_offline(replay, one_by_one, monkeypatch):
    """Cal-QL with both networks in the backup and in the gap."""
    record, (algorithm, state) = RECORD["offline"], started(**{"critic.subset": 0})
    critic, seen, loss = algorithm.critic, {}, CQLCritic.loss
    monkeypatch.setattr(CQLCritic, "loss", lambda self, params, *args: seen.update(args=args) or loss(
        self, params, *args))  # fmt: skip
    monkeypatch.setattr(jax.lax, "cond", lambda turn, yes, no, *args: (yes if turn else no)(*args))
    replay(*MANY[0], DRAWS["uniform"].swapaxes(0, 1), *MANY[1], *MANY[2])
    _, metrics = critic.update(state, BATCH, actor_of(algorithm.policy, PARAMS), KEY)
    assert_close(metrics["target"], record["target"])
    assert_close(metrics["td"], 2 * record["td_loss"])
    assert_close(metrics["gap"], record["gap"])
    assert_close(metrics["loss"], 2 * record["critic_loss"])
    critic_close(jax.grad(lambda p: loss(critic, p, *seen["args"])[0])(state.q.params), record)


@pytest.mark.parametrize("chosen", [0, 1])
@pytest.mark.parametrize("name, best_of", [("online", True), ("single", False)])
def test_wsrl_online(replay, one_by_one, monkeypatch, name, best_of, chosen):
    """Weight 0, and the draw `chosen` of two networks backed up at the best of three actions, or at one action."""
    record = RECORD[f"{name}_{chosen}"]
    algorithm, state = started(**{"critic.weight": 0.0, "critic.subset": 1, "critic.max_target_backup": best_of})
    critic = algorithm.critic
    monkeypatch.setattr(jax.random, "choice", lambda *_, **__: jnp.array([chosen]))
    monkeypatch.setattr(jax.lax, "cond", lambda turn, yes, no, *args: (yes if turn else no)(*args))
    replay(*MANY[0] if best_of else DRAWS["normal"][:1])
    _, metrics = critic.update(state, BATCH, actor_of(algorithm.policy, PARAMS), KEY)
    assert_close(metrics["target"], record["target"])
    assert_close(metrics["loss"], 2 * record["critic_loss"])
    replay(*MANY[0] if best_of else DRAWS["normal"][:1])
    targets = critic.target(state, BATCH, actor_of(algorithm.policy, PARAMS), KEY)
    critic_close(gradient(critic.q_loss, state.q.params, targets, BATCH)[2], record)


def test_wsrl_policy_and_temperature(replay):
    """Their temperature is a softplus where ours is an exponential; both slopes are (entropy - target) d alpha."""
    record, (algorithm, state) = RECORD["actor"], started()
    extraction = algorithm.extraction
    aux = extraction.init()
    replay(DRAWS["normal"][1])
    value, metrics, grads = gradient(
        extraction.loss, PARAMS, aux, algorithm.policy, algorithm.critic, state, BATCH, KEY
    )
    assert_close(value, record["loss"])
    assert_close(metrics["entropy"], record["entropy"])
    assert_close(metrics["target_entropy"], -1.0)
    assert_layers_close(grads["network"]["params"], record["grad"])
    record = RECORD["temperature"]
    value, _, slope = gradient(extraction.temperature_loss, aux.params, record["entropy"] + 1.0)
    assert_close(value, record["loss"])
    softplus_slope = 1 / (1 + np.exp(-RECORD["log_multiplier"]))
    assert_close(slope / RECORD["alpha"], record["grad"] / softplus_slope)
