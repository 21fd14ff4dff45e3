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
networks that also tell an episode's end; theirs draws from Gaussians and knows each rule. They choose among the n
by live episodes as well. Observations are not normalised, gradients not clipped. With several seeds in one program each
update computes all three stages.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithms.iql import IQLCritic, IQLState
from understudy.algorithms.ppo import PPO
from understudy.core import TRANSITION, Batch, Net, Params, adam, descend, leaf, net, prefix, pytree, scratch, static
from understudy.dynamics import Dynamics, DynamicsState, Trial, choose
from understudy.networks import features
from understudy.on_policy import OnPolicy, OnPolicyState
from understudy.policies.gaussian import Gaussian

METRICS = ("actor/imitation", "actor/surrogate", "actor/entropy", "actor/clipped", "actor/loss", "critic/q", "critic/v",
           "critic/loss", "model/error", "model/mask_error", "gate/value", "gate/accepted")  # fmt: skip


@pytree
class UniO4State(OnPolicyState):
    """`actor` acts; `clones` and what is `accepted` of them are stacked [n, ...], `best` [n] is its value."""

    critic: IQLState = scratch()
    clones: Net = scratch()
    model: DynamicsState = scratch()
    accepted: Params = scratch()
    best: jax.Array = scratch()
    trial: Trial = scratch()
    step: jax.Array = scratch()


@pytree
class UniO4(OnPolicy):
    """On-policy improvement of clones on learned values, gated by a learned model, then PPO."""

    model: Dynamics = dataclasses.field(default_factory=Dynamics)
    entropy: float = leaf(0.0, "weight of the policy's entropy", symbol="c_H", low=0.0)
    clones: int = static(4, "number of clones", symbol="n", low=1)
    disagreement: float = leaf(0.1, "weight of what others imitate better", symbol="alpha", low=0.0)
    expectile: float = leaf(0.7, "expectile of the offline value", symbol="tau", low=0.5, high=1.0)
    tau: float = leaf(0.005, "rate of the target networks' Polyak average", low=0.0, high=1.0)
    offline_steps: float = leaf(-1.0, "updates of the offline phase; -1: as the run has it", low=-1.0)
    improvement: float = leaf(0.1, "share of them, the last, in which clones improve", low=0.0, high=1.0)
    horizon: int = static(100, "steps in the model, and updates, that value a policy", symbol="H", low=1)
    rollouts: int = static(512, "states that they start from", low=1)

    requires = TRANSITION
    learns_offline = True

    @property
    def ppo(self) -> PPO:
        return PPO(**{f.name: getattr(self, f.name) for f in dataclasses.fields(PPO)})

    @property
    def critic(self) -> IQLCritic:
        return IQLCritic(discount=self.discount, tau=self.tau, expectile=self.expectile, hidden=self.hidden,
                         activation=self.activation, layer_norm=self.layer_norm,
                         learning_rate=self.value_learning_rate)  # fmt: skip

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
            model=self.model.init(key_model, batch), accepted=copy(clones), best=jnp.full(self.clones, -1e30),
            trial=Trial.begin(copy(clones), start), step=jnp.int32(0),
        )  # fmt: skip

    def policy_loss(self, params, old, batch: Batch, key):
        return self.ppo.policy_loss(params, old, batch, key)

    def act(self, state: UniO4State, observations, key, carry: Any = (), *, greedy: bool = False):
        return self.ppo.act(state, observations, key, carry, greedy=greedy)

    @property
    def fitted(self):
        """Updates of the first stage."""
        return jnp.where(self.offline_steps < 0, jnp.inf, jnp.ceil((1 - self.improvement) * self.offline_steps))

    def update(self, state: UniO4State, batch: Batch, key) -> tuple[UniO4State, dict]:
        def alike(learn, *args):
            state, metrics = learn(*args)
            return state, {k: jnp.float32(metrics.get(k, 0)) for k in METRICS}

        learns = [functools.partial(alike, learn) for learn in (self.fit, self.improve, super().update)]
        stage = jnp.where(state.rollout.filled > 0, 2, state.step >= self.fitted)
        state, metrics = jax.lax.switch(stage, learns, state, batch, key)
        return dataclasses.replace(state, step=state.step + 1), metrics

    def acting(self, state: UniO4State, params, which) -> UniO4State:
        """With one of the policies [n, ...], and the offline V, in the place of what acts and learns online."""
        actor = Net(params=jax.tree.map(lambda x: x[which], params), opt=state.actor.opt)
        value = Net(params=state.critic.v.params, opt=state.value.opt)
        return dataclasses.replace(state, actor=actor, value=value)

    def imitation_loss(self, params, batch: Batch):
        """Summed over the clones."""
        log_probs = jax.vmap(lambda p: self.policy.log_prob(p, batch["observations"], batch["actions"]))(params)
        itself = jnp.eye(self.clones, dtype=bool)[:, :, None]
        others = jnp.where(itself, -jnp.inf, jax.lax.stop_gradient(log_probs)).max(1)
        behind = log_probs - jnp.maximum(log_probs, others)
        return -(log_probs + self.disagreement * behind).mean(1).sum(), {"imitation": -log_probs.mean()}

    def fit(self, state: UniO4State, batch: Batch, key) -> tuple[UniO4State, dict]:
        clones, actor = descend(state.clones, adam(self.learning_rate), self.imitation_loss, batch)
        critic, values = self.critic.update(state.critic, batch, None, key)
        model, errors = self.model.update(state.model, batch)
        critic = self.critic.follow(critic, state.step)
        state = dataclasses.replace(state, clones=clones, critic=critic, model=model)
        metrics = prefix("actor", actor) | prefix("critic", values | {"v": values["v/v"]}) | prefix("model", errors)
        return self.acting(state, clones.params, 0), metrics

    def advantages(self, critic: IQLState, observations, actions):
        """Brought to mean 0 and deviation 1: [B]."""
        a = self.critic.advantage(critic, observations, actions)
        return (a - a.mean()) / (a.std() + 1e-8)

    def improvement_loss(self, params, accepted, observations, actions, advantages, clip, key):
        """PPO's, summed over the clones; actions [n, B, A], advantages [n, B]."""
        ppo = dataclasses.replace(self.ppo, clip=clip)
        part = lambda a, adv: {"observations": observations, "actions": a, "advantages": adv}
        one = lambda new, old, a, adv: ppo.policy_loss(new, old, part(a, adv), key)
        losses, metrics = jax.vmap(one)(params, accepted, actions, advantages)
        return losses.sum(), jax.tree.map(jnp.mean, metrics)

    def improve(self, state: UniO4State, batch: Batch, key) -> tuple[UniO4State, dict]:
        key_trial, key_actions, key_loss = jax.random.split(key, 3)
        s, done = batch["observations"], state.step - self.fitted
        left = jnp.clip(1 - done / jnp.maximum(self.offline_steps - self.fitted, 1), 0, 1)
        clones = choose(done == 0, net(state.clones.params, adam(self.learning_rate)), state.clones)
        accepted = choose(done == 0, clones.params, state.accepted)

        at = done % self.horizon  # in the window
        rows = jax.random.randint(key_trial, (self.clones, self.rollouts), 0, len(batch["actions"]))
        trial = choose(at == 0, Trial.begin(clones.params, features(s)[rows]), state.trial)
        policy, q = self.policy, lambda s, a: self.critic.q(state.critic, s, a)
        act = policy.mode if hasattr(policy, "mode") else lambda params, s: policy.sample(params, s, key_trial)
        trial = trial.play(act, q, lambda s, a: self.model.step(state.model, s, a))
        better = (at == self.horizon - 1) & (trial.value > state.best)
        accepted, best = choose(better, trial.candidates, accepted), jnp.where(better, trial.value, state.best)

        keys = jax.random.split(key_actions, self.clones)
        actions = jax.vmap(lambda p, k: policy.sample(p, s, k))(accepted, keys)
        advantages = jax.vmap(lambda a: self.advantages(state.critic, s, a))(actions)
        clones, metrics = descend(clones, adam(left * self.learning_rate), self.improvement_loss, accepted, s, actions,
                                  advantages, left * self.clip, key_loss)  # fmt: skip
        state = dataclasses.replace(state, clones=clones, accepted=accepted, best=best, trial=trial)
        gate = {"value": trial.value.mean(), "accepted": better.mean()}
        return self.acting(state, accepted, best.argmax()), prefix("actor", metrics) | prefix("gate", gate)


def uni_o4(action_size: int) -> UniO4:
    """Uni-O4: PPO's objective off line, on learned values, and on line."""
    return UniO4(
        policy=Gaussian(action_size=action_size, hidden=(256, 256, 256), deviation="state", log_std_max=0.0),
        clip=0.25, learning_rate=1e-4, value_learning_rate=1e-4, hidden=(512, 512, 512), activation="relu",
        steps_per_rollout=2048, minibatches=16,
    )  # fmt: skip
