"""DPPO. Ren et al. 2024, "Diffusion Policy Policy Optimization", arXiv:2409.00588: PPO through the denoising chain.

An action is the end of a chain x_S, ..., x_1, x_0 = a of Gaussian steps, so that each step is a decision of its own:
    x_{k-1} ~ N(mu(s, x_k, k), max(sigma_k, sigma_min)^2),  k = S ... 1
mu is the frozen pretrained policy's in the first S - K steps, the fine-tuned one's in the last K; sigma_min keeps it
exploring. What is played is kept with its last K + 1 actions. Then, in epochs of minibatches as in PPO, with A_t the
advantages of the environment's steps, and k = K ... 1 steps before the end:
    theta <- descend  -E min(rho_k w_k A, clip(rho_k, 1 - eps_k, 1 + eps_k) w_k A),  w_k = gamma_d^(k-1)
             rho_k = exp mean_d (log pi_d(x_{k-1}|x_k, s) - log pi_old,d(x_{k-1}|x_k, s)),  each clamped to [-5, 2]
             eps_k = eps_1st + (eps - eps_1st) (e^(c u) - 1) / (e^c - 1),  u = (K - k) / (K - 1)
    phi   <- descend  E (A + V_old(s) - V(s))^2
It goes on from a clone: its own, which it learns in an offline phase, or another run's (`understudy resume RUN
--algorithm dppo --online N` after `understudy train bc DATA --policy diffusion`).
Evaluation adds the schedule's own noise only. The authors fine-tune 10 of 20 cosine steps, on chunks of 4 actions: give
--chunk 4. The mean over dimensions, the clamp and the clipping of draws at 3 are those of their code.
Deviations: a minibatch holds whole chains, where theirs holds single steps of them; rewards are not rescaled by a
running deviation (give --reward-scale); no stop at a divergence of 1; no ddim with eta; within a chunk rewards are
discounted, gamma being that of a step, not of a chunk.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from understudy.core import Batch, Params, batch_size, leaf, pytree, static
from understudy.errors import SettingsError
from understudy.losses import clipped_surrogate, gaussian_log_probs
from understudy.on_policy import Cloning, OnPolicyState
from understudy.policies.diffusion import Diffusion


@pytree
class DPPOState(OnPolicyState):
    """`base`: the pretrained policy, which takes the first steps of a chain and never changes."""

    base: Params


@pytree
class DPPO(Cloning):
    """Clipped policy gradient on the last denoising steps of what a diffusion policy has just played."""

    fine_tuned: int = static(3, "denoising steps that are fine-tuned, the last; 0: all", symbol="K", low=0)
    min_std: float = leaf(0.1, "least deviation of a step, sampled and in densities", symbol="sigma_min", low=1e-3)
    noise_clip: float = leaf(3.0, "bound of the standard normal draws", low=0.0)
    denoising_discount: float = leaf(
        0.99, "weight of a step's advantage by that of the next", symbol="gamma_d", low=0.0, high=1.0
    )
    first_clip: float = leaf(1e-3, "bound of the ratio in the first of several steps", symbol="eps_1st", low=0.0)
    clip_rate: float = leaf(3.0, "how late the bound grows from first_clip to clip", symbol="c", low=1e-3)

    @property
    def tuned(self) -> int:
        """K."""
        return self.fine_tuned or len(self.policy.visits)

    @property
    def carried(self) -> dict[str, tuple[int, ...]]:
        return {"chain": (self.tuned + 1, self.policy.action_size)}

    def check(self, batch: Batch) -> None:
        super().check(batch)
        if not isinstance(self.policy, Diffusion) or self.policy.clip == "noisy":
            raise SettingsError(
                "DPPO needs a policy whose denoising steps are Gaussian: --policy diffusion, its policy.clip not noisy."
            )
        if self.policy.sampler != "ddpm":
            raise SettingsError(
                f"DPPO plays each denoising step with its noise; policy.sampler is {self.policy.sampler!r}, give ddpm."
            )
        if self.tuned > len(self.policy.visits):
            raise SettingsError(
                f"fine_tuned is {self.fine_tuned}; give at most the {len(self.policy.visits)} steps in which "
                f"the policy samples, or 0 for all."
            )

    def init(self, key, batch: Batch) -> DPPOState:
        state = super().init(key, batch)
        return DPPOState(**vars(state), base=jax.tree.map(jnp.copy, state.actor.params))

    def clone(self, state: DPPOState, batch: Batch, key) -> tuple[DPPOState, dict]:
        state, metrics = super().clone(state, batch, key)
        return dataclasses.replace(state, base=state.actor.params), metrics

    def rows(self, floor) -> tuple:
        """The policy's steps and their deviations, at least `floor`: [S] each."""
        rows = tuple(jnp.asarray(row, jnp.float32) for row in self.policy.rows())
        return rows, jnp.maximum(self.policy.temperature * rows[-1], floor)

    def log_probs(self, params, observations, chain):
        """Of the fine-tuned steps of chains [B, K + 1, A], averaged over dimensions: [B, K]."""
        rows, std = jax.tree.map(lambda x: x[-self.tuned :], self.rows(self.min_std))
        mean = jax.vmap(lambda x, row: self.policy.denoised(params, observations, x, row), (1, 0), 1)
        each = gaussian_log_probs(chain[:, 1:], mean(chain[:, :-1], rows), jnp.log(std)[:, None])
        return jnp.clip(each, -5, 2).mean(-1)

    def policy_loss(self, params, old, batch: Batch, key):
        now, then = (self.log_probs(p, batch["observations"], batch["chain"]) for p in (params, old))
        left = jnp.arange(self.tuned)[::-1]  # steps that follow
        grown = jnp.expm1(self.clip_rate * (1 - left / max(self.tuned - 1, 1))) / jnp.expm1(self.clip_rate)
        clip = self.first_clip + (self.clip - self.first_clip) * grown
        ratio, advantages = jnp.exp(now - then), batch["advantages"][:, None] * self.denoising_discount**left
        surrogate = clipped_surrogate(ratio, advantages, clip).mean()
        clipped = (jnp.abs(ratio - 1) > clip).mean()
        return -surrogate, {"surrogate": surrogate, "log_prob": now.mean(), "clipped": clipped}

    def act(self, state: DPPOState, observations, key, carry: Any = (), *, greedy: bool = False):
        key_start, key_noise = jax.random.split(key)
        x = jax.random.normal(key_start, (batch_size(observations), self.policy.action_size))
        rows, std = self.rows(0.0 if greedy else self.min_std)
        draws = jnp.clip(jax.random.normal(key_noise, (len(std), *x.shape)), -self.noise_clip, self.noise_clip)

        def denoise(params, x, part):
            def step(x, now):
                row, std, draw = now
                x = self.policy.denoised(params, observations, x, row) + std * draw
                return x, x

            return jax.lax.scan(step, x, jax.tree.map(lambda v: v[part], (rows, std, draws)))

        x, _ = denoise(state.base, x, slice(-self.tuned))
        actions, chain = denoise(state.actor.params, x, slice(-self.tuned, None))
        return jnp.clip(actions, -1, 1), {"chain": jnp.swapaxes(jnp.concatenate([x[None], chain]), 0, 1)}


def dppo(action_size: int) -> DPPO:
    """PPO through the denoising steps of a diffusion policy that was cloned: on-policy."""
    return DPPO(
        policy=Diffusion(action_size=action_size, hidden=(256, 256), activation="relu"),  # the shape of BC's
        clip=0.01, learning_rate=1e-4, value_learning_rate=1e-3, hidden=(256, 256, 256), activation="mish", epochs=5,
        minibatches=4,
    )  # fmt: skip
