"""Uni-O4. Lei et al. 2023, "Uni-O4: Unifying Online and Offline Deep Reinforcement Learning with Multi-Step On-Policy
Optimization", arXiv:2311.03351.

1. Most of the offline phase, on recorded data: IQL's V and Q (algorithms/iql.py), a model f of the environment and
   n clones,
    phi_i <- descend  -E [log pi_i(a|s) + alpha (log pi_i(a|s) - max_j log pi_j(a|s))]
2. Its last updates, a share of it: each clone improves by PPO's objective on actions of its accepted self,
    a ~ pi_acc(.|s),  A = Q(s, a) - V(s), normalised;  rho = pi_i(a|s) / pi_acc(a|s)
    phi_i <- descend  -E min(rho A, clip(rho, 1 - eps, 1 + eps) A),  eps and the rate fall to 0 along a line
   and is accepted, pi_acc <- pi_i, where its value in the model is its best so far (AM-Q):
    J(pi) = mean of Q(s_h, pi(s_h)) over h < H,  s_0 from the data, s_{h+1} = f(s_h, pi(s_h))
3. Online, PPO from the accepted policy of the greatest J, and from V. It begins with the first step that is played.

The authors' numbers: 2 M updates of the values, 400,000 of the clones, 10,000 of improvement at 1e-4 or 1e-5, H = 1000
in MuJoCo and 2 to 50 elsewhere; online 2048 steps, 5 to 30 epochs, rates of 2e-5 and 2e-4, eps .05, entropy .01.
Deviations: all of 1 at once, Q as wide as V. max_j includes i, whose gradient flows: over the others alone, as in their
code, the term would only scale the gradient. J takes the updates of a window, a step of f in each, and is that of the
policy at the window's beginning, which is what may be accepted; they stop and play. f is the mean of deterministic
networks that also tell an episode's end; theirs draws from Gaussians and knows each rule. They choose among the n by
live episodes as well. Where it goes on from another algorithm's policy, every clone begins as a copy of that.
Observations are not normalised, gradients not clipped.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithms.uni_o4_offline import NONE, Offline, UniO4State
from understudy.core import TRANSITION, Batch, adam, lockstep, net, pytree
from understudy.dynamics import Trial
from understudy.networks import features
from understudy.policies.gaussian import Gaussian

METRICS = ("actor/imitation", "actor/surrogate", "actor/entropy", "actor/clipped", "actor/loss", "critic/v",
           "critic/loss", "model/error", "model/mask_error", "gate/value", "gate/accepted")  # fmt: skip


@pytree
class UniO4(Offline):
    """On-policy improvement of clones on learned values, gated by a learned model, then PPO."""

    requires = TRANSITION
    learns_offline = True

    def check(self, batch: Batch) -> None:
        super().check(batch)
        self.ppo.check(batch)

    def init(self, key, batch: Batch) -> UniO4State:
        ours, key_critic, key_model, *keys = jax.random.split(key, 3 + self.clones)
        state, copy = super().init(ours, batch), lambda x: jax.tree.map(jnp.copy, x)
        one = lambda k: self.policy.init(k, batch["observations"], batch["actions"])
        clones, s = jax.vmap(one)(jnp.stack(keys)), features(batch["observations"])
        start = jnp.zeros((self.clones, self.rollouts, s.shape[-1]))
        return UniO4State(
            **vars(state), critic=self.critic.init(key_critic, batch), clones=net(clones, adam(self.learning_rate)),
            model=self.model.init(key_model, batch), accepted=copy(clones), best=jnp.full(self.clones, NONE),
            trial=Trial.begin(copy(clones), start), updates=jnp.int32(0), begun=jnp.int32(0),
        )  # fmt: skip

    def policy_loss(self, params, old, batch: Batch, key):
        return self.ppo.policy_loss(params, old, batch, key)

    def act(self, state: UniO4State, observations, key, carry: Any = (), *, greedy: bool = False):
        return self.ppo.act(state, observations, key, carry, greedy=greedy)

    def update(self, state: UniO4State, batch: Batch, key) -> tuple[UniO4State, dict]:
        def alike(learn, *args):
            state, metrics = learn(*args)
            return state, {k: jnp.float32(metrics.get(k, 0)) for k in METRICS}

        learns = [functools.partial(alike, learn) for learn in (self.fit, self.improve, super().update)]
        stage = jnp.where(lockstep(state.rollout.filled) > 0, 2, lockstep(state.updates) >= self.stages(state)[0])
        state, metrics = jax.lax.switch(stage, learns, state, batch, key)
        return dataclasses.replace(state, updates=state.updates + 1), metrics


def uni_o4(action_size: int) -> UniO4:
    """Uni-O4: PPO's objective off line, on learned values, and on line."""
    return UniO4(
        policy=Gaussian(action_size=action_size, hidden=(256, 256, 256), deviation="state", log_std_max=0.0),
        clip=0.25, learning_rate=1e-4, value_learning_rate=1e-4, hidden=(512, 512, 512), activation="relu",
        steps_per_rollout=2048, minibatches=16,
    )  # fmt: skip
