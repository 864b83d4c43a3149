"""What the Supervisor tells its backend in log lines: the recorded words, and what containers print.

Rules:
- A system message is `<what> '<whom>'`, with ` due to '<why>'` and `isStdErr` when it failed.
- A service is called by its name and the content id of its image.
- A container prints `<service> starting` and `got SIGTERM` by itself; with the label `io.baseos.simulator.chatter`
  (seconds) or `Setup.chatter_s`, a pair of lines now and then, as the recorded one did every 20 s.
- No line is made while `SUPERVISOR_LOG_CONTROL` is off, in local mode, or without a backend.

Source: `log_lines` of `backend/first-boot.json` and `backend/updates.json`. (code): rebooting, purged, restarting,
failing to start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from interfaces.world import World, now_ms
from simulators.supervisor.state import Container, Image

CHATTER_LABEL: Final = "io.baseos.simulator.chatter"

Sink = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Teller:
    world: World
    sink: Sink
    """Where lines go; it decides whether they are wanted."""

    def say(self, message: str, *, failed: bool = False) -> None:
        """A system message."""
        line: dict[str, Any] = {
            "message": message,
            "isSystem": True,
            "timestamp": now_ms(self.world),
        }
        self.sink({**line, "isStdErr": True} if failed else line)

    def image(self, what: str, image: Image, why: str | None = None) -> None:
        because = "" if why is None else f" due to '{why}'"
        self.say(f"{what} image '{image.name}'{because}", failed=why is not None)

    def service(self, what: str, name: str, content: str, why: str | None = None) -> None:
        because = "" if why is None else f" due to '{why}'"
        self.say(f"{what} '{name} {content}'{because}", failed=why is not None)

    def container(self, what: str, container: Container, why: str | None = None) -> None:
        self.service(what, container.service, container.image.docker_id, why)

    def config(self, what: str, changed: Mapping[str, str]) -> None:
        self.say(f"{what} configuration change {json.dumps(changed, separators=(',', ':'))}")

    def rejected(self, faults: tuple[str, ...]) -> None:
        """The target state was refused as a whole."""
        self.say("Could not move to new release: Invalid target state.")
        for fault in faults:
            self.say(fault)

    def printed(self, container: Container, message: str, *, to_stderr: bool = False) -> None:
        """What a container printed."""
        self.sink(
            {
                "message": message,
                "isStdErr": to_stderr,
                "timestamp": now_ms(self.world),
                "serviceId": container.service_id,
            }
        )


def compact(seconds: float) -> str:
    """A wait as the Supervisor says it: the largest unit alone."""
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s" if seconds >= 1 else f"{int(seconds * 1000)}ms"
