"""Finding the boot partition of an image or a medium: the FAT that balenaOS mounts at /mnt/boot.

Rules:
- sfdisk reads the table (MBR with logical partitions, GPT); what is a FAT is told by its own first sector.
- Its label says which one it is; without a known label, the only FAT that has a config.json. Two are a question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cloudly.image import fat
from cloudly.image.config_json import NAME
from cloudly.image.programs import ProgramFailed, run
from cloudly.problems import BadOrder

LABELS = ("resin-boot", "balena-boot", "flash-boot")
"""flash-boot: of an image that installs the real one, and takes its config.json along."""


@dataclass(frozen=True, slots=True)
class Partition:
    number: int
    start: int
    """Bytes from the beginning of the image."""
    size: int
    """Bytes."""
    label: str = ""

    def __str__(self) -> str:
        return f"{self.number} ({self.label or 'without a label'}, {self.size // 1_000_000} MB)"


def boot_partition(image: Path, *, number: int | None = None) -> Partition:
    """The one with config.json. Raises BadOrder."""
    found = fat_partitions(image)
    if number is not None:
        for one in found:
            if one.number == number:
                return one
        raise BadOrder(f"{image} has no FAT partition {number}; it has {_listed(found)}")
    if not found:
        raise BadOrder(f"{image} has no FAT partition: that is no image of balenaOS")
    named = [one for one in found if one.label.lower() in LABELS]
    candidates = named or [one for one in found if fat.has(image, one.start, NAME)]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise BadOrder(
            f"{image}: none of its FAT partitions is labelled {', '.join(LABELS)} or has a {NAME};"
            f" it has {_listed(found)}. --partition N says which one it is"
        )
    raise BadOrder(
        f"{image}: more than one could be the boot partition: {_listed(candidates)}."
        " --partition N says which one it is"
    )


def fat_partitions(image: Path) -> list[Partition]:
    """All of them, in the table's order. Raises BadOrder."""
    found = []
    with image.open("rb", buffering=0) as file:
        end = file.seek(0, 2)
        for one in _table(image):
            if one.start + one.size > end:
                raise BadOrder(
                    f"{image} is cut off: partition {one.number} ends at byte"
                    f" {one.start + one.size}, the file at {end}. Was it unpacked whole?"
                )
            file.seek(one.start)
            if fat.looks_like_fat(file.read(512)):
                label = fat.label(image, one.start)
                found.append(Partition(one.number, one.start, one.size, label))
    return found


def _table(image: Path) -> list[Partition]:
    try:
        table = json.loads(run("sfdisk", "--json", str(image)))["partitiontable"]
    except ProgramFailed as problem:
        raise BadOrder(_no_table(image, problem.said)) from None
    if table.get("unit", "sectors") != "sectors":
        raise BadOrder(f"{image}: its table counts in {table['unit']}, not in sectors")
    sector = int(table.get("sectorsize", 512))
    return [
        Partition(number, int(one["start"]) * sector, int(one["size"]) * sector)
        for number, one in (
            (_number(str(entry["node"]), place), entry)
            for place, entry in enumerate(table.get("partitions", []), 1)
        )
    ]


def _number(node: str, place: int) -> int:
    """`/tmp/some.img5`, `/dev/mmcblk0p5`: what stands at its end; an image's own name may end in digits too."""
    digits = node[len(node.rstrip("0123456789")) :]
    return int(digits[-3:]) if digits and len(digits) <= 3 else place


def _no_table(image: Path, said: str) -> str:
    with image.open("rb") as file:
        file.seek(4096)
        if file.read(8) == b"EFI PART":
            return (
                f"{image} is for a medium with sectors of 4096 bytes: write it to the medium, and"
                " configure that"
            )
    return f"{image} has no partition table that sfdisk can read: {said}"


def _listed(partitions: list[Partition]) -> str:
    return ", ".join(map(str, partitions)) or "none"
