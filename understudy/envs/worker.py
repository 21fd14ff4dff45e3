"""The process that steps a share of a `Pool`: one message in, one or two out, for all of its environments."""

from __future__ import annotations

import json

import numpy as np

from understudy.envs.process import connect
from understudy.errors import UserError


def main() -> None:
    """Serve until the pool closes the pipe."""
    channel = connect()
    try:
        _serve(channel)
    except (EOFError, BrokenPipeError):
        pass  # the pool is closed, or its process is gone
    except UserError as error:
        channel.send(b"E", str(error).encode())
    except Exception as error:
        channel.send(b"E", f"The environment failed with {type(error).__name__}: {error}.".encode())
        raise


def _serve(channel) -> None:
    from understudy.envs.pool import Slots

    settings = json.loads(channel.receive()[1])
    slots = Slots(settings["env"], settings["count"])
    size = slots.envs[0].action_space.shape[0]
    channel.send(b"R")
    while True:
        tag, payload = channel.receive()
        if tag == b"B":
            begin = json.loads(payload)
            channel.send(b"O", slots.begin(begin["seed"], begin["schedule"]).tobytes())
        else:
            observations, report = slots.step(np.frombuffer(payload, np.float32).reshape(-1, size))
            channel.send(b"O", observations.tobytes())
            channel.send(b"F", report.tobytes())
