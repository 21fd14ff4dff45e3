"""MOORL. Chaudhary, Mondal and Behera 2025, "MOORL: A Framework for Integrating Offline-Online Reinforcement Learning",
arXiv:2506.09574. Around any algorithm; here SAC.

The data and the live steps are two tasks, and one policy and critic are to adapt quickly to either. Algorithm 1, with
phi all parameters of policy and critic, again and again:
    D     = the data or the replay, either with probability 1/2
    phi'  = phi after K updates of the algorithm, each on a batch of D
    phi  <- phi + epsilon (phi' - phi)                            (a first-order meta-update: Reptile, arXiv:1803.02999)
phi acts. Which rows are of the data is known from their number: a share of the batch, its start; each update sees half
as many rows as the batch has, all from D. Where there are rows of one kind only there is one task.
Deviations: the temperature of SAC, if any, is a parameter as well; target networks follow phi', and optimisers go on.
The authors publish no program; K and epsilon are ours.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithm import Algorithm, check_keys
from understudy.algorithms.sac import sac
from understudy.core import Batch, Net, batch_size, leaf, pytree, scratch, static, through
from understudy.wrappers import Wrapper


@pytree
class MetaState:
    """`inner`: of the algorithm, with phi'; `slow`: phi, the networks of such a state and nothing else; `turn`: updates
    since the last meta-update; `live`: 1 where D is the replay."""

    inner: Any
    slow: Any
    turn: jax.Array = scratch()
    live: jax.Array = scratch()


is_net = lambda x: isinstance(x, Net)


def networks(state):
    """A state of networks without their optimisers, and of nothing else."""
    return jax.tree.map(lambda x: Net(params=x.params, opt=()) if is_net(x) else None, state, is_leaf=is_net)


def with_networks(state, others):
    """The state with the parameters of `others`, as `networks` gives them."""
    put = lambda x, other: Net(params=other.params, opt=x.opt) if is_net(x) else x
    return jax.tree.map(put, state, others, is_leaf=is_net)


@pytree
class Meta(Wrapper):
    """Reptile over two tasks, the data and the live steps, around any algorithm."""

    algorithm: Algorithm = through()
    meta_rate: float = leaf(0.5, "share of the way to the adapted parameters", symbol="epsilon", low=0.0, high=1.0)
    meta_steps: int = static(5, "updates of an adaptation", symbol="K", low=1)
    demo_share: float = leaf(-1.0, "share of a batch, its start, that are of the data; -1: the phase's offline_share",
                             low=-1.0, high=1.0)  # fmt: skip

    @property
    def acts_with(self) -> tuple:
        return ((".slow", ""), *super().acts_with)

    def init(self, key, batch: Batch) -> MetaState:
        check_keys("Meta", self.requires, batch)
        inner = self.algorithm.init(key, batch)
        slow = jax.tree.map(jnp.copy, networks(inner))
        return MetaState(inner=inner, slow=slow, turn=jnp.int32(0), live=jnp.int32(0))

    def part(self, batch: Batch, live) -> Batch:
        """Half as many rows, all of the replay where `live`, else all of the data; of those there are, where all are of
        one kind."""
        rows = batch_size(batch["observations"])
        data = jnp.floor(self.demo_share * rows + 0.5).astype(jnp.int32).clip(0, rows)  # as samplers round
        live = (live & (data < rows)) | (data == 0)
        first, count = jnp.where(live, data, 0), jnp.where(live, rows - data, data)
        at = first + jnp.arange(max(rows // 2, 1)) % count
        return jax.tree.map(lambda x: x[at], batch)

    def update(self, state: MetaState, batch: Batch, key) -> tuple[MetaState, dict]:
        key_inner, key_live = jax.random.split(key)
        live = jnp.where(state.turn == 0, jax.random.randint(key_live, (), 0, 2), state.live)
        inner, metrics = self.algorithm.update(state.inner, self.part(batch, live > 0), key_inner)
        fast, ends = networks(inner), state.turn == self.meta_steps - 1
        slow = jax.tree.map(lambda s, f: jnp.where(ends, s + self.meta_rate * (f - s), s), state.slow, fast)
        apart = jax.tree.map(lambda s, f: ((s - f) ** 2).sum(), slow, fast)
        fast = jax.tree.map(lambda s, f: jnp.where(ends, s, f), slow, fast)
        turn = (state.turn + 1) % self.meta_steps
        metrics = metrics | {"meta/apart": jnp.sqrt(sum(jax.tree.leaves(apart)))}
        return MetaState(inner=with_networks(inner, fast), slow=slow, turn=turn, live=live), metrics

    def act(self, state: MetaState, observations, key, carry=(), *, greedy: bool = False):
        acting = with_networks(state.inner, state.slow)
        return self.algorithm.act(acting, observations, key, carry, greedy=greedy)


def moorl(action_size: int) -> Meta:
    """SAC whose networks learn to adapt to the data and to live steps by turns, half of each batch from the data."""
    return Meta(algorithm=sac(action_size))
