"""A torch module as the policy of a run: a small diffusion policy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from asserting import assert_close

import understudy
from understudy.algorithms.external_pa_rl import external_pa_rl
from understudy.errors import CheckpointError, SettingsError
from understudy.policies.torch_policy import TorchPolicy
from understudy.run import checkpoint

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed: pip install understudy[torch]")


def test_where_torch_is_absent_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SettingsError, match=r"TorchPolicy needs torch; install it with: pip install"):
        TorchPolicy(None)


@needs_torch
def test_a_module_that_cannot_be_one_is_refused():
    with pytest.raises(SettingsError, match="takes a torch.nn.Module with sample and loss; got str"):
        TorchPolicy("x")
    with pytest.raises(SettingsError, match="; Linear has no sample and no loss"):
        TorchPolicy(torch.nn.Linear(2, 2))

    class Meaned(type(diffusion(3, 2))):
        def loss(self, observations, actions):
            return super().loss(observations, actions).mean()

    with pytest.raises(SettingsError, match=r"Meaned.loss gave \[\]; it must give one loss for each of the 5 actions"):
        TorchPolicy(Meaned()).fit(*(np.zeros((5, n), np.float32) for n in (3, 2)), np.ones(5, np.float32), 0)


def diffusion(observation_size: int, action_size: int, steps: int = 4, seed: int = 0):
    """DDPM with a linear schedule and an MLP with dropout."""
    torch.manual_seed(seed)

    class Diffusion(torch.nn.Module):
        def __init__(self):
            super().__init__()
            inputs = observation_size + action_size + 1
            self.network = torch.nn.Sequential(
                torch.nn.Linear(inputs, 32), torch.nn.SiLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, action_size)
            )
            self.register_buffer("betas", torch.linspace(0.1, 0.7, steps))

        def noise(self, observations, x, t):
            return self.network(torch.cat([observations, x, (t[:, None] / steps).to(x.dtype)], -1))

        def loss(self, observations, actions):
            kept = torch.cumprod(1 - self.betas, 0)
            t = torch.randint(steps, (len(actions),))
            noise, k = torch.randn_like(actions), kept[t][:, None]
            noisy = k.sqrt() * actions + (1 - k).sqrt() * noise
            return ((self.noise(observations, noisy, t.float()) - noise) ** 2).sum(-1)

        def sample(self, observations, n):
            many = observations.repeat_interleave(n, 0)
            kept, x = torch.cumprod(1 - self.betas, 0), torch.randn(len(many), action_size, dtype=many.dtype)
            for t in reversed(range(steps)):
                noise = self.noise(many, x, torch.full((len(many),), float(t)))
                x = (x - self.betas[t] / (1 - kept[t]).sqrt() * noise) / (1 - self.betas[t]).sqrt()
                x = x + (t > 0) * self.betas[t].sqrt() * torch.randn_like(x)
            return x.reshape(-1, n, action_size)

    return Diffusion()


@needs_torch
def test_a_seed_decides_what_is_sampled_and_torchs_own_is_left_alone():
    policy, observations = TorchPolicy(diffusion(3, 2)), np.zeros((5, 3), np.float32)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, again, other = (policy.sample(observations, 4, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.shape == (5, 4, 2) and first.dtype == np.float32 and np.isfinite(first).all()
    assert_close(first, again)
    assert np.abs(first - other).max() > 0.1


@needs_torch
def test_fitting_weighs_the_rows():
    class Point(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.at = torch.nn.Parameter(torch.zeros(1))

        def loss(self, observations, actions):
            return ((actions - self.at * observations["s"]) ** 2).sum(-1)

        def sample(self, observations, n):
            raise AssertionError("fitting samples nothing")

    module = Point()
    policy = TorchPolicy(module, torch.optim.SGD(module.parameters(), lr=0.1))
    observations = {"s": np.ones((3, 1), np.float32)}
    actions, weights = np.array([[1.0], [0.5], [9.0]], np.float32), np.array([1.0, 3.0, 0.0], np.float32)
    assert_close(policy.fit(observations, actions, weights, 0), (1 * 1 + 3 * 0.25) / 4)
    assert_close(module.at.detach(), [0.1 * 2 * (1 * 1 + 3 * 0.5) / 4])


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saved_without_pickle_and_loaded_it_goes_on_bitwise(tmp_path, dtype):
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(8, 3)).astype(np.float32), rng.uniform(-1, 1, (8, 2)).astype(np.float32))
               for _ in range(6)]  # fmt: skip

    class Cast(torch.nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.inner = diffusion(3, 2, seed=seed).to(getattr(torch, dtype))

        def loss(self, observations, actions):
            like = self.inner.betas.dtype
            return self.inner.loss(observations.to(like), actions.to(like))

        def sample(self, observations, n):
            return self.inner.sample(observations.to(self.inner.betas.dtype), n)

    def fit(policy, which):
        for i in which:
            policy.fit(*batches[i], np.ones(8, np.float32), seed=i)

    one, other = TorchPolicy(Cast(0)), TorchPolicy(Cast(1))
    fit(one, range(3))
    digest = checkpoint.write_arrays(tmp_path / "policy.safetensors", one.state_dict())
    other.load_state_dict(checkpoint.read_arrays(tmp_path / "policy.safetensors", digest))
    fit(one, range(3, 6))
    fit(other, range(3, 6))
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys() and any(k.startswith("optimiser.") for k in a)
    assert not [k for k in a if not np.array_equal(a[k], b[k])]
    with pytest.raises(CheckpointError, match="has other parameters than this one"):
        TorchPolicy(diffusion(2, 2)).load_state_dict(a)


@needs_torch
def test_a_run_with_a_torch_policy_resumes_bitwise(pendulum, tmp_path):
    def algorithm(seed):
        torch.set_num_threads(1)
        settings = {"critic.hidden": (16,), "critic.ensemble": 2, "critic.subset": 0, "critic.samples": 2,
                    "extraction.samples": 4, "extraction.keep": 2, "extraction.distil": "all"}  # fmt: skip
        return understudy.registry.adjust(external_pa_rl(1, TorchPolicy(diffusion(3, 1, seed=seed))), settings)

    run = dict(env="Pendulum-v1", batch_size=8, episodes=1, checkpoint_every=0.0, eval_every=0, offline=4)
    whole = understudy.train(algorithm(0), pendulum, out=tmp_path / "whole", online=6, **run)
    half = understudy.train(algorithm(0), pendulum, out=tmp_path / "half", online=2, **run)
    understudy.resume(half.path, online=6, algorithm=algorithm(5))
    one, other = (checkpoint.latest(path)[0] for path in (whole.path, half.path))
    assert one.keys() == other.keys() and any(k.startswith("external.optimiser.") for k in one)
    assert not [k for k in one if not np.array_equal(one[k], other[k])]
    assert whole.policy(np.zeros((2, 3), np.float32)).shape == (2, 1)
