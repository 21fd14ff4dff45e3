"""Mixture, diffusion, shortcut and Heun's flow: numbers by hand, exact denoisers, and what each learns of two modes."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

from understudy.core import adam, descend, net
from understudy.errors import SettingsError
from understudy.networks import LNResNet
from understudy.policies.diffusion import Diffusion, signal
from understudy.policies.flow import Flow
from understudy.policies.mixture import Mixture
from understudy.policies.shortcut import Shortcut

KEY = jax.random.key(0)
LOG_2PI = math.log(2 * math.pi)
HALF = 0.5 * math.log(3)  # tanh(HALF) = 1/2


def start(policy, batch_size=2):
    """Fresh parameters and observations [B, 3]."""
    observations = jnp.ones((batch_size, 3))
    return policy.init(KEY, observations, jnp.zeros((batch_size, policy.action_size))), observations


def always(params, values):
    """A denoiser (without hidden layers) that finds the given noise, whatever it sees."""
    params = jax.tree.map(jnp.zeros_like, params)
    params["params"]["MLP_0"]["Dense_0"]["bias"] += jnp.asarray(values)
    return params


# --- Mixture ------------------------------------------------------------------------------------------------------
def test_mixture_density_mode_and_samples_by_hand(constant):
    policy = Mixture(action_size=1, hidden=(4,), components=2, log_std_min=-3.0)
    params, s = start(policy, 20_000)
    params = constant(params, [math.log(0.25), math.log(0.75), HALF, 0.0, -HALF, -9.0])  # logits, then (mean, log std)
    _, mean, log_std = policy.parts(params, s[:1])
    assert_close(mean, [[[0.5], [-0.5]]])
    assert_close(log_std, [[[0.0], [-3.0]]])
    assert_close(policy.mode(params, s[:2]), [[-0.5], [-0.5]])
    at_half = math.log(0.25) - 0.5 * LOG_2PI  # the narrow component is 20 deviations away
    narrow = 0.25 * math.exp(-0.5) + 0.75 * math.exp(3.0)
    expected = [at_half, math.log(narrow) - 0.5 * LOG_2PI]
    assert_close(policy.log_prob(params, s[:2], jnp.array([[0.5], [-0.5]])), expected)
    assert_close(policy.loss(params, s[:2], jnp.array([[0.5], [-0.5]]), KEY), [-x for x in expected])
    assert float(jnp.abs(policy.sample(params, s, KEY)).max()) == 1.0
    narrow = constant(params, [math.log(0.25), math.log(0.75), HALF, -9.0, -HALF, -9.0])
    samples = policy.sample(narrow, s, KEY)
    assert_close((samples < 0).mean(), 0.75, atol=0.01)
    assert_close(samples[samples < 0].mean(), -0.5, atol=0.002)
    assert_close(samples[samples < 0].std(), math.exp(-3), atol=0.001)


# --- Flow ---------------------------------------------------------------------------------------------------------
def test_heun_is_exact_where_the_velocity_is_linear_in_time(linear):
    policy = Flow(action_size=1, hidden=(), steps=4, solver="heun")
    params, s = start(policy)
    in_time = linear(params, [0, 0, 0, 0, 0.8])  # v = 0.8 t over inputs [s s s x t]
    assert_close(policy.latent(in_time, s, jnp.zeros((2, 1))), [[0.4]] * 2)
    decay = linear(params, [0, 0, 0, -1, 0])  # v = -x: a step is 1 - h + h^2 / 2
    assert_close(policy.latent(decay, s, jnp.ones((2, 1))), [[(1 - 0.25 + 0.03125) ** 4]] * 2)


def test_gradients_pass_through_every_step_of_a_flow(linear):
    policy = Flow(action_size=1, hidden=(), steps=4)
    params, s = start(policy, 1000)
    params = linear(params, [0, 0, 0, -1, 0])  # with v = -x + b the actions are .75^4 z + (1 - .75^4) b
    slope = jax.grad(lambda p: policy.rsample(p, s, KEY).mean())(params)["params"]["Dense_0"]["bias"]
    inside = (jnp.abs(policy.sample(params, s, KEY)) < 1).mean()
    assert_close(slope, [float(inside) * (1 - 0.75**4)], rtol=1e-4)


# --- Diffusion ----------------------------------------------------------------------------------------------------
def test_schedules_by_hand():
    f = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    assert_close(signal("cosine", 2), [f(0.5) / f(0), 0.001 * f(0.5) / f(0)])  # the last beta is cut to .999
    assert_close(signal("vp", 2), [math.exp(-0.05 - 4.95 / 4), math.exp(-5.05)])
    linear = signal("linear", 1000)
    assert_close(
        [linear[0], linear[1], linear[-1] / linear[-2]], [1 - 1e-4, (1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999), 0.98]
    )
    assert_close(linear[-1], 4e-5, rtol=0.02)  # Ho et al. 2020
    assert_close(signal("linear", 100)[0], 1 - 1e-3)


VP = signal("vp", 2)


def test_a_ddim_chain_by_hand():
    policy = Diffusion(action_size=1, hidden=(), steps=2, sampler="ddim", clip="none")
    params, s = start(policy)
    params = always(params, 0.3)
    x = jnp.array([[0.32], [0.5]])
    b = math.sqrt(1 - VP[1])
    a = (np.array([[0.32], [0.5]]) - 0.3 * b) / math.sqrt(VP[1])  # .262 and 2.51; constant noise leads straight there
    assert_close(policy.latent(params, s, x), np.clip(a, -1, 1), rtol=1e-4)
    # With the action so far cut to 1, the noise is what then remains of x.
    eps = (0.5 - math.sqrt(VP[1])) / b
    between = math.sqrt(VP[0]) + math.sqrt(1 - VP[0]) * eps
    last = (between - math.sqrt(1 - VP[0]) * 0.3) / math.sqrt(VP[0])
    assert last > 1
    clipped = dataclasses.replace(policy, clip="action")
    assert_close(clipped.latent(params, s, x), [[float(a[0, 0])], [1.0]], rtol=1e-4)
    # Cutting x instead bounds the second row at 1 in between.
    noisy = dataclasses.replace(policy, clip="noisy")
    last = (1 - math.sqrt(1 - VP[0]) * 0.3) / math.sqrt(VP[0])
    assert_close(noisy.latent(params, s, x), [[float(a[0, 0])], [min(last, 1.0)]], rtol=1e-4)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_a_ddpm_chain_by_hand(variance):
    """Against the posterior mean and variance as Ho et al. write them (eq. 7)."""
    policy = Diffusion(action_size=1, hidden=(), steps=2, variance=variance, temperature=0.5)
    params, s = start(policy, 1)
    beta = 1 - VP[1] / VP[0]
    a = (0.31 - math.sqrt(1 - VP[1]) * 0.3) / math.sqrt(VP[1])
    mean = math.sqrt(VP[0]) * beta / (1 - VP[1]) * a + math.sqrt(1 - beta) * (1 - VP[0]) / (1 - VP[1]) * 0.31
    sigma = math.sqrt(beta * ((1 - VP[0]) / (1 - VP[1]) if variance == "posterior" else 1))
    between = mean + 0.5 * sigma * 0.2
    last = (between - math.sqrt(1 - VP[0]) * 0.3) / math.sqrt(VP[0])
    assert -1 < a < 1 and -1 < last < 1
    noise = jnp.array([0.2, 100.0]).reshape(2, 1, 1)  # none of the last is used
    assert_close(policy.chain(always(params, 0.3), s, jnp.array([[0.31]]), noise), [[last]], rtol=1e-4)


def test_fewer_steps_are_spread_evenly_and_start_at_the_last():
    visits = lambda steps, few: Diffusion(action_size=1, steps=steps, sample_steps=few).visits.tolist()
    assert visits(10, 3) == [2, 6, 9]
    assert visits(4, 2) == [1, 3]
    assert visits(3, 0) == [0, 1, 2]
    with pytest.raises(SettingsError, match="policy.sample_steps is 6; give at most policy.steps 5"):
        start(Diffusion(action_size=1, sample_steps=6))


class Exact(Diffusion):
    """The denoiser of actions N(0.3, 0.1^2): E[eps | x_t] = sqrt(1 - abar) (x - sqrt(abar) m) / (abar v + 1 - abar)."""

    variance_of_actions = 0.01

    @property
    def denoiser(self):
        return self

    def apply(self, params, observations, x, t, **_):
        kept = jnp.asarray(signal(self.schedule, self.steps), jnp.float32)[t.astype(int)]
        spread = kept * self.variance_of_actions + 1 - kept
        return jnp.sqrt(1 - kept) * (x - jnp.sqrt(kept) * 0.3) / spread


@pytest.mark.parametrize(
    "settings",
    [{"schedule": "cosine"}, {"schedule": "vp"}, {"schedule": "linear"}, {"variance": "beta", "schedule": "cosine"},
     {"sampler": "ddim", "schedule": "cosine"}, {"sampler": "ddim", "schedule": "cosine", "sample_steps": 500}],
    ids=str,
)  # fmt: skip
def test_with_the_exact_denoiser_the_samples_have_the_moments_of_the_actions(settings):
    policy = Exact(action_size=1, steps=1000, **settings)
    samples = policy.sample((), jnp.ones((20_000, 3)), KEY)
    assert_close(samples.mean(), 0.3, atol=0.005)
    assert_close(samples.std(), 0.1, atol=0.005)  # a chain of S steps errs in order 1 / S


def test_denoising_finds_the_noise_that_was_put_in():
    policy = Diffusion(action_size=1, hidden=())
    params, s = start(policy, 20_000)
    actions = jnp.full((20_000, 1), 0.3)
    loss = policy.loss(always(params, 0.5), s, actions, KEY)
    assert loss.shape == (20_000,)
    assert_close(loss.mean(), 1.25, atol=0.03)  # E (.5 - eps)^2
    sure = Exact(action_size=1, steps=20)
    sure.__class__ = type("Sure", (Exact,), {"variance_of_actions": 0.0})  # every action is 0.3
    assert_close(sure.loss((), s, actions, KEY), np.zeros(20_000), atol=1e-6)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_gradients_pass_through_every_step_of_a_diffusion(sampler):
    policy = Diffusion(action_size=1, hidden=(), steps=3, schedule="cosine", sampler=sampler, clip="none")
    params, s = start(policy, 4)
    shifted = lambda b: policy.rsample(always(params, b), s, KEY)
    low, high = shifted(-0.2), shifted(-0.19)
    inside = (jnp.abs(low) < 1) & (jnp.abs(high) < 1)
    slope = jax.vmap(jax.grad(lambda b, i: shifted(b)[i, 0]), (None, 0))(-0.195, jnp.arange(4))
    assert_close(jnp.where(inside[:, 0], slope, 0), jnp.where(inside, (high - low) / 0.01, 0)[:, 0], rtol=1e-2)


def test_dropout_is_of_training_only():
    policy = Diffusion(action_size=1, hidden=(8, 8), network="ln_resnet", dropout=0.5)
    params, s = start(policy, 64)
    dry = dataclasses.replace(policy, dropout=0.0)
    assert_close(policy.sample(params, s, KEY), dry.sample(params, s, KEY))
    losses = [p.loss(params, s, jnp.zeros((64, 1)), KEY) for p in (policy, dry)]
    assert float(jnp.abs(losses[0] - losses[1]).max()) > 1e-3


def test_residual_blocks_by_hand():
    """One block of width 1 on one input: LN of a single number is its bias."""
    network = LNResNet(1, (1,), "relu")
    params = jax.tree.map(jnp.zeros_like, network.init(KEY, jnp.ones((1, 1))))["params"]
    params["Dense_0"]["kernel"] += 2.0  # x = 2 * 3 = 6
    params["LayerNorm_0"]["bias"] += 0.5
    params["Dense_1"]["kernel"] += jnp.array([[1.0, 2.0, -1.0, 0.0]])  # relu: .5, 1, 0, 0
    params["Dense_2"]["kernel"] += 1.0  # 1.5
    params["Dense_3"]["kernel"] += 10.0
    assert_close(network.apply({"params": params}, jnp.array([[3.0]])), [[75.0]])
    uneven = LNResNet(2, (4, 6), "relu")
    x = jnp.ones((3, 5))
    assert uneven.apply(uneven.init(KEY, x), x).shape == (3, 2)


# --- Shortcut -----------------------------------------------------------------------------------------------------
def test_shortcut_takes_a_power_of_two_steps_and_tells_their_size(linear):
    policy = Shortcut(action_size=1, hidden=(), halvings=4, sample_halvings=2)
    params, s = start(policy)
    in_time = linear(params, [0, 0, 0, 0, 0.8, 0])  # v = 0.8 t over inputs [s s s x t level]
    assert_close(policy.latent(in_time, s, jnp.zeros((2, 1))), [[0.3]] * 2)
    by_level = linear(params, [0, 0, 0, 0, 0, 1])  # v = 2 / 4
    assert_close(policy.latent(by_level, s, jnp.full((2, 1), 0.25)), [[0.75]] * 2)
    with pytest.raises(SettingsError, match="policy.sample_halvings is 5; give at most policy.halvings 4"):
        start(Shortcut(action_size=1, halvings=4, sample_halvings=5))


def test_a_shortcut_is_worth_two_of_half_its_size(linear):
    policy = Shortcut(action_size=1, hidden=(), halvings=4)
    params, s = start(policy)
    params = linear(params, [0, 0, 0, -1, 2, 4])  # v = -x + 2 t + level
    x, t, level = jnp.array([[1.0], [0.4]]), jnp.array([[0.0], [0.5]]), jnp.array([[0], [1]])
    first = [0.0, 2.6]  # -1 + 0 + 1; -.4 + 1 + 2
    second = [-(1 + 0.5 * 0.0) + 1 + 1, -(0.4 + 0.25 * 2.6) + 1.5 + 2]
    jump = lambda p: policy.jump(p, s, x, t, level)
    assert_close(jump(params), [[(f + g) / 2] for f, g in zip(first, second)])
    grads = jax.grad(lambda p: jump(p).sum())(params)
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(grads))


def test_one_row_in_four_learns_to_jump(constant):
    policy = Shortcut(action_size=1, hidden=())
    params, s = start(policy, 40_000)
    loss = policy.loss(constant(params, 0.2), s, jnp.full((40_000, 1), 0.5), KEY)
    assert loss.shape == (40_000,)
    assert_close(loss[::4], np.zeros(10_000))  # two halves of a constant velocity are that velocity
    assert_close(loss.reshape(-1, 4)[:, 1:].mean(), 0.09 + 1.0, atol=0.03)  # E (.2 - (.5 - z))^2


def test_times_are_multiples_of_the_step():
    seen = []

    class Spy(Shortcut):
        def velocity(self, params, observations, x, t, level):
            seen.append((np.asarray(t), np.asarray(level)))
            return jnp.zeros_like(x)

    Spy(action_size=1, halvings=3, every=2).loss((), jnp.ones((4000, 3)), jnp.zeros((4000, 1)), KEY)
    (t1, level1), (t2, level2), (t, level) = seen
    assert (level[1::2] == 3).all() and set(np.unique(level[::2])) == {0, 1, 2}
    for k in range(4):
        assert set(np.unique(t[level == k])) == {i / 2**k for i in range(2**k)}
    assert (level1 == level[::2] + 1).all() and (level2 == level1).all()
    assert_close(t2 - t1, 0.5 ** level1.astype(float))


# --- what they learn ----------------------------------------------------------------------------------------------
SMALL = {"action_size": 1, "hidden": (64, 64)}


@pytest.mark.parametrize(
    "policy",
    [Mixture(**SMALL), Diffusion(**SMALL, steps=20, schedule="cosine"), Flow(**SMALL, solver="heun", steps=5),
     Shortcut(**SMALL)],
    ids=lambda p: type(p).__name__,
)  # fmt: skip
def test_two_modes_are_learned_with_their_weights(policy):
    """70 % of the actions at 0.5, 30 % at -0.5, deviation 0.05: the shares within 0.06, 85 % of samples within 0.2."""
    rows, updates = 256, 4000
    optimiser, s = adam(3e-3, updates, 0.0), jnp.ones((4000, 1))

    def step(state, key):
        key_mode, key_noise, key_loss = jax.random.split(key, 3)
        mode = jnp.where(jax.random.uniform(key_mode, (rows, 1)) < 0.7, 0.5, -0.5)
        actions = mode + 0.05 * jax.random.normal(key_noise, (rows, 1))
        return descend(state, optimiser, lambda p: (policy.loss(p, s[:rows], actions, key_loss).mean(), {}))

    fresh = net(policy.init(KEY, s, s), optimiser)
    trained, _ = jax.jit(lambda x: jax.lax.scan(step, x, jax.random.split(KEY, updates)))(fresh)
    samples = policy.sample(trained.params, s, jax.random.key(1))
    assert_close((samples > 0).mean(), 0.7, atol=0.06)
    assert float((jnp.minimum(jnp.abs(samples - 0.5), jnp.abs(samples + 0.5)) < 0.2).mean()) > 0.85
