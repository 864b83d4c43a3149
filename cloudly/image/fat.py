"""One FAT file system inside an image, by mtools: no mount, no root.

`at` is where it begins, in bytes. Nothing secret is an argument: contents travel by pipes.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloudly.image.programs import ProgramFailed, run
from cloudly.problems import BadOrder

SECTOR_SIZES = (512, 1024, 2048, 4096)


def looks_like_fat(sector: bytes) -> bool:
    """By its boot sector (Microsoft's FAT specification, section 3.1)."""
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa":
        return False
    size = int.from_bytes(sector[11:13], "little")
    per_cluster, fats = sector[13], sector[16]
    is_power = per_cluster > 0 and per_cluster & (per_cluster - 1) == 0
    named = sector[54:57] == b"FAT" or sector[82:85] == b"FAT"
    return size in SECTOR_SIZES and is_power and fats in (1, 2) and named


def label(image: Path, at: int) -> str:
    """Empty: it has none."""
    said = run("mlabel", "-s", "-i", _drive(image, at), "::").decode("utf-8", "replace")
    found = re.search(r"Volume label is (.+?)(?: \(abbr=.*\))?\s*$", said)
    return found[1].strip() if found else ""


def names(image: Path, at: int) -> list[str]:
    """What is in its root."""
    try:
        said = run("mdir", "-a", "-b", "-i", _drive(image, at), "::/").decode("utf-8", "replace")
    except ProgramFailed as problem:
        if "not found" in problem.said.lower():  # an empty root
            return []
        raise
    return [
        line.strip().removeprefix("::/").rstrip("/") for line in said.splitlines() if line.strip()
    ]


def has(image: Path, at: int, name: str) -> bool:
    return name.lower() in (one.lower() for one in names(image, at))


def read(image: Path, at: int, name: str) -> bytes | None:
    """A file of its root; None: there is none. Raises BadOrder."""
    if not has(image, at, name):
        return None
    return run("mcopy", "-n", "-i", _drive(image, at), f"::/{name}", "-")


def write_new(image: Path, at: int, name: str, content: bytes) -> None:
    """A file that was not there. Raises BadOrder, e.g. when the file system is full."""
    said = ""
    try:
        run("mcopy", "-i", _drive(image, at), "-", f"::/{name}", stdin=content)
    except ProgramFailed as problem:
        said = problem.said
    found = read(image, at, name)
    if found == content:
        return
    if found is None or len(found) < len(
        content
    ):  # of a pipe it writes what fits, and says nothing
        raise BadOrder(
            f"the boot partition is full: {len(content)} bytes do not fit beside the old file"
            f"{f' ({said})' if said else ''}. Nothing was changed; make room in it"
        )
    raise BadOrder(f"mtools did not write {name} as it should be. Nothing was changed")


def remove(image: Path, at: int, name: str) -> None:
    if has(image, at, name):
        run("mdel", "-i", _drive(image, at), f"::/{name}")


def rename(image: Path, at: int, name: str, new: str) -> None:
    run("mren", "-i", _drive(image, at), f"::/{name}", f"::/{new}")


def what_is_wrong(partition: Path) -> str:
    """What fsck says of a partition that is a file of its own; empty: it is clean."""
    try:
        run("fsck.fat", "-n", str(partition))
    except ProgramFailed as problem:
        return problem.said or "it is not clean"
    return ""


def _drive(image: Path, at: int) -> str:
    return f"{image}@@{at}" if at else str(image)
