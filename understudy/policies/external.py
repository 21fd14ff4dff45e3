"""Policies that no compiled code can call: networks of another framework, models behind a server, code on the host.

PA-RL improves them through what they say: they propose actions, compiled code values and optimises those, and they are
fitted to the result (algorithms/external_pa_rl.py, run/external.py).
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import numpy as np

from understudy.errors import SettingsError
from understudy.progress import say


class ExternalPolicy(Protocol):
    """What such a policy offers. Observations are arrays [B, ...], or nested dictionaries of arrays; actions lie in
    [-1, 1]. All randomness comes from `seed`, so that a resumed run draws what an uninterrupted one would.

    `sample(observations, n)` and `fit(observations, actions, weights)` are enough: without a seed, or without the two
    methods of its state, a policy learns as well, but a resumed run is not exactly what an uninterrupted one is."""

    def sample(self, observations, n: int, seed: int) -> np.ndarray:
        """n proposals for each observation: [B, n, A]."""

    def fit(self, observations, actions: np.ndarray, weights: np.ndarray, seed: int) -> float:
        """One step of imitation: actions [B, A], each of weight [B] in the loss. Returns the loss."""

    def state_dict(self) -> dict[str, Any]:
        """Arrays from which `load_state_dict` goes on exactly, the optimiser's among them; {} if nothing is learned."""

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        """Put those arrays back."""


class Held:
    """Any object as static structure: compared by identity, so that compiled programs may hold it and never look in."""

    def __init__(self, policy: Any):
        self.name = type(policy).__name__
        if missing := [n for n in ("sample", "fit") if not hasattr(policy, n)]:
            raise SettingsError(
                f"{self.name} has no {', '.join(missing)}; an external policy offers what "
                f"understudy.policies.external.ExternalPolicy lists."
            )
        whole = _seeded(policy.sample, 2) and _seeded(policy.fit, 3) and _restores(policy)
        self.policy: ExternalPolicy = policy if whole else Simple(policy)

    def __repr__(self) -> str:
        return self.name


def _seeded(method, needed: int) -> bool:
    """Whether a seed comes after the arguments that it needs: of that name, or at least no option of another."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    more = [p for p in inspect.signature(method).parameters.values() if p.kind in kinds][needed:]
    return bool(more) and (more[0].name == "seed" or more[0].default is inspect.Parameter.empty)


def _restores(policy: Any) -> bool:
    return hasattr(policy, "state_dict") and hasattr(policy, "load_state_dict")


class Simple:
    """An object with `sample(observations, n)` and `fit(observations, actions, weights)`, perhaps without a seed, a
    loss or a state that can be saved."""

    def __init__(self, policy: Any):
        self.policy, self.name = policy, type(policy).__name__

    def sample(self, observations, n: int, seed: int) -> np.ndarray:
        return self.policy.sample(observations, n, *([seed] if _seeded(self.policy.sample, 2) else []))

    def fit(self, observations, actions, weights, seed: int) -> float:
        loss = self.policy.fit(observations, actions, weights, *([seed] if _seeded(self.policy.fit, 3) else []))
        return 0.0 if loss is None else float(loss)

    def state_dict(self) -> dict[str, Any]:
        return self.policy.state_dict() if _restores(self.policy) else {}

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        if _restores(self.policy):
            self.policy.load_state_dict(arrays)
        else:
            say(f"{type(self.policy).__name__} cannot be restored, having no state_dict and load_state_dict: the run "
                "goes on with it as it is given.")  # fmt: skip
