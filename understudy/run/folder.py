"""The run folder: one writer at a time, JSON written whole or not at all, logs that can be cut back to a checkpoint."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib

from understudy.errors import CheckpointError
from understudy.files import whole

FORMAT = 1  # of manifest.json and of checkpoints; a folder of another format is refused


def write_json(path: pathlib.Path, value) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    try:
        with whole(path) as partial:
            partial.write_text(json.dumps(value, indent=1) + "\n")
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path, error: OSError) -> CheckpointError:
    """The sentence for a file that could not be written."""
    return CheckpointError(
        f"Could not write {path} ({error.strerror or error}); the last checkpoint is intact. "
        f"Free space or mend the permissions, then go on with: understudy resume {pathlib.Path(path).parent}"
    )


def _no_place(path: pathlib.Path, error: OSError) -> CheckpointError:
    why = error.strerror or error
    return CheckpointError(f"The run folder {path} cannot be made ({why}); give another folder with --out.")


class Taken(CheckpointError):
    """Another run has the folder."""


class RunFolder:
    """A folder with manifest.json, metrics.jsonl, episodes.jsonl, checkpoints/ and a lock held while it is in use."""

    LOGS = ("metrics.jsonl", "episodes.jsonl")
    NEEDED = ("algorithm", "env", "seeds", "phases", "plan", "protocol", "dataset", "settings", "resumes")

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self._lock = None
        self._files: dict = {}

    @property
    def manifest(self) -> dict:
        """The manifest. Raises CheckpointError where the folder holds no run, or one of another format."""
        file = self.path / "manifest.json"
        try:
            manifest = json.loads(file.read_text())
            version = manifest["format"]
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(
                f"{self.path} holds no run (no manifest.json); give a folder that `understudy train` wrote."
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"{file} cannot be read ({error.strerror}); mend its permissions or its path."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(f"{file} is damaged; restore it, or start the run anew in another folder.") from None
        if version == FORMAT and (missing := [k for k in self.NEEDED if k not in manifest]):
            raise CheckpointError(
                f"{file} is damaged (it has no {', '.join(missing)}); restore it, or start the run anew elsewhere."
            )
        if version != FORMAT:
            raise CheckpointError(
                f"{self.path} was written in run format {version}, this is format {FORMAT}; "
                f"use the understudy release that wrote it ({manifest.get('understudy', 'unknown')})."
            )
        return manifest

    @property
    def made(self) -> bool:
        """Whether the run has written anything that starting over would lose."""
        files = (self.path / name for name in ("policy.safetensors", "result.json", "metrics.jsonl", "episodes.jsonl"))
        return any(f.exists() and f.stat().st_size for f in files)

    def write_manifest(self, manifest: dict) -> None:
        write_json(self.path / "manifest.json", manifest)

    def refuse(self) -> None:
        """Raise CheckpointError where no new run can have the folder: it holds one, or is none."""
        try:
            if self.path.exists() and not self.path.is_dir():
                raise CheckpointError(f"{self.path} is a file; give a folder for the run with --out.")
            taken = (self.path / "manifest.json").exists()
        except OSError as error:
            raise _no_place(self.path, error) from None
        if taken:
            if self._lock is None:  # in use is worth saying before that it is taken
                self.lock()
                self.unlock()
            raise Taken(
                f"{self.path} holds another run; go on with it (understudy resume {self.path}), "
                f"or give another folder with --out."
            )

    def create(self) -> None:
        """Take the folder for a new run. Raises CheckpointError where it holds another run or is not a folder."""
        self.refuse()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_place(self.path, error) from None
        self.lock()
        try:
            self.refuse()  # another may have been faster
        except CheckpointError:
            self.unlock()
            raise

    def lock(self) -> None:
        """Hold the folder until `unlock` or the process ends. Raises CheckpointError while a live run holds it."""
        try:
            self._lock = open(self.path / ".lock", "a+")  # noqa: SIM115 held for the run's life
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be written to ({error.strerror or error}); mend its permissions."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            self._lock.close()
            self._lock = None
            raise Taken(
                f"{self.path} is in use by a live run (process {owner}); wait for it, stop it, or give another --out."
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def unlock(self) -> None:
        files, self._files = self._files, {}
        for file in files.values():
            with contextlib.suppress(OSError):  # what could not be written was said when it was
                file.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def append(self, name: str, rows: list[dict]) -> None:
        """Add lines to a log."""
        try:
            if name not in self._files:
                self._files[name] = open(self.path / name, "a")  # noqa: SIM115 held for the run's life
            file = self._files[name]
            file.write("".join(json.dumps(row, allow_nan=True) + "\n" for row in rows))
            file.flush()
        except OSError as error:
            raise disk_error(self.path / name, error) from error

    def offsets(self) -> dict[str, int]:
        """Bytes in each log now: what a checkpoint remembers."""
        return {n: (self.path / n).stat().st_size if (self.path / n).exists() else 0 for n in self.LOGS}

    def cut(self, offsets: dict[str, int]) -> None:
        """Cut the logs back to what they were at a checkpoint: what came after will be written again."""
        for name in self.LOGS:
            if (self.path / name).exists():
                held = (self.path / name).stat().st_size  # a crash of the machine may have lost some
                os.truncate(self.path / name, min(offsets.get(name, 0), held))
