"""`resume`: go on with a run where its last checkpoint stands, further than planned, or with another algorithm."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from understudy.errors import CheckpointError, EnvError, SettingsError
from understudy.progress import say
from understudy.run import baseline as baseline_module
from understudy.run import checkpoint
from understudy.run.folder import RunFolder
from understudy.run.given import (
    canonical,
    check_fit,
    check_plan,
    columns_of,
    example_of,
    introduce,
    now,
    number_of,
    phase_settings,
    spec_of,
    versions,
)
from understudy.run.loop import Loop
from understudy.run.phases import Phase, plan, with_retraining
from understudy.run.plan import Plan
from understudy.run.run import Run
from understudy.run.switch import check_switch, parse, resolve, said_by
from understudy.run.train import IDENTITY, conclude, go, protocol_of
from understudy.wrappers import core_of


def resume(
    run: str | pathlib.Path | Run,
    *,
    offline: int | None = None,
    online: int | None = None,
    env: str | None = None,
    utd: float | None = None,
    switch: str | None = None,
    offline_share: float | None = None,
    online_settings: Mapping[str, Any] | None = None,
    algorithm: str | Any | None = None,
    settings: Mapping[str, Any] | None = None,
    eval_every: int | None = None,
    episodes: int | None = None,
    batch_size: int | None = None,
    n_step: int | None = None,
    baseline: bool = False,
    dataset: Any = None,
    command: Sequence[str] | None = None,
) -> Run:
    """Go on with a run exactly where its last whole checkpoint stands, or further than it was going to go.

    Args:
      run: the run or its folder.
      offline, online: new totals for these phases; a run that had no online phase gets one. Recorded in the manifest.
      env: the environment of a run that was trained without one.
      utd, switch, offline_share, online_settings: of an online phase that is new, as for `train`; by default what
        `train` was given. A run that is or was live can still get the switch retrain[:N], with successes:S.
      algorithm: another algorithm for the phases that are left; it goes on with the run's policy, or acts through it
        where it acts through a base, and networks of the same shape are carried over. Where the policy does not fit,
        `settings` has to name another, which starts afresh; an algorithm without a choice of policy, and an object,
        bring their own.
      settings: changed settings, by dotted name, for the phases that are left; a change of structure starts what it
        touches afresh.
      eval_every, episodes: of the evaluations that are left, as for `train`.
      batch_size, n_step: of the updates that are left; by default what the run has, whatever another algorithm's recipe
        says.
      baseline: train RLPD from scratch as well, as for `train`; a baseline that was asked for before goes on by itself.
      dataset: the data set again, where it was given in memory.

    Raises:
      CheckpointError: no run there, a live run there, another format, other data than it was trained on.
      SettingsError: settings or a policy that do not fit.
    """
    folder = RunFolder(run.path if isinstance(run, Run) else run)
    manifest = folder.manifest
    if algorithm is None and manifest["algorithm"] is None and isinstance(run, Run):
        algorithm = run.algorithm
    if dataset is None and isinstance(run, Run):
        dataset = run.dataset
    _check_env(env, manifest["env"])
    live = dict(utd=utd, switch=switch, offline_share=offline_share, online_settings=online_settings)
    live = {k: v for k, v in live.items() if v is not None}
    if live and any(p["name"] == "online" for p in manifest["phases"]):
        _check_only_retrains(live)
    given = {"switch": switch, "offline_share": number_of("offline_share", offline_share, None)}
    resolve(given)  # raises what is wrong with it
    if baseline:
        steps = online or sum(p["env_steps"] for p in manifest["phases"] if p["name"] == "online")
        name = canonical(algorithm) if algorithm is not None else manifest["algorithm"]
        evaluated = manifest["plan"]["evaluate"] or eval_every is not None or episodes is not None
        baseline_module.check(name, manifest["dataset"], steps, evaluated)
    evaluations = {"eval_every": eval_every, "episodes": episodes}
    evaluations = {k: number_of(k, v, 0) for k, v in evaluations.items() if v is not None}
    evaluations |= {"evaluate": True} if evaluations else {}  # asked for, whatever the run did so far
    updates = {"batch_size": batch_size, "n_step": n_step}
    planned = evaluations | {k: number_of(k, v, 1) for k, v in updates.items() if v is not None}
    folder.lock()
    try:
        manifest = manifest | {"env": manifest["env"] or env, "baseline": bool(manifest.get("baseline") or baseline)}
        totals = {k: v for k, v in dict(offline=offline, online=online).items() if v is not None}
        loop, manifest = _reopen(folder, manifest, totals, live, planned, algorithm, settings, dataset, command)
    except BaseException:
        folder.unlock()
        raise
    return conclude(go(loop, folder, manifest, dataset), command)


ASKED = ("env", "live", "switch", "baseline", "plan")  # of a manifest, what `resume` may change besides


def _check_env(given: str | None, its: str | None) -> None:
    """Refuse another environment than the run's."""
    if given is not None and its not in (None, given):
        raise EnvError(f"The run belongs to {its}; got {given}. Train anew with --env {given}.")


def _check_only_retrains(live: Mapping[str, Any]) -> None:
    """Refuse what is given of a live phase that there already is, but for the retraining after it."""
    said = parse(live["switch"]).said if "switch" in live else {}
    if live.keys() != {"switch"} or "retrain" not in said or not said.keys() <= {"retrain", "successes"}:
        raise SettingsError(
            f"The run's online phase already has its {' and '.join(live)}; leave out what only a first one can get. "
            "What can still be given is --switch retrain:N, with successes:S."
        )


def _reopen(folder, manifest, totals, live, planned, algorithm, settings, dataset, command) -> tuple[Loop, dict]:
    """The loop of a run, ready at its last checkpoint, and its manifest, with the changes that were asked for: `totals`
    and the other options by name, where they were given."""
    found = checkpoint.latest(folder.path, mend=True)
    if found is None and folder.made:
        raise CheckpointError(
            f"{folder.path} has no whole checkpoint left, so that it could only start over, and what it made would be "
            f"lost; put its checkpoints back, or train anew in another folder (--out)."
        )
    at, phases = (found[1]["counters"]["phase"], found[1].get("phases")) if found else (0, None)
    # A checkpoint says itself which algorithm it holds, and what was asked for besides: a kill between it and the
    # manifest loses nothing.
    said = found[1]["identity"] if found else {}
    env, baseline = said.get("env") or manifest["env"], said.get("baseline") or manifest["baseline"]
    _check_env(manifest["env"], env)
    manifest = manifest | {k: said[k] for k in ASKED if k in said} | {"env": env, "baseline": baseline}
    identity = {k: (said or manifest)[k] for k in IDENTITY}
    data = _data(folder, manifest, dataset)
    if manifest["dataset"] is not None:
        manifest["dataset"] = manifest["dataset"] | {"notes": list(data.notes)}
    spec = spec_of(manifest["env"], data)
    learner = _learner(folder, manifest, identity, algorithm, settings, spec.action_size)
    phases = [Phase(**p) for p in phases or manifest["phases"]]
    was_live = any(p.name == "online" for p in phases)
    check_switch(live.get("switch"), data)
    first = {} if was_live else _first_live(manifest, learner, live, data)
    extended = _extend(phases, totals, data is not None, manifest["env"], first)
    for i in range(min(at, len(phases) - 1), len(phases)):
        extended[i] = _now(extended[i], learner, begun=i <= at, over=i < at and extended[i].units == phases[i].units)
    online = [p for p in phases if p.name == "online"]
    held = {k: manifest["plan"][k] for k in ("batch_size", "n_step")}
    if online:
        held |= {"utd": online[-1].utd, "offline_share": online[-1].offline_share, "switch": manifest["switch"],
                 "warmup": sum(p.env_steps for p in phases if p.name == "warmup")}  # fmt: skip
    _say_what_is_kept(learner, {k: v for k, v in held.items() if k not in planned | live})
    if live and was_live:
        _check_only_retrains(live)
        extended = with_retraining(extended, parse(live["switch"]), data is not None)
        manifest = manifest | {"switch": str(said_by(extended))}
    manifest = manifest | {"plan": manifest["plan"] | planned}
    the_plan = Plan(**manifest["plan"], phases=tuple(extended), seeds=tuple(manifest["seeds"]), env=manifest["env"])
    check_plan(the_plan)
    check_fit(learner.algo, the_plan, data, at)
    columns = columns_of(data, learner.algo, the_plan, manifest["data_on"])
    loop = Loop(learner.algo, the_plan, folder, columns, example_of(columns, spec, learner.algo))
    if not was_live:
        manifest = manifest | {"switch": str(first["switch"]), "live": manifest.get("live", {}) | {
            k: first[k] for k in ("utd", "online_settings")}}  # fmt: skip
    was = manifest["protocol"]
    least = min(was.get("least", was["episodes"]), the_plan.episodes)  # of an evaluation so far
    manifest["protocol"] = was | protocol_of(the_plan) | {"least": least}
    loop.identity = learner.identity | {k: manifest[k] for k in ASKED if k in manifest}
    same = jax.tree.structure(learner.before) == jax.tree.structure(learner.algo)
    loop.prepare(found, before=None if same else learner.before, old_phases=phases)
    if learner.algo is not learner.before and loop.counters.phase >= len(extended):
        raise SettingsError(
            f"{folder.path} has finished, so the change would do nothing; give it more steps as well, such as "
            f"--online {sum(p.env_steps for p in extended if p.name == 'online') + 20_000}."
        )
    changed = totals | live | planned | learner.changed
    if found and changed:
        loop.save()  # the change is made or not: a kill from here on does not forget it
    from understudy.settings import as_dict

    c = loop.counters
    entry = {"at": now(), "updates": c.updates, "env_steps": c.env_steps, "changed": changed,
             "command": list(command or []), "versions": versions()}  # fmt: skip
    manifest = manifest | learner.identity | {
        "settings": as_dict(loop.algo),
        "phases": [dataclasses.asdict(p) for p in extended],
        "resumes": [*manifest["resumes"], entry],
    }  # fmt: skip
    folder.write_manifest(manifest)
    return loop, manifest


def _data(folder: RunFolder, manifest: dict, dataset):
    """The data set that the run was trained on, None where there was none. Raises CheckpointError."""
    record = manifest["dataset"]
    data = dataset
    if record is not None and data is None:
        if record["given"] is None:
            raise CheckpointError(f"{folder.path} was trained on arrays in memory; resume it with dataset=....")
        from understudy.data import load

        # As it was typed, or, from another working directory, where it lay then.
        there = record.get("path") if not pathlib.Path(record["given"]).exists() else None
        place = manifest["plan"].get("eval_env") or manifest["env"]
        data = load(there or record["given"], env=place, action_range=record.get("action_range"))
        if list(data.notes) != list(record.get("notes") or []):  # an environment that the run now has changes them
            introduce(data)
    if record is not None and data.sha256 != record["sha256"]:
        raise CheckpointError(
            f"The data set {record['given'] or record['name']} is not the one that {folder.path} was trained on "
            f"(SHA-256 {data.sha256[:12]}, expected {record['sha256'][:12]}); put the original back."
        )
    return data


@dataclasses.dataclass(frozen=True)
class _Learner:
    """What learns from here on.

    Attributes:
      algo, before: the algorithm, and the one so far; the same object where nothing changes.
      identity: what made it, as the manifest has it.
      changed: what changed, for the manifest.
      keeps: settings that an old phase of its own may still have: not another algorithm's, not what is asked for now.
      asked: settings that are asked for now, by full name.
      recipe: options of a run that another algorithm brings."""

    algo: Any
    before: Any
    identity: dict
    changed: dict
    keeps: set[str]
    asked: set[str]
    recipe: dict


def _learner(folder: RunFolder, manifest: dict, identity: dict, algorithm, settings, size: int) -> _Learner:
    """The algorithm of the run, or `algorithm`, with its changed `settings`."""
    from understudy import registry
    from understudy.exchange import keep_policy
    from understudy.settings import fields

    given = None if isinstance(algorithm, str) else algorithm
    base = before = None
    if identity["algorithm"] is not None:
        base = registry.make(identity["algorithm"], size, {}, identity["preset"])
    elif given is not None:
        base, given = given, None
    elif algorithm is None:
        raise CheckpointError(
            f"{folder.path} was trained with an algorithm object ({manifest['object']}); resume it from Python with "
            f"understudy.resume(run, algorithm=THE_OBJECT)."
        )
    old = identity["overrides"]
    if base is not None:
        old = registry.overrides(base, old, size)
        before = registry.adjust(base, old, size)
    if isinstance(algorithm, str) or given is not None:
        base = registry.make(algorithm, size, {}, None) if isinstance(algorithm, str) else given
        kept, why = keep_policy(base, before, settings or {}, size) if before is not None else ({}, "")
        if why and given is None and "policy" not in (settings or {}) and hasattr(core_of(base), "policy"):
            raise SettingsError(f"{algorithm} cannot take over the run's policy: {why} --policy NAME starts afresh.")
        if why:
            say(f"The policy of the run so far starts afresh: {why}")
        new = registry.overrides(base, settings or {}, size, before=kept)
        identity = {"algorithm": canonical(algorithm), "object": None if given is None else type(given).__name__,
                    "overrides": new, "preset": None}  # fmt: skip
        changed = {"algorithm": identity["algorithm"] or identity["object"], "settings": new}
        algo = registry.adjust(base, new, size)
        recipe = registry.run_of(identity["algorithm"] or base)
        return _Learner(algo, before, identity, changed, set(), set(new) - set(kept), recipe)
    if not settings:
        return _Learner(before, before, identity, {}, {s.name for s in fields(before)}, set(), {})
    merged = registry.overrides(base, settings, size, before=old)
    changed = {"settings": {k: v for k, v in merged.items() if old.get(k) != v}}
    algo, asked = registry.adjust(base, merged, size), set(registry.overrides(base, settings, size))
    keeps = {s.name for s in fields(algo)} - asked
    return _Learner(algo, before, identity | {"overrides": merged}, changed, keeps, asked, {})


def _now(phase: Phase, learner: _Learner, begun: bool, over: bool) -> Phase:
    """A phase that is planned, or `begun`, as it goes on: without the settings of another algorithm and those that are
    asked for now, and, where it is not `over`, with what the new one's recipe says of such a phase."""
    own = dict(x for x in phase.settings if x[0] in learner.keeps)
    if over:
        return dataclasses.replace(phase, settings=tuple(own.items()))
    brought = phase_settings(learner.algo, [learner.recipe], None, f"{phase.name}_settings")
    own |= {k: v for k, v in brought.items() if k not in learner.asked}
    reset = () if begun or phase.name != "online" else learner.recipe.get("reset") or ()
    return dataclasses.replace(phase, settings=tuple(own.items()), reset=tuple(dict.fromkeys((*phase.reset, *reset))))


def _say_what_is_kept(learner: _Learner, held: dict) -> None:
    """What another algorithm's recipe says of the run where that already `held` something else."""
    for name, ours in held.items():
        said = learner.recipe.get(name, ours)
        if name == "n_step" and getattr(learner.algo, "chunk", 0):
            continue
        if (str(parse(said)) if name == "switch" else said) != ours:
            option, shown = name.replace("_", "-"), ours if name == "switch" else f"{ours:g}"
            say(f"{learner.identity['algorithm']} comes with --{option} {said}; the run keeps its {shown}.")


def _first_live(manifest: dict, learner: _Learner, live: dict, data) -> dict:
    """What `plan` takes for an online phase that is new: `live` where the user gave it, else the recipe of another
    algorithm, else what `train` was given."""
    from understudy import registry

    stored, recipe = manifest.get("live", {}), learner.recipe
    share = {"offline_share": stored.get("offline_share") if data is not None else None}
    own_run = {"reset": registry.run_of(learner.identity["algorithm"] or learner.algo).get("reset")}
    settings = {k: v for k, v in stored.get("online_settings", {}).items() if k in learner.keeps}
    settings |= phase_settings(learner.algo, [recipe], live.get("online_settings"), "online_settings")
    return {
        "utd": number_of("utd", live.get("utd"), recipe.get("utd", stored.get("utd", 1.0))),
        "switch": resolve(share, {"switch": manifest.get("switch")}, own_run, recipe, live),
        "online_settings": settings,
    }


def _extend(phases: list[Phase], totals: dict[str, int], data: bool, env, live: dict) -> list[Phase]:
    """The phases with new totals, by name; `live` is of an online phase that is new. A total below
    the old one is refused."""
    phases = list(phases)
    for name, total in totals.items():
        found = [i for i, p in enumerate(phases) if p.name == name]
        if not found and name == "online":
            if env is None:
                raise SettingsError(
                    "An online phase needs an environment, and the run has none; name it with --env ID."
                )
            held = live | {"online_settings": live["online_settings"].items()}
            held["switch"], switch = dataclasses.replace(held["switch"], retrain=None), held["switch"]
            phases += plan(online=total, data=data, pretrained=any(p.updates for p in phases), **held)
            phases = with_retraining(phases, switch, data)  # as many updates as were made before: the offline ones too
            continue
        if not found:
            raise SettingsError(f"The run has no {name} phase to extend.")
        i = found[-1]
        if total < phases[i].units:
            raise SettingsError(
                f"The run's {name} phase has {phases[i].units:,} steps already planned; give a total of at least that."
            )
        if total > phases[i].units and i != len(phases) - 1:
            later = ", ".join(p.name for p in phases[i + 1 :])
            if phases[-1].restart:
                raise SettingsError(
                    f"The {name} phase is followed by a retraining, which ends a run; train anew with more steps in it."
                )
            raise SettingsError(f"The {name} phase is followed by {later} and cannot grow; extend the last phase.")
        unit = "env_steps" if phases[i].acts else "updates"
        phases[i] = dataclasses.replace(phases[i], **{unit: total})
    return phases
