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


def calls_per_fact(place: Path, how: str) -> dict[str, float]:
    if shutil.which("strace") is None:
        pytest.skip("strace is needed to count system calls")
    traced = place / "trace"
    trace = "trace=write,pwrite64,fsync,fdatasync,unlink"
    run = subprocess.run(
        [
            "strace",
            "-f",
            "-o",
            str(traced),
            "-e",
            trace,
            sys.executable,
            "-c",
            WRITER,
            str(place),
            how,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in run.stderr.lower():
        pytest.skip("strace may not trace here")
    assert run.returncode == 0, run.stderr
    between = traced.read_text().split("-- begin --")[1].split("-- end --")[0]
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
