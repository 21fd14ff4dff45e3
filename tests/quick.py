"""Programs that are compiled quickly, for tests that compile many and run each for a moment."""

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True,
         "xla_cpu_use_fusion_emitters": False}  # fmt: skip
FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())  # of XLA_FLAGS, for a process
