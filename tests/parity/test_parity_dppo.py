"""DPPO against recorded numbers of the authors' program (README.md beside this file)."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_diffusion import NETS, assert_trees_close, plain
from test_parity import BATCH, HIDDEN, KEY, A, assert_close, gradient

from understudy.algorithms.dppo import DPPO, DPPOState
from understudy.core import Net
from understudy.policies.diffusion import Diffusion

RECORD = json.loads(pathlib.Path(__file__).with_name("dppo.json").read_text())["dppo"]
DRAWS = {k: np.array(v) for k, v in RECORD["inputs"].items()}
ALGORITHM = DPPO(policy=Diffusion(action_size=A, hidden=HIDDEN, time_size=4, schedule="cosine"), fine_tuned=3,
                 min_std=0.15, noise_clip=2.0, denoising_discount=0.9, clip=0.05, first_clip=0.01)  # fmt: skip
scaled = lambda factor: jax.tree.map(lambda x: factor * x, plain(NETS))
STATE = DPPOState(actor=Net(params=scaled(0.9), opt=()), base=scaled(1.0), value=None, old=None, rollout=None, turn=0)


@pytest.mark.parametrize("greedy", [False, True])
def test_what_it_plays(replay, greedy):
    replay(DRAWS["start"], DRAWS["noise"])
    actions, carry = ALGORITHM.act(STATE, BATCH["observations"], KEY, greedy=greedy)
    assert_close(actions, np.clip(RECORD["greedy" if greedy else "actions"], -1, 1))
    if not greedy:
        assert_close(carry["chain"], RECORD["chain"])


def test_policy_gradient():
    """Advantages are normalised over pairs there, with n - 1."""
    chain, advantages = jnp.asarray(RECORD["chain"], jnp.float32), np.repeat(DRAWS["advantages"], 3)
    advantages = ((advantages - advantages.mean()) / advantages.std(ddof=1))[::3]
    mean = np.clip(RECORD["log_probs"], -5, 2).mean(-1)
    assert_close(ALGORITHM.log_probs(scaled(0.9), BATCH["observations"], chain), mean)
    batch = BATCH | {"chain": chain, "advantages": jnp.asarray(advantages, jnp.float32)}
    value, metrics, grads = gradient(ALGORITHM.policy_loss, scaled(1.1), scaled(0.9), batch, KEY)
    assert_close(value, RECORD["loss"])
    assert_close(metrics["clipped"], RECORD["clipped"])
    assert_trees_close(grads, plain(RECORD["grad"]))
