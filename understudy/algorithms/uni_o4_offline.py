"""The offline stages of Uni-O4, whose equations are in uni_o4.py: clones, values and a model fitted to the data; then
the clones improved on those values, each accepted where the model says that it is better.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from understudy.algorithms.iql import IQLCritic, IQLState
from understudy.algorithms.ppo import PPO
from understudy.core import Batch, Net, Params, adam, descend, leaf, lockstep, net, prefix, pytree, scratch, static
from understudy.dynamics import Dynamics, DynamicsState, Trial, choose
from understudy.networks import features
from understudy.on_policy import OnPolicy, OnPolicyState

NONE = -1e30  # the value of what has not been valued


@pytree
class UniO4State(OnPolicyState):
    """`actor` acts; `clones` and what is `accepted` of them are stacked [n, ...], `best` [n] is its value; `updates`
    are its own, after `begun` of another algorithm."""

    critic: IQLState = scratch()
    clones: Net = scratch()
    model: DynamicsState = scratch()
    accepted: Params = scratch()
    best: jax.Array = scratch()
    trial: Trial = scratch()
    updates: jax.Array = scratch()
    begun: jax.Array = scratch()


@pytree
class Offline(OnPolicy):
    """Abstract: what Uni-O4 learns before it plays."""

    single_steps = True

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

    @property
    def ppo(self) -> PPO:
        return PPO(**{f.name: getattr(self, f.name) for f in dataclasses.fields(PPO) if hasattr(self, f.name)})

    @property
    def critic(self) -> IQLCritic:
        return IQLCritic(discount=self.discount, tau=self.tau, expectile=self.expectile, hidden=self.hidden,
                         activation=self.activation, layer_norm=self.layer_norm,
                         learning_rate=self.value_learning_rate)  # fmt: skip

    def stages(self, state: UniO4State):
        """Updates of the first stage and of the second."""
        length = jnp.maximum(self.offline_steps - lockstep(state.begun), 0)
        fits = jnp.where(self.offline_steps < 0, jnp.inf, jnp.ceil((1 - self.improvement) * length))
        return fits, jnp.maximum(length - fits, 1)

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
        critic = self.critic.follow(critic, state.updates)
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
        fits, length = self.stages(state)
        s, done = batch["observations"], state.updates - fits
        left = jnp.clip(1 - done / length, 0, 1)
        clones = choose(done == 0, net(state.clones.params, adam(self.learning_rate)), state.clones)
        accepted = choose(done == 0, clones.params, state.accepted)
        best = jnp.where(done == 0, NONE, state.best)

        at = done % self.horizon  # in the window
        rows = jax.random.randint(key_trial, (self.clones, self.rollouts), 0, len(batch["actions"]))
        trial = choose(at == 0, Trial.begin(clones.params, features(s)[rows]), state.trial)
        policy, q = self.policy, lambda s, a: self.critic.q(state.critic, s, a)
        act = policy.mode if hasattr(policy, "mode") else lambda params, s: policy.sample(params, s, key_trial)
        trial = trial.play(act, q, lambda s, a: self.model.step(state.model, s, a))
        better = (at == self.horizon - 1) & (trial.value > best)
        accepted, best = choose(better, trial.candidates, accepted), jnp.where(better, trial.value, best)

        keys = jax.random.split(key_actions, self.clones)
        actions = jax.vmap(lambda p, k: policy.sample(p, s, k))(accepted, keys)
        advantages = jax.vmap(lambda a: self.advantages(state.critic, s, a))(actions)
        clones, metrics = descend(clones, adam(left * self.learning_rate), self.improvement_loss, accepted, s, actions,
                                  advantages, left * self.clip, key_loss)  # fmt: skip
        state = dataclasses.replace(state, clones=clones, accepted=accepted, best=best, trial=trial)
        metrics = prefix("actor", metrics) | {"critic/v": self.v(state.critic.v.params, s).mean()}
        gate = {"value": trial.value.mean(), "accepted": better.mean()}
        return self.acting(state, accepted, best.argmax()), metrics | prefix("gate", gate)
