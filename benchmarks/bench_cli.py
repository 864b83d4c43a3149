"""How fast the command line answers: whole processes, on a journal of a million facts, with nothing but what they use.

usage: bench_cli.py [FACTS]     default 1000000; prints Markdown

The yardstick is the same command line with all of the agent's modules imported at its top, which is what one gets by
default; beside it stands one with the packages only that the agent uses. That `list` and `--help` do not import httpx
is asserted; so is that the probe sees httpx where it is imported.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import walk_packages

import baserunner
from benchmarks.yard import Row, grow, ratio, table, title

RUNS = 11
FACTS = 1_000_000
MAIN = "from baserunner.cli import main\nmain()\n"
PACKAGES = "import httpx, pydantic, anyio, sqlite_utils, transitions, rich.table, rich.console\n"
AGENT = "import " + ", ".join(
    module.name
    for module in walk_packages(baserunner.__path__, "baserunner.")
    if not module.name.endswith("__main__")
)
SEEN = (
    "import atexit, sys\natexit.register(lambda: sys.stderr.write(str('httpx' in sys.modules)))\n"
)


@dataclass
class Spent:
    """CPU and wall seconds of whole processes."""

    program: str
    words: tuple[str, ...]
    environment: dict[str, str]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def run(self) -> None:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self._process(self.program)
        self.wall.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def imports_httpx(self) -> bool:
        return self._process(SEEN + self.program).endswith("True")

    def _process(self, program: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, *self.words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, f"{self.words}: {done.stderr}"
        assert done.returncode in {0, 1}, f"{self.words}: {done.stderr}"
        return done.stderr


def measure(data: Path) -> dict[str, Spent]:
    environment = {**os.environ, "BASEOS_DATA_DIR": str(data)}

    def spent(program: str, *words: str) -> Spent:
        return Spent(program, words, environment)

    found = {
        "list": spent(MAIN, "journal", "list"),
        "status": spent(MAIN, "status"),
        "help": spent(MAIN, "--help"),
        "packages": spent(PACKAGES + MAIN, "--help"),
        "agent": spent(f"{AGENT}\n{MAIN}", "--help"),
    }
    seen = [found[name].imports_httpx() for name in ("list", "help", "agent")]
    assert seen == [False, False, True], f"httpx is imported: {seen}"
    for _ in range(RUNS):  # in turn: the neighbours disturb all alike
        for each in found.values():
            each.run()
    return found


def main() -> None:
    facts = int(sys.argv[1]) if len(sys.argv) > 1 else FACTS
    with tempfile.TemporaryDirectory(prefix="bench-cli-") as place:
        home = Path(place) / "baseos"
        grow(home, facts)
        found = measure(Path(place))

    def said(name: str) -> str:
        wall, spent = statistics.median(found[name].wall), statistics.median(found[name].cpu)
        return f"{wall:.2f} s, {spent:.3f} s CPU"

    def to(name: str, peer: str) -> float:
        return ratio(found[name].cpu, found[peer].cpu)

    wall = statistics.median(found["list"].wall)
    title("command line")
    print(
        "Whole processes. `list` and `--help` do not import httpx (asserted). Ratios are of CPU.\n"
    )
    listed = f"`baserunner journal list`, {facts:,} facts"
    rows = [
        Row(listed, said("list"), said("agent"), to("list", "agent"), 0.3, " s", wall),
        Row("`baserunner status`", said("status"), said("agent"), to("status", "agent")),
        Row("`baserunner --help`", said("help"), said("agent"), to("help", "agent"), 0.25),
        Row(
            "the same, to one that imports the agent's packages only",
            said("help"),
            said("packages"),
            to("help", "packages"),
        ),
    ]
    table("whole process", "`--help`, all imported", rows)


if __name__ == "__main__":
    main()
