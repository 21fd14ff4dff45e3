"""What a person sees. Lists and descriptions go to standard output, results of runs to standard error."""

from __future__ import annotations

import pathlib
import textwrap
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from understudy import settings as fields


class _Console(Console):
    """A console that lets a closed pipe be handled where every other end is."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stderr: bool = False) -> Console:
    return _Console(stderr=stderr, highlight=False, emoji=False, markup=False)


def _table(*columns: str, **kwargs) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), header_style="bold", **kwargs)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


TITLES = {
    "critic": "critic: how values are learned",
    "extraction": "extraction: how the policy improves, and which sample acts",
    "policy": "policy: what acts",
    "policy.base": "policy.base: what it acts through; --policy.base NAME takes another",
    "": "the algorithm itself",
}


def settings(name: str, entry: Any, rows: list[fields.Setting], preset: str | None, run: dict[str, Any]) -> None:
    """The settings of an algorithm, grouped by part, and the options that its runs have by default."""
    out = _console()
    paper = f" (arXiv:{entry.paper})" if entry.paper else ""
    out.print(f"{name}: {entry.summary}{paper}")
    out.print(f"Defaults are those of the preset {preset}." if preset else
              f"Defaults of a preset: understudy train {name} --preset NAME --help")  # fmt: skip
    if run:
        words = " ".join(f"{option} {value}" for option, value in _run_options(run))
        out.print(textwrap.fill(f"A run of it, unless you say otherwise: {words}", out.width, break_on_hyphens=False))
    out.print("The end of a name is enough where only one setting has it: --discount 0.99")
    another = " --policy NAME takes another policy." if any(s.group == "policy" for s in rows) else ""
    out.print(f"* a new value compiles another program.{another}\n")
    names = max(len(s.name) for s in rows) + 3  # with -- and *
    for group in dict.fromkeys(s.group for s in rows):
        out.print(Text(TITLES.get(group, group), style="bold"))
        part, header = [s for s in rows if s.group == group], group == rows[0].group
        _wide(out, part, names, header) if out.width >= 110 else _narrow(out, part, names, header)
        out.print()
    out.print("Other options: understudy train --help")


def _run_options(run: dict[str, Any]) -> list[tuple[str, str]]:
    """What belongs to a run, as it is typed: [("--utd", "4"), ("--online.critic.weight", "0")]."""
    options = []
    if run.get("reset"):
        words = [run["switch"]] if run.get("switch") else []
        switch = "+".join([*words, *(f"reset-{what}" for what in run["reset"])])
        run = {k: v for k, v in run.items() if k != "reset"} | {"switch": switch}
    for key, value in run.items():
        if key.endswith("_settings"):
            phase = key.removesuffix("_settings")
            options += [(f"--{phase}.{name}", fields.text_of(number)) for name, number in value.items()]
        else:
            text = f"{value:.6g}" if isinstance(value, (int, float)) else str(value)
            options.append((f"--{key.replace('_', '-')}", text))
    return options


HEADER = ("setting", "default", "range", "symbol", "meaning")


def _wide(out: Console, rows: list[fields.Setting], names: int, header: bool) -> None:
    """A line for each setting."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=header, header_style="bold")
    for title, width in zip(HEADER, (names, 15, 19, 7, None)):
        table.add_column(title, width=width, overflow="fold")
    for s in rows:
        table.add_row(_option(s), fields.text_of(s.value), fields.range_of(s), s.symbol, s.help)
    out.print(table)


def _narrow(out: Console, rows: list[fields.Setting], names: int, header: bool) -> None:
    """Two lines for each setting, the second its meaning; a long list of choices goes there too."""
    line = lambda *cells: f"{cells[0]:<{names}}  {cells[1]:<15}  {cells[2]:<19}  {cells[3]}".rstrip()
    if header:
        out.print(Text(line(*HEADER[:4]), style="bold"))
    for s in rows:
        allowed, meaning = fields.range_of(s), s.help
        if len(allowed) > 19:
            allowed, meaning = "", f"{meaning}: {allowed}"
        out.print(line(_option(s), fields.text_of(s.value), allowed, s.symbol), soft_wrap=True)
        out.print(textwrap.fill(meaning, out.width, initial_indent="      ", subsequent_indent="      "))


def _option(s: fields.Setting) -> str:
    return f"--{s.name}{'*' if s.static else ''}"


def listing(what: str, rows: list[dict]) -> None:
    """A list of things that can be named."""
    out = _console()
    if what == "algorithms":
        table = _table("algorithm", "what it is", "paper")
        for r in rows:
            table.add_row(r["name"], r["summary"], r["paper"])
        after = "Settings of one: understudy train NAME --help"
    elif what == "policies":
        table = _table("policy", "what it is", "offers beyond sample and loss")
        for r in rows:
            can = "known once imported" if r["capabilities"] is None else ", ".join(r["capabilities"]) or "nothing"
            table.add_row(r["name"], r["summary"], can)
        after = "Use one: understudy train ALGORITHM DATASET --policy NAME"
    elif what == "datasets":
        table = _table("data set", "what it is")
        for r in rows:
            table.add_row(r["name"], r["summary"])
        after = ("Generate one: understudy data make NAME\nDescribe a file: understudy data info PATH\n"
                 "-singletask-task2 to -task5 in a NAME are other tasks; without -singletask: no rewards.")  # fmt: skip
    else:
        table = _table("preset", "settings")
        section = None
        for r in rows:
            if section is not None and section != _section(r["name"]):
                table.add_section()
            section = _section(r["name"])
            table.add_row(r["name"], r["summary"])
        after = ("Use one: understudy train ALGORITHM DATASET --preset NAME\n"
                 "Some: understudy list presets cube    One in full: understudy list presets d4rl")  # fmt: skip
    table.columns[0].no_wrap = True
    out.print(table)
    out.print(f"\n{after}")


def _section(name: str) -> str:
    """Presets of the same stack and domain stay together."""
    words = name.removesuffix("-normalised").removesuffix("-raw").removesuffix("-finetune").split("-")
    return words[0] if words[0] != "d4rl" else "-".join(words[:2])


def preset(value: dict[str, Any]) -> None:
    """One preset in full: every field that it sets, per algorithm."""
    out = _console()
    out.print(f"{value['name']}: {value['summary']}")
    out.print(f"source: {value['source']}")
    if value["base"]:
        out.print(f"on top of: {value['base']} (understudy list presets {value['base']})")
    for group in dict.fromkeys([*value["settings"], *value["run"]]):
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
        for key, v in value["settings"].get(group, {}).items():
            table.add_row(f"--{key}", fields.text_of(v))
        for option, text in _run_options(value["run"].get(group, {})):
            table.add_row(option, text)
        out.print(Text("\nevery algorithm that has the field" if group == "*" else f"\n{group}", style="bold"))
        out.print(table)


def info(value: dict[str, Any]) -> None:
    """A description, one fact a line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, fact in value.items():
        if fact is None or fact == [] or fact == ():
            continue
        table.add_row(key.replace("_", " "), _fact(fact))
    _console().print(table)


def _fact(fact: Any) -> str:
    if hasattr(fact, "tolist"):
        fact = fact.tolist()
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if isinstance(fact, int):
        return f"{fact:,}"
    if isinstance(fact, float):
        return f"{fact:,.4g}"
    if isinstance(fact, dict):
        return ", ".join(f"{k} {_fact(v)}" for k, v in fact.items())
    if isinstance(fact, (list, tuple)):
        texts = all(isinstance(v, str) for v in fact)
        return "\n".join(fact) if texts else " ".join(_fact(v) for v in fact)
    return str(fact)


def findings(value: dict[str, Any]) -> None:
    """What a check of a data set found."""
    out = _console()
    for f in value["findings"]:
        text = f"{f['message'].rstrip('.')}; {f['mend']}" if f["mend"] else f["message"]
        row = "" if f["row"] is None else f"first at row {f['row']:,}"
        where = ", ".join(x for x in (f["key"], row) if x)
        out.print(f"{f['level']}: {text}" + (f" ({where})" if where else ""))
    out.print("This data set cannot be trained on as it is." if not value["ok"] else "This data set can be trained on.")


# --- results ---------------------------------------------------------------------------------------------------------


def _rows(pairs: list[tuple[str, str]], stderr: bool = True) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, text in pairs:
        if text:
            table.add_row(key, text)
    out = _console(stderr=stderr)
    out.print()
    out.print(table)


def interval(bounds: Any) -> str:
    """A 95% interval as text, or ""."""
    if not bounds or None in bounds:
        return ""
    return f"  95% interval {_number(bounds[0])} to {_number(bounds[1])}"


def _number(x: float | None) -> str:
    return "none" if x is None else f"{x:.2f}" if abs(x) < 10 else f"{x:,.1f}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _scores(r: dict[str, Any]) -> list[tuple[str, str]]:
    seeds = r.get("success_by_seed") or []
    over = (f"{len(seeds)} seeds x " if len(seeds) > 1 else "") + f"{r.get('episodes') or 0:,} episodes"
    rows = []
    if r.get("success") is not None:
        before = r.get("offline_success")
        arrow = f"{_number(before)} -> " if before is not None and r.get("env_steps") else ""
        rows.append(("success", f"{arrow}{_number(r['success'])}{interval(r.get('interval'))}  {over}"))
        if r.get("best_success") is not None:
            rows.append(("best", f"{_number(r['best_success'])} during the run"))
        if len(seeds) > 1:
            rows.append(("by seed", "  ".join(_number(s) for s in seeds)))
    if r.get("score") is not None:
        rows.append(("score", f"{_number(r['score'])}, normalised: 0 random, 100 expert"))
    if r.get("return") is not None:
        alone = r.get("success") is None
        rows.append(("return", _number(r["return"]) + (f"{interval(r.get('interval'))}  {over}" if alone else "")))
    return rows


def result(r: dict[str, Any], run: Any) -> None:
    """The end of a run: score before and after, where things are, how to go on."""
    rows = _scores(r)
    if base := r.get("baseline"):
        what = "success" if base["success"] is not None else "return"
        mean = "" if base["area"] is None else f", {_short(base['area'])} on average while learning"
        rows.append(("baseline", f"RLPD from scratch {_short(base[what])}{interval(base['interval'])}{mean}"))
    if r.get("switch") and (words := getattr(run, "manifest", {}).get("switch")):
        rows.append(("switch", words))
    steps = f", {r['env_steps']:,} live steps of each seed" if r.get("env_steps") else ""
    took = f" in {duration(r.get('seconds'))}" if r.get("seconds") else ""
    rows.append(("trained", f"{r.get('updates') or 0:,} updates{steps}{took}"))
    path = pathlib.Path(r["run"])
    if (path / "report.html").exists():
        rows.append(("report", str(path / "report.html")))
    if (path / "video.mp4").exists():
        rows.append(("video", str(path / "video.mp4")))
    manifest = getattr(run, "manifest", {})
    phases = manifest.get("phases") or [{}]
    last, live = phases[-1].get("name"), sum(p.get("env_steps", 0) for p in phases if p.get("name") == "online")
    if manifest.get("env"):
        rows.append(("evaluate", f"understudy evaluate {path} --episodes 100"))
    if last == "retrain":
        pass  # nothing follows it
    elif manifest.get("env"):
        rows.append(("go on live", f"understudy resume {path} --online {live + 20_000}"))
    else:
        rows.append(("go on", f"understudy resume {path} --offline {2 * (r.get('updates') or 50_000)}"))
    _rows(rows)
    _switch(r, manifest)


def _switch(r: dict[str, Any], manifest: dict) -> None:
    """What going live did: a line for the mean over seeds and one for each seed."""
    found = r.get("switch")
    if not found:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("live", "offline", "dip", "at", "back at", "mean", "regret", "final", "Q"):
        table.add_column(title)
    seeds = zip((f"seed {s}" for s in manifest.get("seeds") or ()), found["by_seed"])
    for name, one in [("mean", found), *(seeds if len(found["by_seed"]) > 1 else ())]:
        dipped = one["dip"] > 0
        back = "never" if one["recovered"] is None else f"{one['recovered']:,}"
        q = [_short(one[k]) for k in ("q_before", "q_after") if one[k] is not None]
        table.add_row(
            name, _short(one["offline"]), f"-{_short(one['dip'])}" if dipped else "none",
            f"{one['dip_at']:,}" if dipped else "", back if dipped else "", _short(one["area"]),
            "" if one["regret"] is None else _short(one["regret"]), _short(one["final"]), " -> ".join(q),
        )  # fmt: skip
    out = _console(stderr=True)
    out.print()
    out.print(table)


def _short(x: float | None) -> str:
    return f"{x:,.0f}" if x is not None and abs(x) >= 100 else _number(x)


def evaluation(r: dict[str, Any], stderr: bool = True) -> None:
    """The score of a run's policy on fresh episodes."""
    rows = _scores(r | {"offline_success": None})
    if r.get("video"):
        rows.append(("video", str(r["video"])))
    _rows([*rows, ("run", str(r.get("run", "")))], stderr)
