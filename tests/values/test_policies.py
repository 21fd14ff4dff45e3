"""Each policy class with a network of known output."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from asserting import assert_close

from understudy.errors import SettingsError
from understudy.policies.deterministic import Deterministic
from understudy.policies.diffusion import Diffusion
from understudy.policies.flow import Flow
from understudy.policies.gaussian import Gaussian
from understudy.policies.mixture import Mixture
from understudy.policies.one_step_flow import OneStepFlow
from understudy.policies.shortcut import Shortcut
from understudy.policies.tanh_gaussian import TanhGaussian
from understudy.policies.tokens import CoarseToFine, Tokens

KEY = jax.random.key(0)
LOG_2PI = math.log(2 * math.pi)
HALF = 0.5 * math.log(3)  # tanh(HALF) = 1/2


def run(method, *args):
    """method(*args), compiled whole: op by op takes longer."""
    return jax.jit(method)(*args)


def start(policy, batch_size=2):
    """Fresh parameters and observations [B, 3]."""
    observations = jnp.ones((batch_size, 3))
    return run(policy.init, KEY, observations, jnp.zeros((batch_size, policy.action_size))), observations


# --- Gaussian -----------------------------------------------------------------------------------------------------
def test_gaussian_with_a_constant_deviation(constant):
    policy = Gaussian(action_size=2, hidden=(4,), deviation="constant", std=2.0)
    params, s = start(policy)
    params["network"] = constant(params["network"], [HALF, 0.0])
    assert_close(policy.mode(params, s), [[0.5, 0.0]] * 2)
    actions = jnp.array([[0.5, 0.0], [0.5, 1.0]])  # at the mean; half a deviation off in one dimension
    expected = [-LOG_2PI - 2 * math.log(2), -LOG_2PI - 2 * math.log(2) - 0.125]
    assert_close(policy.log_prob(params, s, actions), expected)
    assert_close(policy.loss(params, s, actions, KEY), [-x for x in expected])


def test_gaussian_with_a_learned_deviation_clips_it(constant):
    policy = Gaussian(action_size=1, hidden=(4,), deviation="learned", log_std_min=-1.0, log_std_max=0.5)
    params, s = start(policy)
    assert params["log_std"].shape == (1,)
    params = {"network": constant(params["network"], 0.0), "log_std": jnp.array([9.0])}
    assert_close(policy.moments(params, s)[1], [[0.5]] * 2)
    assert_close(policy.moments(params | {"log_std": jnp.array([-9.0])}, s)[1], [[-1.0]] * 2)


def test_gaussian_with_a_state_dependent_deviation_and_free_mean(constant):
    policy = Gaussian(action_size=2, hidden=(4,), deviation="state", tanh_mean=False)
    params, s = start(policy)
    params["network"] = constant(params["network"], [3.0, -0.25, 0.1, 0.2])
    mean, log_std = policy.moments(params, s)
    assert_close(mean, [[3.0, -0.25]] * 2)
    assert_close(log_std, [[0.1, 0.2]] * 2)
    assert_close(policy.mode(params, s), [[1.0, -0.25]] * 2)  # actions end at 1


def test_gaussian_samples_have_its_moments_stay_in_range_and_pass_gradients(constant):
    policy = Gaussian(action_size=1, hidden=(4,), deviation="constant", std=0.1)
    params, s = start(policy, 20_000)
    params["network"] = constant(params["network"], HALF)
    samples = policy.sample(params, s, KEY)
    assert_close(samples.mean(), 0.5, atol=0.003)
    assert_close(samples.std(), 0.1, atol=0.002)
    assert float(jnp.abs(Gaussian(action_size=1, hidden=(4,), deviation="constant", std=9.0)
                         .sample(params, s, KEY)).max()) == 1.0  # fmt: skip
    grad = jax.grad(lambda p: policy.rsample(p, s, KEY).mean())(params)["network"]["params"]["Dense_1"]["bias"]
    assert_close(grad, [0.75], atol=1e-4)  # d tanh(b) / d b = 1 - 1/4, no sample reaches the bound at five deviations


# --- TanhGaussian -------------------------------------------------------------------------------------------------
def test_tanh_gaussian_log_prob(constant):
    policy = TanhGaussian(action_size=1, hidden=(4,))
    params, s = start(policy)
    params["network"] = constant(params["network"], [0.0, 0.0])  # u ~ N(0, 1)
    assert_close(policy.mode(params, s), [[0.0]] * 2)
    expected = [-0.5 * LOG_2PI, -0.5 * HALF**2 - 0.5 * LOG_2PI - math.log(0.75)]
    assert_close(policy.log_prob(params, s, jnp.array([[0.0], [0.5]])), expected)
    assert_close(policy.loss(params, s, jnp.array([[0.0], [0.5]]), KEY), [-x for x in expected])


def test_tanh_gaussian_density_integrates_to_one(constant):
    policy = TanhGaussian(action_size=1, hidden=(4,))
    params, _ = start(policy)
    params["network"] = constant(params["network"], [0.3, -0.5])
    grid = (jnp.arange(20_000) + 0.5) / 10_000 - 1
    density = jnp.exp(policy.log_prob(params, jnp.ones((20_000, 3)), grid[:, None]))
    assert_close(density.mean() * 2, 1.0, rtol=1e-3)


def test_tanh_gaussian_reports_the_log_prob_of_its_own_samples(constant):
    policy = TanhGaussian(action_size=3, hidden=(4,))
    params, s = start(policy, 64)
    params["network"] = constant(params["network"], [0.3, 0.0, -0.3, -1.0, -0.5, 0.0])
    actions, log_probs = policy.sample_and_log_prob(params, s, KEY)
    assert actions.shape == (64, 3) and log_probs.shape == (64,)
    assert_close(log_probs, policy.log_prob(params, s, actions), rtol=1e-3, atol=1e-3)
    assert_close(actions, policy.sample(params, s, KEY))


def test_tanh_gaussian_recorded_actions_at_the_bound_are_finite(constant):
    policy = TanhGaussian(action_size=1, hidden=(4,))
    params, s = start(policy)
    params["network"] = constant(params["network"], [0.0, 0.0])
    u = 0.5 * math.log((2 - 1e-5) / 1e-5)  # atanh(1 - 1e-5)
    expected = -0.5 * u**2 - 0.5 * LOG_2PI - math.log(1 - (1 - 1e-5) ** 2)
    assert_close(policy.log_prob(params, s, jnp.array([[1.0], [-1.0]])), [expected] * 2, rtol=1e-3)


def test_tanh_gaussian_deviation_is_bounded_and_may_be_constant(constant):
    policy = TanhGaussian(action_size=1, hidden=(4,), log_std_min=-3.0)
    params, s = start(policy)
    params["network"] = constant(params["network"], [0.0, -50.0])
    assert_close(policy.base.moments(params, s)[1], [[-3.0]] * 2)
    policy = TanhGaussian(action_size=1, hidden=(4,), deviation="constant", std=0.5)
    params, s = start(policy)
    assert_close(policy.base.moments(params, s)[1], [[math.log(0.5)]] * 2)


# --- Deterministic ------------------------------------------------------------------------------------------------
def test_deterministic_imitates_by_the_sum_of_squares(constant):
    policy = Deterministic(action_size=2, hidden=(4,))
    params, s = start(policy)
    params = constant(params, [HALF, -HALF])
    assert_close(policy.mode(params, s), [[0.5, -0.5]] * 2)
    assert_close(policy.sample(params, s, KEY), [[0.5, -0.5]] * 2)
    assert_close(policy.loss(params, s, jnp.array([[0.5, 0.5], [0.0, 0.0]]), KEY), [1.0, 0.5])


# --- Flow ---------------------------------------------------------------------------------------------------------
def test_flow_with_a_constant_velocity_shifts_the_noise(constant):
    policy = Flow(action_size=2, hidden=(4,), steps=10)
    params, s = start(policy)
    params = constant(params, [0.25, -0.5])
    assert_close(policy.latent(params, s, jnp.array([[0.5, 0.0], [0.9, -0.9]])), [[0.75, -0.5], [1.0, -1.0]])


def test_flow_takes_euler_steps_at_the_left_ends(linear):
    policy = Flow(action_size=1, hidden=(), steps=4)
    params, s = start(policy)
    in_time = linear(params, [0, 0, 0, 0, 0.8])  # v = 0.8 t over inputs [s s s x t]
    assert_close(policy.latent(in_time, s, jnp.zeros((2, 1))), [[0.3]] * 2)  # .8 (0 + 1 + 2 + 3) / 4 / 4
    decay = linear(params, [0, 0, 0, -1, 0])  # v = -x
    assert_close(policy.latent(decay, s, jnp.ones((2, 1))), [[0.75**4]] * 2)


def test_flow_matching_regresses_action_minus_noise_along_the_straight_path(constant, linear):
    policy = Flow(action_size=1, hidden=())
    params, s = start(policy, 40_000)
    actions = jnp.full((40_000, 1), 0.5)
    loss = policy.loss(constant(params, 0.2), s, actions, KEY)
    assert loss.shape == (40_000,)
    assert_close(loss.mean(), 0.09 + 1.0, atol=0.03)  # E (.2 - (.5 - z))^2
    # With x_t = (1 - t) z + t a the velocity v = x_t leaves E (x_t - (a - z))^2 = E (2 - t)^2 + .25 E (1 - t)^2.
    assert_close(policy.loss(linear(params, [0, 0, 0, 1, 0]), s, actions, KEY).mean(), 7 / 3 + 0.25 / 3, atol=0.06)


# --- OneStepFlow --------------------------------------------------------------------------------------------------
def test_one_step_flow_acts_with_the_one_step_network(constant, linear):
    policy = OneStepFlow(action_size=1, hidden=())
    params, s = start(policy)
    params = {"flow": constant(params["flow"], 0.7), "one_step": linear(params["one_step"], [0, 0, 0, 2])}  # mu = 2 z
    assert_close(policy.latent(params, s, jnp.array([[0.25], [3.0]])), [[0.5], [1.0]])
    assert_close(policy.sample(params, s, KEY), policy.latent(params, s, policy.flow.noise(s, KEY)))
    assert_close(policy.rsample(params, s, KEY), policy.sample(params, s, KEY))


def test_one_step_flow_distils_the_flow_without_teaching_it(constant):
    policy = OneStepFlow(action_size=1, hidden=(), steps=2)
    params, s = start(policy, 256)
    params = {"flow": constant(params["flow"], 9.0), "one_step": constant(params["one_step"], 3.0)}
    actions = jnp.zeros((256, 1))
    matching, distillation, student = policy.distil(params, s, actions, KEY)
    assert_close(
        distillation, [4.0] * 256
    )  # the teacher is bounded at 1, the student's 3 is bounded only for the critic
    assert_close(student, [[1.0]] * 256)
    assert_close(policy.loss(params, s, actions, KEY), matching + distillation)
    params["flow"] = constant(params["flow"], 0.0)  # now within bounds, where its own gradient would not vanish
    grads = jax.grad(lambda p: policy.distil(p, s, actions, KEY)[1].mean())(params)
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(grads["flow"]))
    assert_close(grads["one_step"]["params"]["Dense_0"]["bias"], [6.0], atol=0.5)  # 2 (3 - E clip(z))


# --- Tokens, CoarseToFine -----------------------------------------------------------------------------------------
SMALL = {"width": 16, "heads": 2, "layers": 1}
TOKEN_POLICIES = [Tokens(action_size=2, bins=6, **SMALL), CoarseToFine(action_size=2, bins=3, levels=3, **SMALL)]
of_both_kinds = pytest.mark.parametrize("policy", TOKEN_POLICIES, ids=lambda p: type(p).__name__)


def table(policy, *probabilities, batch_size=2):
    """Parameters with these probabilities of every token, and observations."""
    params, s = start(policy, batch_size)
    params = jax.tree.map(jnp.zeros_like, params)
    params["params"]["head"]["bias"] = jnp.log(jnp.array(probabilities))
    return params, s


def uneven(policy, batch_size=2):
    """Parameters whose probabilities are far from uniform and hang on what came before."""
    params, s = start(policy, batch_size)
    head = params["params"]["head"]
    head["kernel"] = 0.3 * jax.random.normal(KEY, head["kernel"].shape)
    return params, s


def test_tokens_are_equal_bins_of_each_dimension():
    policy = Tokens(action_size=1, bins=4)
    actions = jnp.array([[-1.0], [-0.51], [-0.5], [-0.01], [0.0], [0.49], [0.5], [1.0]])
    assert_close(policy.encode(actions)[:, 0], [0, 0, 1, 1, 2, 2, 3, 3])
    assert_close(policy.decode(jnp.array([[0], [2], [3]]), 0.0), [[-1.0], [0.0], [0.5]])
    assert_close(policy.decode(jnp.array([[0], [2], [3]]), 0.5), [[-0.75], [0.25], [0.75]])
    assert_close(policy.decode(jnp.array([[0], [2], [3]]), 1.0), [[-0.5], [0.5], [1.0]])


def test_coarse_to_fine_tokens_are_digits_the_first_of_every_dimension_first():
    policy = CoarseToFine(action_size=2, bins=2, levels=3)  # cells of 1/4
    tokens = policy.encode(jnp.array([[0.3, -0.9], [1.0, 0.0]]))  # cells 5 = 101 and 0 = 000; 7 = 111 and 4 = 100
    assert_close(tokens, [[1, 0, 0, 0, 1, 0], [1, 1, 1, 0, 1, 0]])
    assert_close(policy.decode(tokens, 0.5), [[0.375, -0.875], [0.875, 0.125]])


def test_tokens_log_prob_of_a_known_table():
    policy = Tokens(action_size=2, bins=4, **SMALL)
    params, s = table(policy, 0.1, 0.2, 0.3, 0.4)
    actions = jnp.array([[-0.9, 0.9], [0.1, 0.2]])  # bins 0 and 3; 2 and 2, each 1/2 wide
    assert_close(run(policy.log_prob, params, s, actions), [math.log(0.1 * 0.4 * 4), math.log(0.3 * 0.3 * 4)])
    assert_close(run(policy.loss, params, s, actions, KEY), [-math.log(0.1 * 0.4), -math.log(0.3 * 0.3)])
    assert_close(run(policy.mode, params, s), [[0.75, 0.75]] * 2)
    colder = Tokens(action_size=2, bins=4, temperature=0.5, **SMALL)  # squares: .01 .04 .09 .16, sum .3
    assert_close(run(colder.log_prob, params, s, actions), [math.log(0.01 * 0.16 / 0.09 * 4), math.log(0.09 * 4)])
    assert_close(run(colder.loss, params, s, actions, KEY), run(policy.loss, params, s, actions, KEY))


def test_coarse_to_fine_log_prob_of_a_known_table():
    policy = CoarseToFine(action_size=1, bins=2, levels=2, **SMALL)
    params, s = table(policy, 0.25, 0.75)
    actions = jnp.array([[0.9], [0.1]])  # digits 1 1 and 1 0, cells of 1/2
    assert_close(run(policy.log_prob, params, s, actions), [math.log(0.75 * 0.75 * 2), math.log(0.75 * 0.25 * 2)])
    assert_close(run(policy.loss, params, s, actions, KEY), [-math.log(0.75 * 0.75), -math.log(0.75 * 0.25)])
    assert_close(run(policy.mode, params, s), [[0.75]] * 2)


def test_tokens_sample_uniformly_inside_bins():
    policy = Tokens(action_size=1, bins=2, temperature=0.5, **SMALL)
    params, s = table(policy, 0.25, 0.75, batch_size=20_000)  # squared 1/16 and 9/16, that is .1 and .9
    counts, _ = np.histogram(run(policy.sample, params, s, KEY), bins=np.linspace(-1, 1, 9))
    assert_close(counts / 20_000, [0.1 / 4] * 4 + [0.9 / 4] * 4, atol=0.01, rtol=0)


@of_both_kinds
def test_token_densities_integrate_to_one(policy):
    points = 2 * policy.cells  # two in each cell
    line = (jnp.arange(points) + 0.5) / points * 2 - 1
    for size in (1, 2):
        one = dataclasses.replace(policy, action_size=size, temperature=0.6)
        grid = jnp.stack(jnp.meshgrid(*[line] * size), -1).reshape(-1, size)
        params, s = uneven(one, len(grid))
        density = jnp.exp(run(one.log_prob, params, s, grid))
        assert_close(density.mean() * 2**size, 1.0, rtol=1e-4)
        assert float(density.max() / density.min()) > 3


@of_both_kinds
@pytest.mark.parametrize("frames", [0, 3])
def test_decoding_assigns_what_teacher_forcing_does(policy, frames):
    policy = dataclasses.replace(policy, temperature=0.7, frames=frames)
    params, s = uneven(policy, 500)

    @jax.jit
    def both(params, s):
        actions, log_probs = policy.sample_and_log_prob(params, s, KEY)
        tokens = policy.encode(policy.mode(params, s))
        forced = policy.log_prob(params, s, actions), policy.network.apply(params, s, tokens).argmax(-1)
        return (log_probs, tokens), forced, actions

    (log_probs, tokens), (forced, likeliest), actions = both(params, s)
    assert_close(log_probs, forced, rtol=1e-4, atol=1e-4)
    assert_close(tokens, likeliest)
    assert_close(run(policy.sample, params, s, KEY), actions)


@of_both_kinds
def test_tokens_learn_two_modes_whose_second_dimension_follows_the_first(policy):
    """Half of the actions are + +, half - -, where s = 1; + - and - + where s = -1."""
    first, s = jax.random.choice(KEY, jnp.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]), (256,)).T
    s, actions = s[:, None], jnp.stack([first, jnp.sign(s) * first], -1)
    params, optimiser = run(policy.init, KEY, s, actions), optax.adam(1e-2)

    def step(carry, _):
        params, opt = carry
        grads = jax.grad(lambda p: policy.loss(p, s, actions, KEY).mean())(params)
        updates, opt = optimiser.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, 100))((params, optimiser.init(params)))
    drawn = run(policy.sample, params, s, KEY)
    assert float((jnp.sign(drawn[:, 0] * drawn[:, 1]) == jnp.sign(s[:, 0])).mean()) > 0.98
    assert 0.4 < float((drawn[:, 0] > 0).mean()) < 0.6
    assert_close(jnp.abs(run(policy.mode, params, s)), jnp.abs(policy.decode(policy.encode(actions), 0.5)))


def test_tokens_refuse_a_width_that_the_heads_do_not_divide_and_too_many_cells():
    with pytest.raises(SettingsError, match="width is 10 and heads 4; give a width that heads divides"):
        start(Tokens(action_size=1, width=10))
    with pytest.raises(SettingsError, match="numbers are not 7 frames of one size; leave frames at 0"):
        start(Tokens(action_size=1, frames=7, **SMALL))
    with pytest.raises(SettingsError, match="bins is 128 and levels 3, 2097152 cells; give at most 1048576"):
        start(CoarseToFine(action_size=1, bins=128, levels=3))


@pytest.mark.parametrize(
    "cls",
    [Gaussian, TanhGaussian, Deterministic, Flow, OneStepFlow, Mixture, Diffusion, Shortcut, Tokens, CoarseToFine],
)
def test_policies_take_trees_of_observations_and_any_batch_shape_of_keys(cls):
    policy = cls(action_size=2, **({"hidden": (8,)} if hasattr(cls, "hidden") else SMALL))
    observations = {"state": jnp.ones((5, 3)), "goal": jnp.ones((5, 2))}
    params = run(policy.init, KEY, observations, jnp.zeros((5, 2)))
    sample = run(policy.sample, params, observations, KEY)
    assert sample.shape == (5, 2) and float(jnp.abs(sample).max()) <= 1
    assert run(policy.loss, params, observations, jnp.zeros((5, 2)), KEY).shape == (5,)
    many = run(jax.vmap(lambda k: policy.sample(params, observations, k)), jax.random.split(KEY, 7))
    assert many.shape == (7, 5, 2)
