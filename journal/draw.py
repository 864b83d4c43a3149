"""Pictures of a chart, drawn from its `transitions.Machine`, so that the docs cannot say other than the code."""

from __future__ import annotations

from collections.abc import Iterator

from journal.chart import Arrow, Chart


def arrows(chart: Chart) -> Iterator[Arrow]:
    """Every arrow that the Machine knows, in the order of the chart's states."""
    known = [
        Arrow(event.name, move.source, move.dest)
        for event in chart.machine.events.values()
        for moves in event.transitions.values()
        for move in moves
    ]
    place = {state: at for at, state in enumerate(chart.states)}
    yield from sorted(known, key=lambda a: (place[a.src], place[a.dst], a.kind))


def mermaid(chart: Chart) -> str:
    """A `stateDiagram-v2`: states with spaces or dashes get an alias, who acts stands in the state's box."""
    lines = ["stateDiagram-v2"]
    for state in chart.states:
        who = f" ({chart.waits[state].owner})" if state in chart.waits else ""
        lines.append(f'    state "{state}{who}" as {_alias(state)}')
    lines.append(f"    [*] --> {_alias(chart.initial)}")
    lines += [f"    {_alias(a.src)} --> {_alias(a.dst)}: {a.kind}" for a in arrows(chart)]
    lines += [f"    {_alias(state)} --> [*]" for state in chart.states if chart.is_final(state)]
    return "\n".join(lines) + "\n"


def text(chart: Chart) -> str:
    """One line per arrow, aligned, for a terminal."""
    drawn = list(arrows(chart))
    src, kind = max(len(a.src) for a in drawn), max(len(a.kind) for a in drawn)
    return "".join(f"{a.src:{src}}  --{a.kind:-<{kind}}-->  {a.dst}\n" for a in drawn)


def _alias(state: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in state)
