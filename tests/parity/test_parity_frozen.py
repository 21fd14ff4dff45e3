"""One step of RO2O, ResFiT and DSRL against recorded numbers of the authors' programs (README.md), and of PARROT
against its equations in float64 NumPy."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from test_parity import (
    BATCH,
    DRAWS,
    HIDDEN,
    KEY,
    NETS,
    A,
    actor_of,
    assert_close,
    assert_ensemble_close,
    assert_layers_close,
    ensemble,
    gradient,
    mlp,
    numpy_mlp,
    with_weights,
)

from understudy.algorithm import Actor, Policy
from understudy.algorithms.dsrl import NoiseAliasedCritic, NoiseMaxEnt
from understudy.algorithms.parrot import LatentMaxEnt
from understudy.algorithms.ro2o import RO2OCritic, SmoothMaxEnt
from understudy.algorithms.sac import SoftTD
from understudy.core import pytree
from understudy.critics import TD
from understudy.extractions import DDPGBC
from understudy.policies.latent import Latent
from understudy.policies.one_step_flow import OneStepFlow
from understudy.policies.real_nvp import RealNVP
from understudy.policies.residual import Residual
from understudy.policies.tanh_gaussian import TanhGaussian

RECORD = json.loads(pathlib.Path(__file__).with_name("frozen.json").read_text())
OWN = {k: np.array(v) for k, v in RECORD["draws"].items()}
ALPHA = float(np.exp(-0.4))


def seen(monkeypatch, cls, name="loss"):
    """The arguments that a loss was called with, in a dictionary under "args"."""
    found, loss = {}, getattr(cls, name)
    monkeypatch.setattr(cls, name, lambda self, params, *args: found.update(args=args) or loss(self, params, *args))
    return found, loss


# --- RO2O ---------------------------------------------------------------------------------------------------------
def around(name: str) -> np.ndarray:
    """Perturbations [n, B, O] in [-1, 1] of the reference, which gives every row the same n."""
    return np.broadcast_to((2 * OWN[name] - 1)[:, None], (3, 4, 3))


def test_ro2o(replay, monkeypatch):
    record, policy = RECORD["ro2o"], TanhGaussian(action_size=A, hidden=HIDDEN, log_std_min=-5.0)
    params = {"network": mlp(NETS["gauss"], False)}
    critic = RO2OCritic(hidden=HIDDEN, ensemble=2, discount=0.9, samples=3, ood=0.5, epsilon=0.3, ood_epsilon=0.25,
                        penalty=1.5, penalty_min=0.4, penalty_decay=0.01)  # fmt: skip
    state = with_weights(critic.init(KEY, BATCH), False)
    found, loss = seen(monkeypatch, RO2OCritic)
    far_normal = OWN["far_normal"].reshape(4, 3, A).swapaxes(0, 1).reshape(12, A)  # theirs is row-major
    replay(DRAWS["normal"][0], around("near"), around("far"), far_normal)
    _, metrics = critic.update(state, BATCH, actor_of(policy, params, ALPHA), KEY)
    assert_close(metrics["td"], record["critic"]["td"])
    assert_close(1e-4 * metrics["smoothness"], record["critic"]["smooth"])
    assert_close(0.5 * metrics["ood"], record["critic"]["ood"])
    assert_close(metrics["loss"], record["critic"]["loss"])
    assert_ensemble_close(
        jax.grad(lambda p: loss(critic, p, *found["args"])[0])(state.q.params), record["critic"]["grad"]
    )
    alone = lambda p: 1e-4 * loss(critic, p, *found["args"])[1]["smoothness"]
    assert_ensemble_close(jax.grad(alone)(state.q.params), record["smooth"]["grad"])

    extraction = SmoothMaxEnt(samples=3, epsilon=0.2, smoothness=0.7, initial_temperature=ALPHA)
    replay(DRAWS["normal"][1], around("near"))
    value, metrics, grads = gradient(extraction.loss, params, extraction.init(), policy, critic, state, BATCH, KEY)
    assert_close(metrics["change"], record["actor"]["change"])
    assert_close(metrics["entropy"], record["actor"]["entropy"])
    assert_close(value, record["actor"]["loss"])
    assert_layers_close(grads["network"]["params"], record["actor"]["grad"])


# --- ResFiT -------------------------------------------------------------------------------------------------------
@pytree
class Recorded(Policy):
    """The base's actions that were recorded, at s or at s'."""

    def sample(self, params, observations, key):
        following = jnp.array_equal(observations, BATCH["next_observations"])
        return jnp.where(following, jnp.asarray(OWN["base_next"], jnp.float32), jnp.asarray(OWN["base"], jnp.float32))

    def loss(self, params, observations, actions, key):
        return jnp.zeros(4)


def test_resfit(replay):
    record = RECORD["resfit"]
    policy = Residual(action_size=A, base=Recorded(), hidden=HIDDEN, layer_norm="before", scale=0.3)
    params = {"base": (), "residual": mlp(NETS["one_step"], True)}
    critic = TD(hidden=HIDDEN, layer_norm="before", discount=0.9, subset=2, aggregate="mean", target_noise=0.6,
                target_noise_clip=0.3)  # fmt: skip
    state = with_weights(critic.init(KEY, BATCH), True)
    replay(DRAWS["normal"][0])
    targets = critic.target(state, BATCH, actor_of(policy, params), KEY)
    assert_close(targets, record["critic"]["target"])
    one = dataclasses.replace(critic, ensemble=1, subset=0)
    value, _, grads = gradient(one.q_loss, ensemble(NETS["q"][:1], True), targets, BATCH)
    assert_close(value, record["critic"]["loss"])
    assert_ensemble_close(grads, record["critic"]["grad"])

    assert_close(policy.rsample(params, BATCH["observations"], KEY), record["actor"]["combined"])
    value, _, grads = gradient(DDPGBC(alpha=0.0, normalise=False).loss, params, (), policy, critic, state, BATCH, KEY)
    assert_close(value, record["actor"]["loss"])
    assert_layers_close(grads["residual"]["params"], record["actor"]["grad"])


# --- DSRL ---------------------------------------------------------------------------------------------------------
def per_noise(params: dict, factor: float) -> dict:
    """The same networks with the rows of the first layer that read the noise multiplied: theirs read z / b."""
    kernel = params["params"]["VmapMLP_0"]["Dense_0"]["kernel"]
    params["params"]["VmapMLP_0"]["Dense_0"]["kernel"] = kernel.at[:, 3:].multiply(factor)
    return params


def test_dsrl(replay, monkeypatch):
    record, bound = RECORD["dsrl"], 1.5
    base = OneStepFlow(action_size=A, hidden=HIDDEN, activation="relu")
    policy = Latent(action_size=A, base=base, bound=bound, hidden=HIDDEN)
    params = {"base": {"flow": mlp(NETS["flow"], False), "one_step": mlp(NETS["one_step"], False)},
              "steering": {"network": mlp(NETS["gauss"], False)}}  # fmt: skip
    critic = NoiseAliasedCritic(hidden=HIDDEN, discount=0.9, learning_rate=0.0)  # theirs is judged before its step
    state = with_weights(critic.init(KEY, BATCH), False)
    noise = per_noise(ensemble(NETS["q_target"], False), 1 / bound)
    state = dataclasses.replace(state, noise=dataclasses.replace(state.noise, params=noise))
    on_actions, q_loss = seen(monkeypatch, NoiseAliasedCritic, "q_loss")
    on_noise, distillation = seen(monkeypatch, NoiseAliasedCritic, "distillation_loss")
    replay(DRAWS["normal"][0], DRAWS["normal"][2])
    _, metrics = critic.update(state, BATCH, actor_of(policy, params, record["alpha"]), KEY)
    assert_close(metrics["loss"], 2 * record["critic_loss"])
    assert_close(metrics["noise/loss"], 2 * record["noise_loss"])
    grads = jax.grad(lambda p: q_loss(critic, p, *on_actions["args"])[0])(state.q.params)
    assert_ensemble_close(grads, record["critic_grad"], scale=2)
    grads = jax.grad(lambda p: distillation(critic, p, *on_noise["args"])[0])(noise)
    assert_ensemble_close(per_noise(grads, 1 / bound), record["noise_grad"], scale=2)

    extraction = NoiseMaxEnt(initial_temperature=record["alpha"], imitation=0.0)
    replay(DRAWS["normal"][1], *[DRAWS["normal"][3], DRAWS["time"], DRAWS["normal"][4]])  # the last three imitate
    value, _, grads = gradient(extraction.loss, params, extraction.init(), policy, critic, state, BATCH, KEY)
    assert_close(value, record["actor_loss"])
    assert_layers_close(grads["steering"]["network"]["params"], record["actor_grad"])
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(grads["base"]))


# --- PARROT -------------------------------------------------------------------------------------------------------
def layers_of(params: dict) -> list:
    return [{k: np.array(params["params"][f"Dense_{i}"][k], np.float64) for k in ("kernel", "bias")} for i in range(3)]


def numpy_coupling(layers: list, s, x, i: int, log_scale_max=3.0):
    """v and t of coupling i for the dimension that it moves, and which that is."""
    moves, stays = i % 2, 1 - i % 2
    given = np.zeros_like(x)
    given[:, stays] = x[:, stays]
    out = numpy_mlp(layers, np.concatenate([s, given], 1))
    return log_scale_max * np.tanh(out[:, moves] / log_scale_max), out[:, 2 + moves], moves


def numpy_flow(couplings: list, s, z):
    """f(z; s)."""
    x = z.copy()
    for i, layers in enumerate(couplings):
        v, t, moves = numpy_coupling(layers, s, x, i)
        x[:, moves] = x[:, moves] * np.exp(v) + t
    return x


def numpy_log_prob(couplings: list, s, a):
    """log N(f^-1(a; s)) + log |det d f^-1 / da|."""
    x, log_det = a.copy(), np.zeros(len(a))
    for i, layers in reversed(list(enumerate(couplings))):
        v, t, moves = numpy_coupling(layers, s, x, i)
        x[:, moves] = (x[:, moves] - t) * np.exp(-v)
        log_det -= v
    return -0.5 * (x**2).sum(1) - np.log(2 * np.pi) + log_det


def nudged(layers: list, i: int, by: float) -> list:
    """The network with one bias of its output changed."""
    return [*layers[:-1], {**layers[-1], "bias": layers[-1]["bias"] + by * np.eye(4)[i]}]


def test_parrot_against_its_equations(request):
    data = {k: np.array(BATCH[k], np.float64) for k in BATCH}
    prior = RealNVP(action_size=A, hidden=HIDDEN, layers=3)
    policy = Latent(action_size=A, base=prior, bound=1.2, hidden=HIDDEN)
    params = policy.init(KEY, BATCH["observations"], BATCH["actions"])
    rng = np.random.default_rng(0)
    params["base"] = jax.tree.map(lambda x: x + 0.2 * jnp.asarray(rng.normal(size=x.shape)), params["base"])
    params["steering"] = {"network": mlp(NETS["gauss"], False)}
    critic = SoftTD(hidden=HIDDEN, discount=0.9)
    state = with_weights(critic.init(KEY, BATCH), False)
    load = request.getfixturevalue("replay")  # from here on random numbers are the recorded ones
    couplings = [layers_of(params["base"][f"coupling_{i}"]) for i in range(3)]

    # The prior: likelihood, and its gradient by central differences in the outputs of a coupling.
    actions = numpy_flow(couplings, data["observations"], DRAWS["normal"][1])
    known = jnp.asarray(actions, jnp.float32)
    log_prob = numpy_log_prob(couplings, data["observations"], actions)
    assert_close(prior.log_prob(params["base"], BATCH["observations"], known), log_prob)
    imitation, grads = jax.value_and_grad(lambda p: policy.loss(p, BATCH["observations"], known, KEY).mean())(params)
    assert_close(imitation, -log_prob.mean())

    def likelihood(i, by):
        return -numpy_log_prob([*couplings[:2], nudged(couplings[2], i, by)], data["observations"], actions).mean()

    slopes = [(likelihood(i, 1e-5) - likelihood(i, -1e-5)) / 2e-5 for i in range(4)]
    assert_close(grads["base"]["coupling_2"]["params"]["Dense_2"]["bias"], slopes)

    # SAC in the latent space: w = tanh(u) of a Gaussian, z = 1.2 w, a = clip(f(z; s)).
    def steer(layers, s, eps):
        mean, log_std = np.split(numpy_mlp(layers, s), 2, 1)
        log_std = np.clip(log_std, -20, 2)
        u = mean + np.exp(log_std) * eps
        density = -0.5 * eps**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - np.tanh(u) ** 2)
        a = np.clip(numpy_flow(couplings, s, 1.2 * np.tanh(u)), -1, 1)
        return a, density.sum(1)

    q_of = lambda members, s, a: np.stack([numpy_mlp(m, np.concatenate([s, a], -1))[:, 0] for m in members]).min(0)
    following, log_next = steer(NETS["gauss"], data["next_observations"], DRAWS["normal"][0])
    soft = q_of(NETS["q_target"], data["next_observations"], following) - ALPHA * log_next
    load(DRAWS["normal"][0])
    actor = Actor(policy, params, None, ALPHA)
    assert_close(critic.target(state, BATCH, actor, KEY), data["rewards"] + 0.9 * data["masks"] * soft)

    def sac_loss(layers):
        a, log_probs = steer(layers, data["observations"], DRAWS["normal"][1])
        return (ALPHA * log_probs - q_of(NETS["q"], data["observations"], a)).mean()

    gauss = [{k: np.array(layer[k]) for k in ("kernel", "bias")} for layer in NETS["gauss"]]
    extraction = LatentMaxEnt(initial_temperature=ALPHA, imitation=0.5)
    batch = BATCH | {"actions": known}
    load(DRAWS["normal"][1])
    value, _, both = gradient(extraction.loss, params, extraction.init(), policy, critic, state, batch, KEY)
    assert_close(value, sac_loss(gauss) - 0.5 * log_prob.mean())
    slopes = [(sac_loss(nudged(gauss, i, 1e-5)) - sac_loss(nudged(gauss, i, -1e-5))) / 2e-5 for i in range(4)]
    assert_close(both["steering"]["network"]["params"]["Dense_2"]["bias"], slopes)
    jax.tree.map(lambda x, y: assert_close(x, 0.5 * y) if np.abs(y).max() else None, both["base"], grads["base"])
