"""A power cut, as near as one machine comes to it: an ext4 that is shut down under the writer without flushing its log.

Whatever was not synced is gone then. The journal note measured this over thousands of cuts; here are a few of them each
time, with the planted defect that takes `soon` facts for durable ones and must be caught.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from journal.facts import Lane
from journal.recall import recall
from journal.verify import verify
from tests.journal.given import BEATING, open_at

pytestmark = pytest.mark.slow

FS_IOC_SHUTDOWN, WITHOUT_FLUSHING_THE_LOG = 0x8004587D, 2  # include/uapi/linux/fs.h, ext4.h

WRITER = """
import pathlib, sys
import tests.journal.given as given
from journal.facts import Lane
from journal.recall import freezer
from journal.retention import Limits
little = Limits(max_bytes=0, keep_log=20, keep_core=30, keep_attempts=3, step=20)
journal = given.open_at(pathlib.Path(sys.argv[1]))
attempt = int(journal.next_stream_name("app-update").rpartition("/")[2])
while True:
    given.write_story(journal, attempt=attempt)
    attempt += 1
    print("core", journal.durable_head(Lane.CORE).seq, flush=True)
    given.beat(journal, 3)
    head = journal.head(Lane.LOG) if sys.argv[2] == "soon-is-durable" else journal.durable_head(Lane.LOG)
    print("log", head.seq, flush=True)
    if sys.argv[2] == "forgetting":
        journal.ack(Lane.CORE, *journal.durable_head(Lane.CORE))
        while journal.retain(little, freezer(journal, given.MACHINES)).more:
            pass
        print("base", journal.base(Lane.LOG).seq, flush=True)
    if sys.argv[2] == "soon-is-durable":
        sys.stdin.readline()
"""


@dataclass
class Disk:
    """An ext4 of its own in a file."""

    image: Path
    at: Path

    def make(self) -> bool:
        self.at.mkdir()
        with self.image.open("wb") as image:
            image.truncate(48 << 20)
        made = subprocess.run(
            ["mkfs.ext4", "-q", str(self.image)], capture_output=True, check=False
        )
        return made.returncode == 0 and self.mount()

    def mount(self) -> bool:
        mount = ["mount", "-o", "loop,noatime", str(self.image), str(self.at)]
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def cut_the_power(self) -> None:
        root = os.open(self.at, os.O_RDONLY)
        fcntl.ioctl(root, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_LOG))
        os.close(root)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.at)], check=False, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk.img", tmp_path / "disk")
    if os.geteuid() != 0 or not disk.make():
        pytest.skip("a disk of its own needs root, mkfs.ext4 and a loop device")
    yield disk
    disk.unmount()


def lose_power(disk: Disk, how: str, *, lines: int) -> tuple[dict[str, int], dict[str, int]]:
    """What the writer had been told was durable when the power went, and what is there afterwards."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(disk.at), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdin is not None
    told = {}
    for _ in range(lines):
        lane, seq = writer.stdout.readline().split()
        told[lane] = int(seq)
    # Said before the cut. What is said during it does not count: a sync in flight may return 0 there.
    disk.cut_the_power()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    writer.stdin.close()
    disk.unmount()
    assert disk.mount()
    with open_at(disk.at) as journal:
        assert verify(journal).ok
        there = {lane.value: journal.head(lane).seq for lane in Lane}
    return told, there


def test_what_was_durable_is_there_after_a_power_cut(disk: Disk) -> None:
    before = 0
    for cut in range(12):
        told, there = lose_power(disk, "right", lines=2 + 6 * (cut % 5))

        assert told["core"] > before, "the writer made no progress: nothing was tested"
        assert there["core"] >= told["core"]
        assert there["log"] >= told["log"]
        before = there["core"]


def test_what_was_forgotten_before_its_ack_is_told_after_a_power_cut(disk: Disk) -> None:
    """A drop is durable with its tombstone; what was acked may be there again, and then it is whole."""
    dropped = 0
    for cut in range(8):
        told, there = lose_power(disk, "forgetting", lines=30 + 3 * (cut % 4))

        assert told["base"] > 0, "nothing was forgotten: nothing was tested"
        assert there["core"] >= told["core"]
        assert there["log"] >= told["log"]
        with open_at(disk.at) as journal:
            gone = journal.oldest(Lane.LOG) - 1
            stones = journal.tombstones(Lane.LOG)
            assert gone >= told["base"], "a drop that was told came back"
            assert [(stone.first_seq, stone.last_seq) for stone in stones] == [(1, gone)]
            assert recall(journal, "heartbeat/1", BEATING).believed > 0
        dropped = gone
    assert dropped > 100


def test_soon_facts_taken_for_durable_ones_are_lost_by_that_cut(disk: Disk) -> None:
    told, there = lose_power(disk, "soon-is-durable", lines=2)

    assert there["core"] >= told["core"]
    assert there["log"] < told["log"] == 6
