"""The hash chain of a lane: each fact's hash covers all of it and the hash before. Cloudly verifies with this file.

A chain shows any change, loss or reordering inside the journal. A lost tail shows only against a position held
elsewhere: what Cloudly has acked. Source of the choice: of 20 single flipped bits in a database page SQLite's own
integrity_check saw 0, the chain 20 (journal note, 4.5).
"""

from __future__ import annotations

from hashlib import sha256


def genesis(epoch: str, lane: str) -> bytes:
    """The hash before the first fact: it ties a chain to one life of one journal and to one lane."""
    return sha256(f"baseos journal 1 {epoch} {lane}".encode()).digest()


def link(  # noqa: PLR0913 - a fact has as many fields, and each is covered
    prev: bytes,
    *,
    lane: str,
    seq: int,
    n: int,
    stream: str,
    kind: str,
    src: str,
    dst: str,
    at_ms: int,
    boot_id: str,
    mono_ms: int,
    skew_ms: int | None = None,
    data: str,
) -> bytes:
    """The hash of a fact. Numbers and lengths come first, so that no two facts can share one text.

    Where the skew is unknown it takes no place, as before there was one.
    """
    lane = lane[:]  # a plain str: an enum's own way into a text takes a tenth of all this
    known = "" if skew_ms is None else f"skew {skew_ms} "
    text = (
        f"{known}{seq} {n} {at_ms} {mono_ms} {len(lane)} {len(stream)} {len(kind)} {len(src)} {len(dst)} "
        f"{len(boot_id)} {lane}{stream}{kind}{src}{dst}{boot_id}{data}"
    )
    return sha256(prev + text.encode("utf-8", "surrogatepass")).digest()
