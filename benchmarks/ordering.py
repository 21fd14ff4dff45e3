"""The published ordering, at a smaller scale: python benchmarks/ordering.py TASK METHOD ... [--data FILE] [--runs DIR]

Offline, then online, three seeds of each method on OGBench's default task of cube-single or scene, with the published
coefficients of that task but networks of 256x2 instead of 512x4, an offline phase of 60,000 updates instead of 10^6,
for which the rate is 1e-3 instead of 3e-4, and 20,000 live steps instead of 10^6, half of whose batches are data. Kept
as results/order-TASK-METHOD here. With TASK alone: the table of those that are kept, beside the published rows.

Scene's data are made here: understudy data make ogbench/scene-play-singletask-v0 --episodes 1000
"""

from __future__ import annotations

import argparse
import json
import pathlib

from keep import HERE, keep, offline, scored, understudy

RUN = ("--offline 60000 --online 20000 --offline-share 0.5 --utd 1 --eval-every 20000 --seeds 3 "
       "--learning_rate 1e-3 --critic.learning_rate 1e-3 --online.learning_rate 3e-4 "
       "--online.critic.learning_rate 3e-4 --policy.hidden 256 256 --critic.hidden 256 256")  # fmt: skip
METHODS = {"fql": "", "ifql": "", "rebrac": "", "iql": "", "rlpd": "--offline 0",
           "qc_fql": "--extraction.normalise false --extraction.alpha 300"}  # FQL's coefficient  # fmt: skip
# Success after 10^6 updates → after 10^6 live steps more, in percent, on the default task: the FQL paper's tables 3
# and 4; QC-FQL's from the QC paper's plot data (scene there with sparse rewards). "–": not published.
PUBLISHED = {
    "cube-single": {"fql": "97 → –", "ifql": "73 → –", "rebrac": "92 → –", "iql": "85 → –", "rlpd": "–", "qc_fql": "–"},
    "scene": {"fql": "82 → 100", "ifql": "0 → 60", "rebrac": "55 → 100", "iql": "14 → 10", "rlpd": "0 → 100",
              "qc_fql": "93 → 100"},
}  # fmt: skip


def table(task: str) -> str:
    lines = ["| method | offline | last | best | published |", "|---|---|---|---|---|"]
    for name, published in PUBLISHED[task].items():
        folder = HERE / f"order-{task}-{name}"
        if (folder / "result.json").exists():
            result = json.loads((folder / "result.json").read_text())
            scores = (scored(result), scored(result, "best_"))
            lines.append(f"| {name} | {' | '.join((offline(folder, result), *scores))} | {published} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=PUBLISHED)
    parser.add_argument("names", nargs="*", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--data", type=pathlib.Path, help="else TASK-play-singletask-v0.npz in ../shared/data or data")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    args = parser.parse_args()
    if unknown := set(args.names) - set(METHODS):
        parser.error(f"There is no method {', '.join(sorted(unknown))} here; give some of {', '.join(METHODS)}.")
    env = f"{args.task}-play-singletask-v0"
    places = [args.data] if args.data else [pathlib.Path(d, f"{env}.npz") for d in ("../shared/data", "data")]
    data = next((str(p) for p in places if p.exists()), None)
    if args.names and data is None:
        parser.error(f"No data at {' or '.join(map(str, places))}; make them: understudy data make ogbench/{env} "
                     "--episodes 1000")  # fmt: skip
    for name in args.names:
        out = args.runs / f"order-{args.task}-{name}"
        understudy("train", name, data, "--env", env, "--preset", f"ogbench-{args.task}", *RUN.split(),
                   *METHODS[name].split(), "--out", str(out))  # fmt: skip
        keep(out)
    print(table(args.task))


if __name__ == "__main__":
    main()
