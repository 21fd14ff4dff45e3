"""Categorical value heads against recorded numbers of reference implementations (README.md beside this file)."""

from __future__ import annotations

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from understudy.critics import TD

RECORD = json.loads(pathlib.Path(__file__).with_name("heads.json").read_text())
INPUTS = {k: jnp.asarray(v) if isinstance(v, list) else v for k, v in RECORD["inputs"].items()}
RANGE = {k: INPUTS[k] for k in ("v_min", "v_max", "bins")}


def assert_close(ours, recorded, atol=1e-6):
    np.testing.assert_allclose(np.asarray(ours), np.array(recorded), rtol=0, atol=atol)


def test_hl_gauss():
    """The reference divides by sqrt(2) sigma and then takes the normal CDF, not erf: its Gaussian is sqrt(2) wider."""
    record, critic = RECORD["hl_gauss"], TD(head="hl_gauss", sigma_ratio=0.75 * math.sqrt(2), **RANGE)
    assert_close(critic.project(INPUTS["targets"]), record["probabilities"])
    assert_close(critic.values(INPUTS["logits"]), record["values"], 5e-6)
    loss = lambda logits: critic.regress(logits, INPUTS["targets"])[0]
    value, grad = jax.value_and_grad(loss)(INPUTS["logits"])
    assert_close(value, 2 * record["loss"], 5e-6)  # theirs is a mean over the two networks
    assert_close(grad, 2 * np.array(record["grad"]))


def test_two_hot():
    record, critic = RECORD["two_hot"], TD(head="two_hot", **RANGE)
    assert_close(critic.project(INPUTS["targets"]), record["probabilities"], 1e-5)  # rlax widens the range by 1e-5
    assert_close(critic.values(INPUTS["logits"]), record["values"], 1e-5)
