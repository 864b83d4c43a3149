"""What a service mounts: named volumes and memory, in the form the Supervisor takes.

Rules (read in the Supervisor's source, compose/service.ts and compose/types/service.ts):
- It drops bind mounts of host paths; what of the host a service may have, it maps by `io.balena.features.*` labels.
- It hands `tmpfs: /tmp:size=8m` to the engine as a path with that whole name; only the long form carries a size.
- It knows the long form's `readOnly` and no `read_only`; what it does not know there it drops.
- What the engine does not report back (a false, a 0) would make it recreate the container for ever: left out.
"""

from __future__ import annotations

import posixpath
from typing import Any, Final

from cloudly.balena.compose.document import Mapping, Node, Scalar, Sequence
from cloudly.balena.compose.notes import quoted
from cloudly.balena.compose.values import (
    EXACT,
    Reader,
    Reading,
    bytes_of,
    flag,
    kind_of,
    mapping,
    text,
    text_or_texts,
)

LOCKS: Final = ("/tmp/balena", "/tmp/resin")  # noqa: S108 - paths inside the container, as balena has them
MODES: Final = frozenset({"ro", "rw", "nocopy", "z", "Z"})
HOST_PATHS: Final = (
    "the Supervisor drops bind mounts of host paths: use a named volume, or a label such as"
    " io.balena.features.dbus for what it maps itself"
)
ANONYMOUS: Final = (
    "a volume without a name loses what it holds at each update, and stays on the disk:"
    " name it and declare it under `volumes`, or use tmpfs"
)


def volumes(node: Node, reader: Reader) -> list[str | dict[str, Any]] | None:
    if not isinstance(node, Sequence):
        reader.refuse(node, f"this must be a list, and is {kind_of(node)}")
        return None
    found = [_volume(item, reader) for item in node.items]
    return [mount for mount in found if mount is not None]


def tmpfs(node: Node, reader: Reader) -> list[str | dict[str, Any]] | None:
    """Always as entries of `volumes`, where a size can be said."""
    found = text_or_texts(node, reader)
    if found is None:
        return None
    mounts = [_memory(one, node, reader) for one in found]
    return [mount for mount in mounts if mount is not None]


def check_targets(mounts: list[str | dict[str, Any]], node: Node, reader: Reader) -> None:
    """One place, one mount: an engine refuses a second one, and the Supervisor mounts its locks in two."""
    taken: set[str] = set()
    for mount in mounts:
        target = posixpath.normpath(
            mount.split(":")[1] if isinstance(mount, str) else mount["target"]
        )
        if target in LOCKS:
            reader.refuse(node, f"the Supervisor mounts its update locks at {target} by itself")
        elif target in taken:
            reader.refuse(node, f"two mounts at {quoted(target)}: an engine takes one")
        taken.add(target)


def _volume(node: Node, reader: Reader) -> str | dict[str, Any] | None:
    if isinstance(node, Mapping):
        return _long(node, reader)
    found = text(node, reader)
    if found is None:
        return None
    source, colon, rest = found.partition(":")
    target, _, mode = rest.partition(":")
    if not colon:
        reader.refuse(node, ANONYMOUS)
    elif source.startswith(("/", ".", "~", "\\")):
        reader.refuse(node, HOST_PATHS)
    elif mode and not set(mode.split(",")) <= MODES:
        reader.refuse(node, f"the mode {quoted(mode)} is not of {', '.join(sorted(MODES))}")
    elif rest.endswith(":"):
        reader.refuse(node, "nothing stands behind the last colon")
    elif _is_declared(source, node, reader) and _is_place(target, node, reader):
        return found
    return None


def _is_declared(source: str, node: Node, reader: Reader) -> bool:
    if source not in reader.scope.volumes:
        reader.refuse(
            node, f"the volume {quoted(source)} is not declared under the file's `volumes`"
        )
        return False
    return True


def _is_place(target: str, node: Node, reader: Reader) -> bool:
    if not target.startswith("/") or posixpath.normpath(target).strip("/") == "":
        reader.refuse(
            node, f"{quoted(target)} is no absolute path in the container, or is all of it"
        )
        return False
    return True


def _long(node: Mapping, reader: Reader) -> dict[str, Any] | None:
    kind = node.items.get("type")
    what = kind.written if isinstance(kind, Scalar) else ""
    if what not in {"volume", "tmpfs"}:
        place = kind or node
        reader.refuse(
            place, HOST_PATHS if what == "bind" else "the type of a mount is volume or tmpfs"
        )
        return None
    before = len(reader.notes.problems)
    known = _VOLUME if what == "volume" else _TMPFS
    read = mapping(node, reader, known, of=f"a {what} mount")
    if len(reader.notes.problems) > before:
        return None
    if not _is_place(read.get("target", ""), node, reader):
        return None
    if what == "volume":
        if "source" not in read:
            reader.refuse(node, ANONYMOUS)
            return None
        if not _is_declared(read["source"], node, reader):
            return None
    return _as_the_supervisor_reads(read)


def _as_the_supervisor_reads(read: dict[str, Any]) -> dict[str, Any]:
    mount: dict[str, Any] = {key: read[key] for key in ("type", "source", "target") if key in read}
    if read.get("read_only"):
        mount["readOnly"] = True
    if read.get("volume", {}).get("nocopy"):
        mount["volume"] = {"nocopy": True}
    if read.get("tmpfs", {}).get("size"):
        mount["tmpfs"] = {"size": read["tmpfs"]["size"]}
    return mount


def _size(node: Node, reader: Reader) -> int | None:
    size = bytes_of(node.written) if isinstance(node, Scalar) else None
    if size is None or size > EXACT:
        reader.refuse(node, "this must be a whole number of bytes, or such as 8m")
        return None
    return size


def _nocopy(node: Node, reader: Reader) -> dict[str, Any]:
    return mapping(node, reader, {"nocopy": flag}, of="`volume` of a mount")


def _tmpfs_size(node: Node, reader: Reader) -> dict[str, Any]:
    return mapping(node, reader, {"size": _size}, of="`tmpfs` of a mount")


_VOLUME: Final[dict[str, Reading]] = {
    "type": text,
    "source": text,
    "target": text,
    "read_only": flag,
    "volume": _nocopy,
}
_TMPFS: Final[dict[str, Reading]] = {
    "type": text,
    "target": text,
    "read_only": flag,
    "tmpfs": _tmpfs_size,
}


def _memory(found: str, node: Node, reader: Reader) -> dict[str, Any] | None:
    target, _, options = found.partition(":")
    mount: dict[str, Any] = {"type": "tmpfs", "target": target}
    for option in filter(None, options.split(",")):
        name, _, size = option.partition("=")
        if name == "size" and 0 < (bytes_of(size) or 0) <= EXACT:
            mount["tmpfs"] = {"size": bytes_of(size)}
        elif option != "rw":
            reader.refuse(
                node,
                f"the Supervisor cannot say {quoted(option)} of a tmpfs, only its size (such as size=8m):"
                " give the directory its mode and owner in the image",
            )
            return None
    return mount if _is_place(target, node, reader) else None
