"""What each command passes on, prints and returns. The functions behind are replaced: they have tests of their own."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

import understudy
from understudy import cli
from understudy.errors import CheckpointError, DivergenceError

RESULT = {
    "success": 0.84, "best_success": 0.86, "offline_success": 0.3, "success_by_seed": [0.8, 0.88], "return": -61.5,
    "interval": [0.76, 0.9], "episodes": 50, "protocol": {"episodes": 50}, "updates": 60_000, "env_steps": 20_000,
    "seconds": 252.0, "run": "runs/x",
}  # fmt: skip


class FakeRun:
    result = RESULT
    manifest = {"env": "cube-single-play-singletask-v0", "phases": [
        {"name": "warmup", "env_steps": 5_000}, {"name": "online", "env_steps": 20_000}]}  # fmt: skip
    path = pathlib.Path("runs/x")


@pytest.fixture
def calls(monkeypatch):
    """Records what `train` and `resume` are called with."""
    seen = []

    def record(name):
        def call(*args, **kwargs):
            seen.append((name, args, kwargs))
            return FakeRun()

        return call

    for name in ("train", "resume"):
        monkeypatch.setitem(vars(understudy), name, record(name))
    return seen


def run(*argv: str) -> int:
    return cli.main(list(argv))


# --- train


def test_train_passes_on_what_was_given_and_nothing_else(calls):
    line = "train iql data.npz --offline 60k --seeds 3 --expectile 0.9 --policy.hidden 256 256 --offline-share 0.25"
    assert run(*line.split(), "--no-eval", "--log", "tensorboard") == 0
    [(name, args, kwargs)] = calls
    assert (name, args) == ("train", ("iql", "data.npz"))
    command = kwargs.pop("command")
    assert command[:4] == ["understudy", "train", "iql", "data.npz"] and "--expectile" in command
    assert kwargs == {
        "offline": 60_000, "seeds": 3, "offline_share": 0.25, "evaluate": False, "log": ["tensorboard"],
        "settings": {"critic.expectile": 0.9, "policy.hidden": (256, 256)},
    }  # fmt: skip


def test_settings_of_the_online_phase_are_an_argument_of_their_own(calls, folder, capfd):
    line = (
        "train cal_ql data.npz --switch warmup:5k+drop --online.weight 0 --critic.weight 1 --online.learning-rate=1e-4"
    )
    assert run(*line.split()) == 0
    kwargs = calls[0][2]
    assert kwargs["switch"] == "warmup:5k+drop" and kwargs["settings"] == {"critic.weight": 1.0}
    assert kwargs["online_settings"] == {"critic.weight": 0.0, "learning_rate": 1e-4}
    assert run("resume", folder, "--online", "9", "--switch", "drop", "--online.expectile", "0.6") == 0
    assert calls[1][2]["online_settings"] == {"critic.expectile": 0.6} and calls[1][2]["switch"] == "drop"
    assert "settings" not in calls[1][2]
    assert run("resume", folder, "--offline.expectile", "0.6") == 2 and len(calls) == 2
    assert "--offline.critic.expectile belongs to train; --critic.expectile here holds" in capfd.readouterr().err


def test_every_train_option_is_an_argument_of_train(calls):
    """The command line and Python are the same function."""
    import inspect

    from understudy.cli.parser import COMMANDS
    from understudy.run.train import train

    takes = set(inspect.signature(train).parameters)
    options = {o[2:].replace("-", "_") for o in COMMANDS["train"].parser().known}
    assert options - takes - {"json", "help", "quiet", "no_eval"} == set()
    assert "evaluate" in takes


def test_another_policy_is_a_setting(calls):
    assert run("train", "iql", "data.npz", "--policy", "flow", "--policy.steps", "4") == 0
    assert calls[0][2]["settings"] == {"policy": "flow", "policy.steps": 4}


def test_train_without_data_needs_an_environment(calls, capfd):
    assert run("train", "sac", "--env", "cube-single-play-singletask-v0", "--online", "1e3") == 0
    assert calls[0][1] == ("sac", None)
    assert run("train", "sac", "--online", "1000") == 2
    assert "needs a DATASET, an environment (--env ID), or both" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("train",), "needs an ALGORITHM and a DATASET"),
        (("train", "iqll", "d"), "There is no algorithm 'iqll'. Did you mean 'iql'?"),
        (("train", "iql", "d", "--preset", "d4rll"), "There is no preset 'd4rll'. Did you mean 'd4rl'?"),
        (("train", "iql", "d", "--critic.expectil", "0.9"), "Did you mean 'critic.expectile'?"),
        (("train", "iql", "d", "--ofline", "9"), "no option or setting '--ofline'. Did you mean '--offline'?"),
        (("train", "iql", "d", "--critic.expectile", "2"), "critic.expectile is '2'; give a number from 0.5 to 1."),
        (("train", "iql", "d", "--critic.expectile"), "--critic.expectile needs a value."),
        (("train", "iql", "d", "--hidden", "64"), "'hidden' could be any of critic.hidden, policy.hidden"),
        (("train", "iql", "d", "--policy", "transfusion"), "There is no policy 'transfusion'."),
        (("train", "iql", "d", "--offline", "lots"), "--offline: 'lots' is not a whole number of at least 0"),
        (("train", "iql", "d", "--env"), "--env: expected one argument"),
        (("train", "iql", "d", "e"), "'e' is one argument too many"),
        (("train", "iql", "d", "--log", "mlflow"), "--log: invalid choice: 'mlflow'"),
        (("evaluate", "nowhere"), "nowhere holds no run (no manifest.json)"),
        (("resume", "nowhere"), "nowhere holds no run (no manifest.json)"),
        (("evaluate", "x", "--episode", "3"), "There is no option '--episode'. Did you mean '--episodes'?"),
        (("evaluate",), "the following arguments are required: RUN"),
        (("data", "make", "ogbench/cube-singel-play-singletask-v0"), "Did you mean 'cube-single-play-singletask-v0'"),
        (("list", "algorithm"), "got 'algorithm'. Did you mean 'algorithms'?"),
        (("list", "presets", "zebra"), "No presets with 'zebra' in them"),
        (("lst",), "There is no command 'lst'. Did you mean 'list'?"),
        (("--offline", "3", "train"), "--offline stands before any command"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line_and_exit_code_2(calls, capfd, argv, message):
    assert run(*argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("understudy: error: ") and err.count("\n") == 1, err
    assert message in err
    assert not calls

    assert run(*argv, "--json") == 2
    out, err = capfd.readouterr()
    assert message in json.loads(out)["error"].replace("\n", " ") and err.count("\n") == 1


def test_the_result_is_a_table_on_stderr_and_json_on_stdout(calls, capfd):
    assert run("train", "iql", "data.npz") == 0
    out, err = capfd.readouterr()
    assert out == ""
    lines = {line.split()[0]: line for line in err.splitlines() if line.strip()}
    assert "0.30 -> 0.84  95% interval 0.76 to 0.90  2 seeds x 50 episodes" in lines["success"]
    assert "0.80  0.88" in lines["by"]
    assert "60,000 updates, 20,000 live steps of each seed in 4 min 12 s" in lines["trained"]
    assert "understudy resume runs/x --online 40000" in err

    assert run("train", "iql", "data.npz", "--json") == 0
    assert json.loads(capfd.readouterr().out) == RESULT


def test_what_the_switch_did_is_a_short_table(calls, capfd, monkeypatch):
    one = {"offline": 0.3, "final": 0.84, "dip": 0.1, "dip_at": 5000, "recovered": None, "area": 0.555, "regret": 0.45,
           "evaluated_regret": 0.38, "q_before": -47.05, "q_after": -43.23, "q_final": -32.0}  # fmt: skip
    rising = one | {"dip": 0.0, "dip_at": None, "recovered": 0, "regret": None, "q_before": None, "q_after": -1234.5}
    monkeypatch.setattr(FakeRun, "result", RESULT | {"switch": one | {"by_seed": [one, rising]}})
    monkeypatch.setattr(FakeRun, "manifest", FakeRun.manifest | {"switch": "warmup:5000+drop", "seeds": [3, 4]})
    assert run("train", "iql", "data.npz") == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().err.splitlines()]
    assert "switch warmup:5000+drop" in lines and not any(line.startswith("baseline") for line in lines)
    assert lines[-4:] == [
        "live offline dip at back at mean regret final Q",
        "mean 0.30 -0.10 5,000 never 0.56 0.45 0.84 -47.0 -> -43.2",
        "seed 3 0.30 -0.10 5,000 never 0.56 0.45 0.84 -47.0 -> -43.2",
        "seed 4 0.30 none 0.56 0.84 -1,234",
    ]


def test_the_baseline_stands_beside_the_result(calls, capfd, monkeypatch):
    base = {"success": 0.5, "return": -80.0, "interval": [0.4, 0.6], "area": 0.22}
    monkeypatch.setattr(FakeRun, "result", RESULT | {"baseline": base})
    assert run("train", "iql", "data.npz", "--online", "9", "--baseline") == 0
    assert calls[0][2]["baseline"] is True
    err = " ".join(capfd.readouterr().err.split())
    assert "baseline RLPD from scratch 0.50 95% interval 0.40 to 0.60, 0.22 on average while learning" in err
    assert run("resume", ".", "--baseline", "--json") == 2 and run("train", "iql", "data.npz") == 0
    assert "baseline" not in calls[-1][2]


def test_nan_is_null_in_json(calls, capfd, monkeypatch):
    monkeypatch.setattr(FakeRun, "result", RESULT | {"success": float("nan"), "interval": [float("inf"), 1.0]})
    assert run("train", "iql", "data.npz", "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["success"] is None and found["interval"] == [None, 1.0]


def test_quiet_leaves_only_warnings(calls, capfd, monkeypatch):
    def noisy(*args, **kwargs):
        print("warning: the newest checkpoint is damaged", file=sys.stderr)
        print("half way", file=sys.stderr)
        return FakeRun()

    monkeypatch.setitem(vars(understudy), "train", noisy)
    assert run("train", "iql", "data.npz", "--quiet") == 0
    assert capfd.readouterr() == ("", "warning: the newest checkpoint is damaged\n")


def test_json_owns_stdout_whoever_writes_to_it(calls, capfd, monkeypatch):
    """Python, C code on descriptor 1 and child processes all end up on standard error."""

    def noisy(*args, **kwargs):
        print("from Python")
        os.write(1, b"from C\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        return FakeRun()

    monkeypatch.setitem(vars(understudy), "train", noisy)
    assert run("train", "iql", "data.npz", "--json") == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == RESULT
    assert all(f"from {who}" in err for who in ("Python", "C", "a child"))


# --- how things end


def raising(error):
    def call(*args, **kwargs):
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (CheckpointError("runs/x is in use."), 2, "understudy: error: runs/x is in use.\n"),
        (DivergenceError("loss became NaN\nat 7."), 2, "understudy: error: loss became NaN at 7.\n"),
        (KeyboardInterrupt(), 130, "understudy: interrupted\n"),
        (SystemExit(143), 143, ""),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2,
         "understudy: error: runs/x cannot be used (No space left on device); free space, mend permissions or give "
         "another path.\n"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 2,
         "understudy: error: x cannot be used (File name too long); free space, mend permissions or give another path."
         "\n"),
        (MemoryError(), 2, "understudy: error: There is not enough memory for this; give fewer --seeds, a smaller "
         "--batch-size or --data-on host. What a run has saved is intact.\n"),
    ],
)  # fmt: skip
def test_ends(calls, capfd, monkeypatch, error, code, text):
    monkeypatch.setitem(vars(understudy), "train", raising(error))
    assert run("train", "iql", "data.npz") == code
    assert capfd.readouterr() == ("", text)
    assert run("train", "iql", "data.npz", "--json") == code
    assert set(json.loads(capfd.readouterr().out)) == {"error"}


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), FileNotFoundError(errno.ENOENT, "No such file", "x")])
def test_a_defect_says_so_with_its_traceback(calls, capfd, monkeypatch, error):
    monkeypatch.setitem(vars(understudy), "train", raising(error))
    assert run("train", "iql", "data.npz") == 1
    err = capfd.readouterr().err
    assert "Traceback" in err and "in call" in err
    last = f"understudy: error: this is a defect of understudy, please report it: {type(error).__name__}"
    assert err.splitlines()[-1].startswith(last)


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from understudy.__main__ import main; sys.exit(main(['list', 'presets']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("words", [["list", "presets"], ["list", "presets", "--json"]])
def test_output_that_cannot_be_written_is_said_in_one_sentence(words):
    code = f"import sys; from understudy.__main__ import main; sys.exit(main({words}))"
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert process.returncode == 2
    assert process.stderr == (
        "understudy: error: The output could not be written (No space left on device); free space or send it "
        "elsewhere.\n"
    )


# --- resume, evaluate


@pytest.fixture
def folder(tmp_path):
    """The least that looks like a run."""
    manifest = {"format": 1, "algorithm": "iql", "preset": "ogbench", "overrides": {"policy": "flow"},
                "env": "cube-single-play-singletask-v0", "seeds": [0], "phases": [], "plan": {}, "protocol": {},
                "dataset": None, "settings": {}, "resumes": []}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return str(tmp_path)


def test_resume_checks_settings_against_the_runs_algorithm(calls, folder, capfd):
    assert run("resume", folder, "--online", "50k", "--steps", "5", "--expectile", "0.8") == 0
    assert calls[0][:2] == ("resume", (folder,))
    assert calls[0][2]["online"] == 50_000
    assert calls[0][2]["settings"] == {"policy.steps": 5, "critic.expectile": 0.8}  # its policy is a flow
    assert run("resume", folder, "--alpha", "5") == 2
    capfd.readouterr()
    assert run("resume", folder, "--seeds", "3") == 2
    assert "--seeds belongs to understudy train" in capfd.readouterr().err
    assert run("resume", folder, "--algorithm", "td3_bc", "--alpha", "5") == 0
    assert calls[-1][2]["settings"] == {"extraction.alpha": 5.0}


def test_another_algorithm_may_start_with_another_policy(calls, folder, capfd):
    file = pathlib.Path(folder, "manifest.json")
    overrides = {"policy": "mixture", "policy.components": 3, "policy.hidden": [32, 32]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"overrides": overrides, "preset": None}))
    assert run("resume", folder, "--algorithm", "rlpd", "--policy", "tanh_gaussian", "--tau", "0.01") == 0
    assert calls[-1][2]["settings"] == {"policy": "tanh_gaussian", "critic.tau": 0.01}


def test_options_may_stand_between_algorithm_and_data(calls):
    assert run("train", "iql", "--seeds", "2", "data.npz", "--expectile", "0.8") == 0
    assert calls[0][1] == ("iql", "data.npz") and calls[0][2]["seeds"] == 2


def test_evaluate_plays_and_prints(folder, capfd, monkeypatch):
    seen = {}

    class Playing(FakeRun):
        def evaluate(self, **kwargs):
            seen.update(kwargs)
            return RESULT | {"video": "a.mp4"}

    monkeypatch.setitem(vars(understudy), "load", lambda path: Playing())
    assert run("evaluate", folder, "--episodes", "10", "--seed", "4", "--video", "a.mp4", "--json") == 0
    out, err = capfd.readouterr()
    assert seen == {"episodes": 10, "seed": 4, "video": "a.mp4"}
    assert json.loads(out)["success"] == 0.84
    assert "0.84  95% interval 0.76 to 0.90" in err and "->" not in err and "a.mp4" in err
    assert run("evaluate", folder, "--quiet") == 0
    out, err = capfd.readouterr()
    assert "0.84  95% interval 0.76 to 0.90" in out and err == ""


# --- data


@pytest.fixture
def data(monkeypatch):
    """understudy.data, replaced."""
    from understudy.data.checks import Finding

    found = [Finding("warning", "5.6% of action entries lie outside [-1, 1].", "they are clipped", "actions", 1234)]
    fake = types.ModuleType("understudy.data")
    fake.made = []
    fake.make = lambda name, **options: fake.made.append((name, options)) or "data/x.npz"
    fake.info = lambda path, env=None: {
        "name": str(path), "transitions": 1_001_000, "rewards": {"min": -1.0, "max": 0.0},
    }  # fmt: skip
    fake.check = lambda path, env=None: found
    fake.found = found
    monkeypatch.setitem(sys.modules, "understudy.data", fake)
    monkeypatch.setitem(vars(understudy), "data", fake)
    return fake


def test_data_make(data, capfd):
    name = "ogbench/cube-single-play-singletask-v0"
    numbers = {"episodes": 20, "seed": 3, "workers": 2, "steps": 100, "validation": 5}
    assert run("data", "make", name, *(w for k, v in numbers.items() for w in (f"--{k}", str(v))), "--json") == 0
    assert data.made == [(name, numbers)]
    assert json.loads(capfd.readouterr().out)["path"] == "data/x.npz"
    assert run("data", "make", "CUBE-single-play-singletask-v0", "--out", "y.npz") == 0
    assert data.made[-1] == (name, {"out": "y.npz"})
    assert run("data", "make", "scene-noisy-v0") == 0
    assert data.made[-1] == ("ogbench/scene-noisy-v0", {})
    assert run("data", "make", "puzzle-4x4-play-singletask-task3-v0") == 0
    assert data.made[-1] == ("puzzle-4x4-play-singletask-task3-v0", {})


def test_data_info_prints_a_description(data, capfd):
    assert run("data", "info", "d.npz") == 0
    out, err = capfd.readouterr()
    assert "1,001,000" in out and "min -1, max 0" in out and err == ""
    assert run("data", "info", "d.npz", "--json") == 0
    assert json.loads(capfd.readouterr().out)["transitions"] == 1_001_000


def test_data_check_fails_where_the_data_cannot_be_used(data, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("data", "check", "d.npz") == 0
    assert capfd.readouterr().out == (
        "warning: 5.6% of action entries lie outside [-1, 1]; they are clipped (actions, \n"
        "first at row 1,234)\nThis data set can be trained on.\n"
    )
    data.found.append(dataclasses.replace(data.found[0], level="error", message="NaN", mend="", key="", row=None))
    assert run("data", "check", "d.npz") == 2
    assert "error: NaN\nThis data set cannot be trained on as it is." in capfd.readouterr().out
    assert run("data", "check", "d.npz", "--json") == 2
    found = json.loads(capfd.readouterr().out)
    assert found["ok"] is False and len(found["findings"]) == 2


# --- lists


@pytest.mark.parametrize(("what", "name"), [("algorithms", "cal_ql"), ("policies", "one_step_flow"),
                                            ("datasets", "ogbench/cube-single-play-singletask-v0"),
                                            ("presets", "ogbench-cube-single")])  # fmt: skip
@pytest.mark.parametrize("width", ["80", "120"])
def test_lists(capfd, monkeypatch, what, name, width):
    monkeypatch.setenv("COLUMNS", width)
    assert run("list", what) == 0
    out, err = capfd.readouterr()
    assert name in out and err == ""
    assert max(map(len, out.splitlines())) <= int(width)
    assert run("list", what, "--json") == 0
    assert name in [row["name"] for row in json.loads(capfd.readouterr().out)[what]]


def test_lists_are_filtered_and_a_preset_is_shown_in_full(capfd):
    assert run("list", "presets", "cube", "--json") == 0
    rows = json.loads(capfd.readouterr().out)["presets"]
    assert rows and all("cube" in row["name"] for row in rows)
    assert run("list", "presets", "ogbench-cube-single") == 0
    out = capfd.readouterr().out
    assert "arXiv:2502.02538" in out and "--extraction.alpha" in out and "300" in out


# --- benchmarks


def benchmark_lines() -> dict[str, list[list[str]]]:
    """What the scripts in benchmarks/ call: the words of `train`, then those of each `resume`."""
    folder = pathlib.Path(__file__).parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        any_policy, door, ordering = map(importlib.import_module, ("any_policy", "door", "ordering"))
    finally:
        sys.path.remove(str(folder))
    lines = {}
    for name, text in door.METHODS.items():
        (algorithm, *words), *later = (stage.split() for stage in text.split(" && "))
        lines[f"door {name}"] = [[algorithm, "data.hdf5", *door.RUN.split(), *words], *later]
    for name, words in ordering.METHODS.items():
        first = [name, "data.npz", "--preset", "ogbench-scene", *ordering.RUN.split(), *words.split()]
        lines[f"ordering {name}"] = [first]
    for name, words in any_policy.CLASSES.items():
        live = any_policy.RESFIT if name == "residual" else any_policy.PA_RL + any_policy.LIVE
        first = ["bc", "data.npz", *words.split(), *any_policy.CLONE.split()]
        lines[f"any_policy {name}"] = [first, ["--algorithm", *live.split()]]
    return lines


@pytest.mark.parametrize("name", benchmark_lines())
def test_what_a_benchmark_calls_can_be_called(name, calls, folder):
    first, *later = benchmark_lines()[name]
    assert run("train", *first) == 0 and calls[0][0] == "train"
    manifest = pathlib.Path(folder, "manifest.json")
    trained = {"algorithm": first[0], "preset": None, "overrides": calls[0][2].get("settings", {})}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | trained))
    for words in later:
        assert run("resume", folder, *words) == 0 and calls[-1][0] == "resume"
