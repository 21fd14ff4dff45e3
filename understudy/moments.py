"""Running mean and variance, for what is normalised while it is learned."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.core import pytree


@pytree
class Moments:
    """Running mean and variance over rows, by Chan's parallel form of Welford's sums."""

    mean: jax.Array
    variance: jax.Array
    count: jax.Array

    @classmethod
    def of(cls, x) -> Moments:
        """Of nothing yet, for rows like those of x [B, ...]."""
        return cls(mean=jnp.zeros(x.shape[1:]), variance=jnp.ones(x.shape[1:]), count=jnp.float32(1e-4))

    def add(self, x) -> Moments:
        """With the rows of x [B, ...] as well."""
        n, total = len(x), self.count + len(x)
        apart = x.mean(0) - self.mean
        sums = self.variance * self.count + x.var(0) * n + apart**2 * self.count * n / total
        return Moments(mean=self.mean + apart * n / total, variance=sums / total, count=total)
