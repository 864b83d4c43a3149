"""A commit that failed has an unknown outcome: the journal then refuses everything, and opening again decides."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from journal.facts import Lane
from journal.journal import Journal
from journal.problems import WriteFailed
from journal.verify import verify
from tests.journal.given import everything, open_at, tampering, write_story


@contextlib.contextmanager
def no_byte_may_be_written() -> Iterator[None]:
    """The kernel refuses every write of this process to a file (EFBIG); Python ignores the signal that goes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("final", [False, True], ids=["one-statement", "transaction"])
def test_after_a_failed_commit_everything_is_refused_until_it_is_opened_again(
    journal: Journal, place: Path, *, final: bool
) -> None:
    written = write_story(journal, upto=3)

    with no_byte_may_be_written(), pytest.raises(WriteFailed, match="outcome is unknown"):
        journal.append("app-update/1", "succeeded", "applying", "succeeded", final=final)

    for refused in (
        lambda: write_story(journal, attempt=2),
        journal.facts,
        lambda: journal.ack(Lane.CORE, 1, written[0].hash),
        journal.open_streams,
    ):
        with pytest.raises(WriteFailed, match="close it and open it again"):
            refused()

    journal.close()
    with open_at(place) as again:
        assert everything(again)[:3] == written
        assert verify(again).ok
        assert write_story(again, attempt=2)


def test_a_failed_ack_is_a_failed_commit(journal: Journal) -> None:
    (fact,) = write_story(journal, upto=1)

    with no_byte_may_be_written(), pytest.raises(WriteFailed):
        journal.ack(Lane.CORE, 1, fact.hash)
    with pytest.raises(WriteFailed):
        journal.append("app-update/1", "staged", "offered", "staged")


def test_a_foreign_writer_is_noticed_before_it_can_be_overwritten(
    journal: Journal, place: Path
) -> None:
    write_story(journal, upto=1)
    with tampering(place) as foreign:
        foreign.execute(
            "INSERT INTO core SELECT seq + 1, n + 1, stream, kind, src, dst, at_ms, boot, mono_ms,"
            " data, hash, skew_ms FROM core"
        )

    with pytest.raises(WriteFailed, match="SQLITE_CONSTRAINT"):
        journal.append("app-update/1", "staged", "offered", "staged")


SYNC_FAILS = """
import pathlib, sys
import tests.journal.given as given
from journal.problems import WriteFailed
journal = given.open_at(pathlib.Path(sys.argv[1]))
acknowledged = 0
try:
    for attempt in range(1, 100):
        given.write_story(journal, attempt=attempt, upto=1)
        acknowledged += 1
except WriteFailed as problem:
    print(acknowledged, problem, flush=True)
import os; os._exit(9)
"""


def test_when_the_medium_cannot_sync_no_acknowledged_fact_is_lost(place: Path) -> None:
    open_at(place).close()
    if shutil.which("strace") is None:
        pytest.skip("strace is needed to make fdatasync fail")
    inject = "inject=fdatasync:error=EIO:when=20+"
    wal = str(place / "journal.db-wal")
    strace = ["strace", "-qq", "-o", "/dev/null", "-f", "-P", wal, "-e", inject]
    run = subprocess.run(
        [*strace, sys.executable, "-c", SYNC_FAILS, str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in run.stderr.lower():
        pytest.skip("strace may not trace here")

    acknowledged, said = run.stdout.split(" ", 1)

    assert "SQLITE_IOERR_FSYNC" in said, run
    with open_at(place) as again:
        there = again.head(Lane.CORE).seq
        # One more than acknowledged is allowed: that is what an unknown outcome means.
        assert int(acknowledged) <= there <= int(acknowledged) + 1
        assert verify(again).ok
