"""One step of each algorithm against recorded numbers of a reference implementation (README.md beside this file)."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from understudy.algorithm import Actor, ActorCritic
from understudy.algorithms.bc import NoCritic
from understudy.algorithms.cql import CQLCritic
from understudy.algorithms.fql import Distil
from understudy.algorithms.iql import IQLCritic
from understudy.algorithms.pa_rl import ActionOptimisation
from understudy.algorithms.rebrac import ReBRACCritic
from understudy.algorithms.sac import MaxEnt, SoftTD
from understudy.critics import TD
from understudy.extractions import AWR, DDPGBC, BestOfN, Imitate
from understudy.policies.deterministic import Deterministic
from understudy.policies.flow import Flow
from understudy.policies.gaussian import Gaussian
from understudy.policies.one_step_flow import OneStepFlow
from understudy.policies.tanh_gaussian import TanhGaussian

RECORD = json.loads(pathlib.Path(__file__).with_name("reference.json").read_text())
NETS, DRAWS = RECORD["inputs"]["nets"], {k: np.array(v) for k, v in RECORD["inputs"]["draws"].items()}
BATCH = {k: jnp.asarray(v, jnp.float32) for k, v in RECORD["inputs"]["batch"].items()}
BATCH["next_valids"] = jnp.ones(4)
HIDDEN, A, N = (6, 5), 2, 3
GELU = {"hidden": HIDDEN, "activation": "gelu", "layer_norm": "after"}  # the stack of seohongpark/fql
KEY = jax.random.key(0)


# --- weights, draws, comparison -----------------------------------------------------------------------------------
def mlp(layers: list, norm: bool) -> dict:
    """Recorded layers as parameters of networks.MLP."""
    params = {}
    for i, layer in enumerate(layers):
        params[f"Dense_{i}"] = {k: jnp.asarray(layer[k], jnp.float32) for k in ("kernel", "bias")}
        if norm and "scale" in layer:
            params[f"LayerNorm_{i}"] = {
                "scale": jnp.asarray(layer["scale"], jnp.float32), "bias": jnp.asarray(layer["shift"], jnp.float32),
            }  # fmt: skip
    return {"params": params}


def ensemble(members: list, norm: bool) -> dict:
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(mlp(m, norm)["params"] for m in members))
    return {"params": {"VmapMLP_0": stacked}}


def with_weights(state, norm: bool):
    """A critic's state holding the recorded networks."""
    state = dataclasses.replace(
        state, q=dataclasses.replace(state.q, params=ensemble(NETS["q"], norm)), target=ensemble(NETS["q_target"], norm)
    )
    if hasattr(state, "v"):
        state = dataclasses.replace(state, v=dataclasses.replace(state.v, params=mlp(NETS["v"], norm)))
    return state


def assert_close(ours, recorded, rtol=1e-5):
    """Within rtol of the largest recorded entry."""
    ours, recorded = np.asarray(ours, np.float64).ravel(), np.asarray(recorded, np.float64).ravel()
    np.testing.assert_allclose(ours, recorded, rtol=0, atol=rtol * np.abs(recorded).max())


def assert_layers_close(ours: dict, recorded: list, rtol=1e-5):
    """Parameters or gradients of one MLP against recorded layers; the largest entry of all sets the scale."""
    names = {"kernel": ("Dense", "kernel"), "bias": ("Dense", "bias"), "scale": ("LayerNorm", "scale"),
             "shift": ("LayerNorm", "bias")}  # fmt: skip
    pairs = [
        (np.asarray(ours[f"{names[k][0]}_{i}"][names[k][1]]).ravel(), np.ravel(v))
        for i, layer in enumerate(recorded)
        for k, v in layer.items()
    ]
    assert len(pairs) == len(jax.tree.leaves(ours))
    assert_close(np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]), rtol)


def assert_ensemble_close(ours: dict, recorded: list, scale: float = 1.0, rtol=1e-5):
    for i, member in enumerate(recorded):
        scaled = [{k: scale * np.array(v) for k, v in layer.items()} for layer in member]
        assert_layers_close(jax.tree.map(lambda x: x[i], ours["params"]["VmapMLP_0"]), scaled, rtol)  # noqa: B023


def actor_of(policy, params, temperature=0.0):
    return Actor(policy, params, lambda s, key: policy.sample(params, s, key), temperature)


def gradient(loss, params, *args):
    """Value, metrics and gradient of loss(params, *args) -> (value, metrics)."""
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, *args)
    return value, metrics, grads


ZERO = np.zeros((4, A))  # the target noise of a critic that has none


# --- IQL, BC, IFQL ------------------------------------------------------------------------------------------------
def iql_algorithm(critic_rate=3e-3):
    return ActorCritic(
        critic=IQLCritic(hidden=HIDDEN, discount=0.9, expectile=0.8, tau=0.25, learning_rate=critic_rate),
        extraction=AWR(beta=3.0),
        policy=Gaussian(action_size=A, hidden=HIDDEN),
        learning_rate=3e-3,
    )


def gaussian_params():
    return {"network": mlp(NETS["actor"], False), "log_std": jnp.asarray(RECORD["inputs"]["log_std"], jnp.float32)}


def test_iql_losses_and_gradients():
    algorithm, record = iql_algorithm(), RECORD["iql"]
    critic, state = algorithm.critic, with_weights(algorithm.critic.init(KEY, BATCH), False)
    q = critic.q(state, BATCH["observations"], BATCH["actions"])
    value, _, grads = gradient(critic.value_loss, state.v.params, q, BATCH)
    assert_close(value, record["value_loss"])
    assert_layers_close(grads["params"], record["value_grad"])
    targets = BATCH["rewards"] + 0.9 * BATCH["masks"] * critic.v(state.v.params, BATCH["next_observations"])
    value, _, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, record["critic_loss"])
    assert_ensemble_close(grads, record["critic_grad"])
    value, _, grads = gradient(
        algorithm.extraction.loss, gaussian_params(), (), algorithm.policy, critic, state, BATCH, KEY
    )
    assert_close(value, record["actor_loss"])
    assert_layers_close(grads["network"]["params"], record["actor_grad"]["layers"])
    assert_close(grads["log_std"], record["actor_grad"]["log_std"])


def test_iql_state_after_one_update():
    algorithm, record = iql_algorithm(), RECORD["iql"]["after"]
    state = algorithm.init(KEY, BATCH)
    state = dataclasses.replace(state, critic=with_weights(state.critic, False),
                                actor=dataclasses.replace(state.actor, params=gaussian_params()))  # fmt: skip
    state, metrics = algorithm.update(state, BATCH, KEY)
    assert_close(metrics["critic/v/loss"], record["value_loss"])
    assert_close(metrics["critic/loss"], record["critic_loss"])
    assert_close(metrics["actor/loss"], record["actor_loss"])
    assert_layers_close(state.critic.v.params["params"], record["v"])
    assert_ensemble_close(state.critic.q.params, record["q"])
    assert_ensemble_close(state.critic.target, record["q_target"])
    assert_layers_close(state.actor.params["network"]["params"], record["actor"]["layers"])
    assert_close(state.actor.params["log_std"], record["actor"]["log_std"])


def test_bc_is_the_imitation_of_iqls_actor():
    """With beta = 0 every weight is 1 and IQL's recorded kind of actor loss is BC's."""
    policy, params = Gaussian(action_size=A, hidden=HIDDEN), gaussian_params()
    critic = IQLCritic(hidden=HIDDEN)
    state = with_weights(critic.init(KEY, BATCH), False)
    weighted = AWR(beta=0.0).loss(params, (), policy, critic, state, BATCH, KEY)[0]
    plain, _ = Imitate().loss(params, (), policy, NoCritic(), (), BATCH, KEY)
    assert_close(plain, weighted)
    x = np.array(RECORD["inputs"]["batch"]["observations"])
    z = (np.array(RECORD["inputs"]["batch"]["actions"]) - np.tanh(numpy_mlp(NETS["actor"], x))) / np.exp(
        RECORD["inputs"]["log_std"]
    )
    assert_close(plain, (0.5 * z**2 + np.array(RECORD["inputs"]["log_std"]) + 0.5 * np.log(2 * np.pi)).sum(-1).mean())


def test_ifql(replay, monkeypatch):
    record, policy = RECORD["ifql"], Flow(action_size=A, hidden=HIDDEN)
    critic = IQLCritic(discount=0.9, expectile=0.8, **GELU)
    state, params = with_weights(critic.init(KEY, BATCH), True), mlp(NETS["flow"], False)
    q = critic.q(state, BATCH["observations"], BATCH["actions"])
    value, _, grads = gradient(critic.value_loss, state.v.params, q, BATCH)
    assert_close(value, record["value_loss"])
    assert_layers_close(grads["params"], record["value_grad"])
    targets = BATCH["rewards"] + 0.9 * BATCH["masks"] * critic.v(state.v.params, BATCH["next_observations"])
    value, _, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, record["critic_loss"])
    assert_ensemble_close(grads, record["critic_grad"])
    replay(DRAWS["normal"][1], DRAWS["time"])
    value, _, grads = gradient(BestOfN().loss, params, (), policy, critic, state, BATCH, KEY)
    assert_close(value, record["actor_loss"])
    assert_layers_close(grads["params"], record["actor_grad"])

    # The reference compares candidates under the online networks; give ours those as targets.
    noise = jnp.asarray(DRAWS["candidates"], jnp.float32)

    class Numbered(Flow):
        def sample(self, params, observations, key):
            return self.latent(params, observations, noise[key][None])

    monkeypatch.setattr(jax.random, "split", lambda key, n: jnp.arange(n))
    state = dataclasses.replace(state, target=state.q.params)
    q = lambda s, a: critic.q(state, s, a)
    chosen = BestOfN(samples=5).choose(
        Numbered(action_size=A, hidden=HIDDEN), params, q, BATCH["observations"][:1], KEY
    )
    assert_close(chosen[0], record["chosen"])


# --- ReBRAC and TD3+BC --------------------------------------------------------------------------------------------
def test_rebrac(replay):
    record, policy = RECORD["rebrac"], Deterministic(action_size=A, hidden=HIDDEN, activation="gelu")
    critic = ReBRACCritic(discount=0.9, penalty=0.7, **GELU)
    state = with_weights(critic.init(KEY, BATCH), True)
    replay(DRAWS["normal"][0])
    targets = critic.target(state, BATCH, actor_of(policy, mlp(NETS["actor_target"], False)), KEY)
    value, metrics, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, 2 * record["critic_loss"])
    assert_close(metrics["q"], record["q_mean"])
    assert_ensemble_close(grads, record["critic_grad"], scale=2)
    params = mlp(NETS["actor"], False)
    value, metrics, grads = gradient(DDPGBC(alpha=0.3).loss, params, (), policy, critic, state, BATCH, KEY)
    assert_close(value, record["actor_loss"])
    assert_close(metrics["imitation"], record["mse"])
    assert_layers_close(grads["params"], record["actor_grad"])


def test_td3_bc(replay):
    record, policy = RECORD["td3_bc"], Deterministic(action_size=A, hidden=HIDDEN)
    critic = TD(hidden=HIDDEN, discount=0.9, target_noise=0.2, tau=0.25, learning_rate=3e-3)
    state, actor = with_weights(critic.init(KEY, BATCH), False), mlp(NETS["actor_target"], False)
    replay(DRAWS["normal"][0], DRAWS["normal"][0])
    targets = critic.target(state, BATCH, actor_of(policy, actor), KEY)
    value, _, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, record["critic_loss"])
    assert_ensemble_close(grads, record["critic_grad"])
    after, _ = critic.update(state, BATCH, actor_of(policy, actor), KEY)
    assert_ensemble_close(after.q.params, record["after"]["q"])
    assert_ensemble_close(critic.follow(after, 0).target, record["after"]["q_target"])
    # The reference climbs its first network; two copies of that have it as their minimum.
    first = jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), state.q.params)
    state = dataclasses.replace(state, q=dataclasses.replace(state.q, params=first))
    value, metrics, grads = gradient(
        DDPGBC(alpha=1 / (2.5 * A)).loss, mlp(NETS["actor"], False), (), policy, critic, state, BATCH, KEY
    )
    assert_close(metrics["imitation"] / A, record["imitation"])
    assert_layers_close(jax.tree.map(lambda x: 2.5 * x, grads["params"]), record["actor_grad"])


def numpy_mlp(layers: list, x):
    """A plain ReLU network in float64."""
    for layer in layers[:-1]:
        x = np.maximum(x @ np.array(layer["kernel"]) + np.array(layer["bias"]), 0)
    return x @ np.array(layers[-1]["kernel"]) + np.array(layers[-1]["bias"])


def test_td3_bc_against_its_equations(replay):
    """Equations 3 and 5 of the paper and the target of TD3 in NumPy; gradients by central differences."""
    data = {k: np.array(v) for k, v in RECORD["inputs"]["batch"].items()}
    q_of = lambda members, s, a: np.stack([numpy_mlp(m, np.concatenate([s, a], -1))[:, 0] for m in members])
    following = np.tanh(numpy_mlp(NETS["actor_target"], data["next_observations"]))
    noise = np.clip(0.2 * DRAWS["normal"][0], -0.5, 0.5)
    q_next = q_of(NETS["q_target"], data["next_observations"], np.clip(following + noise, -1, 1)).min(0)
    y = data["rewards"] + 0.9 * data["masks"] * q_next
    errors = q_of(NETS["q"], data["observations"], data["actions"]) - y

    critic = TD(hidden=HIDDEN, discount=0.9, target_noise=0.2)
    state, policy = with_weights(critic.init(KEY, BATCH), False), Deterministic(action_size=A, hidden=HIDDEN)
    replay(DRAWS["normal"][0])
    targets = critic.target(state, BATCH, actor_of(policy, mlp(NETS["actor_target"], False)), KEY)
    assert_close(targets, y)
    value, _, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, (errors**2).mean(1).sum())
    assert_close(grads["params"]["VmapMLP_0"]["Dense_2"]["bias"][:, 0], 2 * errors.mean(1))

    def actor_loss(layers, weight=None):  # the paper's, with Q the minimum of two
        a = np.tanh(numpy_mlp(layers, data["observations"]))
        q = q_of(NETS["q"], data["observations"], a).min(0)
        weight = weight or 2.5 / np.abs(q).mean()
        return -weight * q.mean() + ((a - data["actions"]) ** 2).mean(), weight

    loss, weight = actor_loss(NETS["actor"])
    value, _, grads = gradient(
        DDPGBC(alpha=1 / (2.5 * A)).loss, mlp(NETS["actor"], False), (), policy, critic, state, BATCH, KEY
    )
    assert_close(2.5 * value, loss)
    for i in range(A):
        up, down = (json.loads(json.dumps(NETS["actor"])) for _ in range(2))
        up[-1]["bias"][i] += 1e-5
        down[-1]["bias"][i] -= 1e-5
        slope = (actor_loss(up, weight)[0] - actor_loss(down, weight)[0]) / 2e-5
        assert_close(2.5 * grads["params"]["Dense_2"]["bias"][i], slope)


# --- FQL ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, normalise", [("fql", False), ("fql_normalised", True)])
def test_fql(replay, name, normalise):
    record, policy = RECORD[name], OneStepFlow(action_size=A, hidden=HIDDEN)
    params = {"flow": mlp(NETS["flow"], False), "one_step": mlp(NETS["one_step"], False)}
    critic = TD(discount=0.9, backup="mean", aggregate="mean", **GELU)
    state = with_weights(critic.init(KEY, BATCH), True)
    noise = jnp.asarray(DRAWS["normal"][0], jnp.float32)
    assert_close(policy.flow.latent(params["flow"], BATCH["observations"], noise), record["flow_actions"])
    replay(DRAWS["normal"][0], ZERO)
    targets = critic.target(state, BATCH, actor_of(policy, params), KEY)
    value, metrics, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, 2 * record["critic_loss"])
    assert_close(metrics["q"], record["q_mean"])
    assert_ensemble_close(grads, record["critic_grad"], scale=2)
    replay(DRAWS["normal"][1], DRAWS["time"], DRAWS["normal"][2])
    extraction = Distil(alpha=2.5, normalise=normalise)
    value, metrics, grads = gradient(extraction.loss, params, (), policy, critic, state, BATCH, KEY)
    assert_close(value, record["actor_loss"])
    assert_close(metrics["flow_matching"], record["flow"])
    assert_close(metrics["distillation"], record["distill"])
    assert_close(metrics["q"], record["q"])
    assert_layers_close(grads["flow"]["params"], record["flow_grad"])
    assert_layers_close(grads["one_step"]["params"], record["one_step_grad"])


# --- SAC and RLPD -------------------------------------------------------------------------------------------------
def test_sac(replay):
    record, policy = RECORD["sac"], TanhGaussian(action_size=A, hidden=HIDDEN, activation="gelu", log_std_min=-5.0)
    params = {"network": mlp(NETS["gauss"], False)}
    critic = SoftTD(discount=0.9, aggregate="mean", **GELU)
    state = with_weights(critic.init(KEY, BATCH), True)
    extraction = MaxEnt(initial_temperature=float(np.exp(-0.4)), target_entropy=-0.5)
    aux = extraction.init()
    assert_close(extraction.temperature(aux), record["alpha"])
    replay(DRAWS["normal"][0])
    targets = critic.target(state, BATCH, actor_of(policy, params, extraction.temperature(aux)), KEY)
    value, metrics, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, 2 * record["critic_loss"])
    assert_ensemble_close(grads, record["critic_grad"], scale=2)
    replay(DRAWS["normal"][1])
    value, metrics, grads = gradient(extraction.loss, params, aux, policy, critic, state, BATCH, KEY)
    assert_close(value, record["actor_loss"])
    assert_close(metrics["entropy"], record["entropy"])
    assert_close(metrics["q"], record["q"])
    assert_layers_close(grads["network"]["params"], record["actor_grad"])
    excess = metrics["entropy"] - metrics["target_entropy"]
    value, _, slope = gradient(extraction.temperature_loss, aux.params, excess)
    assert_close(value, record["alpha_loss"])
    assert_close(slope, record["log_alpha_grad"])


@pytest.mark.parametrize("chosen", [0, 1])
def test_rlpd(replay, monkeypatch, chosen):
    """Two networks of which the draw `chosen` is backed up, layer norm before the activation."""
    record, policy = RECORD["rlpd"], TanhGaussian(action_size=A, hidden=HIDDEN)
    params = {"network": mlp(NETS["gauss"], False)}
    critic = SoftTD(hidden=HIDDEN, layer_norm="before", discount=0.9, subset=1, aggregate="mean")
    state = with_weights(critic.init(KEY, BATCH), True)
    extraction = MaxEnt(initial_temperature=float(np.exp(-0.4)), target_entropy=-0.5)
    aux = extraction.init()
    monkeypatch.setattr(jax.random, "choice", lambda *_, **__: jnp.array([chosen]))
    replay(DRAWS["normal"][0])
    targets = critic.target(state, BATCH, actor_of(policy, params, extraction.temperature(aux)), KEY)
    value, _, grads = gradient(critic.q_loss, state.q.params, targets, BATCH)
    assert_close(value, 2 * record[f"critic_{chosen}"]["loss"])
    assert_ensemble_close(grads, record[f"critic_{chosen}"]["grad"], scale=2)
    replay(DRAWS["normal"][1])
    value, metrics, grads = gradient(extraction.loss, params, aux, policy, critic, state, BATCH, KEY)
    assert_close(value, record["actor_loss"])
    assert_close(metrics["entropy"], record["entropy"])
    assert_layers_close(grads["network"]["params"], record["actor_grad"])
    excess = metrics["entropy"] - metrics["target_entropy"]
    value, _, slope = gradient(extraction.temperature_loss, aux.params, excess)
    assert_close(value, record["temperature_loss"])
    assert_close(slope, record["log_alpha_grad"])


# --- CQL and Cal-QL -----------------------------------------------------------------------------------------------
VARIANTS = {
    "cql": {"entropy": True},
    "cal_ql": {"calibrated": True, "max_target_backup": True},
    "cal_ql_max_entropy": {"calibrated": True, "max_target_backup": True, "entropy": True},
    "cql_lagrange": {"lagrange": True, "gap_target": 0.8, "gap_min": -200.0},
    "cql_no_importance": {"calibrated": True, "importance": False, "temperature": 2.0},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_cql_and_cal_ql(replay, monkeypatch, name):
    record, policy = RECORD[name], TanhGaussian(action_size=A, hidden=HIDDEN)
    params = {"network": mlp(NETS["gauss"], False)}
    critic = CQLCritic(hidden=HIDDEN, discount=0.9, weight=2.5, samples=N, **VARIANTS[name])
    state = with_weights(critic.init(KEY, BATCH), False)
    if critic.lagrange:
        state = dataclasses.replace(state, multiplier=dataclasses.replace(state.multiplier, params=jnp.float32(0.2)))

    def draw(self, actor, batch, which, key):  # the same without vmap, which would ask for one draw only
        rows = [actor.policy.sample_and_log_prob(actor.params, batch[which], key) for _ in range(self.samples)]
        return jnp.stack([r[0] for r in rows]), jnp.stack([r[1] for r in rows])

    monkeypatch.setattr(CQLCritic, "draw", draw)
    seen = {}
    loss = CQLCritic.loss
    monkeypatch.setattr(CQLCritic, "loss", lambda self, params, *args: seen.update(args=args) or loss(
        self, params, *args))  # fmt: skip
    backup = list(DRAWS["many"][0].swapaxes(0, 1)) if critic.max_target_backup else [DRAWS["normal"][1]]
    replay(*backup, DRAWS["uniform"].swapaxes(0, 1), *DRAWS["many"][1].swapaxes(0, 1),
           *DRAWS["many"][2].swapaxes(0, 1))  # fmt: skip
    actor = actor_of(policy, params, record["alpha"])
    with monkeypatch.context() as patch:  # untraced, so that what the loss is given can be kept
        patch.setattr(jax.lax, "cond", lambda turn, yes, no, *args: (yes if turn else no)(*args))
        _, metrics = critic.update(state, BATCH, actor, KEY)
    assert_close(metrics["td"], record["qf1_bellman_loss"] + record["qf2_bellman_loss"])
    assert_close(metrics["gap"], (record["cql_qf1_diff"] + record["cql_qf2_diff"]) / 2)
    assert_close(metrics["loss"], record["qf1_loss"] + record["qf2_loss"])
    grads = jax.grad(lambda p: loss(critic, p, *seen["args"])[0])(state.q.params)
    assert_ensemble_close(grads, record["critic_grad"])
    if critic.lagrange:
        value, _, slope = gradient(critic.multiplier_loss, state.multiplier.params, metrics["gap"])
        assert_close(value, record["alpha_prime_loss"])
        assert_close(slope, record["log_alpha_prime_grad"])

    extraction = MaxEnt(initial_temperature=record["alpha"])
    replay(DRAWS["normal"][0])
    value, _, grads = gradient(extraction.loss, params, extraction.init(), policy, critic, state, BATCH, KEY)
    assert_close(value, record["policy_loss"])
    assert_layers_close(grads["network"]["params"], record["policy_grad"])


# --- PA-RL --------------------------------------------------------------------------------------------------------
PA_RL = json.loads(pathlib.Path(__file__).with_name("pa_rl.json").read_text())


def pa_rl_critic():
    """The critic and its state; the reference's networks share their output layer, here each gets the first one's."""
    critic = CQLCritic(hidden=HIDDEN, activation="swish", layer_norm="before", discount=0.9, weight=2.5, samples=N,
                       calibrated=True, importance=False, repeat=True, aggregate="mean")  # fmt: skip
    shared = lambda members: ensemble([[*member[:2], members[0][2]] for member in members], True)
    state = critic.init(KEY, BATCH)
    state = dataclasses.replace(state, q=dataclasses.replace(state.q, params=shared(NETS["q"])),
                                target=shared(NETS["q_target"]))  # fmt: skip
    return critic, state


def pa_rl_proposals() -> dict:
    return {k: jnp.asarray(v, jnp.float32).swapaxes(0, 1) for k, v in PA_RL["proposals"].items()}


def test_pa_rl_optimises_actions():
    critic, state = pa_rl_critic()
    extraction, q = ActionOptimisation(**PA_RL["settings"]), lambda s, a: critic.q(state, s, a)
    for name, recorded in (("observations", "chosen"), ("next_observations", "next_chosen")):
        assert_close(extraction.select(q, BATCH[name], pa_rl_proposals()[name]), PA_RL[recorded])
    extraction = dataclasses.replace(extraction, distil="all")
    prepared, chosen = extraction.optimise(q, BATCH, pa_rl_proposals(), KEY, 0)
    assert_close(chosen["observations"], PA_RL["chosen"])
    assert_close(chosen["next_observations"], PA_RL["next_chosen"])
    # There the worst comes first and the recorded action last; here the best comes first.
    order = [1, 0, 2]
    assert_close(prepared["targets"], np.swapaxes(PA_RL["candidates"], 0, 1)[order])
    assert_close(prepared["weights"], np.asarray(jax.nn.softmax(np.array(PA_RL["logits"]).T[order], axis=0)))


def test_pa_rl_critic(replay, monkeypatch):
    """Losses there are means over the two networks where ours are sums, and the gap lacks log(3 N + 1)."""
    critic, state = pa_rl_critic()
    q = lambda s, a: critic.q(state, s, a)
    _, chosen = ActionOptimisation(**PA_RL["settings"]).optimise(q, BATCH, pa_rl_proposals(), KEY, 0)
    seen, loss = {}, CQLCritic.loss
    monkeypatch.setattr(CQLCritic, "loss", lambda self, params, *args: seen.update(args=args) or loss(
        self, params, *args))  # fmt: skip
    monkeypatch.setattr(jax.lax, "cond", lambda _, conservative, plain, *args: conservative(*args))  # nothing traced
    replay(DRAWS["uniform"].swapaxes(0, 1))
    _, metrics = critic.update(state, BATCH, Actor(None, (), None, chosen=chosen), KEY)
    assert_close(metrics["td"], 2 * PA_RL["td_loss"])
    assert_close(metrics["gap"], PA_RL["cql_loss"] + np.log(3 * N + 1))
    assert_close(metrics["loss"], 2 * (PA_RL["critic_loss"] + 2.5 * np.log(3 * N + 1)))
    grads = jax.grad(lambda p: loss(critic, p, *seen["args"])[0])(state.q.params)["params"]["VmapMLP_0"]
    output = grads.pop("Dense_2")
    assert_ensemble_close({"params": {"VmapMLP_0": grads}}, PA_RL["critic_grad"], scale=2)
    for name in ("kernel", "bias"):
        assert_close(output[name].sum(0), 2 * np.array(PA_RL["shared_output_grad"][name]))
