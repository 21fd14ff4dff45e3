"""Programs of the tests, in this process and below it, are compiled in a quarter of the time and run slower.

`conftest.py` sets it for all. What is to run as it does for a user gets `as_a_user()`, in a process of its own.
"""

import os

FLAGS = ("--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
         "--xla_cpu_use_fusion_emitters=false")  # fmt: skip
# compiler_options of one program, which is to run as fast as a user's
USUAL = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False,
         "xla_cpu_use_fusion_emitters": True}  # fmt: skip


def as_a_user() -> dict[str, str]:
    """The environment of a process that compiles as a user's does."""
    return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
