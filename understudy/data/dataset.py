"""A data set in memory: trajectories with T+1 observations each."""
from __future__ import annotations
import dataclasses, hashlib, pathlib
import numpy as np
from understudy.errors import DataError

def monte_carlo_returns(rewards, masks, ends, discount, lowest=None):
    lowest = min(float(np.min(rewards)), 0.0) if lowest is None else lowest
    out = np.zeros(len(rewards)); nxt = 0.0
    for i in range(len(rewards) - 1, -1, -1):
        if ends[i]: nxt = lowest / (1 - discount)
        nxt = rewards[i] + discount * masks[i] * nxt
        out[i] = nxt
    return out.astype(np.float32)

@dataclasses.dataclass(frozen=True)
class Dataset:
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray | None
    terminations: np.ndarray
    truncations: np.ndarray
    lengths: np.ndarray
    name: str = ""
    source: str = ""
    sha256: str = ""
    env: str | None = None
    notes: tuple = ()
    @property
    def size(self): return len(self.actions)
    @property
    def episodes(self): return len(self.lengths)
    @property
    def masks(self): return 1 - self.terminations.astype(np.float32)
    @property
    def ends(self):
        e = np.zeros(self.size, bool); e[np.cumsum(self.lengths) - 1] = True; return e
    @property
    def rows(self): return np.arange(self.size) + np.repeat(np.arange(self.episodes), self.lengths)
    def transitions(self, *, mc_discount=None):
        d = dict(observations=self.observations[self.rows], actions=self.actions, masks=self.masks, next_observations=self.observations[self.rows + 1], ends=self.ends)
        if self.rewards is not None: d["rewards"] = self.rewards
        if mc_discount is not None: d["mc_returns"] = monte_carlo_returns(self.rewards, self.masks, self.ends, mc_discount)
        return d

def load(path, *, env=None, rewards=None):
    path = pathlib.Path(path)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".npz":
        z = np.load(path)
        t = z["terminals"] > 0; E = np.flatnonzero(t); starts = np.r_[0, E[:-1] + 1]; lengths = E - starts
        keep = ~t
        return Dataset(z["observations"].astype("f"), np.clip(z["actions"][keep], -1, 1).astype("f"), z["rewards"][keep].astype("f"), z["masks"][keep] == 0, np.zeros(keep.sum(), bool), lengths, path.stem, str(path), sha, path.stem)
    import h5py
    with h5py.File(path) as f:
        ends = np.array(f["terminals"]) | np.array(f["timeouts"]); E = np.flatnonzero(ends); starts = np.r_[0, E[:-1] + 1]
        o, n = np.array(f["observations"]), np.array(f["next_observations"])
        obs = np.concatenate([np.concatenate([o[s:e + 1], n[e:e + 1]]) for s, e in zip(starts, E)])
        return Dataset(obs.astype("f"), np.array(f["actions"]), np.array(f["rewards"]), np.array(f["terminals"]), np.array(f["timeouts"]), E - starts + 1, path.stem, str(path), sha, env)
