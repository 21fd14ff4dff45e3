"""The natural gradient of a policy, within a trust region. Kakade 2001, "A Natural Policy Gradient"; Schulman et al.
2015, "Trust Region Policy Optimization", arXiv:1502.05477."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from understudy.core import Metrics, Params

HALVINGS = 10


def natural_step(
    log_prob: Callable, params: Params, advantages, max_kl, damping, iterations: int
) -> tuple[Params, Metrics]:
    """Parameters after one step, and metrics: the gain of the surrogate, and the share of the step that was taken.

        w      = (F + damping)^-1 g,  g = E [A grad log pi],  F = E [grad log pi grad log pi^T]
        step   = sqrt(2 max_kl / w (F + damping) w) w,  halved until E [A (pi'/pi - 1)] is 0.1 of its first order

    Args:
      log_prob: params -> [N], of actions that the policy drew. advantages: [N].
      max_kl: KL divergence of the step, to second order. iterations: of conjugate gradients, at
        most; they end where the residual is below 1e-5.
    """
    flat, tree = ravel_pytree(params)
    scores = lambda flat: log_prob(tree(flat))
    old, pull = jax.vjp(scores, flat)
    weights = advantages / len(old)
    gradient = pull(weights)[0]
    fisher = lambda v: pull(jax.jvp(scores, (flat,), (v,))[1] / len(old))[0] + damping * v
    w, _ = cg(fisher, gradient, tol=0.0, atol=1e-5, maxiter=iterations)
    step = jnp.sqrt(2 * max_kl / jnp.maximum(w @ fisher(w), 1e-20)) * w
    shares = 0.5 ** jnp.arange(HALVINGS)
    gains = jax.lax.map(lambda share: (weights * jnp.expm1(scores(flat + share * step) - old)).sum(), shares)
    enough = (gains > 0.1 * shares * (gradient @ step)) & (gains > 0)
    chosen = enough.argmax()
    taken = enough.any()
    share = jnp.where(taken, shares[chosen], 0.0)
    return tree(flat + share * step), {"gain": jnp.where(taken, gains[chosen], 0.0), "share": share}
