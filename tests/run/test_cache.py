"""Compiled programs outlive their process."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
import jax
import understudy

misses = []
jax.monitoring.register_event_listener(lambda event, **_: misses.append(event) if event.endswith("/cache_misses") else None)
small = {"critic.hidden": (16, 16), "policy.hidden": (16, 16)}
understudy.train("iql", sys.argv[1], env="Pendulum-v1", offline=20, online=20, episodes=1, out=sys.argv[2],
                 settings=small)
print(len(misses))
"""  # noqa: E501


def test_a_second_run_starts_without_compiling(pendulum, tmp_path):
    def compiled(out: str) -> int:
        env = os.environ | {"UNDERSTUDY_CACHE": str(tmp_path / "cache")}
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        done = subprocess.run([sys.executable, "-c", PROGRAM, pendulum, str(tmp_path / out)], env=env, text=True,
                              capture_output=True, timeout=300)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return int(done.stdout.split()[-1])

    assert compiled("first") > 0
    assert compiled("second") == 0
