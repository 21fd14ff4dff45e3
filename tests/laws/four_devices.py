"""Run by test_laws in a process with four virtual devices: prints {algorithm: largest difference to one device} of the
algorithms that are named."""

from __future__ import annotations

import json
import sys

import cases
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def difference(name: str) -> float:
    case = cases.case_of(name)
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    one, many = case.state, jax.device_put(case.state, whole)
    batch = jax.device_put(case.batch, split)
    assert len(batch["observations"].addressable_shards) == 4
    for i in range(2):
        key = jax.random.fold_in(case.key, i)
        one, one_metrics = cases.update(case.algorithm, one, case.batch, key)
        many, many_metrics = cases.update(case.algorithm, many, batch, jax.device_put(key, whole))
    gap = jax.tree.map(
        lambda a, b: float(np.max(np.abs(np.asarray(a) - np.asarray(b)) / (1 + np.abs(np.asarray(a))), initial=0.0)),
        (one, one_metrics),
        (many, many_metrics),
    )
    return max(jax.tree.leaves(gap))


if __name__ == "__main__":
    assert len(jax.devices()) == 4
    print(json.dumps({name: difference(name) for name in sys.argv[1:]}))
