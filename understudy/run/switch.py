"""The switch from offline to online learning as one argument: what happens to data, networks and optimisers there.

    mix:S             a share S of each online batch from the data (the default is mix:0.5)
    keep              data and live steps are drawn from as one buffer: the data's share is what it has of their number
    anneal:A->B       that share moves linearly from A to B over the online phase
    drop              no offline data in online batches (WSRL, arXiv:2412.07762)
    warmup:N          N environment steps with the frozen policy before the first online update
    reset-optimizer   the optimisers of all networks start afresh (their learning-rate schedules go on)
    reset-critic      the critic starts from fresh parameters
    retrain[:N]       at the end N updates from scratch on data and replay together (OOO, arXiv:2310.08558); without N
                      as many as were made before
    successes:S       a share S of each batch of that retraining from the steps of highest reward

Words combine with + or a comma: warmup:5000+drop. `--offline-share`, `--warmup` and `--retrain` say the same singly.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from understudy.errors import SettingsError, did_you_mean

WORDS = ("keep", "mix", "anneal", "drop", "warmup", "reset-optimizer", "reset-critic", "retrain", "successes")
AS_BEFORE = -1  # retrain for as many updates as were made before
AS_ONE = -1.0  # a share: what the data have of the number of transitions, recorded and live together
SHARE = 0.5  # of each online batch from the data, where nothing says otherwise
OPTIONS = {"offline_share": "share", "warmup": "warmup", "retrain": "retrain"}  # of train -> of a Switch


@dataclasses.dataclass(frozen=True)
class Switch:
    """What a switch says; None where it says nothing.

    Attributes:
      share: of each online batch from the data, 0 to 1, or AS_ONE.
      end: where it has moved to by the end of the online phase.
      warmup: environment steps with the frozen policy.
      reset: "optimizer", "critic" or both: what starts afresh when the online phase begins.
      retrain: updates from scratch at the end; AS_BEFORE: as many as were made before.
      successes: share of each batch of these from the steps of highest reward.
    """

    share: float | None = None
    end: float | None = None
    warmup: int | None = None
    reset: tuple[str, ...] | None = None
    retrain: int | None = None
    successes: float | None = None

    @property
    def said(self) -> dict[str, Any]:
        """What it says, by attribute."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    def __str__(self) -> str:
        words = [f"warmup:{self.warmup}"] if self.warmup else []
        if self.end is not None:
            words.append(f"anneal:{self.share:g}->{self.end:g}")
        elif self.share == AS_ONE:
            words.append("keep")
        elif self.share is not None:
            words.append(f"mix:{self.share:g}" if self.share else "drop")
        words += [f"reset-{what}" for what in self.reset or ()]
        if self.retrain:
            words.append("retrain" if self.retrain == AS_BEFORE else f"retrain:{self.retrain}")
            words += [f"successes:{self.successes:g}"] if self.successes else []
        return "+".join(words) or "keep"  # of what, there are no data to say


def parse(text: Any) -> Switch:
    """The switch that `text` says. Raises SettingsError."""
    if not isinstance(text, str):
        raise SettingsError(f"switch is {text!r}; give words such as 'warmup:5000+drop'.")
    words = [w.strip() for w in re.split(r"[+,]", text)]
    said: dict[str, Any] = {}
    by: dict[str, str] = {}  # attribute -> the word that said it
    for word in words:
        for name, value in _word(word).items():
            if name == "reset" and value[0] not in said.get("reset", ()):
                said["reset"] = (*said.get("reset", ()), *value)
            elif name in said:
                raise SettingsError(f"The switch says both {by[name]} and {word}; keep one.")
            else:
                said[name] = value
            by[name] = word
    return Switch(**said)


def _word(word: str) -> dict[str, Any]:
    """What one word says, by attribute of a Switch."""
    name, colon, value = word.partition(":")
    if name not in WORDS:
        raise SettingsError(f"There is no switch '{name}'.{did_you_mean(name, WORDS)}")
    if name == "mix":
        return {"share": _share(value, f"mix takes a share from 0 to 1, such as mix:0.5; got '{word}'.")}
    if name == "successes":
        wrong = f"successes takes a share from 0 to less than 1, such as successes:0.1; got '{word}'."
        if (share := _share(value, wrong)) == 1:
            raise SettingsError(wrong)
        return {"successes": share}
    if name == "anneal":
        wrong = f"anneal takes two shares from 0 to 1, such as anneal:0.5->0; got '{word}'."
        shares = re.split(r"→|->", value)
        if len(shares) != 2:
            raise SettingsError(wrong)
        return {"share": _share(shares[0], wrong), "end": _share(shares[1], wrong)}
    if name in ("warmup", "retrain"):
        if name == "retrain" and not colon:
            return {"retrain": AS_BEFORE}
        return {name: _count(value, f"{name} takes a whole number, such as {name}:5000; got '{word}'.")}
    if colon:
        raise SettingsError(f"{name} takes no number; got '{word}'.")
    return {"keep": {"share": AS_ONE}, "drop": {"share": 0.0}}.get(name, {"reset": (name.removeprefix("reset-"),)})


def _share(text: str, wrong: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise SettingsError(wrong)
    return value


def _count(text: str, wrong: str) -> int:
    factor = {"k": 1_000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        value = math.nan
    if not (value >= 0 and value == value // 1):
        raise SettingsError(wrong)
    return int(value)


def resolve(*layers: Mapping[str, Any]) -> Switch:
    """The switch of a run.

    Args:
      layers: from the weakest to the strongest (defaults, recipe, preset, what the user gave), each with any of switch
        (text), offline_share, warmup, retrain. A stronger switch replaces the weaker one as a whole; an option of its
        own replaces what a weaker switch says of the same thing. What a layer names under reset starts afresh whatever
        the switch says: a frozen base rests only without the moments of its optimiser.

    Raises:
      SettingsError: one layer's switch and options contradict each other, or a word is wrong."""
    words: dict[str, Any] = {}
    options: dict[str, tuple[int, Any]] = {}  # attribute -> (layer, value)
    at = -1
    for i, layer in enumerate(layers):
        own = {OPTIONS[k]: layer[k] for k in OPTIONS if layer.get(k) is not None}
        if layer.get("switch") is not None:
            words, at = parse(layer["switch"]).said, i
            _agree(layer, words, own)
            if words.get("successes") and not (words.get("retrain") or own.get("retrain")):
                raise SettingsError(
                    f"successes is a share in retraining, and --switch {layer['switch']} retrains on nothing; "
                    "say retrain as well, such as retrain+successes:0.1."
                )
        options |= {k: (i, v) for k, v in own.items()}
    for name, (i, value) in options.items():
        if i > at or name not in words:
            words[name] = value
            if name == "share":
                words.pop("end", None)
    always = [what for layer in layers for what in layer.get("reset") or ()]
    if always:
        words["reset"] = tuple(dict.fromkeys((*words.get("reset", ()), *always)))
    return Switch(**words)


def _agree(layer: Mapping[str, Any], words: dict, own: dict) -> None:
    for option, name in OPTIONS.items():
        if name not in own or name not in words:
            continue
        same = words[name] == own[name] and not (name == "share" and "end" in words)
        if name == "retrain" and words[name] == AS_BEFORE and own[name]:
            words[name], same = own[name], True  # the option says how many
        if not same:
            both = f"--switch {layer['switch']} and --{option.replace('_', '-')} {own[name]:g}"
            raise SettingsError(f"{both} contradict each other; give one.")


def without(layers: Iterable[Mapping[str, Any]], *names: str) -> list[dict[str, Any]]:
    """The layers but for some of what they say."""
    return [{k: v for k, v in layer.items() if k not in names} for layer in layers]


def check_switch(text: str | None, data: Any) -> None:
    """Refuse a switch that mixes in data where there are none. Raises SettingsError."""
    if text is not None and data is None and ((said := parse(text)).share not in (None, 0, AS_ONE) or said.end):
        raise SettingsError(f"--switch {text} mixes in data and there are none; give a data set, or leave it out.")
    if text is not None and data is not None and data.rewards is None and parse(text).successes:
        raise SettingsError(f"--switch {text} draws successes, and {data.name} has no rewards; leave successes out.")


def said_by(phases: Iterable[Any]) -> Switch:
    """The switch as the phases of a run (`Phase`, or its dictionary in a manifest) have it."""
    phases = [p if isinstance(p, dict) else dataclasses.asdict(p) for p in phases]
    named = {p["name"]: p for p in phases}
    online = named.get("online", {})
    return Switch(
        share=AS_ONE if online.get("as_one") else online.get("offline_share"),
        end=online["anneal"][0] if online.get("anneal") else None,
        warmup=named.get("warmup", {}).get("env_steps"),
        reset=tuple(online.get("reset") or ()) or None,
        retrain=named.get("retrain", {}).get("updates"),
        successes=named.get("retrain", {}).get("successes") or None,
    )


# --- what starts afresh ---------------------------------------------------------------------------------------------


def start_afresh(state, fresh, what: Iterable[str]):
    """`state` with its critic (wherever wrappers have put it), its optimisers or both from `fresh`, a new state of the
    same structure.

    A learning rate that falls over the offline phase goes on where it was: only the moments of an optimiser are new."""
    import jax
    import optax

    from understudy.core import Net

    if "critic" in what:
        state = _with_critic(state, fresh)
    if "optimizer" not in what:
        return state
    of = lambda kind: lambda x: isinstance(x, kind)
    schedule = lambda old, new: old if isinstance(old, optax.ScaleByScheduleState) else new
    opt = lambda old, new: jax.tree.map(schedule, old, new, is_leaf=of(optax.ScaleByScheduleState))
    net = lambda old, new: Net(params=old.params, opt=opt(old.opt, new.opt)) if isinstance(old, Net) else old
    return jax.tree.map(net, state, fresh, is_leaf=of(Net))


def at_update(state, updates):
    """`state` of an algorithm that begins after so many updates of the run: schedules of rates are as far as they."""
    import jax
    import jax.numpy as jnp
    import optax

    scheduled = lambda x: isinstance(x, optax.ScaleByScheduleState)
    put = lambda x: x._replace(count=jnp.full_like(x.count, updates)) if scheduled(x) else x
    state = jax.tree.map(put, state, is_leaf=scheduled)
    return dataclasses.replace(state, begun=jnp.full_like(state.begun, updates)) if hasattr(state, "begun") else state


VALUED, AROUND = ("critic", "value"), ("inner", "slow")  # fields of states: what judges, and where it may be


def critic_of(state):
    """What the critic of a state has learned, () where there is none: {field: network}."""
    if found := {name: getattr(state, name) for name in VALUED if hasattr(state, name)}:
        return found
    return next((critic_of(getattr(state, name)) for name in AROUND if hasattr(state, name)), ())


def _with_critic(state, fresh):
    own = {name: getattr(fresh, name) for name in VALUED if hasattr(state, name)}
    inside = {name: _with_critic(getattr(state, name), getattr(fresh, name)) for name in AROUND if hasattr(state, name)}
    return dataclasses.replace(state, **own, **inside)
