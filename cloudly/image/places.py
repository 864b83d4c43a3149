"""Where a config.json may lie: a file, the root of a mounted boot partition, or inside an image or a medium.

Rules:
- What is there is read whole before anything is written, and read back after.
- A packed image is not unpacked by us: the error says how.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloudly.durable import write_durably
from cloudly.image import blocks, fat
from cloudly.image.config_json import MAX_BYTES, NAME
from cloudly.image.partitions import Partition, boot_partition
from cloudly.image.programs import need
from cloudly.problems import BadOrder

DEVICE_TYPE = "device-type.json"
NEW = "config.json.new"
PACKED = {
    b"PK\x03\x04": ("zip", "unzip {0}"),
    b"\x1f\x8b": ("gzip", "gunzip --keep {0}"),
    b"\xfd7zXZ": ("xz", "unxz --keep {0}"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd {0}"),
    b"BZh": ("bzip2", "bunzip2 --keep {0}"),
    b"7z\xbc\xaf": ("7z", "7z x {0}"),
}


class Place(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def said(self) -> str:
        """Where it is, for people."""

    def read(self) -> bytes | None:
        """config.json as it is; None: there is none. Raises BadOrder, OSError."""

    def device_type(self) -> str | None:
        """What the image says of itself; None: it says nothing."""

    def write(self, content: bytes) -> None:
        """Replace config.json, or leave it as it was. Raises BadOrder, OSError."""

    @property
    def is_open_to_others(self) -> bool:
        """Whether other users of this machine can read it."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    path: Path
    kind: str = "file"

    @property
    def said(self) -> str:
        return str(self.path)

    def read(self) -> bytes | None:
        try:
            with self.path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None

    def device_type(self) -> str | None:
        try:
            return _slug((self.path.parent / DEVICE_TYPE).read_bytes())
        except OSError:
            return None

    def write(self, content: bytes) -> None:
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except FileNotFoundError:
            mode = 0o600
        if not mode & 0o222:
            raise BadOrder(f"{self.path} is read-only (mode {mode:o}): nothing was changed")
        write_durably(self.path, content, mode=mode)

    @property
    def is_open_to_others(self) -> bool:
        return _is_open(self.path)


@dataclass(frozen=True, slots=True)
class Image:
    path: Path
    partition: Partition
    kind: str = "image"

    @property
    def said(self) -> str:
        return f"{self.path}, partition {self.partition}"

    def read(self) -> bytes | None:
        return fat.read(self.path, self.partition.start, NAME)

    def device_type(self) -> str | None:
        raw = fat.read(self.path, self.partition.start, DEVICE_TYPE)
        return None if raw is None else _slug(raw)

    def write(self, content: bytes) -> None:
        need("fsck.fat")
        with blocks.opened(self.path) as image:
            blocks.change(
                image,
                self.partition.start,
                self.partition.size,
                [lambda copy: _put(copy, content), lambda copy: _swap(copy, content)],
            )

    @property
    def is_open_to_others(self) -> bool:
        return _is_open(self.path)


def place_of(target: Path, *, partition: int | None = None) -> Place:
    """What TARGET is. Raises BadOrder, OSError."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        if target.suffix == ".json" and target.parent.is_dir():
            return ConfigFile(target)
        raise BadOrder(f"{target} is not there") from None
    if stat.S_ISDIR(mode):
        if not (target / NAME).is_file():
            raise BadOrder(
                f"{target} is a folder without a {NAME}: is the boot partition mounted there?"
            )
        return ConfigFile((target / NAME).resolve())
    if stat.S_ISBLK(mode):
        return Image(target, boot_partition(target, number=partition))
    if not stat.S_ISREG(mode):
        raise BadOrder(f"{target} is neither a file nor a disk")
    return _of_file(target, partition)


def _of_file(target: Path, partition: int | None) -> Place:
    with target.open("rb") as file:
        head = file.read(1024)
    for magic, (packing, command) in PACKED.items():
        if head.startswith(magic):
            raise BadOrder(
                f"{target} is packed ({packing}), and an image can be changed unpacked only:"
                f" {command.format(_quoted(target))}"
            )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or target.suffix == ".json":
        return ConfigFile(target.resolve())
    if head[510:512] == b"\x55\xaa" or target.stat().st_size > MAX_BYTES:
        return Image(target, boot_partition(target, number=partition))
    raise BadOrder(f"{target} is neither a config.json nor an image of a disk")


def _put(copy: Path, content: bytes) -> None:
    """The new file beside the old one."""
    if wrong := fat.what_is_wrong(copy):
        raise BadOrder(
            f"the boot partition is damaged already ({wrong}), and writing could make it worse."
            " Nothing was changed: take a fresh copy of the image, or mend it with fsck.fat"
        )
    fat.remove(copy, 0, NEW)  # of a time when the power went
    fat.write_new(copy, 0, NEW, content)


def _swap(copy: Path, content: bytes) -> None:
    """The new one takes the old one's name; what came of it is read and checked before it reaches the image."""
    fat.remove(copy, 0, NAME)
    fat.rename(copy, 0, NEW, NAME)
    if fat.read(copy, 0, NAME) != content:
        raise BadOrder(f"mtools did not write {NAME} as it should be. Nothing was changed")
    if wrong := fat.what_is_wrong(copy):
        raise BadOrder(f"mtools left a damaged file system ({wrong}). Nothing was changed")


def _is_open(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o077)


def _slug(raw: bytes) -> str | None:
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    slug = found.get("slug") if isinstance(found, dict) else None
    return slug if isinstance(slug, str) and slug else None


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
