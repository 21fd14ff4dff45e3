"""What benchmarks/README.md shows is what the results that are kept say."""

import importlib
import json
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


def test_the_tables_are_those_that_the_scripts_print(script):
    text = (HERE / "README.md").read_text()
    tables = {name: script(name).table() for name in ("door", "any_policy", "methods")}
    tables |= {f"ordering {task}": script("ordering").table(task) for task in script("ordering").PUBLISHED}
    for name, table in tables.items():
        assert table in text, f"benchmarks/README.md has another table than {name}, which prints:\n{table}"


def test_the_command_of_a_result_is_one_that_makes_it():
    for path in sorted((HERE / "results").glob("*/run.json")):
        for command in json.loads(path.read_text())["command"].split(" && "):
            folders = re.findall(r"(?:--out|^understudy resume) (\S+)", command)
            assert command == "(from Python)" or folders == [path.parent.name] or not folders, (path, command)


def test_the_pictures_are_drawn_from_what_is_kept(script):
    pictures = script("pictures")
    for name, draw in {"any-policy": pictures.any_policy, "door": pictures.door}.items():
        drawn = (HERE / "results" / f"{name}.svg").read_text()
        assert drawn == draw(), "draw them again: python benchmarks/pictures.py"
