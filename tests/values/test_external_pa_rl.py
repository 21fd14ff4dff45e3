"""PA-RL around a policy outside: its compiled part by hand, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

from understudy.algorithms.external_pa_rl import external_pa_rl
from understudy.algorithms.pa_rl import ActionOptimisation
from understudy.algorithms.sac import SoftTD
from understudy.critics import TD
from understudy.errors import SettingsError
from understudy.policies.external import Held
from understudy.run import external

KEY = jax.random.key(0)


class Constant:
    """The same proposals at every observation, and nothing to learn."""

    def __init__(self, *proposals):
        self.proposals = np.asarray(proposals, np.float32)

    def sample(self, observations, n, seed):
        return np.stack([self.proposals] * len(observations))

    def fit(self, observations, actions, weights, seed):
        return 0.0

    def state_dict(self):
        return {}

    def load_state_dict(self, arrays):
        assert arrays == {}


def test_an_update_optimises_the_given_proposals(linear, batch):
    algorithm = dataclasses.replace(
        external_pa_rl(2, Constant()), critic=TD(hidden=(), ensemble=1, discount=1.0, learning_rate=0.0),
        extraction=ActionOptimisation(samples=2, keep=2, steps=1, step_size=0.1, distil="best", cached=True),
    )  # fmt: skip
    given = batch | {"candidates": jnp.array([[[0.1, 0.0], [0.6, 0.0]], [[0.3, 0.0], [0.2, 0.0]]]),
                     "next_candidates": jnp.array([[[0.5, 0.0], [0.4, 0.0]], [[0.0, 0.0], [0.1, 0.0]]])}  # fmt: skip
    state = algorithm.init(KEY, given)
    weights = linear(state.critic.target, [0, 0, 0, 1, 0])  # Q(s, a) = a_0
    critic = dataclasses.replace(state.critic, q=dataclasses.replace(state.critic.q, params=weights), target=weights)
    state = dataclasses.replace(state, critic=critic)
    after, metrics, targets, weight = algorithm.improve(state, given, KEY)
    assert_close(targets[0, :, 0], [0.7, 0.4])  # the better proposal, or the recorded action, and a step of 0.1
    assert_close(weight, np.ones((1, 2)))
    assert_close(
        metrics["critic/target"], (1 + 0.6 + 2.0) / 2
    )  # 0.5 + 0.1 is backed up, and nothing after a termination
    assert_close(metrics["actor/gain"], (0.7 - 0.35 + 0.4 - 0.25) / 2)
    assert int(after.step) == 1
    acted, carry = algorithm.act(state, {"observations": batch["observations"], "candidates": given["candidates"]}, KEY)
    assert_close(acted[:, 0], [0.7, 0.4])
    assert carry == ()


def test_what_cannot_work_is_refused(batch):
    with pytest.raises(SettingsError, match="Lambda has no fit; an external policy"):
        Held(type("Lambda", (), {"sample": None})())
    algorithm = dataclasses.replace(external_pa_rl(2, Constant()), critic=SoftTD())
    with pytest.raises(SettingsError, match="SoftTD needs a policy with sample_and_log_prob, which an external"):
        algorithm.init(KEY, batch | {"candidates": jnp.zeros((2, 4, 2)), "next_candidates": jnp.zeros((2, 4, 2))})
    with pytest.raises(SettingsError, match=r"Constant.sample gave actions \[3, 4, 1\]; asked for 4 .* \[3, 4, 2\]"):
        external.propose(Constant(*[[0.0]] * 4), np.zeros((3, 3), np.float32), 4, 2, 0)


def test_proposals_are_cut_at_the_bounds():
    cut = external.propose(Constant([9.0], [-2.0], [0.5]), np.zeros((2, 1), np.float32), 3, 1, 0)
    assert_close(cut, [[[1.0], [-1.0], [0.5]]] * 2)


def test_seeds_depend_on_key_stream_and_number():
    keys = [jax.random.key(0), jax.random.key(1)]
    seeds = {external.seed_of(k, stream, i) for k in keys for stream in (1, 2) for i in range(5)}
    assert len(seeds) == 20 and external.seed_of(keys[0], 1, 3) == external.seed_of(jax.random.key(0), 1, 3)


def test_a_policy_without_arrays_has_none_in_checkpoints():
    algorithm = external_pa_rl(1, Constant())
    assert external.arrays_of(algorithm) == {}
    external.restore(algorithm, {"other": np.zeros(1)})
