"""Diffusion policy: noise taken out of an action step by step. Ho et al. 2020, "Denoising Diffusion Probabilistic
Models", arXiv:2006.11239 (DDPM); Song et al. 2021, arXiv:2010.02502 (DDIM); Nichol and Dhariwal 2021, arXiv:2102.09672
(cosine schedule, fewer steps in sampling). As a policy: Wang et al. 2022, arXiv:2208.06193 (Diffusion-QL), and
Hansen-Estruch et al. 2023, arXiv:2304.10573 (IDQL)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from understudy.algorithm import Policy
from understudy.core import batch_size, leaf, pytree, static
from understudy.errors import SettingsError
from understudy.losses import denoising_loss
from understudy.networks import ACTIVATIONS, DENOISERS, LAYER_NORM, TIMES, Denoiser


def signal(schedule: str, steps: int) -> np.ndarray:
    """abar_t, the share of the action's variance left at times 1 to T: [T], falling. beta_t = 1 - abar_t / abar_{t-1}:
    vp       1 - exp(-b/T - (B - b) (2t - 1) / 2T^2), b = 0.1, B = 10    (variance preserving, for few steps)
    cosine   1 - f(t) / f(t-1), f(t) = cos^2(pi/2 (t/T + s) / (1 + s)), s = 0.008
    linear   from 1e-4 to 0.02 at T = 1000, in proportion to 1000/T elsewhere (for T of some 50 and more)
    and at most 0.999."""
    t = np.arange(steps + 1) / steps
    if schedule == "linear":
        beta = np.linspace(1e-4, 0.02, steps) * 1000 / steps
    else:
        f = {"vp": np.exp(-0.1 * t - 4.95 * t**2), "cosine": np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2}[schedule]
        beta = 1 - f[1:] / f[:-1]
    return np.cumprod(1 - np.minimum(beta, 0.999))


@pytree
class Diffusion(Policy):
    """Imitation: |eps_theta(s, x_t, t) - eps|^2, averaged over dimensions, with x_t = sqrt(abar_t) a + sqrt(1 - abar_t)
    eps and t ~ U{1 .. T}. Sampling starts from x_T = z ~ N(0, I); each step goes from a time t to an earlier u:
        a    = (x_t - sqrt(1 - abar_t) eps_theta(s, x_t, t)) / sqrt(abar_t), clipped     the action as it looks at t
        eps  = (x_t - sqrt(abar_t) a) / sqrt(1 - abar_t)
        x_u  = sqrt(abar_u) a + sqrt(1 - abar_u - s^2) eps + temperature sigma noise     (DDIM eq. 12)
    ddim: s = sigma = 0. ddpm: s^2 = beta (1 - abar_u) / (1 - abar_t), beta = 1 - abar_t / abar_u; sigma^2 = s^2 or
    beta, and 0 in the last step, to u = 0. `latent` is the ddim map whatever the sampler."""

    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    hidden: tuple[int, ...] = static((256, 256, 256), "widths of the hidden layers or residual blocks", low=1)
    activation: str = static("mish", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm of the mlp, before or after the activation", choices=LAYER_NORM)
    network: str = static("mlp", "the denoiser: mlp, or ln_resnet (IDQL)", choices=DENOISERS)
    dropout: float = static(0.0, "share of activations dropped in training, of an ln_resnet", low=0.0, high=1.0)
    time: str = static("sinusoidal", "frequencies of the time features: fixed, or learned (fourier)", choices=TIMES)
    time_size: int = static(16, "number of time features, even", low=4)
    schedule: str = static("vp", "how the noise grows", choices=("vp", "cosine", "linear"))
    steps: int = static(5, "steps from action to noise", symbol="T", low=1)
    sampler: str = static("ddpm", "ddpm: noise in every step but the last; ddim: in none", choices=("ddpm", "ddim"))
    sample_steps: int = static(0, "steps from noise to action, evenly spaced among T; 0: all T", symbol="S", low=0)
    clip: str = static(
        "action", "what each step bounds: the action so far, the noisy action after the step (IDQL) or nothing",
        choices=("action", "noisy", "none"),
    )  # fmt: skip
    variance: str = static("posterior", "ddpm's noise, the two choices of Ho et al.", choices=("posterior", "beta"))
    temperature: float = leaf(1.0, "factor on ddpm's noise", low=0.0)

    @property
    def denoiser(self) -> Denoiser:
        return Denoiser(self.action_size, self.network, self.hidden, self.activation, self.layer_norm, self.dropout,
                        self.time, self.time_size)  # fmt: skip

    def init(self, key, observations, actions):
        if self.sample_steps > self.steps:
            raise SettingsError(
                f"policy.sample_steps is {self.sample_steps}; give at most policy.steps {self.steps}, or 0 for all."
            )
        return self.denoiser.init(key, observations, actions, actions[..., :1])

    @property
    def visits(self) -> np.ndarray:
        """The times at which sampling asks the denoiser, counted from 0 and rising, the last of all among them: [S]."""
        count = self.sample_steps or self.steps
        return np.round(np.arange(1, count + 1) * self.steps / count).astype(int) - 1

    def rows(self, noisy: bool = True) -> tuple[np.ndarray, ...]:
        """What each step takes, [S] each, from noise to action: the time, the share of the signal and of the noise
        before and after the step, and the deviation sigma of fresh noise (ddpm), 0 where not `noisy` (ddim)."""
        kept = signal(self.schedule, self.steps)[self.visits]
        before = np.append(1.0, kept[:-1])
        beta = 1 - kept / before
        posterior = beta * (1 - before) / (1 - kept) * noisy
        sigma = np.sqrt(posterior if self.variance == "posterior" else beta * (before < 1))
        rows = (self.visits, kept**0.5, (1 - kept) ** 0.5, before**0.5, (1 - before - posterior) ** 0.5, sigma)
        return tuple(v[::-1] for v in rows)

    def denoised(self, params, observations, x, row):
        """The mean [B, A] of what the step `row` (entries of `rows`) makes of x [B, A]."""
        time, signal_now, noise_now, signal_next, noise_next, _ = row
        eps = self.denoiser.apply(params, observations, x, jnp.full((*x.shape[:-1], 1), time))
        action = (x - noise_now * eps) / signal_now
        if self.clip == "action":
            action = jnp.clip(action, -1, 1)
        return signal_next * action + noise_next * (x - signal_now * action) / noise_now

    def chain(self, params, observations, x, noise=None):
        """From x_T [B, A] to actions [B, A], by ddpm with noise [S, B, A], by ddim without."""

        def step(x, row):
            row, draw = row
            x = self.denoised(params, observations, x, row)
            if noise is not None:
                x = x + self.temperature * row[-1] * draw
            return jnp.clip(x, -1, 1) if self.clip == "noisy" else x, ()

        rows = [jnp.asarray(v, x.dtype) for v in self.rows(noise is not None)]
        return jnp.clip(jax.lax.scan(step, x, (rows, noise))[0], -1, 1)

    def latent(self, params, observations, noise):
        return self.chain(params, observations, noise)

    def rsample(self, params, observations, key):
        key_start, key_noise = jax.random.split(key)
        z = jax.random.normal(key_start, (batch_size(observations), self.action_size))
        noise = jax.random.normal(key_noise, (len(self.visits), *z.shape)) if self.sampler == "ddpm" else None
        return self.chain(params, observations, z, noise)

    sample = rsample

    def loss(self, params, observations, actions, key):
        key_time, key_noise, key_dropout = jax.random.split(key, 3)
        time = jax.random.randint(key_time, (*actions.shape[:-1], 1), 0, self.steps)
        noise = jax.random.normal(key_noise, actions.shape)
        kept = jnp.asarray(signal(self.schedule, self.steps), jnp.float32)[time]
        x = jnp.sqrt(kept) * actions + jnp.sqrt(1 - kept) * noise
        apply = self.denoiser.apply
        predicted = apply(params, observations, x, time.astype(x.dtype), train=True, rngs={"dropout": key_dropout})
        return denoising_loss(predicted, noise)
