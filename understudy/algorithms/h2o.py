"""H2O. Niu, Sharma, Qiu, Li, Zhou, Hu and Zhan 2022, "When to Trust Your Simulator: Dynamics-Aware Hybrid
Offline-and-Online Reinforcement Learning", arXiv:2206.13464.

The data are of the real system, the live steps of an imperfect simulator of it. Two classifiers tell them apart; what
the one that sees s' knows beyond the other, which does not, is how much the dynamics differ:
    p(real|s, a) = softmax(c),  p(real|s, a, s') = softmax(c + d),  c and d in [-2, 2], of (s, a) and of (s, a, s')
    rho(s, a, s') = p(s'|s, a, real) / p(s'|s, a, simulator) = exp(d_real - d_simulator)              (eq. 8)
Each update, over the rows of the data, D, and those of the simulator, B, with their means E_D and E_B:
    c, d    <- descend  their cross-entropies, E_D + E_B, with Gaussian noise on what they see
    u       = clip(mean of -log rho(s, a, s' + sigma eps_k), 0, u_max), K draws, sigma the deviation of s in D
    y       = r + gamma m min_j Qbar_j(s', a'),  a' ~ pi(.|s')
    theta_i <- descend  E_D (Q_i - y)^2 + E_B clip(rho, rho_min, rho_max) (Q_i - y)^2
                        + beta (log sum_B omega exp Q_i(s, a) - E_D Q_i(s, a)),  omega = u / sum u   (eq. 6, 7)
    the policy, its temperature and the target networks as in SAC (algorithms/sac.py)
Which rows are of the data is known from their number: a share of the batch, its start. Deviations: one batch serves
the classifiers as well (theirs draw 256 of each kind); sigma is of the batch, theirs of the data and of the rows of its
buffer that are empty yet; the critic learns before the policy.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import ActorCritic
from understudy.algorithms.sac import MaxEnt, soft_next_value
from understudy.core import Batch, Metrics, Net, Params, adam, descend, leaf, net, pytree, scratch, static
from understudy.critics import BootstrapCritic, QState
from understudy.networks import MLP, features
from understudy.policies.tanh_gaussian import TanhGaussian

TINY = 1e-30  # of u, so that a simulator without any gap still has weights


@pytree
class H2OState(QState):
    """Q networks, their targets, and the two classifiers."""

    classifiers: Net = scratch()


def mean_over(x, rows):
    """Mean over the marked rows [B] of x [..., B]; 0 where none is marked."""
    return (x * rows).sum(-1) / jnp.maximum(rows.sum(), 1)


@pytree
class H2OCritic(BootstrapCritic):
    """TD learning on data and simulator, which trusts the simulator less where its dynamics are others."""

    needs = ("sample_and_log_prob",)
    single_steps = True
    demo_share: float = leaf(-1.0, "share of a batch, its start, that are of the data; -1: the phase's offline_share",
                             low=-1.0, high=1.0)  # fmt: skip
    weight: float = leaf(0.01, "weight of the penalty on Q where dynamics differ", symbol="beta", low=0.0)
    ratio_min: float = leaf(1e-5, "least weight of a simulated step's TD error", symbol="rho_min", low=0.0)
    ratio_max: float = leaf(1.0, "greatest weight of a simulated step's TD error", symbol="rho_max", low=0.0)
    gap_max: float = leaf(10.0, "greatest dynamics gap", symbol="u_max", low=0.0)
    samples: int = static(10, "perturbed next observations for a gap", symbol="K", low=1)
    spread: float = leaf(1.0, "size of the perturbations, in deviations of the data", low=0.0)
    noise: float = leaf(0.1, "deviation of the noise on what the classifiers learn from", low=0.0)
    classifier_rate: float = leaf(3e-4, "Adam's rate for the classifiers", low=0.0)
    classifier_hidden: tuple[int, ...] = static((256, 256), "widths of the classifiers' hidden layers", low=1)

    def init(self, key, batch: Batch) -> H2OState:
        key_q, key_c, key_d = jax.random.split(key, 3)
        q = super().init(key_q, batch)
        pair = features(batch["observations"], batch["actions"])
        network, following = MLP(2, self.classifier_hidden), features(batch["next_observations"])
        params = {"c": network.init(key_c, pair), "d": network.init(key_d, pair, following)}
        return H2OState(q=q.q, target=q.target, classifiers=net(params, adam(self.classifier_rate)))

    def logits(self, params: Params, *inputs):
        """c or d, of (real, simulated): [..., 2]."""
        return 2 * jnp.tanh(MLP(2, self.classifier_hidden).apply(params, *inputs))

    def classify(self, params, pair, following, real):
        """Cross-entropies of both classifiers, of the rows of the data and of the others."""
        c, d = self.logits(params["c"], pair), self.logits(params["d"], pair, following)
        own = lambda logits: jnp.where(real, jax.nn.log_softmax(logits)[:, 0], jax.nn.log_softmax(logits)[:, 1])
        one = lambda logits: -mean_over(own(logits), real) - mean_over(own(logits), ~real)
        both = real.any() & ~real.all()  # with rows of one kind only there is nothing to tell apart
        return (one(c) + one(c + d)) * both, {"pair": one(c), "triple": one(c + d)}

    def log_ratio(self, params, pair, following):
        """log rho: [..., B]."""
        d = self.logits(params["d"], jnp.broadcast_to(pair, (*following.shape[:-1], pair.shape[-1])), following)
        return d[..., 0] - d[..., 1]

    def gaps(self, params, pair, following, real, key):
        """u: [B]."""
        states = pair[:, : following.shape[-1]]
        centred = states - mean_over(states.T, real)
        deviation = self.spread * jnp.sqrt(mean_over((centred**2).T, real))
        near = following + deviation * jax.random.normal(key, (self.samples, *following.shape))
        return jnp.clip(-self.log_ratio(params, pair, near).mean(0), TINY, self.gap_max)

    def loss(self, params, targets, ratio, gaps, real, batch: Batch, key=None):
        predictions = self.predict(params, batch["observations"], batch["actions"], key)
        q, simulated = self.values(predictions), ~real  # [E, B]
        errors, seen = jax.vmap(lambda x, y: self.regress(x[:, None], y[None]), (1, 0))(predictions, targets)  # [B]
        td = mean_over(errors, real) + mean_over(errors * ratio, simulated)
        omega = gaps / jnp.maximum((gaps * simulated).sum(), TINY)
        weighed = jax.nn.logsumexp(jnp.where(simulated, q + jnp.log(omega), -1e9), axis=-1)  # [E]
        penalty = (jnp.clip(weighed - mean_over(q, real), -1e3, 1e3) * simulated.any()).sum()
        metrics = {"q": q.mean(), "target": targets.mean(), "td": td, "penalty": penalty}
        return td + self.weight * penalty, metrics | jax.tree.map(jnp.mean, seen)

    def update(self, state: H2OState, batch: Batch, actor, key) -> tuple[H2OState, Metrics]:
        key_target, key_noise, key_gap = jax.random.split(key, 3)
        count = len(batch["rewards"])
        real = jnp.arange(count) < jnp.floor(self.demo_share * count + 0.5)  # as samplers round
        pair = features(batch["observations"], batch["actions"])
        following = features(batch["next_observations"])
        noisy = [x + self.noise * jax.random.normal(k, x.shape)
                 for x, k in zip((pair, following), jax.random.split(key_noise))]  # fmt: skip
        optimiser = adam(self.classifier_rate)
        classifiers, seen = descend(state.classifiers, optimiser, self.classify, *noisy, real)
        ratio = jnp.clip(jnp.exp(self.log_ratio(classifiers.params, pair, following)), self.ratio_min, self.ratio_max)
        gaps = self.gaps(classifiers.params, pair, following, real, key_gap)
        value = soft_next_value(self, state, batch, actor, key_target, entropy=False)
        targets = batch["rewards"] + self.discount * batch["masks"] * value
        q, metrics = descend(state.q, self.optimiser, self.loss, targets, ratio, gaps, real, batch, key)
        means = {"ratio": mean_over(ratio, ~real), "gap": mean_over(gaps, ~real)}
        learned = H2OState(q=q, target=state.target, classifiers=classifiers)
        return learned, metrics | {"pair": seen["pair"], "triple": seen["triple"]} | means


def h2o(action_size: int) -> ActorCritic:
    """SAC on real data and a simulator, half each, that penalises values where their dynamics differ."""
    return ActorCritic(critic=H2OCritic(), extraction=MaxEnt(), policy=TanhGaussian(action_size=action_size))
