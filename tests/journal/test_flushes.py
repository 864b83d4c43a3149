"""What a fact costs the medium: one flush when it is durable, none when it is soon. Counted by the kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journal.given import open_at

FACTS = 200
WRITER = f"""
import os, pathlib, sys
import tests.journal.given as given
journal = given.open_at(pathlib.Path(sys.argv[1]))
os.write(2, b"-- begin --")
for i in range({FACTS}):
    journal.append("a/1", "k", "x", "x", {{"i": i}}, soon=sys.argv[2] == "soon")
os.write(2, b"-- end --")
os._exit(0)
"""


EACH = """
import os, pathlib, sys
import tests.journal.given as given
from journal.facts import Lane
from journal.retention import Limits
journal = given.open_at(pathlib.Path(sys.argv[1]))
append, beat = journal.append, lambda: given.beat(journal, 1)

def ack():
    for lane in Lane:
        head = journal.durable_head(lane)
        journal.ack(lane, head.seq, head.hash)

def forget(limits, dropped=0):
    assert any(journal.retain(limits).dropped >= dropped for _ in range(9)), "nothing was forgotten"
    assert journal.base(Lane.LOG).seq

acts = {
    "the first fact": lambda: append("a/1", "offered", "new", "offered"),
    "a fact": lambda: append("a/1", "staged", "offered", "staged"),
    "a fact that opens a stream": lambda: append("a/2", "offered", "new", "offered"),
    "a final fact": lambda: append("a/1", "failed", "staged", "failed", final=True),
    "soon facts": beat,
    "a fact after soon facts": lambda: append("a/2", "staged", "offered", "staged"),
    "soon facts, once more": beat,
    "sync": journal.sync,
    "sync, with nothing to sync": journal.sync,
    "ack": ack,
    "retain, with nothing to forget": lambda: journal.retain(Limits()),
    "forget what is acked": lambda: forget(Limits(keep_log=1, step=2)),
    "more facts": lambda: given.beat(journal, 20),
    "drop what is not acked": lambda: forget(Limits(max_bytes=0), dropped=1),
}
for name, act in acts.items():
    os.write(2, f"-- {name} --".encode())
    act()
os.write(2, b"-- end --")
os._exit(0)
"""


def traced(place: Path, program: str, *words: str) -> str:
    """The writes and syncs of that program, as strace says them."""
    if shutil.which("strace") is None:
        pytest.skip("strace is needed to count system calls")
    told = place / "trace"
    trace = "trace=write,pwrite64,fsync,fdatasync,unlink"
    strace = ["strace", "-f", "-s", "64", "-o", str(told), "-e", trace]
    run = subprocess.run(
        [*strace, sys.executable, "-c", program, str(place), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in run.stderr.lower():
        pytest.skip("strace may not trace here")
    assert run.returncode == 0, run.stderr
    return told.read_text()


def calls_per_fact(place: Path, how: str) -> dict[str, float]:
    between = traced(place, WRITER, how).split("-- begin --")[1].split("-- end --")[0]
    names = re.findall(r"^\d+ +(\w+)\(", between, re.MULTILINE)
    return {name: names.count(name) / FACTS for name in set(names)}


def test_a_durable_fact_is_one_flush_and_a_soon_fact_none(place: Path) -> None:
    open_at(place).close()

    durable = calls_per_fact(place, "durable")
    soon = calls_per_fact(place, "soon")

    # A checkpoint, every 256 pages, adds two.
    assert 1.0 <= durable["fdatasync"] <= 1.1
    assert soon.get("fdatasync", 0) <= 0.05
    # A frame is two writes; psow=0 repeats it until a sector is full (journal note, 4.1).
    assert durable["pwrite64"] < 6.5
    assert not {"fsync", "unlink"} & (set(durable) | set(soon))


def test_each_thing_that_a_journal_does_has_its_number_of_flushes(place: Path) -> None:
    open_at(place).close()

    parts = re.split(r'"-- (.*?) --"', traced(place, EACH))

    syncs = {
        name: len(re.findall(r"sync\(", calls))
        for name, calls in zip(parts[1::2], parts[2::2], strict=True)
    }
    del syncs["end"]
    assert syncs == {
        "the first fact": 1,
        "a fact": 1,
        "a fact that opens a stream": 1,
        "a final fact": 1,
        "soon facts": 0,
        "a fact after soon facts": 1,
        "soon facts, once more": 0,
        "sync": 1,
        "sync, with nothing to sync": 0,
        "ack": 0,
        "retain, with nothing to forget": 0,
        "forget what is acked": 0,
        "more facts": 0,
        "drop what is not acked": 1,
    }
