"""`understudy demo`: a robot arm learns to move a cube from recordings, then gets better live, in a few minutes."""

from __future__ import annotations

import pathlib
import shutil
import time

from understudy.errors import CheckpointError
from understudy.progress import say
from understudy.run.train import Run, train

TASK = "cube-single-play-singletask-v0"
ALGORITHM = "td3_bc"
EPISODES = 100  # of 1,000 transitions
OFFLINE, ONLINE = 20_000, 20_000
SETTINGS = {
    "critic.hidden": (256, 256, 256),
    "policy.hidden": (256, 256, 256),
}


def demo(
    out: str | pathlib.Path = "runs/demo", seed: int = 0, *, offline: int = OFFLINE, online: int = ONLINE, command=()
) -> Run:
    """Make the data on all cores, pretrain, evaluate, fine-tune live, evaluate; leave a report and a video in `out`.

    An earlier demo in the same folder is moved aside to OUT-1, OUT-2, ...; its data set is used again."""
    from understudy import data

    out = pathlib.Path(out)
    begin = time.monotonic()
    if (out / "manifest.json").exists():
        _move_aside(out)
    say(f"1/4  Recordings: a scripted arm plays with a cube ({EPISODES} episodes of 1,000 steps)")
    recordings = out.parent / "demo-data" / f"{EPISODES}" / f"{TASK}.npz"
    if not recordings.exists():
        data.make(f"ogbench/{TASK}", out=recordings, episodes=EPISODES, seed=0)
    say(f"2/4  Offline: {offline:,} updates of {ALGORITHM} on the recordings alone; 3/4  Live: {online:,} steps")
    run = train(
        ALGORITHM, recordings, env=TASK, offline=offline, online=online, seed=seed, out=out, settings=SETTINGS,
        eval_every=5_000, command=list(command),
    )  # fmt: skip
    say("4/4  Video and report")
    run.record()
    run.report()
    say(f"Ready after {time.monotonic() - begin:.0f} s. Open {run.path / 'report.html'}")
    return run


def _move_aside(out: pathlib.Path) -> None:
    from understudy.run.folder import RunFolder

    folder = RunFolder(out)
    folder.lock()  # refuses where it is in use
    folder.unlock()
    number = 1
    while (aside := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    try:
        shutil.move(out, aside)
    except OSError as error:
        raise CheckpointError(f"Could not move the earlier demo from {out} to {aside} ({error}); move it.") from error
    say(f"The earlier demo is now in {aside}.")
