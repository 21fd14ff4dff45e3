"""Film a policy. A process of its own draws and encodes, so OpenGL never touches the one that trains."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable

import numpy as np

from understudy import progress
from understudy.envs.making import INSTALL, describe
from understudy.envs.process import Child, connect
from understudy.errors import EnvError
from understudy.files import whole

SIZE = (384, 288)  # software OpenGL draws about 40 such frames of an arm in a second
OPENGL = "apt-get install libegl1 libgl1-mesa-dri"


def record(
    act: Callable[[np.ndarray, int, np.ndarray], np.ndarray],
    env_id: str,
    path: str | os.PathLike,
    *,
    seed: int,
    episodes: int = 3,
    seconds: float = 20.0,
) -> pathlib.Path | None:
    """Write an mp4 of the first episodes of the list `seed`, the same ones that `rollouts` plays.

    Says why on standard error and returns None where no film can be made: OpenGL or the encoder is missing, or the
    environment cannot draw.

    Args:
      act: (observations [1, 1, O] float32, step, begun [1, 1]) -> actions [1, 1, A] in [-1, 1], as for `rollouts` with
        one policy and one environment; step counts from 0 in each episode.
      env_id: as for `understudy.envs.make`.
      path: of the mp4; its folder is made. A file there is replaced once the film is whole.
      seed: names the list of episodes.
      episodes: how many to play.
      seconds: to spend at most. Frames are left out evenly where drawing is slow, and the film ends after this time.

    Raises:
      EnvError: unknown environment; actions of another shape.
    """
    spec, path = describe(env_id), pathlib.Path(path).absolute()
    own = os.environ.get("MUJOCO_GL")
    backends = dict.fromkeys([own, "egl", "osmesa"] if own not in (None, "", "disable") else ["egl", "osmesa"])
    reasons = []
    for backend in backends:
        settings = {"env": env_id, "seed": seed, "episodes": episodes, "path": str(path), "seconds": seconds}
        child = Child("understudy.evaluate.video", {"MUJOCO_GL": backend}, stderr=subprocess.DEVNULL)
        try:
            child.send_json(b"M", settings)
            tag, payload = child.receive()
            if tag == b"E":
                reasons.append((backend, payload.decode()))
                continue
            step = 0
            tag, payload = child.receive()
            while tag not in (b"D", b"E"):
                observation = np.frombuffer(payload[1:], np.float32).reshape(1, 1, *spec.observation_shape)
                step = 0 if payload[0] else step + 1
                action = np.asarray(act(observation, step, np.array([[step == 0]])), np.float32)
                if action.shape != (1, 1, spec.action_size):
                    expected = (1, 1, spec.action_size)
                    raise EnvError(f"The policy gave actions {action.shape}; '{env_id}' expects {expected}.")
                child.send(b"A", action.tobytes())
                tag, payload = child.receive()
            if tag == b"E":
                progress.say(f"No video: {payload.decode()}.")
                return None
            return path
        except (EOFError, OSError):
            status = child.close()
            reasons.append((backend, f"the process that draws ended by itself (exit status {status})"))
        finally:
            child.close()
    progress.say(_advice(env_id, spec, reasons))
    return None


def _advice(env_id: str, spec, reasons: list[tuple[str, str]]) -> str:
    reason = next((text for _, text in reasons if text.startswith("encoder:")), None)
    if reason is not None:
        return f"No video: PyAV does not import ({reason[8:].strip()}): {INSTALL}."
    if "mujoco" in spec.versions:
        return f"No video: OpenGL does not work on this machine; on Debian or Ubuntu: {OPENGL}."
    return f"No video: '{env_id}' cannot draw here ({reasons[0][1]})."


def main() -> None:
    """The process that steps, draws and encodes: observation out, action in, until the film is whole."""
    channel = connect()
    try:
        _film(channel, json.loads(channel.receive()[1]))
    except (EOFError, BrokenPipeError):
        pass  # the other side is gone
    except Exception as error:
        channel.send(b"E", f"{type(error).__name__}: {error}".replace("\n", " ").encode())
    os._exit(0)  # OpenGL contexts complain when the interpreter takes them down


def _film(channel, settings: dict) -> None:
    try:
        import av
    except ImportError as error:
        channel.send(b"E", f"encoder: {error}".encode())
        return
    from understudy.envs import Episodes, make

    path = pathlib.Path(settings["path"])
    env = Episodes(make(settings["env"], render=SIZE), settings["seed"])
    env.reset()
    _plain(env.unwrapped)
    start = time.monotonic()
    env.render()  # the first is slow: the driver compiles its shaders
    first = time.monotonic()
    height, width = env.render().shape[:2]
    cost = time.monotonic() - first
    # Leave out frames so that episodes of full length would be drawn in time.
    steps = settings["episodes"] * (env.spec.max_episode_steps or 1000)
    every = max(1, int(np.ceil(steps * cost / settings["seconds"])))
    rate = _rate(env)
    every = max(every, round(rate / 30))  # more than 30 a second cannot be seen
    deadline = start + settings["seconds"]
    channel.send(b"R")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        _write(av, channel, env, partial, settings["episodes"], every, rate / every, (width, height), deadline)
    channel.send(b"D")


def _write(av, channel, env, path, episodes: int, every: int, rate: float, size: tuple[int, int], deadline) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=max(1, round(rate)), options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = size[0] // 2 * 2, size[1] // 2 * 2, "yuv420p"

        def draw() -> None:
            frame = np.ascontiguousarray(env.render()[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

        for episode in range(episodes):
            env.next_episode = episode
            observation, _ = env.reset()
            ended, count = False, 0
            draw()
            while not ended and time.monotonic() < deadline:
                channel.send(b"O", bytes([count == 0]), observation.tobytes())
                action = np.frombuffer(channel.receive()[1], np.float32)
                observation, _, terminated, truncated, _ = env.step(action)
                ended, count = terminated or truncated, count + 1
                if ended or count % every == 0:
                    draw()
            if time.monotonic() >= deadline:
                break
        container.mux(stream.encode())


def _rate(env) -> float:
    """Steps per simulated second, else the environment's own frame rate."""
    control = getattr(env.unwrapped, "_control_timestep", None) or getattr(env.unwrapped, "dt", None)
    return 1 / control if control else float(env.unwrapped.metadata.get("render_fps", 30))


def _plain(env) -> None:
    """Without shadows and smoothed edges MuJoCo's software drawing is six times as fast."""
    model = getattr(env, "_model", None) or getattr(env, "model", None)
    if model is not None and hasattr(model, "vis"):
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
