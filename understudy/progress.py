"""Progress bars with rate and time left: on a terminal, in a notebook, or as a plain line now and then in a log."""

from __future__ import annotations

import collections
import contextlib
import html
import sys
import time

WINDOW = 30.0  # seconds that the shown rate looks back
PLAIN_EVERY = 10.0  # seconds between two lines of one bar where nothing can be redrawn
GAP = 2  # spaces between columns
BAR = (10, 24)  # narrowest and widest


class Bar:
    """One line of progress. `advance` may be called as often as wanted."""

    def __init__(self, description: str, total: int, unit: str, done: int, shown=None):
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self.fields: dict[str, float] = {}
        self._shown = shown
        self._first, self._start = done, time.monotonic()
        self._times = collections.deque()  # from the first advance on: before it, programs are compiled
        self._said, self._paused = self._start, 0.0

    def advance(self, n: int = 1, **fields: float) -> None:
        """Count `n` more units; `fields` are shown as they stand, e.g. `success=0.4`."""
        self.done += n
        self.fields = self.fields | fields  # another thread may be drawing the old ones
        now = time.monotonic()
        self._times.append((now, self.done))
        if self._shown is not None:
            self._shown.moved()
        while len(self._times) > 2 and self._times[0][0] < now - WINDOW:
            self._times.popleft()
        if self._shown is None and now - self._said >= PLAIN_EVERY and self.done < self.total:
            self._said = now
            print(self.plain(), file=sys.stderr, flush=True)

    def resume(self, pause: float) -> None:
        """Leave `pause` seconds, in which another bar had its turn, out of the rate and the time left."""
        self._paused += pause
        self._times = collections.deque((t + pause, done) for t, done in self._times)

    @property
    def seconds(self) -> float:
        """Since the bar began."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float | None:
        """Units per second of late, or over all when done; None before it can be told."""
        if not self._times:
            return None
        (begin, first), (end, last) = self._times[0], self._times[-1]
        if self.done >= self.total:
            begin, first = self._start + self._paused, self._first
        return (last - first) / (end - begin) if end - begin > 0.5 and last > first else None

    def counted(self) -> str:
        return f"{self.done:,}/{self.total:,}"

    def speed(self) -> str:
        rate = self.rate
        return "" if rate is None else f"{rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s"

    def left(self) -> str:
        """Time that the rest takes at this rate."""
        if self.done >= self.total:
            return "done"
        return f"{clock((self.total - self.done) / self.rate)} left" if self.rate else ""

    def facts(self) -> list[str]:
        return [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.fields.items()]

    def plain(self) -> str:
        """One line for a log."""
        end = f"done in {clock(self.seconds)}" if self.done >= self.total else self.left()
        return ", ".join(x for x in (f"{self.description} {self.counted()}", self.speed(), end, *self.facts()) if x)


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Bars:
    """The bars that are showing, redrawn a few times a second as one table that fits the terminal."""

    def __init__(self, console):
        from rich.live import Live

        self.console, self.bars = console, []
        self.live = Live(console=console, refresh_per_second=5, get_renderable=self.table, vertical_overflow="visible")
        self.live.start()

    def moved(self) -> None:
        """A bar has moved; the display looks by itself."""

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        self.live.stop()

    def table(self):
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bars = list(self.bars)
        columns, width = fit(bars, self.console.width)
        table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        for name in columns:
            table.add_column(no_wrap=True, overflow="crop", justify="right" if name in ("counted", "left") else "left")
        for bar in bars:
            cells = _cells(bar)
            drawn = lambda bar=bar: ProgressBar(total=max(bar.total, 1), completed=bar.done, width=width)
            table.add_row(*(drawn() if c == "bar" else Text(cells.get(c, "")) for c in columns))
        return table


class _Notebook:
    """The bars that are showing, in one cell output that is written anew a few times a second."""

    def __init__(self):
        from IPython.display import display

        self.bars, self._drawn = [], time.monotonic()
        self.handle = display(self._bundle(), raw=True, display_id=True)

    def _bundle(self) -> dict[str, str]:
        rows = []
        for bar in self.bars:
            cells = _cells(bar)
            shown = [html.escape(text) for text in cells.values()]
            shown.insert(1, f"<progress max={max(bar.total, 1)} value={bar.done}></progress>")
            rows.append("<tr>" + "".join(f"<td style='text-align:left'>{x}</td>" for x in shown) + "</tr>")
        return {"text/html": f"<table>{''.join(rows)}</table>", "text/plain": "\n".join(b.plain() for b in self.bars)}

    def moved(self) -> None:
        if time.monotonic() - self._drawn > 0.2:
            self.draw()

    def draw(self) -> None:
        self._drawn = time.monotonic()
        self.handle.update(self._bundle(), raw=True)

    def say(self, text: str) -> None:
        print(text, flush=True)

    def stop(self) -> None:
        self.draw()


def _cells(bar: Bar) -> dict[str, str]:
    cells = {"description": f"{bar.description:<10}", "counted": bar.counted(), "speed": bar.speed(),
             "elapsed": clock(bar.seconds), "left": bar.left()}  # fmt: skip
    return cells | {f"fact{i}": fact for i, fact in enumerate(bar.facts())}


def fit(bars: list[Bar], width: int) -> tuple[list[str], int]:
    """The columns that `width` characters have room for, and the width of the bar among them.

    What goes first where there is too little: the bar gets shorter, then the elapsed time goes, the further facts from
    the last to the first, the bar, the rate. Description, count and time left stay."""
    wide: dict[str, int] = {}
    for bar in bars:
        for name, text in _cells(bar).items():
            wide[name] = max(wide.get(name, 0), len(text))
    facts = [c for c in wide if c.startswith("fact")]
    columns = ["description", "bar", "counted", "speed", "elapsed", "left", *facts]
    wide["bar"] = BAR[0]
    for name in ("", "elapsed", *reversed(facts), "bar", "speed"):
        columns = [c for c in columns if c != name]
        spare = width - sum(wide.get(c, 0) + GAP for c in columns)
        if spare >= 0:
            break
    return columns, min(BAR[1], BAR[0] + max(spare, 0))


_live: _Bars | _Notebook | None = None  # one live display: nested bars share it
_open: list[Bar] = []  # the bars that are going, outermost first


def _display() -> _Bars | _Notebook | None:
    """A display that can redraw bars, or None: a file, a pipe, a terminal without control codes."""
    if "ipykernel" in sys.modules:
        return _Notebook()
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return _Bars(console) if console.is_interactive else None


@contextlib.contextmanager
def bar(description: str, total: int, unit: str = "it", done: int = 0, leave: bool = True):
    """Show one bar: `with bar("offline", 30_000, "updates") as b: b.advance(500, loss=0.1)`.

    Where standard error is no terminal, a line about every ten seconds takes its place, and one at the end.

    Args:
      description: what is being done, two or three words.
      total: units in all.
      unit: plural noun shown in the rate.
      done: units already done (a resumed run); the rate counts only new ones.
      leave: keep the finished line on the screen.
    """
    global _live
    owner = _live is None and (display := _display()) is not None
    if owner:
        _live = display
    one = Bar(description, total, unit, done, _live)
    if _live is not None:
        _live.bars.append(one)
    _open.append(one)
    try:
        yield one
        if _live is None and leave and one.done >= total > done:
            print(one.plain(), file=sys.stderr, flush=True)
    finally:
        _open.remove(one)
        for outer in _open[-1:]:
            outer.resume(one.seconds)
        if _live is not None and not leave:
            _live.bars.remove(one)
        if owner:
            shown, _live = _live, None
            shown.stop()


def say(text: str) -> None:
    """Print one line to standard error, above any bar that is showing."""
    if _live is not None:
        _live.say(text)
    elif "ipykernel" in sys.modules:
        print(text, flush=True)  # standard error is shown as an alarm there
    else:
        print(text, file=sys.stderr, flush=True)
