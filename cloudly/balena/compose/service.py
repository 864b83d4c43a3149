"""One service of a compose file: its image by digest, environment, labels and composition.

Rules:
- The names of variables and labels are the Supervisor's rule; it rejects the whole target for another one.
- What the Supervisor sets itself, whatever the file says, is refused.
- A network mode that shares or has no network leaves no room for what is about an own one.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any, Final

from cloudly.balena.compose.document import Mapping, Node, Scalar
from cloudly.balena.compose.fields import HERE, LEFT_OUT, PASSED, REFUSED
from cloudly.balena.compose.mounts import check_targets, tmpfs
from cloudly.balena.compose.notes import quoted
from cloudly.balena.compose.values import Pairs, Reader, kind_of, pairs, text
from cloudly.balena.image import BY_DIGEST, MAX_REFERENCE, is_well_formed, without_tag
from interfaces.target_verdict import (
    ENV_NAME,
    ENV_NAME_RULE,
    LABEL_NAME,
    LABEL_NAME_RULE,
    MAX_NAME,
    SERVICE_NAME,
    SERVICE_NAME_RULE,
)

LONGEST_SERVICE: Final = 200
"""As a node is told names (`interfaces.wire.Name`)."""
NEVER_PASSED: Final = frozenset({"BALENA_DEVICE_NAME_AT_INIT", "RESIN_DEVICE_NAME_AT_INIT"})
JOIN_TOKEN: Final = "BASEOS_JOIN_TOKEN"  # noqa: S105 - the name of the variable
API: Final = "io.balena.features.supervisor-api"
API_VARIABLE: Final = re.compile(r"(?:BALENA|RESIN)_SUPERVISOR_(?:API_KEY|PORT|HOST|ADDRESS)")
FEATURES: Final = "io.balena.features."
KNOWN_FEATURES: Final = frozenset(
    FEATURES + name
    for name in (
        "balena-api", "balena-socket", "dbus", "extra-firmware", "firmware", "gpu", "host-os.board-rev",
        "journal-logs", "kernel-modules", "optional", "procfs", "supervisor-api", "sysfs",
    )
)  # fmt: skip
TRUTHY: Final = frozenset({"1", "true", "on"})
SWITCHES: Final = TRUTHY | {"0", "false", "off"}
STRATEGIES: Final = (
    "download-then-kill",
    "kill-then-download",
    "delete-then-download",
    "hand-over",
)
RESERVED: Final = frozenset(
    f"io.{age}.{name}"
    for age in ("balena", "resin")
    for name in ("supervised", "app-id", "app-uuid", "service-id", "service-name")
)
ALONE: Final = {
    "service:": ("ports", "hostname", "dns", "extra_hosts", "mac_address", "networks"),
    "host": ("networks", "mac_address"),
    "none": ("networks",),
    "bridge": ("networks",),
}
"""By network mode: what an engine refuses beside it, or what would never be joined."""


@dataclass(frozen=True, slots=True)
class ComposedService:
    """As the Supervisor's target state wants it; `line` is where the file has it."""

    name: str
    image: str
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    composition: dict[str, Any] = field(default_factory=dict)
    line: int = 0
    path: str = ""


def read_service(name: str, node: Node, reader: Reader) -> ComposedService | None:
    """None when nothing can be made of it; what is wrong with it is noted."""
    if SERVICE_NAME.fullmatch(name) is None or len(name) > LONGEST_SERVICE:
        reader.refuse(node, f"{quoted(name)} is no name of a service: {SERVICE_NAME_RULE}")
    if not isinstance(node, Mapping):
        reader.refuse(node, f"a service is a mapping, and this is {kind_of(node)}")
        return None
    items = node.items
    _check_keys(node, reader)
    image = _image(node, reader)
    labels = _labels(items.get("labels"), reader)
    environment = _environment(items.get("environment"), labels, reader)
    composition = {
        key: found
        for key, reading in PASSED.items()
        if key in items and (found := reading(items[key], reader)) is not None
    }
    _check_network_mode(items, composition, labels, reader)
    mounts = composition.get("volumes", [])
    if "tmpfs" in items:
        mounts = mounts + (tmpfs(items["tmpfs"], reader) or [])
    if mounts:
        check_targets(mounts, items.get("tmpfs", items.get("volumes", node)), reader)
        composition["volumes"] = mounts
    return (
        None
        if image is None
        else ComposedService(name, image, environment, labels, composition, node.line, node.path)
    )


def _check_keys(node: Mapping, reader: Reader) -> None:
    for key, item in node.items.items():
        if key in REFUSED:
            reader.refuse(item, REFUSED[key])
        elif key in LEFT_OUT:
            reader.warn(item, f"left out: {LEFT_OUT[key]}")
        elif key not in PASSED and key not in HERE and not key.startswith("x-"):
            near = difflib.get_close_matches(key, [*PASSED, *HERE], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            reader.refuse(item, f"no field of a service that the Supervisor knows{hint}")


def _image(node: Mapping, reader: Reader) -> str | None:
    if "image" not in node.items:
        if "build" not in node.items:
            reader.refuse(
                node, "a service needs an image, by digest: repository@sha256:<64 hex digits>"
            )
        return None
    at = node.items["image"]
    found = text(at, reader)
    if found is None:
        return None
    if BY_DIGEST.fullmatch(found) is None:
        reader.refuse(
            at,
            f"{quoted(found)} is no image by digest: a tag may change under a release."
            " Write repository@sha256:<64 hex digits>, as `docker image inspect` shows it",
        )
    elif len(found) > MAX_REFERENCE:
        reader.refuse(
            at,
            f"the Supervisor takes at most {MAX_REFERENCE} characters, and this has {len(found)}",
        )
    elif not is_well_formed(found):
        reader.refuse(
            at, f"{quoted(found)}: what stands before the @ is no name that an engine can parse"
        )
    else:
        return without_tag(found)
    return None


def _environment(node: Node | None, labels: dict[str, str], reader: Reader) -> dict[str, str]:
    if node is None or _is_nothing(node, reader):
        return {}
    found = pairs(node, reader, what="a variable")
    _check_names(found, ENV_NAME, ENV_NAME_RULE, reader)
    for name, (_, at) in found.items():
        if name in NEVER_PASSED:
            reader.refuse(at, "the Supervisor sets this one itself, when it makes the container")
        elif API_VARIABLE.fullmatch(name) and _is_on(labels.get(API)):
            reader.refuse(at, f"the Supervisor sets this one itself, because of the label {API}")
        elif name == JOIN_TOKEN:
            reader.warn(
                at,
                "a join token in a release is read by whoever reads the release, and kept with it",
            )
    return {name: held for name, (held, _) in found.items()}


def _labels(node: Node | None, reader: Reader) -> dict[str, str]:
    if node is None or _is_nothing(node, reader):
        return {}
    found = pairs(node, reader, what="a label")
    _check_names(found, LABEL_NAME, LABEL_NAME_RULE, reader)
    for name, (held, at) in found.items():
        feature = name.replace("io.resin.", "io.balena.", 1).replace("resin", "balena")
        if name in RESERVED:
            reader.refuse(at, "the Supervisor sets this label itself")
        elif feature.startswith(FEATURES) and feature not in KNOWN_FEATURES:
            reader.warn(at, "the Supervisor knows no such feature and does nothing about it")
        elif feature.startswith(FEATURES) and held.lower() not in SWITCHES:
            reader.refuse(
                at, 'the Supervisor takes this for off: a feature is switched by "1" or "0"'
            )
        elif feature == "io.balena.update.strategy" and held not in STRATEGIES:
            reader.refuse(
                at, f"the Supervisor knows {', '.join(STRATEGIES)}, and takes another for the first"
            )
    return {name: held for name, (held, _) in found.items()}


def _is_nothing(node: Node, reader: Reader) -> bool:
    """A key without a value, where a mapping is expected."""
    if isinstance(node, Scalar) and not node.written:
        reader.warn(node, "this is empty")
        return True
    return False


def _check_names(found: Pairs, form: re.Pattern[str], rule: str, reader: Reader) -> None:
    for name, (_, at) in found.items():
        if form.fullmatch(name) is None:
            reader.refuse(at, f"the name {quoted(name)} {rule}")
        elif len(name) > MAX_NAME:
            reader.refuse(at, f"this name has more than {MAX_NAME} characters")


def _is_on(held: str | None) -> bool:
    return held is not None and held.lower() in TRUTHY


def _check_network_mode(
    items: dict[str, Node], composition: dict[str, Any], labels: dict[str, str], reader: Reader
) -> None:
    mode = composition.get("network_mode")
    if mode is None:
        return
    kind = "service:" if mode.startswith("service:") else mode
    for key in ALONE[kind]:
        if key in items:
            reader.refuse(items[key], f"this does not go with network_mode {quoted(mode)}")
    if kind in {"service:", "none"} and _is_on(labels.get(API)):
        reader.refuse(
            items["network_mode"],
            f"the label {API} joins another network, which an engine refuses beside {quoted(mode)}",
        )
    if kind in {"host", "none"} and "ports" in items:
        reader.warn(items["ports"], f"nothing is published with network_mode {quoted(mode)}")
