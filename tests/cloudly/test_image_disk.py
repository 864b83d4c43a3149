"""Real images of disks: the boot partition is found, its config.json replaced, and nothing else is touched."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloudly.image import blocks, fat, programs
from cloudly.image.places import ConfigFile, Image, place_of
from cloudly.problems import BadOrder
from tests.cloudly.image_given import STOCK, Disk, disk, tool

NEW = json.dumps({"apiEndpoint": "https://cloudly.example", "x": "y" * 9_000}).encode()


@pytest.mark.parametrize(
    "layout",
    [
        {"table": "gpt", "bits": 16, "label": "resin-boot"},
        {"table": "dos", "bits": 16, "label": "flash-boot"},
        {"table": "dos", "bits": 32, "boot_mb": 40, "logical": True, "label": "balena-boot"},
        {"table": "gpt", "bits": 12, "boot_mb": 4, "label": "RESIN-BOOT"},
        {"table": "gpt", "bits": 32, "boot_mb": 40, "label": "resin-boot"},
    ],
    ids=lambda layout: f"{layout['table']}-fat{layout['bits']}-{layout['label']}",
)
def test_config_json_is_replaced_and_all_other_bytes_of_the_image_stay(
    tmp_path: Path, layout: dict[str, Any]
) -> None:
    made = disk(tmp_path / "os.img", **layout)
    outside, inside = made.hashes()

    place = place_of(made.path)
    before = place.read()
    place.write(NEW)

    assert before is not None
    assert json.loads(before) == STOCK
    assert place.device_type() == "raspberrypi4-64"
    assert made.read() == place.read() == NEW
    assert made.names() == {"config.json", "device-type.json", "bootloader.bin"}
    assert made.read("bootloader.bin") == b"\x7f" * 300_000
    assert made.hashes()[0] == outside
    assert made.hashes()[1] != inside
    assert made.wrong() == ""


def test_it_can_be_done_again_and_again_without_filling_the_partition(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img")

    for round_ in range(8):
        place_of(made.path).write(NEW + b" " * round_ * 3_000)

    assert made.read() == NEW + b" " * 21_000
    assert made.wrong() == ""


def test_an_image_without_a_config_json_gets_one(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img", config=None)

    assert place_of(made.path).read() is None
    place_of(made.path).write(NEW)

    assert made.read() == NEW
    assert made.wrong() == ""


def test_a_rest_of_an_interrupted_write_is_cleared_away(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img")
    made.put("config.json.new", b"half a fi")

    place_of(made.path).write(NEW)

    assert made.names() == {"config.json", "device-type.json", "bootloader.bin"}
    assert made.read() == NEW


# -- which partition


def test_without_a_known_label_the_partition_with_a_config_json_is_meant(tmp_path: Path) -> None:
    assert place_of(disk(tmp_path / "os.img", label="BOOT").path).read() is not None


def test_a_partition_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    empty = disk(tmp_path / "empty.img", label="BOOT", config=None)
    with pytest.raises(BadOrder, match=r"it has 1 \(BOOT, 16 MB\)\. --partition N"):
        place_of(empty.path)
    with pytest.raises(BadOrder, match="no FAT partition 2"):
        place_of(empty.path, partition=2)

    place_of(empty.path, partition=1).write(NEW)

    assert empty.read() == NEW


def test_two_candidates_are_a_question(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img", boot_mb=16)
    second = _second_fat(made, label="flash-boot")

    with pytest.raises(BadOrder, match=r"more than one could be .*resin-boot.*flash-boot"):
        place_of(made.path)

    assert str(place_of(made.path, partition=second)).count("flash-boot") == 1


def _second_fat(made: Disk, *, label: str) -> int:
    parts = json.loads(tool("sfdisk", "--json", made.path))["partitiontable"]["partitions"]
    alone = made.path.with_suffix(".second")
    alone.touch()
    os.truncate(alone, parts[1]["size"] * 512)
    tool("mkfs.vfat", "-n", label, alone)
    with made.path.open("r+b") as file:
        file.seek(parts[1]["start"] * 512)
        file.write(alone.read_bytes())
    return 2


# -- what is no image

PACKED = [
    ("os.img.zip", b"PK\x03\x04", "unzip"),
    ("os.img.gz", b"\x1f\x8b\x08", "gunzip --keep"),
    ("os.img.xz", b"\xfd7zXZ\x00", "unxz --keep"),
    ("os.img.zst", b"\x28\xb5\x2f\xfd", "unzstd"),
    ("os.img.bz2", b"BZh9", "bunzip2 --keep"),
]


@pytest.mark.parametrize(("name", "magic", "command"), PACKED, ids=[one[0] for one in PACKED])
def test_a_packed_image_is_named_with_the_command_that_unpacks_it(
    tmp_path: Path, name: str, magic: bytes, command: str
) -> None:
    file = tmp_path / name
    file.write_bytes(magic + b"\0" * 2_000_000)

    with pytest.raises(BadOrder, match=f"packed .*{command} {file}"):
        place_of(file)


def cut_off(directory: Path) -> Path:
    made = disk(directory / "os.img", table="dos")
    os.truncate(made.path, made.start + 1_000_000)
    return made.path


def without_a_table(directory: Path) -> Path:
    file = directory / "noise.img"
    file.write_bytes(os.urandom(2_000_000))  # noqa: TID251 - noise
    return file


def without_a_fat(directory: Path) -> Path:
    made = disk(directory / "os.img")
    with made.path.open("r+b") as file:
        file.seek(made.start)
        file.write(b"\0" * 512)
    return made.path


def of_large_sectors(directory: Path) -> Path:
    file = directory / "4kn.img"
    file.write_bytes(b"\0" * 4096 + b"EFI PART" + b"\0" * 2_000_000)
    return file


def text(directory: Path) -> Path:
    (directory / "notes.txt").write_text("hello")
    return directory / "notes.txt"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (cut_off, "is cut off: partition 1 ends at byte"),
        (without_a_table, "has no partition table"),
        (without_a_fat, "has no FAT partition"),
        (of_large_sectors, "sectors of 4096 bytes"),
        (text, "neither a config.json nor an image"),
        (lambda d: d / "none.img", "is not there"),
        (lambda d: d, "a folder without a config.json"),
        (lambda _: Path("/dev/null"), "neither a file nor a disk"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, make: Callable[[Path], Path], says: str) -> None:
    with pytest.raises(BadOrder, match=says):
        place_of(make(tmp_path))


def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = disk(tmp_path / "os.img")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sfdisk").symlink_to(str(shutil.which("sfdisk", path="/usr/sbin:/sbin")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(programs, "PATH", str(tmp_path / "bin"))

    with pytest.raises(BadOrder, match=r"mlabel is missing.*apt-get install mtools"):
        place_of(made.path)
    with pytest.raises(BadOrder, match=r"fsck.fat, mcopy are missing.* install dosfstools mtools"):
        programs.need("sfdisk", "mcopy", "fsck.fat")


# -- when writing fails, the old file is there


def fill(made: Disk, *, leave: int) -> None:
    """So much of the partition that only `leave` bytes are free."""
    last = tool("mdir", "-i", made.drive, "::/").decode().strip().splitlines()[-1]
    free = int(last.replace("bytes free", "").replace(" ", ""))
    made.put("filler.bin", b"\x55" * (free - leave))


def test_a_full_partition_keeps_the_old_file_and_not_a_byte_is_changed(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img", boot_mb=4, bits=12)
    fill(made, leave=4_096)
    before = made.hashes()

    with pytest.raises(BadOrder, match=r"the boot partition is full: .* Nothing was changed"):
        place_of(made.path).write(NEW)

    assert made.hashes() == before
    assert json.loads(made.read()) == STOCK


def test_a_read_only_image_is_not_changed_even_by_root(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img")
    made.path.chmod(0o444)
    before = made.hashes()

    with pytest.raises(BadOrder, match=r"is read-only .mode 444.: nothing was changed"):
        place_of(made.path).write(NEW)

    assert made.hashes() == before


def test_an_image_that_somebody_else_changes_is_left_alone(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img")
    with made.path.open("rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)

        with pytest.raises(BadOrder, match="being changed by another process"):
            place_of(made.path).write(NEW)

    assert json.loads(made.read()) == STOCK


def test_a_partition_that_is_damaged_already_is_not_written_to(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img")
    with made.path.open("r+b") as file:  # the first FAT says something else than the second
        file.seek(made.start + 512 * 4 + 40)
        file.write(b"\x99\x99")
    before = made.hashes()

    with pytest.raises(BadOrder, match="the boot partition is damaged already"):
        place_of(made.path).write(NEW)

    assert made.hashes() == before


@pytest.mark.parametrize("fails_at", range(1, 8))
def test_a_write_that_fails_in_the_middle_takes_back_what_it_wrote(
    tmp_path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = disk(tmp_path / "os.img")
    before, real, calls = made.partition(), os.pwrite, 0

    def worn_out(descriptor: int, content: bytes, place: int) -> int:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(5, "Input/output error")
        return real(descriptor, content, place)

    monkeypatch.setattr(os, "pwrite", worn_out)
    with pytest.raises(OSError, match="Input/output error"):
        place_of(made.path).write(NEW)
    monkeypatch.undo()

    assert json.loads(made.read()) == STOCK
    assert made.wrong() == ""
    if fails_at == 1:
        assert made.partition() == before


class PowerCutError(Exception):
    """The medium keeps what it has, and nothing more comes."""


def test_whenever_the_card_is_pulled_out_there_is_an_old_or_a_new_file_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two blocks; the one of the directory is the moment at which the old becomes the new."""
    made, seen = disk(tmp_path / "os.img"), []
    pristine, real = made.path.read_bytes(), os.pwrite

    for survives in range(40):
        made.path.write_bytes(pristine)
        written = 0

        def until_then(descriptor: int, content: bytes, place: int, last: int = survives) -> int:
            nonlocal written
            if written == last:
                raise PowerCutError
            written += 1
            return real(descriptor, content, place)

        monkeypatch.setattr(os, "pwrite", until_then)
        try:
            place_of(made.path).write(NEW)
            break
        except PowerCutError:
            pass
        finally:
            monkeypatch.setattr(os, "pwrite", real)
        found = fat.read(made.path, made.start, "config.json")
        seen.append(
            "new" if found == NEW else "old" if found and json.loads(found) == STOCK else "lost"
        )

    assert made.read() == NEW
    assert "lost" not in seen, seen
    assert seen == sorted(seen, reverse=True), "first the old, then the new"
    assert len(seen) >= 4


# -- a config.json that is a file


def test_a_file_is_replaced_whole_and_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "config.json"
    real.write_text("{}")
    real.chmod(0o640)
    link.symlink_to(real)

    place_of(link).write(NEW)

    assert link.is_symlink()
    assert real.read_bytes() == NEW
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert {one.name for one in tmp_path.iterdir()} == {"real.json", "config.json"}


def test_a_new_file_is_for_its_owner_alone_and_a_mounted_boot_partition_is_found(
    tmp_path: Path,
) -> None:
    place_of(tmp_path / "config.json").write(NEW)

    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o600
    assert place_of(tmp_path).read() == NEW


def test_a_file_is_known_by_what_it_holds_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "device.cfg").write_bytes(b'\n {"a": 1}')

    assert isinstance(place_of(tmp_path / "device.cfg"), ConfigFile)
    assert isinstance(place_of(disk(tmp_path / "os.json.img").path), Image)


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(STOCK))

    with a_full_disk(), pytest.raises(OSError, match="File too large"):
        place_of(file).write(NEW)

    assert json.loads(file.read_text()) == STOCK
    assert [one.name for one in tmp_path.iterdir()] == ["config.json"]


@contextmanager
def a_full_disk() -> Iterator[None]:
    """No file of this process may grow: EFBIG, as ENOSPC would be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_only_blocks_that_differ_are_written(tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img")
    before = made.partition()

    place_of(made.path).write(NEW)

    after = made.partition()
    differ = [
        place for place in range(0, len(before), blocks.BLOCK)
        if before[place : place + blocks.BLOCK] != after[place : place + blocks.BLOCK]
    ]  # fmt: skip
    assert 0 < len(differ) < 12
