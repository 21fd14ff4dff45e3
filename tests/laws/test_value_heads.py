"""What critics share holds of every registered algorithm that has Q networks: heads, lower bounds, dropout."""

from __future__ import annotations

import dataclasses

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from understudy.critics import QCritic

RANGE = dict(bins=11, v_min=-6.0, v_max=6.0)
VARIANTS = {
    "hl_gauss, lcb, dropout": dict(head="hl_gauss", backup="lcb", aggregate="lcb", dropout=0.1, **RANGE),
    "two_hot": dict(head="two_hot", **RANGE),
}
NAMES = [n for n in sorted(cases.recipes()) if isinstance(vars(cases.make(n)).get("critic"), QCritic)]


def with_critic(name: str, settings: dict):
    algorithm = cases.make(name)
    known = {f.name for f in dataclasses.fields(algorithm.critic)}
    critic = dataclasses.replace(algorithm.critic, **{k: v for k, v in settings.items() if k in known})
    return dataclasses.replace(algorithm, critic=critic)


@jax.jit
def twenty(algorithm, state, batch, key):
    body = lambda state, i: algorithm.update(state, batch, jax.random.fold_in(key, i))
    return jax.lax.scan(body, state, jnp.arange(20))


SOON = ("cal_ql", "iql", "td3_bc")  # with every head; the others by default with the first
EACH = [
    pytest.param(n, v, marks=() if n in SOON or v == next(iter(VARIANTS)) else pytest.mark.slow)
    for n in NAMES
    for v in VARIANTS
]


@pytest.mark.parametrize("name, variant", EACH)
def test_any_algorithm_learns_with_any_head(name, variant):
    algorithm = with_critic(name, VARIANTS[variant])
    batch = cases.needed(algorithm, cases.make_batch())
    start = cases.init(algorithm, jax.random.key(0), batch)
    state, metrics = twenty(algorithm, start, batch, jax.random.key(1))
    bad = [k for k, v in metrics.items() if not np.isfinite(v).all()]
    assert not bad and all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    assert float(metrics["critic/clipped"].min()) >= 0 and float(metrics["critic/clipped"].max()) < 1
    q = algorithm.critic.qs(state.critic.q.params, batch["observations"], batch["actions"])
    assert q.shape == (algorithm.critic.ensemble, cases.B) and float(jnp.abs(q).max()) <= 6
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), start.actor.params, state.actor.params)
    assert any(jax.tree.leaves(moved))
    actions, _ = algorithm.act(state, batch["observations"], jax.random.key(2))
    assert actions.shape == batch["actions"].shape


def test_ranges_are_swept_in_one_program():
    """Two ranges side by side equal two runs, with no other program for the second."""
    algorithms = [with_critic("td3_bc", VARIANTS["two_hot"] | dict(v_min=v)) for v in (-6.0, -3.0)]
    batch = cases.needed(algorithms[0], cases.make_batch())
    run = jax.jit(lambda a, k: a.update(a.init(k, batch), batch, k)[1])
    alone = [run(a, jax.random.key(3)) for a in algorithms]
    assert run._cache_size() == 1 and float(alone[0]["critic/q"]) != float(alone[1]["critic/q"])
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(i) for i in x]), *algorithms)
    together = jax.jit(jax.vmap(run.__wrapped__, in_axes=(0, None)))(stacked, jax.random.key(3))
    for k, v in together.items():
        np.testing.assert_allclose(v, [a[k] for a in alone], rtol=2e-4, atol=2e-5)
