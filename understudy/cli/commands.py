"""One function per command. Heavy modules are imported inside them, so that help and lists stay instant."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

from understudy.cli.parser import COMMANDS, HELP, Parser, UsageError, command_of, split
from understudy.errors import SettingsError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command has to say: `value` with --json, else whatever `show` prints."""

    value: Any
    show: Callable[[], None] | None = None
    code: int = 0


def run(argv: list[str]) -> Outcome:
    """Parse and run one command. Raises UserError."""
    words = [a for a in argv if not a.startswith("-")]
    if not argv or (not words and set(argv) <= {"-h", "--help"}) or words == ["help"]:
        return Outcome({"help": HELP}, lambda: print(HELP, end=""))
    if not words and "--version" in argv:
        import understudy

        return Outcome({"version": understudy.__version__}, lambda: print(f"understudy {understudy.__version__}"))
    if argv[0].startswith("-"):
        raise UsageError(f"{argv[0]} stands before any command; give the command first (see understudy --help).")
    if argv[0] == "data" and {"-h", "--help"} & set(argv) and len(words) == 1:
        text = "\n".join(COMMANDS[name].help() for name in COMMANDS if name.startswith("data "))
        return Outcome({"help": text}, lambda: print(text, end=""))
    spec, rest = command_of(argv)
    parser, raw = spec.parser(), {}
    wants_help = bool({"-h", "--help"} & set(rest))
    if spec.settings:
        rest, raw = split(rest, parser.known)
    if wants_help and spec.name == "train":
        return _train_help(parser, rest, raw)
    if wants_help:
        return Outcome({"help": spec.help()}, lambda: print(spec.help(), end=""))
    args = _parse(parser, rest)
    with _quiet(getattr(args, "quiet", False)):
        return RUN[spec.name](args, raw, argv, parser)


def _parse(parser: Parser, argv: list[str]) -> argparse.Namespace:
    args, unknown = parser.parse_known_intermixed_args(argv)
    for word in unknown:
        if word.startswith("-"):
            near = did_you_mean(word.partition("=")[0], parser.known)
            near = near if "Did you mean" in near else ""
            raise UsageError(f"There is no option '{word}'.{near} (see {parser.prog} --help)")
    if unknown:
        raise UsageError(f"'{' '.join(unknown)}' is one argument too many (see {parser.prog} --help).")
    return args


class _Warnings(io.TextIOBase):
    """Lets through only lines that begin with a warning."""

    def __init__(self, stream):
        self._stream, self._line = stream, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.lower().startswith(("warning", "understudy: error")):
                self._stream.write(line + "\n")
        return len(text)


@contextlib.contextmanager
def _quiet(enabled: bool) -> Iterator[None]:
    if not enabled:
        yield
        return
    with contextlib.redirect_stderr(_Warnings(sys.stderr)):
        yield


# --- settings -------------------------------------------------------------------------------------------------------


OF_PHASES = ("offline", "online")  # before the name of a setting that holds in that phase only: --online.critic.weight


def checked(name: str, raw: dict, preset: str | None, parser: Parser, base: dict | None = None) -> dict[str, Any]:
    """Settings as the arguments `settings`, `offline_settings` and `online_settings`, by full name, converted and
    checked, before anything slow is done. `base`: settings that they come on top of. Raises SettingsError."""
    from understudy import registry
    from understudy import settings as fields

    own = {p: {k.removeprefix(f"{p}."): v for k, v in raw.items() if k.startswith(f"{p}.")} for p in OF_PHASES}
    raw = {k: v for k, v in raw.items() if not k.startswith(tuple(f"{p}." for p in OF_PHASES))}
    parts = {part: raw.pop(part) for part in registry.PARTS if part in raw}
    if not raw and not parts and not any(own.values()):
        return {}
    for word in registry.WRAPPED:
        if word in raw and raw[word] is None:
            raise UsageError(f"--{word} needs a value.")
    chosen = parts | {k: raw[k] for k in registry.WRAPPED if k in raw}
    made = registry.make(name, 1, None, preset)  # sizes do not matter for names and ranges
    algorithm = registry.adjust(made, registry.overrides(made, chosen, 1, before=base), 1)
    known = {s.name: s for s in fields.fields(algorithm)}
    given = {}
    for word, value in raw.items():
        try:
            setting = known[fields.find(word, known)]
        except SettingsError as error:
            if (option := f"--{word}".replace("_", "-")) in COMMANDS["train"].parser().known:
                raise UsageError(f"{option} belongs to understudy train; see {parser.prog} --help") from None
            options = [o for o in parser.known if o not in ("--json", "--help")]
            options += [f"--{o}" for o in (*registry.CHOICES, *known)]
            near = did_you_mean(f"--{word}".replace("_", "-"), options)
            if "." in word or "Did you mean" not in near or "There is no setting" not in str(error):
                raise
            raise UsageError(f"There is no option or setting '--{word}'.{near}") from None
        if value is None and setting.type is not bool:
            raise UsageError(f"--{word} needs a value.")
        given[setting.name] = True if value is None else value
    if bare := next((f"{p}.{k}" for p in OF_PHASES for k, v in own[p].items() if v is None), None):
        raise UsageError(f"--{bare} needs a value.")
    found = {"settings": parts | fields.resolve(algorithm, given)}
    found |= {f"{p}_settings": fields.numbers(algorithm, own[p]) for p in OF_PHASES}
    return {k: v for k, v in found.items() if v}


def _train_help(parser: Parser, rest: list[str], raw: dict) -> Outcome:
    """The options, or with an algorithm its settings."""
    args, _ = parser.parse_known_args(rest)
    if args.algorithm is None:
        text = COMMANDS["train"].help()
        return Outcome({"help": text}, lambda: print(text, end=""))
    from understudy import presets, registry
    from understudy import settings as fields
    from understudy.cli import show

    name = registry.match("algorithm", args.algorithm, registry.entries("algorithm"))
    chosen = {k: raw[k] for k in registry.CHOICES if raw.get(k)}
    settings = fields.fields(registry.make(name, 1, chosen, args.preset))
    settings = [s for s in settings if not s.name.endswith("action_size")]  # the data say it
    entry = registry.entries("algorithm")[name]
    run = dict(entry.run) | (presets.get(args.preset).run_for(name) if args.preset else {})
    value = {
        "algorithm": name, "summary": entry.summary, "paper": entry.paper, "preset": args.preset, "run": run,
        "settings": [{"name": s.name, "default": fields.as_json(s.value), "help": s.help, "symbol": s.symbol,
                      "low": s.low, "high": s.high, "choices": s.choices, "static": s.static} for s in settings],
    }  # fmt: skip
    return Outcome(value, lambda: show.settings(name, entry, settings, args.preset, run))


# --- commands -------------------------------------------------------------------------------------------------------


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; the rest keep the preset's or the library's default."""
    return {n: getattr(args, n) for n in names if getattr(args, n) is not None}


def _finished(run: Any) -> Outcome:
    from understudy.cli import show

    result = run.result
    show.result(result, run)
    return Outcome(result)


def demo(args, raw, argv, parser) -> Outcome:
    from understudy import demo as module

    return _finished(module.demo(**_given(args, "out", "seed"), command=["understudy", *argv]))


def train(args, raw, argv, parser) -> Outcome:
    if args.algorithm is None:
        raise UsageError("understudy train needs an ALGORITHM and a DATASET, such as: understudy train iql data.npz")
    if args.dataset is None and args.env is None:
        raise UsageError(f"understudy train {args.algorithm} needs a DATASET, an environment (--env ID), or both.")
    from understudy import presets, registry

    registry.match("algorithm", args.algorithm, registry.entries("algorithm"))
    if args.preset is not None:
        presets.get(args.preset)
    settings = checked(args.algorithm, raw, args.preset, parser)
    import understudy

    options = _given(
        args, "env", "action_range", "preset", "seeds", "seed", "out", "offline", "warmup", "online", "retrain",
        "switch", "batch_size", "n_step", "utd", "offline_share", "num_envs", "replay_capacity", "reward_scale",
        "reward_bias", "data_on", "episodes", "eval_every", "eval_seed", "baseline", "checkpoint_every", "log",
        "eval_env",
    )  # fmt: skip
    if args.no_eval:
        options["evaluate"] = False
    return _finished(
        understudy.train(args.algorithm, args.dataset, **options, **settings, command=["understudy", *argv])
    )


def _kept(name: str, manifest: dict, raw: dict) -> dict[str, Any]:
    """The policy of a run as settings of another algorithm that goes on with it; {} where it does not fit."""
    from understudy import registry
    from understudy.exchange import keep_policy

    if manifest.get("algorithm") is None:
        return {}
    before = registry.make(manifest["algorithm"], 1, manifest["overrides"], manifest["preset"])
    chosen = {k: raw[k] for k in registry.CHOICES if raw.get(k)}
    return keep_policy(registry.make(name, 1), before, chosen, 1)[0]


def resume(args, raw, argv, parser) -> Outcome:
    from understudy.run.folder import RunFolder

    manifest = RunFolder(args.run).manifest
    name = args.algorithm or manifest.get("algorithm")
    settings = {"settings": dict(raw)} if raw else {}
    if name is not None:  # else it was trained with an object, and only Python knows its fields
        if args.algorithm is None:
            overrides, preset = manifest.get("overrides"), manifest.get("preset")
        else:
            overrides, preset = _kept(args.algorithm, manifest, raw), None
        settings = checked(name, raw, preset, parser, overrides)
        if before := settings.get("offline_settings"):
            word = next(iter(before))
            raise UsageError(f"--offline.{word} belongs to train; --{word} here holds in every phase that is left.")
    import understudy

    options = _given(args, "offline", "online", "env", "utd", "switch", "offline_share", "algorithm", "baseline",
                     "eval_every", "episodes", "batch_size", "n_step")  # fmt: skip
    return _finished(understudy.resume(args.run, **options, **settings, command=["understudy", *argv]))


def evaluate(args, raw, argv, parser) -> Outcome:
    from understudy.run.folder import RunFolder

    RunFolder(args.run).manifest  # noqa: B018 refuses what is no run before anything slow is imported
    import understudy
    from understudy.cli import show

    run = understudy.load(args.run)
    result = run.evaluate(**_given(args, "episodes", "seed", "video"))
    show.evaluation(result)  # on standard error, where --quiet lets nothing through
    return Outcome(result, (lambda: show.evaluation(result, stderr=False)) if args.quiet else None)


def data_make(args, raw, argv, parser) -> Outcome:
    from understudy import data, registry
    from understudy.cli import show

    known = [*registry.datasets(), *registry.datasets(single=False)]
    wanted = {registry.plain(args.name), registry.plain(f"ogbench/{args.name}")}
    name = next((n for n in known if registry.plain(n) in wanted), args.name)
    path = data.make(name, **_given(args, "out", "episodes", "steps", "validation", "seed", "workers"))
    value = {"path": str(path)} | dict(data.info(path))
    return Outcome(value, lambda: show.info(value))


def data_info(args, raw, argv, parser) -> Outcome:
    from understudy import data
    from understudy.cli import show

    value = dict(data.info(args.path, env=args.env))
    return Outcome(value, lambda: show.info(value))


def data_check(args, raw, argv, parser) -> Outcome:
    from understudy import data
    from understudy.cli import show

    findings = [dataclasses.asdict(f) for f in data.check(args.path, env=args.env)]
    bad = any(f["level"] == "error" for f in findings)
    value = {"path": args.path, "ok": not bad, "findings": findings}
    return Outcome(value, lambda: show.findings(value), code=2 if bad else 0)


def list_(args, raw, argv, parser) -> Outcome:
    from understudy import registry
    from understudy.cli import show

    kinds = {"algorithms": _algorithms, "policies": _policies, "datasets": _datasets, "presets": _presets}
    what = args.what
    if what not in kinds:
        near = did_you_mean(args.what, kinds)
        raise UsageError(f"understudy list takes {', '.join(kinds)}; got '{args.what}'.{near}")
    rows = kinds[what]()
    named = [r for r in rows if what == "presets" and registry.plain(r["name"]) == registry.plain(args.filter)]
    if named:
        return Outcome({what: named}, lambda: show.preset(named[0]))
    text = args.filter.lower()
    rows = [r for r in rows if text in " ".join(map(str, r.values())).lower()]
    if not rows:
        raise UsageError(f"No {what} with '{args.filter}' in them; see: understudy list {what}")
    return Outcome({what: rows}, lambda: show.listing(what, rows))


def _algorithms() -> list[dict]:
    from understudy import registry

    return [{"name": n, "summary": e.summary, "paper": f"arXiv:{e.paper}" if e.paper else "", "package": e.package}
            for n, e in registry.entries("algorithm").items()]  # fmt: skip


def _policies() -> list[dict]:
    from understudy import registry

    rows = []
    for name, entry in registry.entries("policy").items():
        # What an outside package offers is not known before it is imported, which happens when it is asked for.
        can = None if entry.package else registry.capabilities(registry.load("policy", name))
        rows.append({"name": name, "summary": entry.summary, "capabilities": can, "package": entry.package})
    return rows


def _datasets() -> list[dict]:
    from understudy import registry

    rows = [{"name": n, "kind": "generated", "summary": s} for n, s in registry.datasets().items()]
    return rows + [{"name": n, "kind": "format", "summary": s} for n, s in registry.FORMATS.items()]


def _presets() -> list[dict]:
    from understudy import presets

    return [{"name": p.name, "summary": p.summary, "source": p.source, "base": p.base or None,
             "algorithms": p.algorithms, "settings": p.settings, "run": p.run}
            for p in presets.presets().values()]  # fmt: skip


RUN = {"demo": demo, "train": train, "resume": resume, "evaluate": evaluate, "data make": data_make,
       "data info": data_info, "data check": data_check, "list": list_}  # fmt: skip
