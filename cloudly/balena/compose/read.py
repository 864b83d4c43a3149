"""The text of a compose file as a release: services, volumes and networks as the Supervisor's target state wants them.

Rules:
- All problems are told, each with its line and its place; a file with one makes no release.
- `version` 2.x or none; `name` is ignored; `services`, `volumes` and `networks` are read; `x-…` is nobody's.
- One repository per image: two services with different digests in one repository are refused.
- The same file gives the same release, and the same release the same commit.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from cloudly.balena.compose.document import Mapping, Node, Scalar, read_document, text_of
from cloudly.balena.compose.networking import NETWORK, VOLUME, declared, names_in, subnets_in
from cloudly.balena.compose.notes import BadCompose, Note, Notes, quoted
from cloudly.balena.compose.service import ComposedService, read_service
from cloudly.balena.compose.values import Reader, Scope, kind_of
from cloudly.balena.image import HOW_TO, digest_of, repository_of

VERSION: Final = re.compile(r"2(?:\.[0-9])?")
MAX_SERVICES: Final = 100
"""As many as a node is told of (`interfaces.desired.AppTarget`)."""
SECTIONS: Final = frozenset({"version", "name", "services", "volumes", "networks"})
REFUSED: Final = {
    "configs": "the Supervisor knows no configs: put the file into the image or a named volume",
    "include": "a release holds one file: write the services out",
    "models": "the Supervisor knows no models",
    "secrets": "the Supervisor knows no secrets, and a release is no place for one",
}


@dataclass(frozen=True, slots=True)
class Composed:
    """What a compose file says, ready to be a release."""

    services: tuple[ComposedService, ...]
    """By name."""
    volumes: dict[str, Any]
    networks: dict[str, Any]
    warnings: tuple[Note, ...]
    text: str
    """The file as it came."""


def read_compose(document: bytes) -> Composed:
    """Raises BadCompose, with every problem of the file."""
    notes = Notes()
    root = read_document(document, notes)
    sections = root.items
    reader = Reader(notes, _scope(sections))
    _check_sections(root, reader)
    volumes = declared(sections.get("volumes"), reader, of="a volume", known=VOLUME)
    networks = declared(sections.get("networks"), reader, of="a network", known=NETWORK)
    services = _services(root, reader)
    _check_repositories(services, reader)
    _check_circles(services, reader)
    if notes.problems:
        raise BadCompose(notes.problems, notes.warnings)
    warnings = tuple(sorted(set(notes.warnings)))
    return Composed(services, volumes, networks, warnings, text_of(document))


def commit_of(composed: Composed, version: str) -> str:
    """The identity of a release, from all that it says: 32 hex digits, never digits only."""
    services = [
        [one.name, one.image, one.environment, one.labels, one.composition]
        for one in composed.services
    ]
    contents = [version, services, composed.volumes, composed.networks]
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:32]
    return f"c{digest[1:]}" if digest.isdigit() else digest


def _scope(sections: dict[str, Node]) -> Scope:
    return Scope(
        services=names_in(sections.get("services")),
        volumes=names_in(sections.get("volumes")),
        networks=names_in(sections.get("networks")),
        subnets=subnets_in(sections.get("networks")),
    )


def _check_sections(root: Mapping, reader: Reader) -> None:
    for key, item in root.items.items():
        if key in REFUSED:
            reader.refuse(item, REFUSED[key])
        elif key == "version":
            written = item.written if isinstance(item, Scalar) else kind_of(item)
            if VERSION.fullmatch(written) is None:
                reader.refuse(
                    item, f"the Supervisor reads version 2.x, and this is {quoted(written)}"
                )
        elif key not in SECTIONS and not key.startswith("x-"):
            reader.refuse(item, f"no section of a compose file: {', '.join(sorted(SECTIONS))} are")


def _services(root: Mapping, reader: Reader) -> tuple[ComposedService, ...]:
    section = root.items.get("services")
    if not isinstance(section, Mapping) or not section.items:
        what = "is missing" if section is None else f"is {kind_of(section)}"
        reader.refuse(
            section or root, f"`services` {what}: name at least one service with its image"
        )
        return ()
    if len(section.items) > MAX_SERVICES:
        reader.refuse(
            section,
            f"a release has at most {MAX_SERVICES} services, and this has {len(section.items)}",
        )
    found = [read_service(name, item, reader) for name, item in sorted(section.items.items())]
    return tuple(service for service in found if service is not None)


def _check_repositories(services: tuple[ComposedService, ...], reader: Reader) -> None:
    first: dict[str, ComposedService] = {}
    for service in services:
        other = first.setdefault(repository_of(service.image), service)
        if digest_of(other.image) != digest_of(service.image):
            reader.refuse(
                replace(service, path=f"{service.path}.image"),
                f"the service {quoted(other.name)} has another digest in the same repository, and the Supervisor would"
                f" never pull the second one: {HOW_TO}",
            )


def _check_circles(services: tuple[ComposedService, ...], reader: Reader) -> None:
    """Services that wait for each other never start."""
    waits = {service.name: _waits_for(service) for service in services}
    for service in services:
        seen: set[str] = set()
        ahead = list(waits[service.name])
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                ahead += waits.get(name, [])
        if service.name in seen:
            reader.refuse(service, "this service waits for itself, by depends_on or network_mode")


def _waits_for(service: ComposedService) -> list[str]:
    mode = str(service.composition.get("network_mode", ""))
    shared = [mode.partition(":")[2]] if mode.startswith("service:") else []
    return [*service.composition.get("depends_on", []), *shared]
