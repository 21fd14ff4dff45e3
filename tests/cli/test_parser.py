"""Settings are taken out of a command line before argparse reads the rest."""

from __future__ import annotations

import argparse

import pytest

from understudy.cli.parser import COMMANDS, UsageError, command_of, count, number, split

KNOWN = {"--offline": True, "--out": True, "--no-eval": False}


@pytest.mark.parametrize(
    ("line", "rest", "settings"),
    [
        ("iql data.npz --critic.expectile 0.9", "iql data.npz", {"critic.expectile": "0.9"}),
        ("--critic.expectile 0.9 iql data.npz", "iql data.npz", {"critic.expectile": "0.9"}),
        ("--critic.hidden 256 256 iql data.npz", "iql data.npz", {"critic.hidden": ["256", "256"]}),
        ("iql --critic.backup mean data.npz", "iql data.npz", {"critic.backup": "mean"}),
        ("iql d --policy.log_std_min -5 --offline 10", "iql d --offline 10", {"policy.log_std_min": "-5"}),
        ("iql d --policy.log-std-min=-5", "iql d", {"policy.log_std_min": "-5"}),
        ("iql d --offline -5 --no-eval --expectile=.8", "iql d --offline -5 --no-eval", {"expectile": ".8"}),
        ("iql d --extraction.normalise --out x", "iql d --out x", {"extraction.normalise": None}),
        ("iql d --policy flow --policy.steps 4", "iql d", {"policy": "flow", "policy.steps": "4"}),
    ],
)
def test_split(line, rest, settings):
    assert split(line.split(), KNOWN) == (rest.split(), settings)


def test_a_value_of_several_words_in_one_argument():
    assert split(["--critic.hidden=256 256"], KNOWN)[1] == {"critic.hidden": ["256", "256"]}
    assert split(["--critic.hidden", "256 256", "iql"], KNOWN) == (["iql"], {"critic.hidden": "256 256"})


def test_a_setting_given_twice_is_refused():
    with pytest.raises(UsageError, match="--critic.tau is given twice"):
        split(["--critic.tau=1", "--critic.tau", "0"], KNOWN)


@pytest.mark.parametrize(("text", "value"), [("60000", 60_000), ("60_000", 60_000), ("60k", 60_000), ("1M", 1_000_000),
                                             ("1e6", 1_000_000), ("0", 0), ("1.5k", 1500)])  # fmt: skip
def test_counts(text, value):
    assert count(text) == value


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "inf", "nan", "", "k"])
def test_what_is_no_count(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number of at least 0"):
        count(text)


@pytest.mark.parametrize("text", ["x", "nan", "inf", ""])
def test_what_is_no_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number"):
        number(text)


def test_commands_are_found_or_suggested():
    assert command_of(["data", "info", "x"])[0].name == "data info"
    assert command_of(["train", "iql"]) == (COMMANDS["train"], ["iql"])
    with pytest.raises(UsageError, match="no command 'trian'. Did you mean 'train'"):
        command_of(["trian"])
    with pytest.raises(UsageError, match="got 'inof'. Did you mean 'info'"):
        command_of(["data", "inof"])
    with pytest.raises(UsageError, match="got nothing"):
        command_of(["data"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_fits_a_terminal(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = COMMANDS[name].help()
    assert f"usage: understudy {name} " in text and "--json" in text
    assert max(map(len, text.splitlines())) <= 90
