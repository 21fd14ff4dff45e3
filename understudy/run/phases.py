"""A run is a list of phases. Offline and online differ here and nowhere else."""

from __future__ import annotations

import dataclasses

from understudy import settings
from understudy.errors import SettingsError
from understudy.run.switch import AS_BEFORE, AS_ONE, SHARE, Switch
from understudy.wrappers import core_of, settled, with_core


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a run, measured in updates (no environment) or in environment steps of each seed.

    Attributes:
      name: offline, warmup, online or retrain.
      updates: gradient updates, where the phase does not act.
      env_steps: environment steps of each seed, where it does.
      utd: updates per environment step, any ratio >= 0; 0 collects with a frozen policy.
      offline_share: share of each batch that comes from the data set, 0 to 1.
      as_one: data and replay are drawn from as one buffer, in the place of a share.
      anneal: (share, steps): offline_share moves linearly to this share over so many environment steps, and stays.
      random_actions: act uniformly at random (a policy that was never trained).
      restart: start from freshly initialised parameters.
      reset: what starts afresh on entry: "optimizer", "critic".
      successes: share of each batch from the steps of highest reward, where the phase does not act.
      settings: (dotted name, number): settings of the algorithm that hold during this phase only.
    """

    name: str
    updates: int = 0
    env_steps: int = 0
    utd: float = 0.0
    offline_share: float = 1.0
    as_one: bool = False
    anneal: tuple[float, int] | None = None
    random_actions: bool = False
    restart: bool = False
    reset: tuple[str, ...] = ()
    successes: float = 0.0
    settings: tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        if self.anneal is not None:  # JSON has lists
            object.__setattr__(self, "anneal", tuple(self.anneal))
        object.__setattr__(self, "reset", tuple(self.reset))
        object.__setattr__(self, "settings", tuple((name, value) for name, value in self.settings))

    @property
    def acts(self) -> bool:
        return self.env_steps > 0

    @property
    def units(self) -> int:
        """Length of the phase in its own unit."""
        return self.env_steps if self.acts else self.updates

    def updates_at(self, env_step: int, lanes: int) -> int:
        """Updates due after the vector step that begins at `env_step`."""
        return int((env_step + lanes) * self.utd + 1e-9) - int(env_step * self.utd + 1e-9)

    def share_at(self, env_step: int) -> float:
        """Share of a batch from the data set at `env_step` of the phase."""
        if self.anneal is None:
            return self.offline_share
        end, steps = self.anneal
        return self.offline_share + (end - self.offline_share) * min(env_step / max(steps, 1), 1.0)


def settle(algo, phases, lanes: int = 1, phase: Phase | None = None):
    """`algo` with what depends on its run filled in: a policy step for each live step, what lasts as long as the
    offline phase, the share of the data in its batches (of the first live phase; 1 where nothing is live), room for the
    steps of `lanes` environments, and proposals that are stored only where no new transitions come in.

    Args:
      phase: as it is in this phase, with the phase's own settings; where it has no live steps there is a policy step
        with each update, and what lasts as long as the offline phase lasts as long as a retraining in that. None: as a
        manifest describes it."""
    if phase is not None and phase.settings:
        algo = settings.apply(algo, dict(phase.settings))
    core, updates = core_of(algo), sum(p.updates for p in phases if p.name == "offline")
    delay = offline_delay = getattr(core, "policy_delay", 1)
    if delay == 0:
        utd = next((p.utd for p in phases if p.name == "online"), 1)
        delay, offline_delay = max(round(utd), 1), 1
        here = offline_delay if phase is not None and not phase.acts else delay
        core = dataclasses.replace(core, policy_delay=here)
    if phase is not None and phase.acts and hasattr(core, "policy"):
        core = settled(core, "cached", False)
    mixed = phase or next((p for p in phases if p.acts), None)
    share = 1.0 if mixed is None else mixed.offline_share * (1 - mixed.successes)
    lasts = phase.updates if phase is not None and phase.restart else updates
    algo = settled(with_core(algo, core), "lanes", lanes, 0)
    if phase is not None:
        algo = settled(algo, "imitation", float(not phase.acts), -1)
    for name, value in {"demo_share": share, "imitation_steps": lasts, "decay_steps": lasts // offline_delay,
                        "offline_steps": lasts, "fit_from": updates}.items():  # fmt: skip
        algo = settled(algo, name, float(value), -1)
    return algo


def plan(
    *,
    offline=0,
    online=0,
    utd=1.0,
    switch: Switch = Switch(),  # noqa: B008 frozen
    offline_settings=(),
    online_settings=(),
    data=True,
    pretrained=None,
) -> list[Phase]:
    """The usual phases: offline, frozen-policy warm-up, online, retrain on everything; those of length 0 are left out.

    Args:
      offline: updates. online: environment steps of each seed. utd: updates after each of them.
      switch: what happens between the two, and at the end.
      offline_settings, online_settings: (dotted name, number): settings that hold in that phase only.
      data: there is a data set.
      pretrained: updates made before these phases, so that the policy has learned something.

    Raises:
      SettingsError: a length or a ratio that makes no sense."""
    warmup, retrain = switch.warmup or 0, switch.retrain or 0
    pretrained = bool(offline or pretrained)
    for name, value in dict(offline=offline, warmup=warmup, online=online, retrain=retrain, utd=utd).items():
        if value < 0 and (name, value) != ("retrain", AS_BEFORE):
            raise SettingsError(f"{name} is {value}; give a number of steps or a ratio of at least 0.")
    as_one = data and switch.share == AS_ONE
    share = SHARE if switch.share in (None, AS_ONE) else switch.share
    if not 0 <= share <= 1:
        raise SettingsError(f"offline_share is {share}; give the share of each batch from the data, 0 to 1.")
    if not data and (offline or retrain):
        raise SettingsError("An offline or retrain phase needs a data set; give one, or set --offline 0 --retrain 0.")
    if switch.reset and not pretrained:
        raise SettingsError(
            f"The switch says reset-{switch.reset[0]} and there is nothing to reset before the online phase; give "
            f"--offline N or leave it out."
        )
    share, anneal = (share, None if switch.end is None else (switch.end, online)) if data else (0.0, None)
    phases = [
        Phase("offline", updates=offline, settings=tuple(offline_settings)),
        Phase("warmup", env_steps=warmup, offline_share=share, as_one=as_one, random_actions=not pretrained),
        Phase("online", env_steps=online, utd=utd, offline_share=share, as_one=as_one, anneal=anneal,
              reset=switch.reset or (), settings=tuple(online_settings)),
    ]  # fmt: skip
    phases = with_retraining([p for p in phases if p.units], switch, data)
    if not phases:
        raise SettingsError("Nothing to do: every phase has length 0; give --offline N, --online N, or both.")
    return phases


def with_retraining(phases: list[Phase], switch: Switch, data: bool) -> list[Phase]:
    """`phases` and what the switch says of retraining after them: from fresh parameters, on data and replay together
    whatever the online batches held, as one buffer where they were one. Raises SettingsError where they end with a
    retraining already, or there is no `data` set."""
    updates = switch.retrain or 0
    if updates == AS_BEFORE:
        updates = sum(p.updates + int(p.env_steps * p.utd) for p in phases)
    if not updates:
        return phases
    if not data:
        raise SettingsError("Retraining needs a data set, and the run has none; leave retrain out.")
    if phases and phases[-1].name == "retrain":
        raise SettingsError(f"The run already ends with {phases[-1].updates:,} updates of retraining; leave it out.")
    live = [p for p in phases if p.acts]
    share = live[-1].offline_share if live else 1.0
    if live and (share in (0, 1) or live[-1].anneal):
        share = SHARE
    as_one = bool(live) and live[-1].as_one
    return [*phases, Phase("retrain", updates, offline_share=share, as_one=as_one, restart=True,
                           successes=switch.successes or 0.0)]  # fmt: skip
