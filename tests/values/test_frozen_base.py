"""Policies over a base that values leave alone, and the losses of PARROT and DSRL, with networks of known output."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserting import assert_close

from understudy.algorithm import Actor
from understudy.algorithms.dsrl import NoiseAliasedCritic, NoiseMaxEnt
from understudy.algorithms.parrot import LatentMaxEnt
from understudy.errors import SettingsError
from understudy.policies.deterministic import Deterministic
from understudy.policies.flow import Flow
from understudy.policies.gaussian import Gaussian
from understudy.policies.latent import Latent
from understudy.policies.real_nvp import RealNVP
from understudy.policies.residual import Residual

KEY = jax.random.key(0)
LOG_2PI = math.log(2 * math.pi)
HALF = 0.5 * math.log(3)  # tanh(HALF) = 1/2
zero = lambda tree: all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(tree))


def start(policy, batch_size=2):
    """Fresh parameters and observations [B, 3]."""
    observations = jnp.ones((batch_size, 3))
    return policy.init(KEY, observations, jnp.zeros((batch_size, policy.action_size))), observations


# --- Residual -----------------------------------------------------------------------------------------------------
def test_a_residual_starts_as_its_base():
    policy = Residual(action_size=2, base=Flow(action_size=2, hidden=(8,)), hidden=(8,), scale=0.5)
    params, s = start(policy, 64)
    np.testing.assert_array_equal(policy.sample(params, s, KEY), policy.base.sample(params["base"], s, KEY))


def test_a_residual_adds_scale_tanh_and_is_clipped(constant):
    policy = Residual(action_size=2, base=Deterministic(action_size=2, hidden=(4,)), hidden=(4,), scale=0.2)
    params, s = start(policy)
    params = {"base": constant(params["base"], [-HALF, 3.0]), "residual": constant(params["residual"], [HALF, HALF])}
    assert_close(policy.sample(params, s, KEY), [[-0.5 + 0.2 * 0.5, 1.0]] * 2)
    assert_close(policy.mode(params, s), [[-0.4, 1.0]] * 2)
    assert_close(policy.loss(params, s, jnp.array([[0.0, math.tanh(3.0)]] * 2), KEY), [0.25] * 2)  # of the base alone


def test_a_residual_sees_the_action_that_it_corrects(linear):
    policy = Residual(action_size=1, base=Gaussian(action_size=1, hidden=(4,), std=0.3), hidden=(), scale=1.0)
    params, s = start(policy, 32)
    params["residual"] = linear(params["residual"], [0, 0, 0, 5.0])  # inputs [s s s a_b]
    drawn = np.asarray(policy.base.sample(params["base"], s, KEY))
    assert_close(policy.sample(params, s, KEY), np.clip(drawn + np.tanh(5 * drawn), -1, 1), rtol=1e-4)


def test_a_residual_has_a_mode_where_its_base_has():
    assert hasattr(Residual(action_size=1, base=Gaussian(action_size=1)), "mode")
    assert not hasattr(Residual(action_size=1, base=Flow(action_size=1)), "mode")
    base = Residual(action_size=3, hidden=(7, 8)).base
    assert base == Flow(action_size=3, hidden=(7, 8)), "the base where none is given"


# --- Latent -------------------------------------------------------------------------------------------------------
def test_latent_steers_the_noise_of_its_base(constant):
    policy = Latent(action_size=2, base=Flow(action_size=2, hidden=(4,), steps=4), hidden=(4,), bound=1.2)
    params, s = start(policy)
    w = jnp.array([HALF, -HALF, -20.0, -20.0])  # u = +-HALF with no deviation to speak of
    params = {"base": constant(params["base"], [0.1, 0.0]), "steering": {"network": constant(
        params["steering"]["network"], w)}}  # fmt: skip
    assert_close(policy.steer(params, s, KEY)[0], [[0.6, -0.6]] * 2, atol=1e-5)
    assert_close(policy.sample(params, s, KEY), [[0.7, -0.6]] * 2, atol=1e-5)
    assert_close(policy.mode(params, s), [[0.7, -0.6]] * 2)
    assert_close(policy.latent(params, s, jnp.array([[0.2, 0.0], [2.0, 0.0]])), [[0.3, 0.0], [1.0, 0.0]])
    params["steering"]["network"] = constant(params["steering"]["network"], [HALF, -HALF, -1.0, -1.0])
    of_w = policy.steering.log_prob(params["steering"], s, policy.steer(params, s, KEY)[0] / 1.2)
    assert_close(policy.sample_and_log_prob(params, s, KEY)[1], of_w, rtol=1e-4)


def test_latent_needs_a_base_with_a_map_from_noise():
    assert Latent(action_size=3, hidden=(7, 8)).base == Flow(action_size=3, hidden=(7, 8))
    with pytest.raises(SettingsError, match="Gaussian has none; name a base with latent"):
        Latent(action_size=2, base=Gaussian(action_size=2))


@pytest.mark.parametrize("policy", [
    Residual(action_size=2, base=Flow(action_size=2, hidden=(8,)), hidden=(8,)),
    Latent(action_size=2, base=Flow(action_size=2, hidden=(8,)), hidden=(8,)),
    Latent(action_size=2, base=RealNVP(action_size=2, hidden=(8,)), hidden=(8,)),
], ids=["residual", "latent_flow", "latent_real_nvp"])  # fmt: skip
def test_values_reach_only_the_part_on_top_and_imitation_only_the_base(policy):
    params, s = start(policy, 16)
    on_top = "residual" if isinstance(policy, Residual) else "steering"
    value = jax.grad(lambda p: policy.rsample(p, s, KEY).mean())(params)
    assert zero(value["base"]) and not zero(value[on_top])
    imitation = jax.grad(lambda p: policy.loss(p, s, jnp.full((16, 2), 0.3), KEY).mean())(params)
    assert zero(imitation[on_top]) and not zero(imitation["base"])
    assert policy.loss(params, s, jnp.zeros((16, 2)), KEY).shape == (16,)


def test_a_scale_of_0_rests_the_residual():
    policy = Residual(action_size=2, base=Flow(action_size=2, hidden=(8,)), hidden=(8,), scale=0.0)
    params, s = start(policy, 16)
    assert zero(jax.grad(lambda p: policy.rsample(p, s, KEY).mean())(params))


# --- RealNVP ------------------------------------------------------------------------------------------------------
def test_real_nvp_couples_every_other_dimension(constant):
    policy = RealNVP(action_size=2, hidden=(4,), layers=2, log_scale_max=1e6)
    params, s = start(policy)
    params = {"coupling_0": constant(params["coupling_0"], [math.log(0.5), 9.0, 0.1, 9.0]),  # [v v t t]
              "coupling_1": constant(params["coupling_1"], [9.0, math.log(0.25), 9.0, -0.2])}  # fmt: skip
    z = jnp.array([[0.4, 0.8], [3.0, -0.4]])
    assert_close(policy.flow(params, s, z)[0], [[0.3, 0.0], [1.6, -0.3]])  # z_0 / 2 + .1, then z_1 / 4 - .2
    assert_close(policy.flow(params, s, z)[1], [math.log(1 / 8)] * 2)
    assert_close(policy.latent(params, s, z), [[0.3, 0.0], [1.0, -0.3]])
    expected = -0.5 * (0.4**2 + 0.8**2) - LOG_2PI + math.log(8)
    assert_close(policy.log_prob(params, s, jnp.array([[0.3, 0.0]] * 2)), [expected] * 2)
    assert_close(policy.loss(params, s, jnp.array([[0.3, 0.0]] * 2), KEY), [-expected] * 2)


def test_real_nvp_inverts_itself_and_knows_its_jacobian():
    policy = RealNVP(action_size=3, hidden=(16,), layers=5)
    params, _ = start(policy)
    params = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(KEY, x.shape), params)
    s, z = jax.random.normal(jax.random.key(1), (6, 3)), jax.random.normal(jax.random.key(2), (6, 3))
    x, log_det = policy.flow(params, s, z)
    assert float(jnp.abs(x - z).mean()) > 0.1
    back, log_det_back = policy.inverse(params, s, x)
    assert_close(back, z, atol=1e-4)
    assert_close(log_det_back, log_det, atol=1e-4)
    jacobian = jax.vmap(jax.jacobian(lambda s, z: policy.flow(params, s[None], z[None])[0][0], argnums=1))(s, z)
    assert_close(np.linalg.slogdet(np.asarray(jacobian))[1], log_det, atol=1e-4)


def test_real_nvp_reports_the_log_prob_of_its_own_samples():
    policy = RealNVP(action_size=2, hidden=(16,))
    params, s = start(policy, 64)
    for i in range(4):  # narrow enough that no sample is clipped
        bias = params[f"coupling_{i}"]["params"]["Dense_1"]["bias"]
        params[f"coupling_{i}"]["params"]["Dense_1"]["bias"] = bias.at[:2].set(-0.9)
    actions, log_probs = policy.sample_and_log_prob(params, s, KEY)
    assert float(jnp.abs(actions).max()) < 1
    assert_close(log_probs, policy.log_prob(params, s, actions), rtol=1e-4, atol=1e-4)
    assert_close(actions, policy.sample(params, s, KEY))


def test_real_nvp_density_integrates_to_one_and_its_scale_is_bounded(constant):
    policy = RealNVP(action_size=1, hidden=(4,), layers=2, log_scale_max=2.0)
    params, _ = start(policy)
    params["coupling_1"] = constant(params["coupling_1"], [-1.0, 0.2])
    grid = (jnp.arange(20_000) + 0.5) / 1000 - 10
    density = jnp.exp(policy.log_prob(params, jnp.ones((20_000, 3)), grid[:, None]))
    assert_close(density.mean() * 20, 1.0, rtol=1e-3)
    params = {k: constant(v, [-500.0, 0.0]) for k, v in params.items()}
    assert_close(policy.flow(params, jnp.ones((1, 3)), jnp.ones((1, 1)))[1], [-2.0])  # one of two layers moves it


def test_real_nvp_learns_two_modes_by_maximum_likelihood():
    """Actions +-(1/2, 1/2) with a little noise: a Gaussian would fill the middle, the flow does not."""
    import optax

    policy = RealNVP(action_size=2, hidden=(32, 32))
    params, s = start(policy, 256)
    sign = jnp.where(jnp.arange(256) % 2 == 0, 1.0, -1.0)[:, None]
    actions = 0.5 * sign + 0.05 * jax.random.normal(KEY, (256, 2))
    optimiser = optax.adam(3e-3)

    def step(carry, _):
        params, state = carry
        grads = jax.grad(lambda p: policy.loss(p, s, actions, KEY).mean())(params)
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, optimiser.init(p)), None, 600))(params)
    drawn = np.asarray(policy.sample(params, s, jax.random.key(3)))
    assert (np.abs(np.abs(drawn.mean(1)) - 0.5) < 0.2).mean() > 0.9
    assert 0.3 < (drawn.mean(1) > 0).mean() < 0.7


@pytest.mark.parametrize("policy", [
    Residual(action_size=2, base=Flow(action_size=2, hidden=(8,)), hidden=(8,)),
    Latent(action_size=2, base=Flow(action_size=2, hidden=(8,)), hidden=(8,)),
    RealNVP(action_size=2, hidden=(8,)),
], ids=["residual", "latent", "real_nvp"])  # fmt: skip
def test_policies_take_trees_of_observations_and_any_batch_shape_of_keys(policy):
    observations = {"state": jnp.ones((5, 3)), "goal": jnp.ones((5, 2))}
    params = policy.init(KEY, observations, jnp.zeros((5, 2)))
    sample = policy.sample(params, observations, KEY)
    assert sample.shape == (5, 2) and float(jnp.abs(sample).max()) <= 1
    assert policy.loss(params, observations, jnp.zeros((5, 2)), KEY).shape == (5,)
    many = jax.vmap(lambda k: policy.sample(params, observations, k))(jax.random.split(KEY, 7))
    assert many.shape == (7, 5, 2)


# --- the losses of PARROT and DSRL --------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class KnownCritic:
    """Q(s, a) = a_0 + a_1; Q^W(s, z) = 10 (z_0 + z_1)."""

    def q(self, state, observations, actions):
        return actions.sum(-1)

    def noise_q(self, state, observations, noise):
        return 10 * noise.sum(-1)


@dataclasses.dataclass(frozen=True)
class KnownPolicy:
    """Noise 1/4 with log-probability -2, the action three times the noise, imitation 7."""

    def steer(self, params, observations, key):
        return jnp.full((2, 2), 0.25), jnp.full(2, -2.0)

    def latent(self, params, observations, noise):
        return 3 * noise

    def sample_and_log_prob(self, params, observations, key):
        return jnp.full((2, 2), 0.75), jnp.full(2, -2.0)

    def loss(self, params, observations, actions, key):
        return jnp.full(2, 7.0)


@pytest.mark.parametrize("cls, q", [(LatentMaxEnt, 1.5), (NoiseMaxEnt, 5.0)])
def test_the_policys_loss_weighs_sac_against_imitation(batch, cls, q):
    extraction = cls(initial_temperature=0.5, target_entropy=-1.5, improvement=2.0, imitation=0.1)
    loss, metrics = extraction.loss((), extraction.init(), KnownPolicy(), KnownCritic(), (), batch, KEY)
    assert_close(loss, 2.0 * (0.5 * -2.0 - q) + 0.1 * 7.0)
    assert_close(
        [metrics["q"], metrics["entropy"], metrics["target_entropy"], metrics["imitation"]], [q, 2.0, -3.0, 7.0]
    )


def test_noise_aliased_critic_backs_up_actions_and_distils_them_into_noise(constant, linear, batch):
    critic = NoiseAliasedCritic(hidden=(), discount=0.9, learning_rate=0.0)
    state = critic.init(KEY, batch)
    column = lambda *v: jnp.asarray(v)[:, None]
    q = linear(state.q.params, [[0, 0, 0, 1, 0], [0, 0, 0, 2, 0]])  # Q_i = a_0, 2 a_0
    state = dataclasses.replace(
        state, q=dataclasses.replace(state.q, params=q), target=constant(state.target, column(4.0, 3.0)),
        noise=dataclasses.replace(state.noise, params=constant(state.noise.params, column(1.0, 2.0))),
    )  # fmt: skip
    actor = Actor(KnownPolicy(), (), None, 0.5)
    after, metrics = critic.update(state, batch, actor, KEY)
    # y = 1 + .9 (3 + .5 * 2), 2: the second row is terminal; a_0 is .5 and 0
    assert_close(metrics["target"], (4.6 + 2.0) / 2)
    assert_close(metrics["loss"], ((0.5 - 4.6) ** 2 + 2.0**2) / 2 + ((1.0 - 4.6) ** 2 + 2.0**2) / 2)
    z = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (2, 2)))[:, 0]
    assert_close(metrics["noise/loss"], ((1 - 3 * z) ** 2).mean() + ((2 - 6 * z) ** 2).mean())
    assert_close(critic.noise_q(after, batch["observations"], batch["actions"]), [1.0, 1.0])  # the minimum
    assert_close(critic.q(after, batch["observations"], batch["actions"]), [0.5, 0.0])
