"""Runs whose policy lives outside the compiled code: a NumPy policy, and a torch module where torch is installed."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

import understudy
from understudy.algorithms.external_pa_rl import external_pa_rl
from understudy.data.replay import Buffer
from understudy.data.samplers import Sampler
from understudy.errors import CheckpointError, DivergenceError, SettingsError
from understudy.run import checkpoint, external, programs
from understudy.wrappers import shaped


class Linear:
    """a = W [s, 1] + 0.2 eps in NumPy; fitted by gradient descent with momentum on the weighted squared error."""

    def __init__(self, observation_size: int, action_size: int, rate: float = 0.1):
        self.w = np.zeros((observation_size + 1, action_size), np.float32)
        self.momentum, self.rate, self.calls = np.zeros_like(self.w), rate, []

    def mean(self, observations):
        return np.concatenate([observations, np.ones((len(observations), 1), np.float32)], 1) @ self.w

    def sample(self, observations, n, seed):
        self.calls.append(("sample", len(observations), n, seed))
        noise = np.random.default_rng(seed).normal(size=(len(observations), n, self.w.shape[1]))
        return self.mean(observations)[:, None] + 0.2 * noise.astype(np.float32)

    def fit(self, observations, actions, weights, seed):
        self.calls.append(("fit", actions.copy(), weights.copy(), seed))
        error = self.mean(observations) - actions
        inputs = np.concatenate([observations, np.ones((len(observations), 1), np.float32)], 1)
        self.momentum = 0.5 * self.momentum + inputs.T @ (weights[:, None] * error) / weights.sum()
        self.w = (self.w - self.rate * self.momentum).astype(np.float32)
        return float((weights * (error**2).sum(1)).sum() / weights.sum())

    def state_dict(self):
        return {"w": self.w, "momentum": self.momentum}

    def load_state_dict(self, arrays):
        self.w, self.momentum = arrays["w"].copy(), arrays["momentum"].copy()


def small(policy, action_size=1, **settings):
    """The recipe with small networks and few proposals."""
    algorithm = external_pa_rl(action_size, policy)
    return understudy.registry.adjust(algorithm, {
        "critic.hidden": (16,), "critic.ensemble": 2, "critic.subset": 0, "critic.samples": 2,
        "extraction.samples": 4, "extraction.keep": 2, "extraction.steps": 2, "extraction.step_size": 0.01, **settings,
    })  # fmt: skip


RUN = dict(env="Pendulum-v1", batch_size=8, episodes=1, checkpoint_every=0.0, eval_every=0)


@pytest.fixture(scope="module")
def trained(pendulum, tmp_path_factory):
    """A run of 6 updates offline and 8 steps live."""
    policy, out = Linear(3, 1), tmp_path_factory.mktemp("external") / "run"
    return policy, understudy.train(small(policy), pendulum, out=out, offline=6, online=8, **RUN)


def test_the_policy_proposes_for_every_update_and_is_fitted_live(trained):
    policy, run = trained
    fits = [c for c in policy.calls if c[0] == "fit"]
    assert len(fits) == 8, "none offline, one a live step"
    assert all(f[1].shape == (8, 1) and np.all(f[2] == 1) and np.abs(f[1]).max() <= 1 for f in fits)
    proposed = [c for c in policy.calls if c[0] == "sample"]
    assert [c for c in proposed if c[1] == 16 and c[2] == 4] and len({f[3] for f in fits}) == 8
    assert sum(c[1] == 16 for c in proposed) == 6 + 8, "at s and s' of every update"
    assert np.abs(policy.w).max() > 0
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    imitation = {row["phase"]: row["metrics"]["actor/imitation"][0] for row in rows if "metrics" in row}
    assert imitation["offline"] == 0 and imitation["online"] > 0


def test_it_is_deployed_with_the_policys_arrays(trained):
    policy, run = trained
    fresh = Linear(3, 1)
    with pytest.raises(CheckpointError, match=r"only Python has: understudy.load\('.*', algorithm=THE_OBJECT\)"):
        understudy.load(run.path).policy(np.zeros(3))
    loaded = understudy.load(run.path, algorithm=small(fresh))
    observations = np.linspace(-1, 1, 12).reshape(4, 3).astype(np.float32)
    actions = loaded.policy(observations)
    assert actions.shape == (4, 1) and np.abs(actions).max() <= 1
    assert_close(fresh.w, policy.w)
    assert_close(run.policy(observations), actions)
    assert loaded.evaluate(episodes=1)["episodes"] == 1


def test_a_resumed_run_ends_bitwise_equal(trained, pendulum, tmp_path):
    """Stopped after 3 of 8 live steps and gone on with, by a policy that knows nothing of the first part."""
    half = understudy.train(small(Linear(3, 1)), pendulum, out=tmp_path / "run", offline=6, online=3, **RUN)
    late = Linear(3, 1, rate=0.1)
    late.w += 5.0
    understudy.resume(half.path, online=8, algorithm=small(late))
    one, other = (checkpoint.latest(path)[0] for path in (trained[1].path, half.path))
    assert one.keys() == other.keys() and "external.w" in one and "external.momentum" in one
    assert not [k for k in one if not np.array_equal(one[k], other[k])]


def test_the_report_of_an_object_says_only_what_works(trained):
    text = (trained[1].path / "report.html").read_text()
    assert "# algorithm: the ExternalPARL that it was trained with" in text
    assert "algorithm=algorithm)" in text and "understudy resume" not in text and "understudy evaluate" not in text


@pytest.mark.parametrize("made, message", [
    (lambda b, n: np.zeros((b, 1)), r"Made.sample gave actions \[1, 1\]; asked for 4 at each of 1 observations"),
    (lambda b, n: np.full((b, n, 1), np.nan), "Made.sample gave NaN or infinity, which is the policy's own"),
    (lambda b, n: "actions", r"Made.sample gave str, which NumPy cannot take .*; it must give an array \[1, 4, 1\]"),
    (lambda b, n: np.full((b, n, 1), 7.0), "100% of the actions that Made.sample gave lie outside"),
])  # fmt: skip
def test_what_a_policy_proposes_is_looked_at_before_anything_is_written(made, message, pendulum, tmp_path, capsys):
    class Made:
        def sample(self, observations, n):
            return made(len(observations), n)

        def fit(self, observations, actions, weights):
            pass

    start = lambda: understudy.train(small(Made()), pendulum, out=tmp_path / "run", offline=2, **RUN)
    if "outside" in message:
        start()
        assert message in capsys.readouterr().err
    else:
        with pytest.raises((SettingsError, DivergenceError), match=message):
            start()
        assert not (tmp_path / "run").exists()


class Bare:
    """Two methods and no more: no seed, no loss, nothing to be saved."""

    def __init__(self):
        self.inner, self.count = Linear(3, 1), 0

    def sample(self, observations, n, deterministic=False):
        assert deterministic is False
        self.count += 1
        return self.inner.sample(observations, n, self.count)

    def fit(self, observations, actions, weights):
        self.inner.fit(observations, actions, weights, 0)


def test_two_methods_are_enough_and_what_cannot_be_restored_is_said(pendulum, tmp_path, capsys):
    policy = Bare()
    run = understudy.train(small(policy), pendulum, out=tmp_path / "run", offline=6, online=3, **RUN)
    assert policy.inner.w.any() and not [k for k in checkpoint.latest(run.path)[0] if k.startswith("external")]
    assert "cannot be restored" not in capsys.readouterr().err
    learned = policy.inner.w.copy()
    understudy.resume(run.path, online=6, algorithm=small(policy))
    assert not np.array_equal(policy.inner.w, learned)
    assert "Bare cannot be restored, having no state_dict and load_state_dict" in capsys.readouterr().err


def test_a_run_without_such_a_policy_is_no_beginning_for_one(trained):
    with pytest.raises(CheckpointError, match="has no external policy"):
        external.restore(small(Linear(3, 1)), {"['state'].step": np.zeros(1)})
    assert external.arrays_of(understudy.make("pa_rl", 1)) == {}


def test_several_seeds_and_stored_proposals_of_chunks_are_refused(pendulum, tmp_path):
    with pytest.raises(SettingsError, match="Linear is one policy outside the compiled code: give one seed"):
        understudy.train(small(Linear(3, 1)), pendulum, out=tmp_path / "a", offline=1, seeds=2, **RUN)
    with pytest.raises(
        SettingsError, match="extraction.cached stores proposals of single .* there is a Chunked around"
    ):
        understudy.train("pa_rl", pendulum, out=tmp_path / "b", offline=1,
                         settings={"extraction.cached": True, "chunk": 2}, **RUN)  # fmt: skip


def test_a_policy_outside_improves_on_its_data():
    """A bandit: the policy begins around 0, the better actions lie around 0.6; imitation of optimised actions alone
    brings it there."""
    policy = Linear(1, 1, rate=0.2)
    algorithm = small(policy, **{"critic.learning_rate": 1e-2, "critic.weight": 0.1, "critic.discount": 0.0,
                                 "extraction.samples": 8, "critic.calibrated": False, "fit_from": 50.0})  # fmt: skip
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (256, 1)).astype(np.float32)
    data = dict(observations=np.zeros((256, 1), np.float32), actions=actions, rewards=-((actions[:, 0] - 0.6) ** 2),
                masks=np.zeros(256, np.float32), next_observations=np.zeros((256, 1), np.float32),
                ends=np.ones(256, bool))  # fmt: skip
    keys = programs.seed_keys((0,), programs.UPDATE)
    example = shaped(algorithm, {k: jnp.asarray(v[:1]) for k, v in data.items() if k != "ends"})
    state = programs.initialise(algorithm, keys, example)
    calls, names = external.programs_of(algorithm), ("critic/q", "actor/imitation", "actor/gain")
    sources = {"prior": Buffer.full(data)}
    state, total, bad = calls.chunk(algorithm, state, sources, None, Sampler(batch_size=64), keys, 0, 150, {}, names)
    assert (bad == programs.NEVER).all() and total.shape == (1, 3)
    assert abs(policy.mean(np.zeros((1, 1), np.float32)).item() - 0.6) < 0.25
    lanes = np.zeros((1, 5, 1), np.float32)
    acted = calls.Player(algorithm, state, keys)(lanes, 0, np.ones((1, 5), bool))
    assert acted.shape == (1, 5, 1) and np.abs(acted - 0.6).max() < 0.3
