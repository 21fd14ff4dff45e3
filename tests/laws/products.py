"""The parts that products are made of, small; and which of them fit, as docs/products.md has it.

PYTHONPATH=tests python tests/laws/products.py     writes docs/products.md anew
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import cases

from understudy.algorithms.bc import NoCritic
from understudy.algorithms.cql import CQLCritic
from understudy.algorithms.diffusion_ql import DiffusionQLCritic, Guide
from understudy.algorithms.dsrl import NoiseAliasedCritic, NoiseMaxEnt
from understudy.algorithms.fql import Distil
from understudy.algorithms.h2o import H2OCritic
from understudy.algorithms.idql import Implicit
from understudy.algorithms.iql import IQLCritic
from understudy.algorithms.pa_rl import ActionOptimisation
from understudy.algorithms.parrot import LatentMaxEnt
from understudy.algorithms.rebrac import ReBRACCritic
from understudy.algorithms.ro2o import RO2OCritic, SmoothMaxEnt
from understudy.algorithms.sac import MaxEnt, SoftTD
from understudy.critics import TD
from understudy.extractions import AWR, DDPGBC, BestOfN, Imitate
from understudy.policies.deterministic import Deterministic
from understudy.policies.diffusion import Diffusion
from understudy.policies.flow import Flow
from understudy.policies.gaussian import Gaussian
from understudy.policies.latent import Latent
from understudy.policies.mixture import Mixture
from understudy.policies.one_step_flow import OneStepFlow
from understudy.policies.real_nvp import RealNVP
from understudy.policies.residual import Residual
from understudy.policies.shortcut import Shortcut
from understudy.policies.tanh_gaussian import TanhGaussian
from understudy.policies.tokens import CoarseToFine, Tokens

CRITICS = [NoCritic(), TD(), SoftTD(), SoftTD(entropy=False), ReBRACCritic(), IQLCritic(), CQLCritic(),
           CQLCritic(calibrated=True, lagrange=True, max_target_backup=True), DiffusionQLCritic(),
           TD(head="hl_gauss", backup="lcb", aggregate="lcb", subset=2, dropout=0.1), IQLCritic(head="two_hot"),
           CQLCritic(head="hl_gauss", calibrated=True, subset=1),
           CQLCritic(importance=False), CQLCritic(importance=False, repeat=True, subset=1)]  # fmt: skip
EXTRACTIONS = [Imitate(), AWR(), DDPGBC(), BestOfN(samples=2), MaxEnt(), Distil(), Implicit(samples=2),
               Guide(samples=2), ActionOptimisation(samples=3, keep=2),
               ActionOptimisation(keep=2, distil="all", cached=True)]  # fmt: skip
CLASSES = (Gaussian, TanhGaussian, Deterministic, Flow, OneStepFlow, Mixture, Diffusion, Shortcut, Tokens, CoarseToFine)
POLICIES = [cls(action_size=cases.A) for cls in CLASSES]
CRITICS += [NoiseAliasedCritic(), RO2OCritic(), H2OCritic()]
EXTRACTIONS += [LatentMaxEnt(), NoiseMaxEnt(), SmoothMaxEnt()]
POLICIES += [cls(action_size=cases.A) for cls in (RealNVP, Residual, Latent)]
POLICIES += [
    Residual(action_size=cases.A, base=Gaussian(action_size=cases.A)),
    Latent(action_size=cases.A, base=RealNVP(action_size=cases.A)),
]


def suits(policy, extraction) -> bool:
    """Whether the policy is of the class that the extraction is made for."""
    return extraction.made_for is None or isinstance(policy, extraction.made_for)


def lacking(critic, extraction, policy) -> set[str]:
    """What a product lacks: capabilities of the policy or its class, methods of the critic."""
    lacks = {n for n in (*critic.needs, *extraction.needs) if not hasattr(policy, n)}
    lacks |= {extraction.made_for.__name__} if not suits(policy, extraction) else set()
    return lacks | {n for n in extraction.needs_critic if not hasattr(critic, n)}


def label(part) -> str:
    """A part by its class, its base where it has one, and whether it does without densities that it could use."""
    bases = [f" on {type(part.base).__name__}" for f in dataclasses.fields(part) if f.name == "base"]
    plain = isinstance(getattr(type(part), "needs", ()), property) and not part.needs
    return type(part).__name__ + "".join(bases) + (" without densities" if plain else "")


def table(rows, columns, fits) -> list[str]:
    """A Markdown table with a mark where a row fits a column."""
    lines = ["| | " + " | ".join(label(c) for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {label(r)} | " + " | ".join("yes" if fits(r, c) else "" for c in columns) + " |" for r in rows]


def unique(parts) -> list:
    """One part for each label."""
    return list({label(p): p for p in reversed(parts)}.values())[::-1]


def page() -> str:
    """docs/products.md."""
    critics, extractions, policies = unique(CRITICS), unique(EXTRACTIONS), unique(POLICIES)
    both = [(c, e, p) for c in CRITICS for e in EXTRACTIONS for p in POLICIES]
    run = sum(not lacking(*product) for product in both)
    has = lambda policy, other: all(hasattr(policy, n) for n in other.needs)
    lines = [
        "# What fits what",
        "",
        "An algorithm is a critic x an extraction x a policy. A product runs where all three pairs fit; else it is",
        "refused when it is made, with what is missing. Of the "
        f"{len(both):,} products in the laws (parts in several settings) {run:,} run",
        f"and {len(both) - run:,} are refused. Written by `PYTHONPATH=tests python tests/laws/products.py`.",
        "",
        "## Policy and extraction: how the policy improves",
        "",
        *table(policies, extractions, lambda p, e: has(p, e) and suits(p, e)),
        "",
        "A residual and a latent policy imitate with their base: where an extraction only imitates or samples",
        "(Imitate, AWR, BestOfN, Implicit, ActionOptimisation), the base improves and the correction stays at 0, or",
        "the steering as it was. The correction learns by climbing Q (DDPGBC, Guide, ResFiT's recipe), the steering",
        "by LatentMaxEnt, NoiseMaxEnt and MaxEnt.",
        "",
        "## Policy and critic: how values are learned",
        "",
        *table(policies, critics, has),
        "",
        "## Extraction and critic",
        "",
        *table(extractions, critics, lambda e, c: all(hasattr(c, n) for n in e.needs_critic)),
    ]
    return "\n".join(lines) + "\n"


PAGE = pathlib.Path(__file__).parents[2] / "docs" / "products.md"

if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit(0)
