"""Keep the evidence of a run as data: python benchmarks/keep.py RUN NAME [--note TEXT].

Copies every evaluation episode and the result into benchmarks/results/NAME, with the command, settings and versions
that made them, and adds the run's row to benchmarks/results/README.md. Paths of this machine are left out.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent / "results"
HEAD = """# Results

Every row was measured; the folder of that name holds each evaluation episode (`episodes.jsonl`), the result and what
made it (`run.json`: command, settings, versions). Success in percent, or the return where the task has no success, mean
[95% interval] over seeds and episodes;
*last* is the final evaluation, *best* the best one of the run, which nobody could have picked without looking; *curve*
is every evaluation, at the updates (offline) or environment steps (live) of its row of `episodes.jsonl`.

| name | command | seeds x episodes | offline | last | best | curve | note |
|---|---|---|---|---|---|---|---|
"""


def scored(result: dict, which: str = "") -> str:
    """Success in percent, or the return where there is none, with its interval; `which`: "", "best_" or "offline_"."""
    success, interval = result[f"{which}success"], result[f"{which}interval"]
    mean, scale = (result[f"{which}return"], 1) if success is None else (success, 100)
    if mean is None:
        return "–"
    return f"{scale * mean:.0f}" + (f" [{scale * interval[0]:.0f}, {scale * interval[1]:.0f}]" if interval else "")


def told(folder: pathlib.Path) -> str:
    """Success in percent, or the return, at every evaluation: "12k 34, 24k 56, live 4k 60"."""
    points: dict[tuple, list[float]] = {}
    for line in (folder / "episodes.jsonl").read_text().splitlines():
        e = json.loads(line)
        word = {"warmup": "live ", "online": "live ", "retrain": "retrained "}.get(e["phase"], "")
        place = (word, e["env_steps"] if word == "live " else e["updates"])
        points.setdefault(place, []).append(e["return"] if e["success"] is None else 100 * e["success"])
    return ", ".join(f"{live}{at / 1000:g}k {sum(s) / len(s):.0f}" for (live, at), s in points.items())


def rows_of(*names: str) -> list[dict]:
    """Evaluation episodes of the results of those names together."""
    text = "".join((HERE / name / "episodes.jsonl").read_text() for name in names)
    return [json.loads(line) for line in text.splitlines()]


def curve(rows: list[dict], seed: int | None = None) -> list[tuple[int, float]]:
    """Live steps and mean success of the last evaluation before the first live step and of each one after it, of one
    seed or of all."""
    points: dict[int, list[float]] = {}
    before = max((row["updates"] for row in rows if row["env_steps"] == 0), default=0)
    for row in rows:
        if seed in (None, row["seed"]) and (row["env_steps"] or row["updates"] == before):
            points.setdefault(row["env_steps"], []).append(row["success"])
    return [(steps, sum(found) / len(found)) for steps, found in points.items()]


def offline(folder: pathlib.Path, result: dict) -> str:
    """What the offline phase reached, where there was one."""
    first = json.loads((folder / "episodes.jsonl").read_text().partition("\n")[0])
    return "–" if first["phase"] == "start" else scored(result, "offline_")


def row(folder: pathlib.Path) -> str:
    about, result = (json.loads((folder / n).read_text()) for n in ("run.json", "result.json"))
    seeds = len(about["seeds"])
    return (f"| {folder.name} | `{about['command']}` | {seeds} x {result['episodes']} "
            f"| {offline(folder, result)} | {scored(result)} | {scored(result, 'best_')} | {told(folder)} "
            f"| {about['note']} |\n")  # fmt: skip


def typed(command: list[str]) -> str:
    """A command as it was typed, without paths of this machine; what was called from Python has none."""
    if not command:
        return "(from Python)"
    words = [pathlib.Path(w).name if w.startswith("/") else w for w in command]
    return " ".join(w if " " not in w else repr(w) for w in words)


def together(commands: list[str], name: str) -> str:
    """Commands one after the other, on the folder `name`, whatever it and copies of it were called; each once."""
    ours = (re.sub(r"(?<=--out )\S+|(?<=^understudy resume )\S+", name, command) for command in commands)
    return " && ".join(dict.fromkeys(ours))


def understudy(*words: str, program: tuple[str, ...] = ("-m", "understudy")) -> None:
    """The command line, as a user calls it; `program`: a script that is one as well."""
    subprocess.run([sys.executable, *program, *words], check=True)


def stages(words: str, data: str | None, run: str, out: pathlib.Path, **how) -> None:
    """Train, and resume: "ALGORITHM OPTIONS && OPTIONS of resume && ..."; `run`: options of train as well."""
    (algorithm, *given), *later = (stage.split() for stage in words.split(" && "))
    understudy("train", algorithm, *([data] if data else []), *run.split(), *given, "--out", str(out), **how)
    for stage in later:
        understudy("resume", str(out), *stage, **how)


def arguments(doc: str, names, what: str, data: str | None) -> argparse.Namespace:
    """The command line of a script that makes some of the runs `names`: names, data, runs."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar=what.upper(), help=", ".join(names))
    parser.add_argument("--data", default=data)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    args = parser.parse_args()
    if unknown := set(args.names) - set(names):
        parser.error(f"There is no {what} {', '.join(sorted(unknown))} here; give some of {', '.join(names)}.")
    return args


def keep(run: pathlib.Path, note: str = "", name: str | None = None) -> None:
    """Keep the evidence of a run under its folder's name, or another."""
    manifest = json.loads((run / "manifest.json").read_text())
    target = HERE / (name or run.name)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "episodes.jsonl", target)
    if (run / "result.json").exists():
        result = json.loads((run / "result.json").read_text())
    else:
        from understudy.evaluate.summary import summary

        result = summary(run)
        note = f"{note}; stopped before its end".removeprefix("; ")
    result["run"] = run.name
    (target / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    commands = [manifest["command"], *(r["command"] for r in manifest["resumes"] if r["changed"])]
    fields = ("algorithm", "preset", "settings", "overrides", "env", "seeds", "phases", "plan", "protocol", "versions",
              "created", "resumes", "understudy")  # fmt: skip
    about = {k: manifest[k] for k in fields} | {
        "command": together(list(map(typed, commands)), target.name),
        "note": note,
    }
    about["resumes"] = [r | {"command": typed(r["command"])} for r in about["resumes"]]
    about["dataset"] = {k: manifest["dataset"][k] for k in ("name", "sha256", "transitions", "episodes", "notes")} if (
        manifest["dataset"]) else None  # fmt: skip
    (target / "run.json").write_text(json.dumps(about, indent=1) + "\n")
    folders = sorted(p for p in HERE.iterdir() if (p / "run.json").exists())
    (HERE / "README.md").write_text(HEAD + "".join(row(p) for p in folders))
    print(row(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("name")
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    keep(args.run, args.note, args.name)


if __name__ == "__main__":
    main()
