"""The command line: thin. It parses, calls the functions that a notebook would call, and prints what they return.

parser.py     options of each command, and `--critic.expectile 0.9`: settings by dotted name
commands.py   one function per command -> Outcome
show.py       tables
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator

from understudy.errors import UserError

# The machine's fault, or that of a path, not a defect.
DISK = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE,
        errno.ENFILE, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code.

    0: done; 1: a defect of understudy; 2: a mistake of the user; 130: Ctrl-C; 141: the reader of the output left; 143:
    a SIGTERM, after which the run was saved.
    With --json anywhere in `argv`, standard output gets exactly one JSON object and everything else goes to standard
    error."""
    argv = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in argv
    argv = [a for a in argv if a != "--json"]
    try:
        with _only_stderr(as_json):
            code, value, show = _run(argv, as_json)
        try:
            if as_json:
                print(json.dumps(value, allow_nan=False, default=_plain), flush=True)
            elif show is not None:
                show()
                sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _to_nowhere()
            return _fail(2, f"The output could not be written ({error.strerror}); free space or send it elsewhere.")[0]
        except Exception as error:
            return _defect(error)[0]
        return code
    except BrokenPipeError:
        _to_nowhere()
        return 141


def _to_nowhere() -> None:
    """Python flushes standard output once more at exit; give it somewhere to go."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str], as_json: bool):
    """(exit code, JSON value, what shows it to a person)."""
    from understudy.cli import commands

    try:
        outcome = commands.run(argv)
        return outcome.code, _finite(outcome.value), outcome.show
    except UserError as error:
        return _fail(2, str(error))
    except KeyboardInterrupt:
        print("understudy: interrupted", file=sys.stderr, flush=True)  # how to go on was said where it is known
        return 130, {"error": "interrupted"}, None
    except SystemExit as error:  # SIGTERM: the run saved and said so
        return error.code if isinstance(error.code, int) else 1, {"error": "stopped by a signal"}, None
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in DISK:
            return _defect(error)
        what = error.filename or "A file"
        return _fail(2, f"{what} cannot be used ({error.strerror}); free space, mend permissions or give another path.")
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            why = "There is not enough memory for this; give fewer --seeds, a smaller --batch-size or --data-on host."
            return _fail(2, f"{why} What a run has saved is intact.")
        return _defect(error)


def _fail(code: int, message: str):
    print(f"understudy: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code, {"error": message}, None


def _defect(error: Exception):
    import traceback

    traceback.print_exception(error)
    return _fail(1, f"this is a defect of understudy, please report it: {type(error).__name__}: {error}")


@contextlib.contextmanager
def _only_stderr(enabled: bool) -> Iterator[None]:
    """Send everything written to standard output, by Python, C code or child processes, to standard error."""
    if not enabled:
        yield
        return
    sys.stdout.flush()
    try:
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # a closed descriptor: nothing to protect
        saved = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


def _plain(value):
    """JSON of what is not JSON: arrays and their scalars, paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _finite(value):
    """NaN and infinity as null: JSON has neither."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
