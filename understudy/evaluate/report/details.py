"""Everything that the manifest says, in tables."""

from __future__ import annotations

import json
import shlex

from understudy.evaluate.curves import Curves
from understudy.evaluate.plot import escape
from understudy.evaluate.report.words import block, grid, table, value_text


def section(curves: Curves) -> str:
    manifest = curves.manifest
    if not manifest:
        return ""
    changed = manifest.get("overrides") or {}
    settings = [(name, value, name in changed) for name, value in sorted((manifest.get("settings") or {}).items())]
    planned = {k: v for k, v in (manifest.get("plan") or {}).items() if k != "evaluate"}
    blocks = [
        block("Settings", table((n, value_text(v) + (" ●" if own else "")) for n, v, own in settings),
               "settings", "● given by the user" if changed else ""),
        block("Run", table((k, value_text(v)) for k, v in planned.items()), "settings"),
        block("Data", table(_data(manifest)), ""),
        block("Phases", _phases(manifest), ""),
        block("Resumes", _resumes(manifest), ""),
        block("Versions", table(_versions(manifest)), ""),
    ]  # fmt: skip
    return f'<section class="details"><h2>Details</h2>{"".join(blocks)}</section>'


def _data(manifest: dict) -> list[tuple[str, object]]:
    data = manifest.get("dataset")
    rows: list[tuple[str, object]] = []
    if data:
        size = f"{data.get('transitions', 0):,} transitions, {data.get('episodes', 0):,} episodes"
        rows += [("data set", data.get("name")), ("source", data.get("source")), ("size", size)]
        rows += [("SHA-256", data.get("sha256"))] + [("note", n) for n in data.get("notes") or ()]
    else:
        rows.append(("data set", "none: learned live only"))
    rows.append(("environment", manifest.get("env") or "none"))
    if stage := (manifest.get("plan") or {}).get("eval_env"):
        rows.append(("evaluated in", stage))
    rows.append(("seeds", value_text(manifest.get("seeds") or [])))
    return rows


def _phases(manifest: dict) -> str:
    rows = ""
    for p in manifest.get("phases") or ():
        share = "one buffer" if p.get("as_one") else value_text(p.get("offline_share"))
        if p.get("anneal"):
            share += f" → {value_text(p['anneal'][0])} over {p['anneal'][1]:,} steps"
        share += f", successes {value_text(p['successes'])}" if p.get("successes") else ""
        fresh = ["everything"] if p.get("restart") else p.get("reset") or ()
        own = " ".join(f"{name} {value_text(value)}" for name, value in p.get("settings") or ())
        cells = (p.get("name"), f"{int(p.get('updates') or 0):,}", f"{int(p.get('env_steps') or 0):,}",
                 value_text(p.get("utd")), share, ", ".join(fresh), own)  # fmt: skip
        rows += "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    names = ("phase", "updates", "environment steps", "updates per step", "data share", "starts afresh", "own settings")
    return grid(names, rows)


def _resumes(manifest: dict) -> str:
    rows = "".join(
        "<tr><td>{}</td><td>{:,}</td><td>{:,}</td><td>{}</td></tr>".format(
            escape(r.get("at")), int(r.get("updates") or 0), int(r.get("env_steps") or 0),
            escape(json.dumps(r.get("changed")) if r.get("changed") else "nothing"))
        for r in manifest.get("resumes") or ()
    )  # fmt: skip
    return grid(("when", "at updates", "at environment steps", "changed"), rows)


def _versions(manifest: dict) -> list[tuple[str, object]]:
    versions = {"understudy": manifest.get("understudy")} | (manifest.get("versions") or {})
    rows: list[tuple[str, object]] = [(k, v) for k, v in versions.items() if v]
    rows += [(k, manifest[k]) for k in ("platform", "created") if manifest.get(k)]
    if manifest.get("command"):
        rows.append(("command", shlex.join(str(w) for w in manifest["command"])))
    return rows
