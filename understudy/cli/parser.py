"""Options of each command. Settings (`--critic.expectile 0.9`, `--expectile 0.9`) are taken out first, by hand: which
ones exist depends on the algorithm, and argparse would read their values as positional arguments."""

from __future__ import annotations

import argparse
import dataclasses
from typing import NoReturn

from understudy.errors import UserError, did_you_mean


class UsageError(UserError):
    """A command line that cannot be read."""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence with a suggestion, and whose help comes from the caller."""

    def __init__(self, prog: str, **kwargs):
        wide = lambda prog: argparse.HelpFormatter(prog, max_help_position=26)
        super().__init__(prog=prog, add_help=False, allow_abbrev=False, formatter_class=wide, **kwargs)

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        raise UsageError(f"{message[:1].lower() + message[1:]} (see {self.prog} --help)")

    @property
    def known(self) -> dict[str, bool]:
        """Long option -> whether it takes a value."""
        actions = [a for a in self._actions if a.option_strings]
        return {o: a.nargs != 0 for a in actions for o in a.option_strings if o.startswith("--")}


def count(text: str) -> int:
    """A whole number of at least 0, also written 60_000, 60k, 1M or 1e6."""
    try:
        factor = {"k": 1_000, "m": 1_000_000}.get(text[-1:].lower(), 1)
        number = float(text[:-1] if factor > 1 else text) * factor
        if number < 0 or number != int(number):
            raise ValueError
        return int(number)
    except (ValueError, OverflowError):
        message = f"'{text}' is not a whole number of at least 0, such as 60000 or 60k"
        raise argparse.ArgumentTypeError(message) from None


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
        if value - value != 0:
            raise ValueError
        return value
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def split(argv: list[str], known: dict[str, bool]) -> tuple[list[str], dict[str, str | list[str] | None]]:
    """Take the settings out of a command line.

    Args:
      argv: arguments after the command.
      known: the command's own long options -> whether they take a value.

    Returns:
      the rest, and {setting: its value as given, a list of several, or None}. A setting takes the next word whatever
      it is, and the words after it as long as they are numbers: `--critic.hidden 256 256 iql data.npz`.
    """
    rest, settings, i = [], {}, 0
    while i < len(argv):
        word = argv[i]
        i += 1
        option, equals, value = word.partition("=")
        if not option.startswith("--") or option == "--":
            rest.append(word)
            continue
        if option in known:
            rest.append(word)
            if known[option] and not equals and i < len(argv):
                rest.append(argv[i])
                i += 1
            continue
        values = value.split() if equals else []
        while not equals and i < len(argv) and not _is_option(argv[i]) and (not values or _is_number(argv[i])):
            values.append(argv[i])
            i += 1
        name = option[2:].replace("-", "_")
        if name in settings:
            raise UsageError(f"--{name} is given twice; keep one.")
        settings[name] = None if not values else values[0] if len(values) == 1 else values
    return rest, settings


def _is_option(word: str) -> bool:
    return word.startswith("-") and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
        return True
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class Spec:
    """One command: what it is called, what it does, how it is used."""

    name: str
    summary: str
    usage: str
    examples: tuple[str, ...] = ()
    settings: bool = False  # takes --critic.expectile and the like

    def parser(self) -> Parser:
        prog = f"understudy {self.name}"
        parser = Parser(prog, usage=f"{prog} {self.usage}", description=self.summary)
        OPTIONS[self.name](parser)
        both = parser.add_argument_group("always")
        both.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        both.add_argument("-h", "--help", action="store_true", help="show this")
        return parser

    def help(self) -> str:
        parser = self.parser()
        text = parser.format_help()
        if self.settings:
            text += (
                "\nsettings of the algorithm, by name:\n"
                "  --critic.expectile 0.9 --policy.hidden 256 256 --policy flow\n"
                "  --critic iql --extraction pa_rl: that part of another algorithm\n"
                "  --chunk 5 --history 3: chunks of actions, the last three observations at once\n"
                "  --online.critic.weight 0: a number that holds in the online phase only\n"
                "  understudy train ALGORITHM --help lists them: meaning, range, default.\n"
            )
        return text + "".join(["\nexamples:\n", *(f"  {e}\n" for e in self.examples)] if self.examples else [])


def _demo(p: Parser) -> None:
    p.add_argument("--out", metavar="DIR", help="folder it leaves everything in (runs/demo)")
    p.add_argument("--seed", type=count, metavar="S", help="training seed (0)")
    p.add_argument("--quiet", action="store_true", help="no bars or messages, only warnings")


def _train(p: Parser) -> None:
    p.add_argument("algorithm", nargs="?", metavar="ALGORITHM", help="see: understudy list algorithms")
    p.add_argument("dataset", nargs="?", metavar="DATASET",
                   help="a name or a path (understudy list datasets); none: live only")  # fmt: skip
    what = p.add_argument_group("what")
    what.add_argument("--env", metavar="ID", help="environment; default the one of the data set")
    what.add_argument("--eval-env", metavar="ID", help="evaluate in this one, such as the system that ENV simulates")
    what.add_argument("--action-range", nargs=2, type=number, metavar=("LOW", "HIGH"),
                      help="the actions were recorded in this range; it becomes [-1, 1]")  # fmt: skip
    what.add_argument("--preset", metavar="NAME", help="named settings (understudy list presets)")
    what.add_argument("--seeds", type=count, metavar="K", help="train K seeds in one program (1)")
    what.add_argument("--seed", type=count, metavar="S", help="the first of them (0)")
    what.add_argument("--out", metavar="DIR", help="run folder (runs/ALGORITHM-DATASET-NUMBER)")
    long = p.add_argument_group("phases")
    long.add_argument("--offline", type=count, metavar="N", help="updates on the data alone (100k; 0 for live ones)")
    long.add_argument("--warmup", type=count, metavar="N", help="then live steps with a frozen policy (0)")
    long.add_argument("--online", type=count, metavar="N", help="then live steps of each seed, with updates (0)")
    long.add_argument("--retrain", type=count, metavar="N", help="then updates from scratch on everything (0)")
    long.add_argument("--switch", metavar="WORDS",
                      help="offline to online: mix:S, keep, anneal:A->B, drop, warmup:N, reset-optimizer, "
                           "reset-critic, retrain[:N], successes:S, joined by + (mix:0.5)")  # fmt: skip
    how = p.add_argument_group("learning")
    how.add_argument("--batch-size", type=count, metavar="N", help="transitions in a batch (256)")
    how.add_argument("--n-step", type=count, metavar="N", help="steps in a return (1)")
    how.add_argument("--utd", type=number, metavar="F", help="updates per live step (1)")
    how.add_argument("--offline-share", type=number, metavar="F", help="share of each live batch from the data (0.5)")
    how.add_argument("--num-envs", type=count, metavar="N", help="environments of each seed (1)")
    how.add_argument("--replay-capacity", type=count, metavar="N", help="live transitions kept (1M)")
    how.add_argument("--reward-scale", type=number, metavar="F", help="the learner sees scale r + bias (1)")
    how.add_argument("--reward-bias", type=number, metavar="F", help="and this is the bias (0)")
    how.add_argument("--data-on", choices=("auto", "device", "host"), metavar="WHERE",
                     help="keep the data on the device or the host (auto)")  # fmt: skip
    look = p.add_argument_group("evaluation")
    look.add_argument("--episodes", type=count, metavar="N", help="episodes of each seed (50)")
    look.add_argument("--eval-every", type=count, metavar="N", help="updates or live steps between evaluations")
    look.add_argument("--eval-seed", type=count, metavar="S", help="seed of its environments (1000003)")
    look.add_argument("--baseline", action="store_true", default=None,
                      help="also train RLPD from scratch, with as many live steps, in RUN/baseline")  # fmt: skip
    look.add_argument("--no-eval", action="store_true", help="train only")
    keep = p.add_argument_group("keeping")
    keep.add_argument("--checkpoint-every", type=number, metavar="F", help="seconds between checkpoints (60)")
    keep.add_argument("--log", action="append", choices=("tensorboard", "wandb"), metavar="NAME",
                      help="also log to tensorboard or wandb; may be repeated")  # fmt: skip
    keep.add_argument("--quiet", action="store_true", help="no bars or messages, only warnings")


def _resume(p: Parser) -> None:
    p.add_argument("run", metavar="RUN", help="run folder")
    p.add_argument("--offline", type=count, metavar="N", help="new total of updates on the data alone")
    p.add_argument("--online", type=count, metavar="N", help="new total of live steps of each seed, without a warm-up")
    p.add_argument("--env", metavar="ID", help="environment of a run that was trained without one")
    p.add_argument("--utd", type=number, metavar="F", help="updates per live step of a first online phase")
    begins = "how it begins, as for train: warmup:5000+drop; where there is one, retrain:N and successes:S after it"
    p.add_argument("--switch", metavar="WORDS", help=begins)
    p.add_argument("--offline-share", type=number, metavar="F", help="share of its batches from the data")
    p.add_argument("--batch-size", type=count, metavar="N", help="transitions in a batch from here on")
    p.add_argument("--n-step", type=count, metavar="N", help="steps summed into the target from here on")
    p.add_argument(
        "--algorithm", metavar="NAME", help="another algorithm for what is left, with the run's policy if it can"
    )
    p.add_argument(
        "--eval-every", type=count, metavar="N", help="updates or live steps between evaluations from here on"
    )
    p.add_argument("--episodes", type=count, metavar="N", help="episodes of each seed in evaluations to come")
    p.add_argument("--baseline", action="store_true", default=None, help="also train RLPD from scratch, as for train")
    p.add_argument("--quiet", action="store_true", help="no bars or messages, only warnings")


def _evaluate(p: Parser) -> None:
    p.add_argument("run", metavar="RUN", help="run folder")
    p.add_argument("--episodes", type=count, metavar="N", help="episodes of each training seed (50)")
    p.add_argument("--seed", type=count, metavar="S", help="seed of the episodes; default another than in training")
    p.add_argument("--video", metavar="FILE", help="also write an mp4 of a few episodes")
    p.add_argument("--quiet", action="store_true", help="no bars or messages, only warnings")


def _data_make(p: Parser) -> None:
    p.add_argument("name", metavar="NAME", help="see: understudy list datasets")
    p.add_argument("--out", metavar="FILE", help="a file, or a folder for NAME.npz (data/, where train finds NAME)")
    p.add_argument("--episodes", type=count, metavar="N", help="episodes to record (100)")
    p.add_argument("--steps", type=count, metavar="N", help="steps of each; default as published (200 to 2,000)")
    p.add_argument("--validation", type=count, metavar="N", help="further episodes, in NAME-val.npz (0)")
    p.add_argument("--seed", type=count, metavar="S", help="seed of the recordings (0)")
    p.add_argument("--workers", type=count, metavar="N", help="processes; the data do not depend on it (all cores)")
    p.add_argument("--quiet", action="store_true", help="no bars or messages, only warnings")


def _data_path(p: Parser) -> None:
    p.add_argument("path", metavar="DATASET", help="a name (understudy list datasets) or a path")
    p.add_argument("--env", metavar="ID", help="environment; default the one of the data set")


def _list(p: Parser) -> None:
    p.add_argument("what", metavar="WHAT", help="algorithms, policies, datasets or presets")
    p.add_argument("filter", nargs="?", default="", metavar="TEXT", help="only names or summaries with this in them")


OPTIONS = {"demo": _demo, "train": _train, "resume": _resume, "evaluate": _evaluate, "data make": _data_make,
           "data info": _data_path, "data check": _data_path, "list": _list}  # fmt: skip

CUBE = "ogbench/cube-single-play-singletask-v0"
COMMANDS = {
    spec.name: spec
    for spec in (
        Spec("demo", "A robot arm learns from recordings, then gets better live, in a few minutes.",
             "[--out DIR] [--seed S]"),
        Spec(
            "train", "Learn from a data set, then live, in any proportion.",
            "ALGORITHM [DATASET] [options] [settings]",
            (f"understudy train iql {CUBE} \\\n      --offline 60k --seeds 3",
             "understudy train fql data.npz --preset ogbench-cube-single --online 50k",
             "understudy train rlpd door.hdf5 --env AdroitHandDoorSparse-v1 \\\n"
             "      --preset adroit-sparse --offline 0 --online 100k",
             "understudy train sac --env cube-single-play-singletask-v0 --online 20k",
             "understudy train iql --help"),
            settings=True,
        ),
        Spec(
            "resume", "Go on with a run exactly where it stopped, or further than it was going to go.",
            "RUN [options] [settings]",
            ("understudy resume runs/demo",
             "understudy resume runs/demo --online 50k --extraction.alpha 0.05"),
            settings=True,
        ),
        Spec("evaluate", "Play fresh episodes with a run's policy.", "RUN [options]",
             ("understudy evaluate runs/demo --episodes 100 --video demo.mp4",)),
        Spec("data make", "Generate a data set on this machine with scripted players; nothing is downloaded.",
             "NAME [options]", (f"understudy data make {CUBE} --episodes 200",)),
        Spec("data info", "Describe a data set.", "DATASET [--env ID]",
             ("understudy data info door.hdf5 --env AdroitHandDoorSparse-v1",)),
        Spec("data check", "Check a data set against the schema; exit code 2 where it cannot be trained on.",
             "DATASET [--env ID]", ("understudy data check door.hdf5",)),
        Spec("list", "List what can be named, or show one preset in full.", "WHAT [TEXT]",
             ("understudy list algorithms", "understudy list presets cube",
              "understudy list presets ogbench-cube-single")),
    )
}  # fmt: skip

HELP = f"""understudy: learn a policy from recordings, then improve it live.

usage: understudy COMMAND ... [--json]

  demo                         an arm learns from recordings, then improves live
  train ALGORITHM [DATASET]    learn offline, live, or one after the other
  resume RUN                   go on with a stopped run, or further than planned
  evaluate RUN                 play fresh episodes with its policy, make a video
  data make|info|check         generate, describe or check a data set
  list WHAT                    algorithms, policies, datasets or presets

examples:
  understudy demo
  understudy data make {CUBE}
  understudy train iql {CUBE} --online 20k
  understudy evaluate runs/demo --episodes 100 --video demo.mp4

understudy COMMAND --help shows its options,
understudy train iql --help the settings of IQL.
--json prints one machine-readable object on standard output.
"""


def command_of(argv: list[str]) -> tuple[Spec, list[str]]:
    """The command that `argv` names and the arguments after it. Raises UsageError with a suggestion."""
    first = argv[0]
    if first == "data":
        actions = [n.split()[1] for n in COMMANDS if n.startswith("data ")]
        if len(argv) < 2 or argv[1] not in actions:
            given = f"'{argv[1]}'" if len(argv) > 1 else "nothing"
            near = did_you_mean(argv[1], actions) if len(argv) > 1 else ""
            raise UsageError(f"understudy data takes make, info or check; got {given}.{near}")
        return COMMANDS[f"data {argv[1]}"], argv[2:]
    if first in COMMANDS:
        return COMMANDS[first], argv[1:]
    names = sorted({n.split()[0] for n in COMMANDS})
    raise UsageError(f"There is no command '{first}'.{did_you_mean(first, names)} (see understudy --help)")
