"""OGBench's quirks: names of tasks, unseeded draws inside `reset`, and one heavy model per environment.

What was found in ogbench 1.2.2 and is mended here or in `Episodes`:

- Manipulation environments (cube, scene, puzzle) take random steps inside `reset` with an action space that is built
  anew, and so seeded from the operating system, at every look: the contact entry of the first observation and the
  solver's warm start differ between two resets of one seed. Here the space is built once; `Episodes` seeds it.
- Mazes draw start positions (and teleports) from the global `np.random`; `Episodes` gives each its own state.
- A cube environment holds about 150 MB (two compiled models with meshes) and takes a second to build. Its models are
  only read while stepping (only colours are written), so environments that do not render share them. Scene and puzzle
  write joint damping into the model, so each keeps its own.
- Rewards and terminations of single tasks belong to the state before the action (`success_timing="pre"`): an episode
  that reaches its goal ends one step later, and a goal first reached by the last allowed action does not count.
"""

from __future__ import annotations

import dataclasses
import re
import weakref

from understudy.errors import EnvError

FAMILIES = ("cube", "scene", "puzzle", "pointmaze", "antmaze", "humanoidmaze", "antsoccer")
MANIPULATION = ("cube", "scene", "puzzle")
KINDS = {family: ("play", "noisy") if family in MANIPULATION else ("navigate", "stitch") for family in FAMILIES}
KINDS["antmaze"] += ("explore",)
_NAME = re.compile(
    rf"(?P<task>(?:visual-)?(?P<family>{'|'.join(FAMILIES)}).*?)"
    r"(?:-(?P<kind>play|noisy|navigate|stitch|explore))?"
    r"(?P<single>-singletask(?:-task[1-5])?)?(?P<oracle>-oraclerep)?-v0"
)


def claims(env_id: str) -> bool:
    """Whether the id has the form of an OGBench name."""
    prefixes = tuple(f"{family}-" for family in FAMILIES)
    return env_id.removeprefix("visual-").startswith(prefixes) or env_id.startswith(("powderworld-", "ogbench/"))


def register() -> None:
    """Import the environments (not the data-set part, which is not needed)."""
    import ogbench.locomaze
    import ogbench.manipspace  # noqa: F401


def names() -> list[str]:
    """Every single task as its data set is called, e.g. cube-single-play-singletask-task3-v0."""
    import gymnasium

    register()
    out = []
    for env_id, spec in gymnasium.registry.items():
        match = _NAME.fullmatch(env_id)
        if not (match and match["single"] and str(spec.entry_point).startswith("ogbench.")) or "visual" in env_id:
            continue
        out += [f"{match['task']}-{kind}{match['single']}-v0" for kind in KINDS[match["family"]]]
    return out


def resolve(env_id: str):
    """Return the Gymnasium specification of a single task, from a data set's or an environment's name."""
    import gymnasium

    from understudy.envs.making import unknown

    register()
    match = _NAME.fullmatch(env_id)
    if env_id.startswith(("visual-", "powderworld-")):
        raise EnvError(f"Environment '{env_id}' gives images; expected flat observations: use one without pixels.")
    if match is None or f"{match['task']}-v0" not in gymnasium.registry:
        raise unknown(env_id, names())
    kind = match["kind"]
    if kind is not None and kind not in KINDS[match["family"]]:
        raise unknown(env_id, names())
    if match["single"] is None or match["oracle"]:
        single = f"{match['task']}-{kind or KINDS[match['family']][0]}-singletask-v0"
        raise EnvError(
            f"Environment '{env_id}' is goal-conditioned; expected a single task: use '{single}', "
            f"or '{single.replace('-v0', '-task1-v0')}' to '-task5-v0'."
        )
    spec = gymnasium.registry[f"{match['task']}{match['single']}-v0"]
    if match["family"] not in MANIPULATION:
        return spec
    return dataclasses.replace(spec, entry_point=_creator(spec.entry_point, shared=match["family"] == "cube"))


_newest: weakref.WeakValueDictionary = weakref.WeakValueDictionary()  # settings -> an environment to copy from


def _creator(entry_point: str, shared: bool):
    def create(render_mode: str | None = None, **kwargs):
        from gymnasium.envs.registration import load_env_creator

        name = (entry_point, repr(sorted(kwargs.items())))
        if shared and render_mode is None and name in _newest:
            env = _copy(_newest[name])
        else:
            env = _seedable(load_env_creator(entry_point))(render_mode=render_mode, **kwargs)
        if shared and render_mode is None:
            _newest[name] = env
        return env

    return create


def _seedable(base: type) -> type:
    class Seedable(base):
        """The action space is one object, so that seeding it holds."""

        metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

        def __init__(self, render_mode=None, **kwargs):
            super().__init__(render_mode=render_mode, **kwargs)
            self.render_mode = render_mode

        @property
        def action_space(self):
            if "_space" not in self.__dict__:
                self._space = super().action_space
            return self._space

    Seedable.__name__ = base.__name__
    return Seedable


def _copy(other):
    """Another environment over the same compiled models, with a state of its own (drawn and seeded by `reset`)."""
    import mujoco
    import numpy as np
    from gymnasium import Env

    if other._model is None:
        other.reset()
    env = object.__new__(type(other))
    Env.__init__(env)
    for key, value in vars(other).items():
        env.__dict__[key] = value.copy() if isinstance(value, np.ndarray) else value
    env.__dict__.pop("_space", None)
    env.__dict__.pop("spec", None)
    env._np_random = env._np_random_seed = None
    env._ik = type(other._ik)(model=other._ik._model, sites=["attachment_site"])
    env._data = mujoco.MjData(env._model)
    return env
