"""What a user's mistake becomes: one sentence that says what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend. The command line prints it without a traceback and exits with 2."""


class DataError(UserError):
    """A data set that is missing, unreadable, or breaks the schema."""


class EnvError(UserError):
    """An environment that is unknown, not installed, or does not fit the data."""


class SettingsError(UserError):
    """An unknown algorithm, preset or setting, or a value out of range."""


class CheckpointError(UserError):
    """A checkpoint or run folder that cannot be used."""


class DivergenceError(UserError):
    """A metric became NaN or infinite; the last good checkpoint is kept."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ' Did you mean ...?' for the nearest option, else the options themselves."""
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(options)}." if 0 < len(options) <= 40 else ""
