"""Uni-O4 and the model it is judged by: equations by hand, the order of its stages, and a problem of known answer."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from understudy.algorithms.uni_o4 import UniO4
from understudy.dynamics import Dynamics, Trial
from understudy.errors import SettingsError
from understudy.policies.deterministic import Deterministic
from understudy.policies.gaussian import Gaussian

KEY = jax.random.key(0)


def test_others_that_imitate_better_add_weight(monkeypatch):
    """Log-densities of two clones at two actions; each is the best at one of them."""
    log_probs = jnp.array([[-1.0, -3.0], [-2.0, -1.0]])
    algorithm = UniO4(policy=Gaussian(action_size=1), clones=2, disagreement=0.5)
    monkeypatch.setattr(Gaussian, "log_prob", lambda self, params, *_: params)
    batch = {"observations": None, "actions": None}
    (loss, _), grads = jax.value_and_grad(algorithm.imitation_loss, has_aux=True)(log_probs, batch)
    np.testing.assert_allclose(loss, (1 + (3 + 0.5 * 2)) / 2 + ((2 + 0.5 * 1) + 1) / 2)
    np.testing.assert_allclose(grads, [[-0.5, -0.75], [-0.75, -0.5]])


def test_the_value_in_a_model_is_the_mean_over_steps_of_running_episodes():
    """Two policies, one state: s' = s + a, Q = s + 10 a, and half of all episodes end with each step."""
    trial = Trial.begin(jnp.array([1.0, 2.0]), jnp.zeros((2, 1, 1)))
    for _ in range(3):
        trial = trial.play(
            act=lambda params, s: jnp.full_like(s, params), q=lambda s, a: (s + 10 * a)[:, 0],
            step=lambda s, a: (s + a, jnp.full(1, 0.5)),
        )  # fmt: skip
    chances = np.array([1, 0.5, 0.25])
    expected = [(chances * [0 * a + 10 * a, 1 * a + 10 * a, 2 * a + 10 * a]).sum() / chances.sum() for a in (1, 2)]
    np.testing.assert_allclose(trial.value, expected, rtol=1e-6)
    np.testing.assert_allclose(trial.states[:, 0, 0], [3, 6])


def test_a_model_learns_where_steps_lead_and_where_episodes_end():
    """s' = s + (0.1 a, 10 a) ends where a > 0.5; the second dimension is a hundred times the first. The masks are those
    of several steps: what is not 0 goes on."""
    model, rng = Dynamics(hidden=(32,), ensemble=2, learning_rate=3e-3), np.random.default_rng(0)
    s, a = rng.normal(size=(512, 2)).astype(np.float32), rng.uniform(-1, 1, (512, 1)).astype(np.float32)
    batch = {"observations": s, "actions": a, "next_observations": s + a * [0.1, 10], "masks": (a[:, 0] <= 0.5) * 0.6}
    batch = {k: jnp.asarray(v, jnp.float32) for k, v in batch.items()}
    state = jax.lax.fori_loop(0, 600, lambda i, x: model.update(x, batch)[0], model.init(KEY, batch))
    following, goes_on = model.step(state, jnp.array([[0.3, -1.0], [1.0, 0.0]]), jnp.array([[0.2], [0.8]]))
    np.testing.assert_allclose(following, [[0.32, 1.0], [1.08, 8.0]], atol=0.2)
    np.testing.assert_allclose(following[:, 0], [0.32, 1.08], atol=0.01)
    assert goes_on[0] > 0.9 and goes_on[1] < 0.1


SMALL = UniO4(policy=Gaussian(action_size=1, hidden=(16,)), model=Dynamics(hidden=(16,), ensemble=2), hidden=(32,),
              activation="relu", clones=2, clip=0.25, learning_rate=3e-3, value_learning_rate=3e-3, horizon=2,
              rollouts=8, steps_per_rollout=8, epochs=1, minibatches=2)  # fmt: skip


def bandit(size=64):
    """One step an episode, reward 1 - (a - 0.5)^2, any action as often as any other."""
    actions = np.linspace(-1, 1, size)[:, None]
    rewards = 1 - (actions[:, 0] - 0.5) ** 2
    batch = {"observations": np.ones((size, 1)), "actions": actions, "rewards": rewards, "masks": np.zeros(size),
             "next_observations": np.ones((size, 1))}  # fmt: skip
    return {k: jnp.asarray(v, jnp.float32) for k, v in batch.items()}


init = jax.jit(lambda algorithm, batch: algorithm.init(KEY, batch))


@jax.jit
def learn(algorithm, state, batch, n):
    return jax.lax.fori_loop(
        0, n, lambda i, x: algorithm.update(x, batch, jax.random.fold_in(KEY, x.updates))[0], state
    )


same = lambda x, y: all(jax.tree.leaves(jax.tree.map(np.array_equal, x, y)))


def test_its_stages_come_in_their_order():
    """Ten offline updates, the last three of which improve; what is played is learned from alone."""
    algorithm, batch = dataclasses.replace(SMALL, offline_steps=10.0, improvement=0.3), bandit()
    start = init(algorithm, batch)
    fitted = learn(algorithm, start, batch, 7)
    assert not same(fitted.critic.v.params, start.critic.v.params) and not same(fitted.model, start.model)
    assert same(fitted.accepted, start.accepted) and same(fitted.actor.params, first(fitted.clones.params))
    improved = learn(algorithm, fitted, batch, 2)  # a window
    assert same(improved.critic, fitted.critic) and same(improved.model, fitted.model)
    assert same(improved.accepted, fitted.clones.params), "the clones themselves are the first to be accepted"
    assert not same(improved.clones.params, fitted.clones.params) and (improved.best > -1e30).all()
    assert same(improved.actor.params, jax.tree.map(lambda x: x[improved.best.argmax()], improved.accepted))
    assert same(improved.value.params, fitted.critic.v.params)
    live = improved
    for t in range(8):
        live = algorithm.observe(live, {k: v[t : t + 1] for k, v in batch.items()} | {"ends": jnp.ones(1)})
    live = learn(algorithm, live, batch, 2)
    parts = lambda state: (state.clones, state.accepted, state.critic, state.model, state.trial)
    assert same(parts(live), parts(improved)) and not same(live.actor.params, improved.actor.params)


def test_an_offline_phase_that_is_extended_forgets_what_clones_were_worth_in_the_old_model():
    algorithm, batch = dataclasses.replace(SMALL, offline_steps=4.0, improvement=0.5), bandit()
    state = dataclasses.replace(learn(algorithm, init(algorithm, batch), batch, 4), best=jnp.full(2, 1e6))
    longer = dataclasses.replace(algorithm, offline_steps=8.0, improvement=0.25)
    fitted = learn(longer, state, batch, 2)
    assert same(fitted.best, state.best) and not same(fitted.clones.params, state.clones.params)
    improved = learn(longer, fitted, batch, 2)  # a window
    assert same(improved.accepted, fitted.clones.params) and (improved.best < 1e3).all()


def test_what_begins_late_has_its_stages_in_what_is_left():
    algorithm, batch = dataclasses.replace(SMALL, offline_steps=10.0, improvement=0.5), bandit()
    late = dataclasses.replace(init(algorithm, batch), begun=jnp.int32(6))
    fitted = learn(algorithm, late, batch, 2)
    assert not same(fitted.model, late.model) and same(fitted.accepted, late.accepted)
    improved = learn(algorithm, fitted, batch, 2)
    assert same(improved.model, fitted.model) and not same(improved.accepted, late.accepted)


first = lambda params: jax.tree.map(lambda x: x[0], params)


def test_only_what_is_worth_more_in_the_model_is_accepted():
    algorithm, batch = dataclasses.replace(SMALL, offline_steps=8.0, improvement=1.0), bandit()
    state = learn(algorithm, init(algorithm, batch), batch, 2)
    better, worse = (dataclasses.replace(state, best=jnp.full(2, x)) for x in (-1e6, 1e6))
    assert same(learn(algorithm, better, batch, 2).accepted, state.clones.params)
    assert same(learn(algorithm, worse, batch, 2).accepted, state.accepted)
    assert not same(state.accepted, state.clones.params)


def test_it_improves_on_its_clones_without_playing():
    algorithm, batch = dataclasses.replace(SMALL, offline_steps=1600.0, improvement=0.5), bandit()
    act = lambda state: float(algorithm.act(state, jnp.ones((1, 1)), KEY, greedy=True)[0][0, 0])
    cloned = learn(algorithm, init(algorithm, batch), batch, 800)
    np.testing.assert_allclose(act(cloned), 0, atol=0.15)
    improved = learn(algorithm, cloned, batch, 800)
    assert 1 - (act(improved) - 0.5) ** 2 > 0.97, "the clones' reward is 0.75"
    assert (improved.best > 0.9).all()


def test_what_it_cannot_use_is_refused():
    with pytest.raises(SettingsError, match="needs a policy with log_prob .* Deterministic is not one"):
        dataclasses.replace(SMALL, policy=Deterministic(action_size=1)).init(KEY, bandit(4))
    with pytest.raises(SettingsError, match=r"UniO4 needs batch keys \['rewards'\]"):
        SMALL.init(KEY, {k: v for k, v in bandit(4).items() if k != "rewards"})


def test_the_length_of_a_stage_may_be_swept():
    """Of four updates one improves, or three: at the third they are in different stages, in one program."""
    swept = [dataclasses.replace(SMALL, offline_steps=4.0, improvement=share) for share in (0.25, 0.75)]
    batch = bandit()

    def third(algorithm):
        state = algorithm.init(KEY, batch)
        return jax.lax.fori_loop(0, 3, lambda i, s: algorithm.update(s, batch, jax.random.fold_in(KEY, i))[0], state)

    together = jax.jit(jax.vmap(third))(jax.tree.map(lambda *x: jnp.array(x), *swept))
    for i, algorithm in enumerate(swept):
        alone = jax.jit(third)(algorithm)
        same = lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-3, atol=1e-5)
        jax.tree.map(same, together.clones.params, alone.clones.params)
    assert (together.best[0] < -1e29).all() and (together.best[1] > -1e29).all()  # the one has not been valued yet


def test_seeds_in_one_program_compute_one_stage_each_update():
    states = jax.vmap(lambda key: SMALL.init(key, bandit()))(jax.random.split(KEY, 2))
    program = jax.make_jaxpr(jax.vmap(lambda state: SMALL.update(state, bandit(), KEY)))(states)
    assert any(e.primitive.name == "cond" and len(e.params["branches"]) == 3 for e in program.eqns)
