"""Policies that no compiled code can call: networks of another framework, models behind a server, code on the host.

PA-RL improves them through what they say: they propose actions, compiled code values and optimises those, and they are
fitted to the result (algorithms/external_pa_rl.py, run/external.py).
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import jax
import numpy as np

from understudy.errors import CheckpointError, SettingsError
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
        self.policy = policy

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


class TorchPolicy:
    """A torch module as an external policy.

    Args:
      module: a `torch.nn.Module` with `sample(observations, n) -> actions [B, n, A]` and the imitation loss
        `loss(observations, actions) -> [B]`, both of tensors; its randomness is torch's own, seeded for each call.
      optimiser: a `torch.optim.Optimizer` of its parameters. Default: Adam at 3e-4.

    Raises:
      SettingsError: torch is not installed.
    """

    def __init__(self, module, optimiser=None):
        try:
            import torch
        except ImportError:
            raise SettingsError("TorchPolicy needs torch; install it with: pip install understudy[torch]") from None
        self.torch, self.module = torch, module
        self.device = next(module.parameters()).device
        self.optimiser = optimiser or torch.optim.Adam(module.parameters(), lr=3e-4)

    def _seeded(self, seed: int, call, *arrays):
        """call(*tensors) with torch's generators at `seed`, which are afterwards what they were."""
        torch = self.torch
        tensors = jax.tree.map(lambda x: torch.tensor(np.asarray(x), device=self.device), arrays)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return call(*tensors)

    def sample(self, observations, n: int, seed: int) -> np.ndarray:
        self.module.eval()
        with self.torch.no_grad():
            actions = self._seeded(seed, lambda o: self.module.sample(o, n), observations)
        return actions.clamp(-1, 1).float().cpu().numpy()

    def fit(self, observations, actions, weights, seed: int) -> float:
        def step(observations, actions, weights):
            loss = (weights * self.module.loss(observations, actions)).sum() / weights.sum()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            return float(loss.detach())

        self.module.train()
        return self._seeded(seed, step, observations, actions, weights)

    def state_dict(self) -> dict[str, np.ndarray]:
        slots = self.optimiser.state_dict()["state"]
        found = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        found |= {f"optimiser.{i}.{k}": self.torch.as_tensor(v) for i, slot in slots.items() for k, v in slot.items()}
        return {k: self._bits(v.detach().cpu()).numpy() for k, v in found.items()}

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        own = self.module.state_dict()
        given = {k.removeprefix("module."): v for k, v in arrays.items() if k.startswith("module.")}
        if {k: tuple(v.shape) for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
            raise CheckpointError("The saved torch module has other parameters than this one; build it as it was then.")
        self.module.load_state_dict({k: self._tensor(v, own[k]) for k, v in given.items()})
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        slots: dict[int, dict] = {}
        for name, x in arrays.items():
            if name.startswith("optimiser."):
                _, i, slot = name.split(".", 2)
                slots.setdefault(int(i), {})[slot] = self._tensor(x, parameters[int(i)])
        self.optimiser.load_state_dict({"state": slots, "param_groups": self.optimiser.state_dict()["param_groups"]})

    def _bits(self, tensor):
        """NumPy knows no bfloat16: its bits as int16."""
        return tensor.view(self.torch.int16) if tensor.dtype == self.torch.bfloat16 else tensor

    def _tensor(self, x: np.ndarray, like):
        """The tensor that was saved as x, where `like` is what it belongs to."""
        tensor = self.torch.tensor(x)
        bits = like.dtype == self.torch.bfloat16 and tensor.dtype == self.torch.int16
        return tensor.view(like.dtype) if bits else tensor
