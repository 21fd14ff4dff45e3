"""A torch module as an external policy (policies/external.py); torch is an optional extra."""

from __future__ import annotations

import jax
import numpy as np

from understudy.errors import CheckpointError, SettingsError


class TorchPolicy:
    """A torch module as an external policy.

    Args:
      module: a `torch.nn.Module` with `sample(observations, n) -> actions [B, n, A]` and the imitation loss
        `loss(observations, actions) -> [B]`, both of tensors; its randomness is torch's own, seeded for each call.
      optimiser: a `torch.optim.Optimizer` of its parameters. Default: Adam at 3e-4.

    Raises:
      SettingsError: torch is not installed, or the module is none or lacks one of the two.
    """

    def __init__(self, module, optimiser=None):
        try:
            import torch
        except ImportError:
            raise SettingsError("TorchPolicy needs torch; install it with: pip install understudy[torch]") from None
        name, wanted = type(module).__name__, "TorchPolicy takes a torch.nn.Module with sample and loss"
        if not isinstance(module, torch.nn.Module):
            raise SettingsError(f"{wanted}; got {name}.")
        if missing := [n for n in ("sample", "loss") if not callable(getattr(module, n, None))]:
            raise SettingsError(f"{wanted}; {name} has no {' and no '.join(missing)}.")
        if not any(True for _ in module.parameters()):
            raise SettingsError(f"{wanted}; {name} has no parameters to learn.")
        self.torch, self.module, self.name = torch, module, name
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
        return actions.float().cpu().numpy()

    def fit(self, observations, actions, weights, seed: int) -> float:
        def step(observations, actions, weights):
            each = self.module.loss(observations, actions)
            if each.shape != weights.shape:
                raise SettingsError(
                    f"{self.name}.loss gave {list(each.shape)}; it must give one loss for each of the {len(weights)} "
                    f"actions, [{len(weights)}], as each has a weight of its own."
                )
            loss = (weights * each).sum() / weights.sum()
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
