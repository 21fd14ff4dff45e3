"""Worker processes: the same episodes, and none left behind."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from understudy.envs import Pool, describe
from understudy.errors import EnvError


def trace(pool: Pool, steps: int = 450) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    seen, reports = [pool.begin(3, [[0, 3], [1], [2]])], []
    for _ in range(steps):
        observations, report = pool.step(rng.uniform(-1, 1, (3, 1)))
        seen.append(observations)
        reports.append(report)
    return np.array(seen), np.array(reports)


def test_workers_play_bitwise_what_one_process_plays():
    with Pool("Pendulum-v1", 3, workers=2) as pool, Pool("Pendulum-v1", 3, workers=0) as alone:
        seen, reports = trace(pool)
        expected = trace(alone)
        assert len(pool._children) == 2 and alone._children == []
        assert np.array_equal(seen, expected[0]) and np.array_equal(reports, expected[1], equal_nan=True)
        again = trace(pool)  # the pool is as good as new
        assert np.array_equal(again[0], seen)
    # Pendulum episodes have 200 steps: slot 0 plays two, the others one, then idle on their last observation.
    ended = [np.flatnonzero(reports[:, i, 0]).tolist() for i in range(3)]
    assert ended == [[199, 399], [199], [199]]
    assert reports[199, 1, 3] == 200 and np.isnan(reports[199, 1, 2])
    assert (seen[200:, 1] == seen[200, 1]).all() and not (seen[201:399, 0] == seen[200, 0]).all()


def test_closing_ends_the_workers_and_begin_starts_new_ones():
    pool = Pool("Pendulum-v1", 2, workers=2)
    first = pool.begin(0, [[0], [1]])
    processes = [child.process for child in pool._children]
    pool.close()
    assert [process.returncode for process in processes] == [0, 0]
    pool.close()
    assert np.array_equal(pool.begin(0, [[0], [1]]), first)
    pool.close()


def test_a_worker_that_ends_is_reported_and_replaced():
    pool = Pool("Pendulum-v1", 2, workers=1)
    pool.begin(0, [[0], [1]])
    pool._children[0].process.kill()
    pool._children[0].process.wait()
    with pytest.raises(EnvError, match="ended by itself"):
        pool.step(np.zeros((2, 1)))
    pool.begin(0, [[0], [1]])
    pool.step(np.zeros((2, 1)))
    pool.close()


def test_an_environment_of_this_program_only_is_stepped_in_this_process(scripted, capsys):
    pool = Pool(scripted, 2, workers=2)
    observations = pool.begin(0, [[0], [1]])
    assert "stepping in this one" in capsys.readouterr().err
    assert observations.shape == (2, 2) and pool.workers == 0 and pool._children == []
    pool.close()


def test_an_interrupt_in_the_middle_of_an_exchange_does_not_mix_up_the_next(monkeypatch):
    pool = Pool("Pendulum-v1", 2, workers=2)
    first = pool.begin(0, [[0], [1]])
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_receive", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pool.step(np.ones((2, 1)))  # the answers stay in the pipes
    assert np.array_equal(pool.begin(0, [[0], [1]]), first)
    pool.close()


def test_workers_are_used_where_steps_are_slow(monkeypatch):
    from understudy.envs import pool

    monkeypatch.setattr(pool, "cores", lambda: 2)
    with Pool("Pendulum-v1", 4) as cheap:
        assert cheap.workers == 0
    slow = dataclasses.replace(describe("Pendulum-v1"), step_seconds=1e-3)
    monkeypatch.setattr(pool, "describe", lambda name: slow)
    with Pool("Pendulum-v1", 4) as shared:
        assert shared.workers == 2
    monkeypatch.setattr(pool, "cores", lambda: 1)
    with Pool("Pendulum-v1", 4) as single:
        assert single.workers == 0


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# No `if __name__ == "__main__"`, and read from standard input as a notebook's kernel would: a worker that imported the
# user's program would start it again.
PROGRAM = """
print("started", flush=True)
import sys, time
import numpy as np
from understudy.envs import Pool, describe
pool = Pool("Pendulum-v1", 2, workers=2)
pool.begin(0, [[0], [1]])
print(*[child.process.pid for child in pool._children], flush=True)
while True:
    pool.begin(0, [[0], [1]])
    for _ in range(199):
        pool.step(np.zeros((2, 1)))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to see processes")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent_however_it_dies(how):
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs inherit that it is ignored
    parent = subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, preexec_fn=heed)  # fmt: skip
    parent.stdin.write(PROGRAM)
    parent.stdin.close()
    assert parent.stdout.readline() == "started\n"
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(map(alive, workers))
    time.sleep(0.1)
    parent.send_signal(how)
    parent.wait(10)
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))
    assert "started" not in parent.stdout.read()
    error = parent.stderr.read()
    assert "understudy.envs.worker" not in error and error.count("Traceback") <= 1  # the parent's own, for Ctrl-C
    parent.stdout.close()
    parent.stderr.close()


def test_a_worker_imports_no_jax():
    program = (
        "import sys, io\n"
        "from understudy.envs.pool import Slots\n"
        "import understudy.envs.worker\n"
        "Slots('Pendulum-v1', 1).begin(0, [[0]])\n"
        "print('jax' in sys.modules, 'flax' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert out.split() == ["False", "False"]
