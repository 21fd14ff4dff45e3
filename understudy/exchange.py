"""Whole parts of an algorithm exchanged for others by name, and a policy taken along into another algorithm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from understudy import settings as fields
from understudy.errors import SettingsError
from understudy.registry import KEPT, WRAPPED, adjust, entries, load, overrides
from understudy.wrappers import action_size_of, core_of, with_core

if TYPE_CHECKING:
    from understudy.algorithm import Algorithm


def _with_part(algorithm: Algorithm, part: str, name: Any, action_size: int | None) -> Algorithm:
    """The algorithm with the critic or extraction of the recipe `name`, keeping the shape of the networks."""
    core = core_of(algorithm)
    old = getattr(core, part, None)
    if part not in {f.name for f in dataclasses.fields(core)}:
        raise SettingsError(f"{type(core).__name__} has no exchangeable {part}; leave out --{part}.")
    if not isinstance(name, str):
        raise SettingsError(f"{part} is {name!r}; give the name of an algorithm (understudy list algorithms).")
    size = action_size_of(algorithm) if action_size is None else action_size
    new = getattr(core_of(load("algorithm", name)(size)), part, None)
    if new is None:
        raise SettingsError(
            f"{part} names the algorithm whose {part} is taken, and {name} has none; name one that does, such as iql."
        )
    return with_core(algorithm, dataclasses.replace(core, **{part: dataclasses.replace(new, **_shape(old, new))}))


def _with_policy(algorithm: Algorithm, part: str, policy: Any, action_size: int | None) -> Algorithm:
    """The algorithm with another policy class, keeping the shape of the networks."""
    core = core_of(algorithm)
    old = getattr(core, "policy", None)
    if old is None:
        raise SettingsError(f"{type(core).__name__} has no exchangeable policy; leave out --policy.")
    policy = _another(part, old, policy, action_size)
    return with_core(algorithm, dataclasses.replace(core, policy=policy))


def _has_base(policy: Any) -> bool:
    """Whether it acts through a policy that can be exchanged."""
    return policy is not None and "base" in {f.name for f in dataclasses.fields(policy)}


def _with_base(algorithm: Algorithm, part: str, base: Any, action_size: int | None) -> Algorithm:
    """The algorithm whose policy acts through a base of another class."""
    core = core_of(algorithm)
    policy = getattr(core, "policy", None)
    if not _has_base(policy):
        raise SettingsError(
            f"The policy of {type(core).__name__}, {type(policy).__name__}, acts through no base; leave out "
            f"--policy.base or name a policy that does, such as --policy residual."
        )
    base = _another(part, policy.base, base, action_size)
    return with_core(algorithm, dataclasses.replace(core, policy=dataclasses.replace(policy, base=base)))


EXCHANGES = {"critic": _with_part, "extraction": _with_part, "policy": _with_policy, "policy.base": _with_base}


def _another(key: str, old: Any, name: Any, action_size: int | None) -> Any:
    """A policy of the class `name`, with the shape of the networks of `old`; `old` where it is of that class."""
    if not isinstance(name, str):
        raise SettingsError(f"{key} is {name!r}; give the name of a policy class (understudy list policies).")
    cls = load("policy", name)
    if cls is type(old):
        return old
    size = old.action_size if action_size is None else action_size
    return cls(action_size=size, **_shape(old, cls))


def _shape(old: Any, new: Any) -> dict[str, Any]:
    """The fields of `old` that a part of another class keeps."""
    keep = set(KEPT) & {f.name for f in dataclasses.fields(new)}
    return {k: getattr(old, k) for k in sorted(keep) if hasattr(old, k)}


def keep_policy(
    algorithm: Algorithm, before: Algorithm, settings: Mapping[str, Any], action_size: int | None = None
) -> tuple[dict[str, Any], str]:
    """The overrides with which `algorithm` goes on with the policy of `before` when `settings` come on top, and ""; or
    {} and the reason why that does not fit. An algorithm that acts through a base takes it for that."""
    if not _policy_of(before):
        return {}, ""
    policy = getattr(core_of(algorithm), "policy", None)
    if policy is None:
        return {}, f"{type(core_of(algorithm)).__name__} has one of its own."
    through = _has_base(policy) and not _has_base(core_of(before).policy) and "policy" not in settings

    def wrong(found: Mapping[str, Any]) -> str:
        """What the algorithm says against these and the settings, whatever the data."""
        try:
            made = core_of(adjust(algorithm, overrides(algorithm, settings, action_size, before=found), action_size))
            if hasattr(made, "check"):
                made.check(dict.fromkeys(made.requires))
        except SettingsError as error:
            return str(error)
        return ""

    try:
        found = overrides(algorithm, _policy_of(before, "policy.base" if through else "policy"), action_size)
    except SettingsError as error:
        return {}, str(error)
    why = wrong(found)
    return ({}, why) if why and why != wrong({}) else (found, "")  # what is wrong anyhow is not the policy's fault


def _policy_of(algorithm: Algorithm, place: str = "policy") -> dict[str, Any]:
    """Settings that give another algorithm this one's policy in that place: its class and fields, its base's, chunk and
    history; {} where it has none of a class that can be named."""
    policy = getattr(core_of(algorithm), "policy", None)
    names = {entry.target: name for name, entry in entries("policy").items()}
    out = {word: value for word in WRAPPED if (value := getattr(algorithm, word, 0))}
    parts = {place: policy} | ({f"{place}.base": policy.base} if _has_base(policy) else {})
    for key, part in parts.items():
        out[key] = names.get(f"{type(part).__module__}:{type(part).__qualname__}")
    if None in out.values():
        return {}
    own = {f"{place}.{name}": value for name, value in fields.as_dict(policy).items()}
    return out | {name: value for name, value in own.items() if not name.endswith("action_size")}
