"""On a device an import costs several times what it costs here: what is not used is not loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.cli.given import Device

HEAVY = ("httpx", "pydantic", "anyio", "sqlite_utils", "transitions")
PROBE = """
import atexit, json, sys
atexit.register(lambda: sys.stderr.write(json.dumps([m for m in {heavy!r} if m in sys.modules])))
from baserunner.cli import main
main()
"""


def loaded(device: Device, words: tuple[str, ...], *heavy: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=heavy), *words],
        env={"PATH": os.environ["PATH"], "BASEOS_DATA_DIR": str(device.data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("journal", "--help"),
        ("journal", "list"),
        ("journal", "list", "--json"),
        ("journal", "show", "app-update/1"),
        ("journal", "tail"),
        ("journal", "grep", "app"),
        ("journal", "stats"),
        ("journal", "export"),
    ],
    ids=" ".join,
)
def test_what_only_reads_loads_nothing_heavy_and_in_a_pipe_not_even_rich(
    lived: Device, words: tuple[str, ...]
) -> None:
    assert loaded(lived, words, *HEAVY, "rich") == []


def test_the_probe_sees_what_is_loaded(lived: Device) -> None:
    assert loaded(lived, ("journal", "replay", "app-update/1"), *HEAVY) == ["transitions"]
    assert loaded(lived, ("journal", "timeline"), "rich") == ["rich"]
