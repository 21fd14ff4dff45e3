"""Bars: what they say, what they leave out where there is little room, and what a log gets."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import types

import pytest

from understudy import progress
from understudy.progress import Bar, bar, clock, fit, say


@pytest.fixture
def now(monkeypatch):
    """A clock that moves when told to."""
    time = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_rate_and_time_left(now):
    one = Bar("offline", 1000, "updates", done=200)
    assert (one.speed(), one.left()) == ("", "")
    now[0] += 60
    one.advance(10)  # the first may have waited for a compiler
    assert (one.speed(), one.left()) == ("", "")
    now[0] += 3
    one.advance(30)  # 10 a second; 760 are left
    assert (one.counted(), one.speed(), one.left()) == ("240/1,000", "10 updates/s", "1:16 left")
    now[0] += 40
    one.advance(300)
    now[0] += 20
    one.advance(100)  # 100 in the last 20 s, what is older than 30 s is forgotten
    assert (one.speed(), one.left()) == ("5.0 updates/s", "1:12 left")
    one.advance(360)  # done: 800 in 123 s over all
    assert (one.speed(), one.left()) == ("6.5 updates/s", "done")


@pytest.fixture
def shown(now):
    one = Bar("offline x3", 60_000, "updates", done=0)
    one.advance(10_000)
    now[0] += 5
    one.advance(0)
    now[0] += 10
    one.advance(20_000, q=-23.456, success=0.5)  # 2,000 a second: 20 s are left
    return one


@pytest.mark.parametrize(
    ("width", "columns", "bar_width"),
    [
        (120, "description bar counted speed elapsed left fact0 fact1", 24),
        (90, "description bar counted speed left fact0 fact1", 11),
        (80, "description bar counted speed left fact0", 14),
        (70, "description bar counted speed left", 13),
        (60, "description counted speed left", 19),
        (50, "description counted left", 24),
    ],
)
def test_what_is_left_out_on_narrow_terminals(shown, width, columns, bar_width):
    found, room = fit([shown], width)
    assert found == columns.split() and (room == bar_width or "bar" not in found)
    cells = progress._cells(shown) | {"bar": room * "-"}
    assert sum(len(cells[c]) + progress.GAP for c in found) <= width


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(now, capsys):
    with bar("offline", 100, "updates") as b:
        for _ in range(100):
            now[0] += 0.25
            b.advance(1, q=1.5)
    assert capsys.readouterr().err.splitlines() == [
        "offline 40/100, 4.0 updates/s, 0:15 left, q 1.5",
        "offline 80/100, 4.0 updates/s, 0:05 left, q 1.5",
        "offline 100/100, 4.0 updates/s, done in 0:25, q 1.5",
    ]


def test_a_bar_that_is_not_left_says_nothing_in_a_log_when_quick(now, capsys):
    with bar("evaluation", 10, "episodes", leave=False) as b:
        now[0] += 5
        b.advance(10)
    with pytest.raises(KeyError), bar("offline", 10, "updates") as b:
        b.advance(5)
        raise KeyError
    assert capsys.readouterr() == ("", "")
    say("a line")
    assert capsys.readouterr().err == "a line\n"


def test_another_bar_in_between_is_left_out_of_the_rate(now, capsys):
    with bar("online", 200, "steps") as online:
        for _ in range(10):
            now[0] += 1
            online.advance(10)
        with bar("evaluation", 10, "episodes", leave=False) as evaluation:
            now[0] += 60
            evaluation.advance(10)
        now[0] += 1
        online.advance(10)
        assert (online.speed(), online.left(), clock(online.seconds)) == ("10 steps/s", "0:09 left", "1:11")
        now[0] += 9
        online.advance(90)
    assert "online 200/200, 10 steps/s, done in 1:20" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 60])
def test_a_terminal_shows_whole_columns(width):
    """On a real pseudo-terminal no line is longer than it and none is cut."""
    code = (
        "import time\nfrom understudy.progress import bar, say\n"
        "with bar('offline x3', 60000, 'updates') as b:\n"
        "    time.sleep(0.6); b.advance(20000, q=-23.456, success=0.5)\n"
        "    with bar('evaluation', 150, 'episodes', leave=False) as e: e.advance(50); say('above'); time.sleep(0.5)\n"
        "    b.advance(40000)\n"
    )
    main, other = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LINES")}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=other,
                               env=env | {"TERM": "xterm", "COLUMNS": str(width)})  # fmt: skip
    os.close(other)
    received = b""
    try:
        while piece := os.read(main, 65536):
            received += piece
    except OSError:  # how Linux ends a pseudo-terminal
        pass
    os.close(main)
    assert process.wait() == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", received.decode()))
    last = [line for line in lines if line.startswith("offline x3")][-1]
    assert "60,000/60,000" in last and "updates/s" in last and "done" in last
    assert any("above" in line for line in lines)
    assert max(len(line.rstrip()) for line in lines) <= width and not any("…" in line for line in lines)


def test_a_notebook_gets_one_output_that_is_written_anew(monkeypatch, capsys):
    shown = []
    handle = types.SimpleNamespace(update=lambda bundle, raw: shown.append(bundle))
    display = types.SimpleNamespace(display=lambda bundle, raw, display_id: shown.append(bundle) or handle)
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with bar("offline", 10, "updates") as outer:
        with bar("eval <3>", 2, "episodes", leave=False) as inner:
            inner.advance(1)
            say("above")
        outer.advance(10, q=1.5)
    say("after")
    last = shown[-1]
    assert "<progress max=10 value=10>" in last["text/html"] and "q 1.5" in last["text/plain"]
    assert last["text/html"].count("<tr>") == 1 and "eval" not in last["text/html"]
    assert capsys.readouterr() == ("above\nafter\n", "")


def test_a_notebook_is_drawn_a_few_times_a_second_at_most(monkeypatch, now):
    shown = []
    handle = types.SimpleNamespace(update=lambda bundle, raw: shown.append(bundle["text/html"]))
    display = types.SimpleNamespace(display=lambda *_, **__: handle)
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with bar("a <b>", 100, "updates") as one:
        for _ in range(100):
            now[0] += 0.01
            one.advance(1)
        assert 4 <= len(shown) <= 5 and "a &lt;b&gt;" in shown[0]
