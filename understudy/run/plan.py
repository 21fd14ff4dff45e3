"""What a run is asked to do, and how far it is."""

from __future__ import annotations

import dataclasses

from understudy.run.phases import Phase

UNEVALUATED = (-1, -1)


@dataclasses.dataclass
class Counters:
    """How far a run is. `unit`: updates or environment steps made in the current phase."""

    phase: int = 0
    unit: int = 0
    updates: int = 0
    env_steps: int = 0
    evaluated: tuple[int, int] = UNEVALUATED  # (phase, unit) of the last evaluation
    seconds: float = 0.0
    entered: bool = False  # the current phase has done what it does on entry
    played: int = 0  # vector steps since the last burst of updates, for algorithms that learn in bursts


@dataclasses.dataclass(frozen=True)
class Plan:
    """What does not change during a run: phases, sampling, evaluation."""

    phases: tuple[Phase, ...]
    seeds: tuple[int, ...]
    env: str | None
    eval_env: str | None = None  # where episodes are played to evaluate; None: in `env`
    batch_size: int = 256
    n_step: int = 1
    num_envs: int = 1
    replay_capacity: int = 1_000_000
    eval_every: int | None = None  # in the phase's unit; 0: only where phases end; None: five to ten times a phase
    episodes: int = 50
    eval_seed: int = 1_000_003
    eval_envs: int = 10
    evaluate: bool = True
    evaluate_start: bool = False
    checkpoint_every: float = 60.0
    reward_scale: float = 1.0
    reward_bias: float = 0.0

    def every(self, phase: Phase) -> int:
        """Units of `phase` between evaluations, 0: only at its end."""
        if self.eval_every is not None:
            return self.eval_every
        return max(phase.units // (10 if phase.acts else 5), 1)


def whole(steps: int, lanes: int) -> int:
    """`steps` rounded up to whole vector steps."""
    return -(-steps // lanes) * lanes
