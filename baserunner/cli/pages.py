"""Lines for people: through a pager where there is a terminal and more than a screen of them, else straight out.

A pager that is left early, as well as a pipe that is closed, ends the reading too: what nobody looks at is not read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice


def out(lines: Iterable[str], *, pager: bool = False) -> None:
    """`pager`: whether one is welcome. Without a terminal there is none."""
    if pager and sys.stdin.isatty() and sys.stdout.isatty():
        height = shutil.get_terminal_size().lines
        lines = iter(lines)
        screen = list(islice(lines, height))
        words = _pager() if len(screen) >= height else None
        if words:
            _through(words, chain(screen, lines))
            return
        lines = chain(screen, lines)
    for part in _chunks(lines):
        sys.stdout.write(part)
    sys.stdout.flush()


def _pager() -> list[str] | None:
    """`$PAGER`, or less, or more; none where it says `cat`, or nothing."""
    wanted = os.environ.get("PAGER")
    words = wanted.split() if wanted is not None else ["less"] if shutil.which("less") else ["more"]
    return words if words and words != ["cat"] and shutil.which(words[0]) else None


def _through(words: list[str], lines: Iterator[str]) -> None:
    process = subprocess.Popen(  # noqa: S603 - the user's own pager
        words, stdin=subprocess.PIPE, text=True, errors="replace", env={"LESS": "FRX", **os.environ}
    )
    assert process.stdin is not None  # noqa: S101 - asked for just above
    try:
        for part in _chunks(lines):
            process.stdin.write(part)
            process.stdin.flush()
    except BrokenPipeError:
        pass  # it was left before the end
    except KeyboardInterrupt:
        pass  # less takes Ctrl-C for itself
    finally:
        _finish(process)


def _finish(process: subprocess.Popen[str]) -> None:
    """Wait for it, through any Ctrl-C: the terminal is the pager's until it ends."""
    try:
        if process.stdin is not None:
            process.stdin.close()
    except BrokenPipeError:
        pass
    while True:
        try:
            process.wait()
        except KeyboardInterrupt:
            continue
        return


def _chunks(lines: Iterable[str], *, size: int = 200) -> Iterator[str]:
    lines = iter(lines)
    while part := list(islice(lines, size)):
        yield "\n".join(part) + "\n"
