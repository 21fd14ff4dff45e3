"""Advantages, losses and gradients of PPO against recorded numbers of CleanRL's (README.md beside this file)."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from test_parity import HIDDEN, KEY, NETS, A, assert_close, assert_layers_close, gaussian_params, gradient, mlp

from understudy.algorithms.ppo import PPO
from understudy.policies.gaussian import Gaussian

RECORD = json.loads(pathlib.Path(__file__).with_name("ppo.json").read_text())
PLAYED = {k: jnp.asarray(RECORD[k], jnp.float32) for k in ("observations", "actions", "rewards", "ends")}
STEPS, LANES = PLAYED["rewards"].shape
PARAMS = gaussian_params()  # the policy that learns
OLD = PARAMS | {"network": mlp([*NETS["actor"][:2], RECORD["old_last"]], False)}  # the policy that played
UNBIASED = np.sqrt(1 - 1 / (STEPS * LANES))  # theirs divides the advantages' variance by their number less one


def begun():
    """PPO with the recorded networks and rollout, where its first update is: the batch is the whole rollout."""
    policy = Gaussian(action_size=A, hidden=HIDDEN, activation="tanh", tanh_mean=False)
    algorithm = PPO(policy=policy, discount=0.9, trace=0.8, hidden=HIDDEN, steps_per_rollout=STEPS, lanes=LANES,
                    epochs=1, minibatches=1)  # fmt: skip
    state = algorithm.init(KEY, {k: PLAYED[k][0] for k in ("observations", "actions")})
    state = dataclasses.replace(state, actor=dataclasses.replace(state.actor, params=OLD),
                                value=dataclasses.replace(state.value, params=mlp(NETS["v"], False)))  # fmt: skip
    for t in range(STEPS):
        slot = {k: v[t] for k, v in PLAYED.items()}
        slot |= {"next_observations": PLAYED["observations"][t + 1], "masks": 1 - slot["ends"]}
        state = algorithm.observe(state, slot)
    return algorithm, algorithm.begin(state)


def test_ppo_advantages():
    """Two of the three lanes end, by terminations; theirs takes a time-out for one."""
    _, state = begun()
    assert_close(state.rollout.advantages, RECORD["advantages"])
    assert_close(state.rollout.returns, RECORD["returns"])


def test_ppo_losses():
    algorithm, state = begun()
    _, batch = state.rollout.minibatch(0, 1, KEY)
    value, metrics, grads = gradient(algorithm.policy_loss, PARAMS, state.old, batch, KEY)
    assert_close(UNBIASED * metrics["surrogate"], RECORD["surrogate"])
    assert_close(value, -metrics["surrogate"])
    assert_close(metrics["clipped"], RECORD["clipped"])
    grads = jax.tree.map(lambda g: UNBIASED * g, grads)
    assert_layers_close(grads["network"]["params"], RECORD["actor_grad"]["layers"])
    assert_close(grads["log_std"], RECORD["actor_grad"]["log_std"])
    value, _, grads = gradient(algorithm.value_loss, state.value.params, batch)
    assert_close(value, 2 * RECORD["value_loss"])
    assert_layers_close(jax.tree.map(lambda g: g / 2, grads["params"]), RECORD["value_grad"])
