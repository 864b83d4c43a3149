"""What happens to files on flash: each returns False when there was nothing to damage."""

from __future__ import annotations

import random  # noqa: TID251 - a trace is made from a seed
from collections.abc import Callable
from pathlib import Path

PAGE = 4096


def _pages(home: Path) -> list[int]:
    """The places of pages that hold something."""
    content = (home / "journal.db").read_bytes()
    whole = range(0, len(content), PAGE)
    return [at for at in whole if any(content[at : at + PAGE])]


def _overwrite(file: Path, at: int, content: bytes) -> None:
    with file.open("r+b") as disk:
        disk.seek(at)
        disk.write(content)


def flip_a_bit(home: Path, rng: random.Random) -> bool:
    file = home / "journal.db"
    at = rng.choice(_pages(home)) + rng.randrange(PAGE)
    byte = file.read_bytes()[at]
    _overwrite(file, at, bytes([byte ^ (1 << rng.randrange(8))]))
    return True


def zero_a_page(home: Path, rng: random.Random) -> bool:
    _overwrite(home / "journal.db", rng.choice(_pages(home)), bytes(PAGE))
    return True


def cut_the_file(home: Path, rng: random.Random) -> bool:
    file = home / "journal.db"
    size = file.stat().st_size
    with file.open("r+b") as disk:
        disk.truncate(rng.randrange(size // PAGE) * PAGE)
    return True


def empty_the_file(home: Path, _rng: random.Random) -> bool:
    (home / "journal.db").write_bytes(b"")
    return True


def fill_with_nulls(home: Path, _rng: random.Random) -> bool:
    file = home / "journal.db"
    file.write_bytes(bytes(file.stat().st_size))
    return True


def lose_the_wal(home: Path, _rng: random.Random) -> bool:
    wal = home / "journal.db-wal"
    if not wal.exists():
        return False
    wal.unlink()
    return True


def tear_the_wal(home: Path, rng: random.Random) -> bool:
    wal = home / "journal.db-wal"
    if not wal.exists() or wal.stat().st_size <= PAGE:
        return False
    with wal.open("r+b") as disk:
        disk.truncate(rng.randrange(wal.stat().st_size))
    return True


DAMAGES: dict[str, Callable[[Path, random.Random], bool]] = {
    "bit-flipped": flip_a_bit,
    "page-zeroed": zero_a_page,
    "truncated": cut_the_file,
    "emptied": empty_the_file,
    "nulls": fill_with_nulls,
    "wal-lost": lose_the_wal,
    "wal-torn": tear_the_wal,
}
