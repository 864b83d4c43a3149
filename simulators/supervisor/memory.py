"""What the Supervisor keeps, on disk: one small JSON file, replaced as a whole.

Rules:
- It holds secrets (device key, API keys), so it is 0600 and nobody prints it.
- The engine's containers and images are in it too: to the simulator, they are one device.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from simulators.supervisor.state import Container, Identity, Image, Kept, Life
from simulators.supervisor.target import AppTarget, ServiceTarget, Target

FILE_NAME: Final = "supervisor.json"


class Memory:
    """Where `Kept` is kept; nowhere, when there is no directory."""

    def __init__(self, directory: Path | None) -> None:
        self._file = directory / FILE_NAME if directory else None

    def save(self, kept: Kept) -> None:
        if self._file is None:
            return
        fresh = self._file.with_suffix(".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(_written(kept), out)
        fresh.replace(self._file)

    def load(self) -> Kept | None:
        """What was kept; None when nothing was."""
        if self._file is None or not self._file.exists():
            return None
        return _read(json.loads(self._file.read_text(encoding="utf-8")))


def _written(kept: Kept) -> dict[str, Any]:
    """As JSON can hold it: keys of two parts become lists."""
    keys = [[app_id, service, key] for (app_id, service), key in kept.service_keys.items()]
    return {**asdict(kept), "service_keys": keys}


def _read(written: dict[str, Any]) -> Kept:
    return Kept(
        identity=Identity(**written["identity"]),
        global_key=written["global_key"],
        service_keys={(app_id, name): key for app_id, name, key in written["service_keys"]},
        target=_target(written["target"]),
        commits=_by_number(written["commits"]),
        app_uuids=_by_number(written["app_uuids"]),
        images=[Image(**image) for image in written["images"]],
        containers=[_container(container) for container in written["containers"]],
        config=written["config"],
        volumes=written["volumes"],
        reported=written["reported"],
        tags_wanted=written["tags_wanted"],
        tags_reported=written["tags_reported"],
        hostname=written["hostname"],
    )


def _by_number(written: dict[str, str]) -> dict[int, str]:
    return {int(app_id): value for app_id, value in written.items()}


def _container(written: dict[str, Any]) -> Container:
    return Container(
        **{**written, "image": Image(**written["image"]), "life": Life(written["life"])}
    )


def _target(written: dict[str, Any]) -> Target:
    apps = tuple(_app(app) for app in written["apps"])
    return Target(name=written["name"], config=written["config"], apps=apps)


def _app(written: dict[str, Any]) -> AppTarget:
    services = tuple(
        ServiceTarget(**{**service, "volumes": tuple(service["volumes"])})
        for service in written["services"]
    )
    return AppTarget(**{**written, "services": services, "volumes": tuple(written["volumes"])})
