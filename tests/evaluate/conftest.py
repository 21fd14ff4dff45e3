"""The scripted environment of the environment tests."""

from __future__ import annotations

import importlib.util
import pathlib

_path = pathlib.Path(__file__).resolve().parent.parent / "envs" / "conftest.py"
_spec = importlib.util.spec_from_file_location("scripted_environment", _path)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
scripted = _module.scripted
