"""Progress bars on standard error (or in the notebook cell) with rate and time left."""

from __future__ import annotations

import contextlib
import sys
import time


class Bar:
    """One line of progress. `advance` may be called as often as wanted; it draws at most ten times a second."""

    def __init__(self, progress, task, unit):
        self._progress, self._task, self._unit = progress, task, unit
        self._start, self._since = time.monotonic(), 0

    def advance(self, n: int = 1, **fields: float) -> None:
        """Count `n` more units; `fields` are shown as they stand, e.g. `success=0.4`."""
        self._since += n
        seconds = time.monotonic() - self._start
        rate = f"{self._since / seconds:,.0f} {self._unit}/s" if seconds > 0.5 else ""
        shown = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in fields.items())
        update = {"rate": rate} | ({"shown": shown} if fields else {})
        self._progress.update(self._task, advance=n, **update)


_live = None  # rich allows one live display: nested bars share it


@contextlib.contextmanager
def bar(description: str, total: int, unit: str = "it", done: int = 0, leave: bool = True):
    """Show one bar: `with bar("offline", 30_000, "updates") as b: b.advance(500, loss=0.1)`.

    Args:
      description: what is being done, two or three words.
      total: units in all.
      unit: plural noun shown in the rate.
      done: units already done (a resumed run); the rate counts only new ones.
      leave: keep the finished line on the screen.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    global _live
    owner = _live is None
    if owner:
        notebook = "ipykernel" in sys.modules
        _live = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=Console() if notebook else Console(stderr=True),
        )
        _live.start()
    task = _live.add_task(description, total=total, completed=done, rate="", shown="")
    try:
        yield Bar(_live, task, unit)
    finally:
        live = _live
        if not leave:
            live.remove_task(task)
        if owner:
            _live = None
            live.stop()


def say(text: str) -> None:
    """Print one line to standard error, above any bar that is showing."""
    if _live is not None:
        _live.console.print(text, highlight=False, markup=False)
    else:
        print(text, file=sys.stderr, flush=True)
