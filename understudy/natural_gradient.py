"""The natural gradient of a policy, within a trust region. Kakade 2001, "A Natural Policy Gradient"; Schulman et al.
2015, "Trust Region Policy Optimization", arXiv:1502.05477."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from understudy.core import Metrics, Params

HALVINGS = 10


def conjugate_gradients(product: Callable, b, iterations: int):
    """x with A x = b, from `product` v -> A v of a positive definite A: [D]. Ends early where |A x - b|^2 < 1e-10."""

    def step(_, carry):
        x, residual, direction, square = carry
        along = product(direction)
        going = square >= 1e-10
        share = jnp.where(going, square / jnp.where(going, direction @ along, 1.0), 0.0)
        residual = residual - share * along
        after = jnp.where(going, residual @ residual, square)
        onward = residual + after / jnp.maximum(square, 1e-30) * direction
        return x + share * direction, residual, jnp.where(going, onward, direction), after

    return jax.lax.fori_loop(0, iterations, step, (jnp.zeros_like(b), b, b, b @ b))[0]


def natural_step(
    log_prob: Callable, params: Params, advantages, max_kl, damping, iterations: int
) -> tuple[Params, Metrics]:
    """Parameters after one step, and metrics: the gain of the surrogate, and the share of the step that was taken.

        w      = (F + damping)^-1 g,  g = E [A grad log pi],  F = E [grad log pi grad log pi^T]
        step   = sqrt(2 max_kl / w (F + damping) w) w,  halved until E [A (pi'/pi - 1)] is 0.1 of its first order

    Args:
      log_prob: params -> [N], of actions that the policy drew. advantages: [N].
      max_kl: KL divergence of the step, to second order. iterations: of conjugate gradients.
    """
    flat, tree = ravel_pytree(params)
    scores = lambda flat: log_prob(tree(flat))
    old, pull = jax.vjp(scores, flat)
    weights = advantages / len(old)
    gradient = pull(weights)[0]
    fisher = lambda v: pull(jax.jvp(scores, (flat,), (v,))[1] / len(old))[0] + damping * v
    w = conjugate_gradients(fisher, gradient, iterations)
    step = jnp.sqrt(2 * max_kl / jnp.maximum(w @ fisher(w), 1e-20)) * w
    shares = 0.5 ** jnp.arange(HALVINGS)
    gains = jax.lax.map(lambda share: (weights * jnp.expm1(scores(flat + share * step) - old)).sum(), shares)
    enough = (gains > 0.1 * shares * (gradient @ step)) & (gains > 0)
    chosen = enough.argmax()
    taken = enough.any()
    share = jnp.where(taken, shares[chosen], 0.0)
    return tree(flat + share * step), {"gain": jnp.where(taken, gains[chosen], 0.0), "share": share}
