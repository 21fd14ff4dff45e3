"""Losses and weights as equations, elementwise unless said otherwise. Each has a value test."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def expectile_loss(u, expectile):
    """|tau - 1(u < 0)| u^2. Newey and Powell 1987; IQL eq. 5 with u = Q - V."""
    return jnp.where(u > 0, expectile, 1 - expectile) * u**2


def awr_weights(advantages, beta, clip):
    """min(exp(beta A), clip). Peng et al. 2019; IQL eq. 7."""
    return jnp.minimum(jnp.exp(beta * advantages), clip)


def td_loss(q, targets):
    """Mean squared TD error, summed over the ensemble: q [E, B], targets [B] -> scalar."""
    return ((q - targets) ** 2).mean(-1).sum()


def generalised_advantages(rewards, values, next_values, masks, ends, begins, discount, trace):
    """GAE, A_t = delta_t + gamma lambda A_{t+1} within each episode, delta_t = r_t + gamma m_t V(s_{t+1}) - V(s_t):
    all [T, ...] -> [T, ...]. `ends` is 1 at an episode's last step, where a time-out still bootstraps (mask 1).
    Schulman et al. 2015, arXiv:1506.02438, eq. 16.

    `begins` is 1 where a decision was made. One that lasts k steps is one step of the above, its reward
    r_t + gamma r_{t+1} + ..., its discount gamma^k; the steps [T] or the episode may end before it does. Where nothing
    was decided, what is returned means nothing."""

    def back(following, now):
        gain, advantage, decided = following  # from the next step on
        reward, value, next_value, mask, end, begin = now
        beyond = mask * next_value + trace * (1 - end) * advantage
        gain = reward + discount * jnp.where((decided > 0) | (end > 0), beyond, gain)
        return (gain, gain - value, begin), gain - value

    nothing = jnp.zeros_like(rewards[0])
    steps = (rewards, values, next_values, masks, ends, begins)
    return jax.lax.scan(back, (nothing, nothing, jnp.ones_like(nothing)), steps, reverse=True)[1]


def clipped_surrogate(ratio, advantages, clip):
    """min(rho A, clip(rho, 1 - eps, 1 + eps) A). Schulman et al. 2017, arXiv:1707.06347, eq. 7."""
    return jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages)


def two_hot(values, points):
    """Mass on the two neighbours in the even grid `points` [N], so that the mean is the value: [...] -> [..., N].
    Values lie within the grid. MuZero, Schrittwieser et al. 2020, arXiv:1911.08265, appendix F, without its scaling."""
    return jnp.maximum(1 - jnp.abs(values[..., None] - points) / (points[1] - points[0]), 0)


def hl_gauss(values, edges, sigma):
    """Mass of N(value, sigma^2), cut off at the ends, in each bin between `edges` [N + 1]: [...] -> [..., N].
    Values lie within the edges. Farebrother et al. 2024, arXiv:2403.03950, section 3.1."""
    below = jax.scipy.special.erf((edges - values[..., None]) / (jnp.sqrt(2.0) * sigma))
    return (below[..., 1:] - below[..., :-1]) / (below[..., -1:] - below[..., :1])


def categorical_loss(logits, probabilities):
    """Mean cross-entropy -sum_k p_k log q_k, summed over the ensemble: [E, B, N], [B, N] or [E, B, N] -> scalar."""
    return -(probabilities * jax.nn.log_softmax(logits)).sum(-1).mean(-1).sum()


def categorical_mean(logits, points):
    """sum_k q_k z_k: [..., N], [N] -> [...]."""
    return (jax.nn.softmax(logits) * points).sum(-1)


def normalised_q_weight(q):
    """1 / mean |Q|, a constant to the gradient. TD3+BC eq. 5, without its alpha."""
    return 1.0 / jnp.maximum(jax.lax.stop_gradient(jnp.abs(q).mean()), 1e-6)


def conservative_gap(q_sampled, q_data, temperature=1.0):
    """T logsumexp(Q(s, .)/T) - Q(s, a): q_sampled [E, N, B], q_data [E, B] -> [E, B]. CQL eq. 4, CQL(H)."""
    return temperature * jax.nn.logsumexp(q_sampled / temperature, axis=1) - q_data


AGGREGATES = ("min", "mean", "lcb")


def aggregate(q, how: str, lcb_beta=None):
    """Reduce an ensemble [E, ...] by 'min', 'mean' or 'lcb', the lower confidence bound of `lower_bound`."""
    if how == "lcb":
        return lower_bound(q, lcb_beta)
    return {"min": least, "mean": lambda q: q.mean(0)}[how](q)


def least(x):
    """Minimum over the first axis, [E, ...] -> [...], with the gradient of one entry.

    That of jnp.min divides by the number of entries that equal the minimum: 0, and the gradient NaN, where a compiler
    computes the entries twice and rounds them differently."""
    here = jnp.expand_dims(x.argmin(0), 0) == jnp.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1))
    return jnp.where(here, x, 0).sum(0)


def most(x):
    """Maximum over the first axis, as `least`."""
    return -least(-x)


def lower_bound(q, beta):
    """mean - beta std over the first axis (divided by E, not E - 1), with gradient 0 of a std that is 0."""
    variance = q.var(0)
    return q.mean(0) - beta * jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)


def flow_matching_loss(velocity, noise, actions):
    """Mean over dimensions of (v - (a - z))^2: [B, A] -> [B]. Lipman et al. 2023 with straight paths."""
    return ((velocity - (actions - noise)) ** 2).mean(-1)


def gaussian_log_probs(x, mean, log_std):
    """Log density of a Gaussian, elementwise."""
    z = (x - mean) * jnp.exp(-log_std)
    return -0.5 * z**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)


def gaussian_log_prob(x, mean, log_std):
    """Log density of a diagonal Gaussian: [B, A] -> [B]."""
    return gaussian_log_probs(x, mean, log_std).sum(-1)


def tanh_log_det(u):
    """Sum over dimensions of log(1 - tanh(u)^2), stable for large |u|: [B, A] -> [B]."""
    return (2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))).sum(-1)


def denoising_loss(predicted, noise):
    """Mean over dimensions of (eps_theta - eps)^2: [B, A] -> [B]. Ho et al. 2020, eq. 14."""
    return ((predicted - noise) ** 2).mean(-1)


def mixture_log_prob(x, logits, mean, log_std):
    """Log density of a mixture of K diagonal Gaussians: x [B, A], logits [B, K], mean and log_std [B, K, A] -> [B]."""
    each = gaussian_log_prob(x[..., None, :], mean, log_std)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + each, axis=-1)
