"""The lanes in a terminal: as wide as it is; a letter where a state begins, a line as long as it lasts.

Without colours and without Unicode it says the same, so that it survives a pipe and a serial console.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from baserunner.cli import pages
from baserunner.cli.clock import FOOTNOTE, moment
from baserunner.cli.lanes import Chart, Lane, axis, tone
from interfaces.why import duration

STYLES = {
    "calm": "green",
    "good": "bold green",
    "wait": "cyan",
    "work": "blue",
    "held": "bold cyan",
    "busy": "yellow",
    "check": "bright_yellow",
    "warn": "magenta",
    "bad": "bold red",
    "over": "dim",
}
MARKS = {"boot": "#", "start": "^", "jump": "~", "gap": "*"}
MEANINGS = {
    "boot": "host booted again",
    "start": "agent started",
    "jump": "clock jumped",
    "gap": "gap, or new epoch",
}
PIPE_WIDTH = 120
LEAST = 40
RANK = ("over", "calm", "wait", "work", "held", "busy", "check", "good", "warn", "bad")
"""Where several begin in one cell, the last of these is seen."""


def print_chart(chart: Chart) -> None:
    tty = sys.stdout.isatty()
    width = max(shutil.get_terminal_size((PIPE_WIDTH, 0)).columns if tty else PIPE_WIDTH, LEAST)
    console = Console(width=width, highlight=False, soft_wrap=True)
    unicode = (console.encoding or "").lower().startswith("utf")
    with console.capture() as captured:
        for line in drawing(chart, width - 1, unicode=unicode):
            console.print(line)
    pages.out(said.rstrip() for said in captured.get().splitlines())


def drawing(chart: Chart, width: int, *, unicode: bool) -> Iterator[Text]:
    names = max([len(lane.name) for lane in chart.lanes] + [len("device")]) + 2
    cells = max(width - names, 10)
    outcomes = {tick.outcome for lane in chart.lanes for tick in lane.ticks}
    letters = letters_for(chart.states, outcomes)
    length = duration(chart.to_ms - chart.from_ms)
    about = "~" if chart.doubtful else ""
    yield Text(
        f"{moment(chart.from_ms)}{about} to {moment(chart.to_ms)}{about} UTC, {length}, {chart.facts} facts"
    )
    yield Text()
    yield _device(chart, names, cells, unicode=unicode)
    for lane in chart.lanes:
        yield Text(f"{lane.name:<{names}}").append(
            _lane(chart, lane, cells, letters, unicode=unicode)
        )
    yield from _axis(chart, names, cells, unicode=unicode)
    yield Text()
    yield from _legend(chart, letters, width)
    if chart.doubtful:
        yield Text(FOOTNOTE, style="dim")


def letters_for(states: list[str], outcomes: set[str]) -> dict[str, str]:
    """A letter of its own for each state: the first of its name that is free, a capital for an outcome."""
    taken = {state: letter for state, letter in _FIXED.items() if state in states}
    for state in states:
        name = state.upper() if state in outcomes else state.lower()
        wanted = [c for c in name if c.isascii() and c.isalpha()] + list(_SPARE)
        taken.setdefault(state, next((c for c in wanted if c not in taken.values()), "?"))
    return {state: taken[state] for state in states}


_FIXED = {
    "offered": "o", "admitted": "m", "downloading": "d", "staged": "s", "applying": "a", "verifying": "v",
    "succeeded": "S", "failed": "F", "rolled-back": "R", "rolling-back": "r", "rollback-needed": "!", "unclear": "?",
    "superseded": "X", "in touch": ".", "no answer": "x",
}  # fmt: skip
_SPARE = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _cell(chart: Chart, at_ms: int, cells: int) -> int:
    return min(max(int(chart.share(at_ms) * cells), 0), cells - 1)


def _device(chart: Chart, names: int, cells: int, *, unicode: bool) -> Text:
    drawn = ["─" if unicode else "-"] * cells
    for begun, ended in chart.dark:
        first, last = _cell(chart, begun, cells), _cell(chart, ended, cells)
        drawn[first + 1 : last] = " " * max(last - first - 1, 0)
    for kind in ("start", "jump", "boot", "gap"):  # the later, the more it matters
        for mark in chart.marks:
            if mark.kind == kind:
                drawn[_cell(chart, mark.at_ms, cells)] = MARKS[kind]
    text = Text(f"{'device':<{names}}")
    for char in drawn:
        style = "green" if char == "^" else "bold yellow" if char in MARKS.values() else "dim"
        text.append(char, style=style)
    return text


def _lane(chart: Chart, lane: Lane, cells: int, letters: dict[str, str], *, unicode: bool) -> Text:
    line = "━" if unicode else "="
    drawn: list[tuple[int, str, str]] = [(-1, " ", "")] * cells
    for span in lane.spans:
        colour = STYLES[tone(span.state)]
        rank = RANK.index(tone(span.state))
        first, last = _cell(chart, span.from_ms, cells), _cell(chart, span.to_ms, cells)
        for cell in range(first + 1, last + 1):
            drawn[cell] = (-1, line, colour)
        if rank >= drawn[first][0]:
            drawn[first] = (rank, letters[span.state], colour)
    for tick in lane.ticks:
        rank = RANK.index(tone(tick.outcome)) if tick.outcome else -1
        cell = _cell(chart, tick.at_ms, cells)
        if tick.outcome and rank >= drawn[cell][0]:
            drawn[cell] = (rank, letters[tick.outcome], STYLES[tone(tick.outcome)])
    return Text.assemble(*((char, colour) for _, char, colour in drawn))


def _axis(chart: Chart, names: int, cells: int, *, unicode: bool) -> Iterator[Text]:
    ruler, labels = [" "] * cells, [" "] * (cells + 1)
    for at, text in axis(chart, max(cells // 14, 1)):
        cell = _cell(chart, at, cells)
        ruler[cell] = "┴" if unicode else "'"
        if cell + len(text) <= cells and all(
            c == " " for c in labels[max(cell - 1, 0) : cell + len(text)]
        ):
            labels[cell : cell + len(text)] = text
    yield Text(" " * names + "".join(ruler), style="dim")
    yield Text(" " * names + "".join(labels).rstrip(), style="dim")


def _legend(chart: Chart, letters: dict[str, str], width: int) -> Iterator[Text]:
    entries = [
        Text.assemble((letter, STYLES[tone(state)]), f" {state}")
        for state, letter in letters.items()
    ]
    seen = {mark.kind for mark in chart.marks}
    entries += [
        Text.assemble((MARKS[kind], "bold yellow"), f" {MEANINGS[kind]}")
        for kind in MARKS
        if kind in seen
    ]
    row = Text()
    for entry in entries:
        if len(row) and len(row) + len(entry) + 3 > width:
            yield row
            row = Text()
        row = row.append("   " if len(row) else "").append(entry)
    yield row
