"""critic x extraction x policy: every product either runs, or is refused with its reason."""

from __future__ import annotations

import itertools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import products
import pytest

from understudy.algorithm import ActorCritic
from understudy.core import CAPABILITIES
from understudy.errors import SettingsError

PARTS = (products.CRITICS, products.EXTRACTIONS, products.POLICIES)
CRITICS = pytest.mark.parametrize("critic", products.CRITICS, ids=lambda c: type(c).__name__)


def made(critic, extraction, policy) -> ActorCritic:
    """The product with small networks."""
    return ActorCritic(critic=cases.shrink(critic), extraction=cases.shrink(extraction), policy=cases.shrink(policy))


@CRITICS
def test_what_does_not_fit_is_refused_with_what_is_missing(critic):
    batch = cases.make_batch()
    for extraction, policy in itertools.product(*PARTS[1:]):
        if lacks := products.lacking(critic, extraction, policy):
            with pytest.raises(SettingsError) as error:
                made(critic, extraction, policy).init(jax.random.key(0), batch)
            assert any(f"{how} {n}" in str(error.value) for n in lacks for how in ("with", "of the class"))
            assert ". Use " in str(error.value)


def test_no_part_needs_more_than_the_capabilities():
    assert {n for part in (*products.CRITICS, *products.EXTRACTIONS) for n in part.needs} <= CAPABILITIES.keys()


def test_products_run():
    """A share of them, every part among them; nothing is compiled. All of them train in the slow test below."""
    batch, seen = cases.make_batch(), set()
    for critic, extraction, policy in itertools.product(*PARTS):
        if products.lacking(critic, extraction, policy) or seen >= {critic, extraction, policy}:
            continue
        algorithm = made(critic, extraction, policy)

        def step(key, algorithm=algorithm):
            state = algorithm.init(key, batch)
            actions, _ = algorithm.act(state, batch["observations"], key)
            return algorithm.update(state, batch, key), actions

        (_, metrics), actions = jax.eval_shape(step, jax.random.key(0))
        assert actions.shape == batch["actions"].shape and metrics
        seen |= {critic, extraction, policy}
    assert len(seen) == sum(len(set(parts)) for parts in PARTS), "every part fits somewhere"


@pytest.mark.slow
@CRITICS
def test_every_product_trains_for_100_steps(critic):
    """Finite metrics and parameters, bounded actions."""
    batch = cases.make_batch()
    for extraction, policy in itertools.product(*PARTS[1:]):
        if products.lacking(critic, extraction, policy):
            continue
        algorithm = made(critic, extraction, policy)

        @jax.jit
        def train(key, algorithm=algorithm):
            body = lambda state, i: algorithm.update(state, batch, jax.random.fold_in(key, i))
            state, metrics = jax.lax.scan(body, algorithm.init(key, batch), jnp.arange(100))
            return state, metrics, algorithm.act(state, batch["observations"], key)[0]

        state, metrics, actions = train(jax.random.key(0))
        name = " x ".join(map(products.label, (critic, extraction, policy)))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics, actions))), name
        assert float(jnp.abs(actions).max()) <= 1.0, name
        jax.clear_caches()


def test_most_products_run_and_the_page_says_so():
    runs = [not products.lacking(*parts) for parts in itertools.product(*PARTS)]
    assert sum(runs) > len(runs) / 3
    assert products.PAGE.read_text() == products.page(), "write it anew: PYTHONPATH=tests python tests/laws/products.py"
