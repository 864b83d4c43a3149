"""The lanes as an SVG, and as a page with the facts below it: self-contained, no script, in daylight and in the dark.

Everything that came from a journal is made printable and escaped; nothing of it becomes markup, style or address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from baserunner.cli.clock import FOOTNOTE, Clock, moment
from baserunner.cli.facts import arrow_of, words_of
from baserunner.cli.lanes import Chart, Lane, Mark, axis, tone
from interfaces.why import duration, printable

if TYPE_CHECKING:
    from journal.facts import Fact

WIDTH, LEFT, RIGHT = 1200, 120, 24
TOP, ROW, BAR = 64, 54, 22
LETTER = 6.6
"""How wide a letter is, about, at the size of the labels."""
MOST_FACTS = 5_000
"""On a page; more are an export's business."""

STYLE = (
    """
.tl{--paper:#fff;--ink:#1c2430;--soft:#5b6675;--line:#dfe4ea;--calm:#a9d5b5;--good:#2f9e55;--wait:#9fc5e8;--work:#4a86c7;
--held:#3aa6a6;--busy:#e0ae2e;--check:#d98b45;--warn:#b477c9;--bad:#d6453d;--over:#b8bfc9;--band:#f4f6f8;--onbar:#10161d}
@media (prefers-color-scheme:dark){.tl{--paper:#12161c;--ink:#e4e9ef;--soft:#97a3b3;--line:#2b333d;--calm:#2f5f41;
--good:#3fae68;--wait:#34597c;--work:#3f74ad;--held:#2b8080;--busy:#b28617;--check:#b06a2c;--warn:#8d559f;--bad:#d2544c;--over:#4a535f;
--band:#191f27;--onbar:#f4f7fa}}
.tl text{fill:var(--ink);font:12px system-ui,sans-serif}.tl .soft{fill:var(--soft);font-size:11px}
.tl .on{fill:var(--onbar);font-size:11px}.tl .dark{fill:none;stroke:var(--soft);stroke-dasharray:2 3}
.tl .mark{font-size:11px;font-weight:600}
""".strip()
    + "".join(
        f".tl .{name}{{fill:var(--{name})}}"
        for name in (
            "calm",
            "good",
            "wait",
            "work",
            "held",
            "busy",
            "check",
            "warn",
            "bad",
            "over",
            "band",
            "paper",
            "line",
        )
    )
)
PAGE_STYLE = """
body{margin:0;background:#fff;color:#1c2430;font:14px/1.45 system-ui,sans-serif}
main{max-width:1240px;margin:0 auto;padding:20px}
h1{font-size:20px;margin:0 0 4px}h2{font-size:16px;margin:24px 0 8px}p{margin:4px 0;color:#5b6675}
svg{width:100%;height:auto;display:block;margin:12px 0}details{border-top:1px solid #dfe4ea;padding:6px 0}
summary{cursor:pointer;font-weight:600}summary span{font-weight:400;color:#5b6675}
table{border-collapse:collapse;width:100%;font-size:13px;margin:6px 0}td{padding:2px 10px 2px 0;vertical-align:top}
td:first-child{width:11em}td:nth-child(2){width:16em}
td:first-child,td:nth-child(2){white-space:nowrap;font-variant-numeric:tabular-nums;color:#5b6675}
td pre{margin:2px 0;white-space:pre-wrap}
@media (prefers-color-scheme:dark){body{background:#12161c;color:#e4e9ef}
p,summary span,td:first-child,td:nth-child(2){color:#97a3b3}
details{border-color:#2b333d}}
""".strip()


def picture(chart: Chart) -> str:
    """A whole SVG file."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + "\n".join(_svg(chart)) + "\n"


def page(chart: Chart, facts: list[Fact], clock: Clock, *, epoch: str) -> str:
    """A whole HTML file: the picture, then every attempt with its facts."""
    about = f"{chart.facts} facts, epoch {printable(epoch)}"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">',
        f"<title>Journal, {_range(chart)}</title><style>{PAGE_STYLE}</style></head><body><main>",
        f"<h1>What happened on this device</h1><p>{_range(chart)} UTC, {escape(about)}</p>",
        *_svg(chart),
        "<h2>The attempts</h2>",
        *_attempts(facts[-MOST_FACTS:], clock),
    ]
    if len(facts) > MOST_FACTS:
        parts.append(f"<p>Only the newest {MOST_FACTS} facts are listed.</p>")
    if chart.doubtful:
        parts.append(f"<p>{escape(FOOTNOTE)}</p>")
    return "\n".join([*parts, "</main></body></html>"]) + "\n"


def _svg(chart: Chart) -> Iterator[str]:
    foot = TOP + ROW * (len(chart.lanes) + 1)
    legend = list(_legend(chart, foot + 44))
    height = foot + 64 + 20 * (len(legend) and legend[-1][0])
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tl" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Timeline of the device\'s machines"><style>{STYLE}</style>'
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>'
    )
    yield _text(LEFT, 20, f"{_range(chart)} UTC, {duration(chart.to_ms - chart.from_ms)}")
    yield from _ruler(chart, foot)
    yield from _boots(chart)
    for begun, ended in chart.dark:
        x, words = _x(chart, begun), f"nothing was written for {duration(ended - begun)}"
        yield _box("dark", (x, TOP), (max(_x(chart, ended) - x, 1), BAR), words)
    for number, lane in enumerate(chart.lanes, start=1):
        yield from _lane(chart, lane, TOP + ROW * number)
    yield from _marks(chart, foot)
    yield from (text for _, text in legend)
    yield "</svg>"


def _x(chart: Chart, at_ms: int) -> float:
    return round(LEFT + chart.share(at_ms) * (WIDTH - LEFT - RIGHT), 1)


def _text(x: float, y: float, words: str, kind: str = "", *, title: str = "") -> str:
    styled = f' class="{kind}"' if kind else ""
    inner = f"<title>{escape(title)}</title>{escape(words)}" if title else escape(words)
    return f'<text x="{x:g}" y="{y:g}"{styled}>{inner}</text>'


def _box(
    kind: str, place: tuple[float, float], size: tuple[float, float], title: str, more: str = ""
) -> str:
    (x, y), (width, height) = place, size
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{more}>'
        f"<title>{escape(title)}</title></rect>"
    )


def _ruler(chart: Chart, foot: int) -> Iterator[str]:
    for at, words in axis(chart, 12):
        x = _x(chart, at)
        yield f'<rect class="line" x="{x:g}" y="{TOP - 8}" width="1" height="{foot - TOP + 8}"/>'
        yield _text(x - len(words) * LETTER / 2, foot + 16, words, "soft")


def _boots(chart: Chart) -> Iterator[str]:
    yield _text(8, TOP + 15, "boots")
    for number, span in enumerate(chart.boots):
        x = _x(chart, span.from_ms)
        width = max(_x(chart, span.to_ms) - x, 1.5)
        yield _box("over" if number % 2 else "line", (x, TOP), (width, BAR), span.title)
        if width > LETTER * 14:
            yield _text(x + 5, TOP + 15, f"boot {span.stream}", "soft", title=span.title)


def _lane(chart: Chart, lane: Lane, y: int) -> Iterator[str]:
    yield _text(8, y + 15, lane.name)
    yield f'<rect class="band" x="{LEFT}" y="{y}" width="{WIDTH - LEFT - RIGHT}" height="{BAR}"/>'
    named, free = "", 0.0
    for span in lane.spans:
        x = _x(chart, span.from_ms)
        width = max(_x(chart, span.to_ms) - x, 1.5)
        more = "" if span.left else ' opacity=".75"'
        yield _box(tone(span.state), (x, y), (width, BAR), span.title, more)
        if width > LETTER * len(span.state) + 16:
            yield _text(x + 10, y + 15, span.state, "on", title=span.title)
        if span.stream != named and x >= free:
            yield _text(x, y - 4, span.stream, "soft")
            free = x + LETTER * len(span.stream) + 6
        named = span.stream
    for tick in lane.ticks:
        x = _x(chart, tick.at_ms)
        if tick.outcome:
            yield (
                f'<path class="{tone(tick.outcome)}" d="M{x:g} {y - 2}l7 13l-7 13l-7 -13z" stroke="var(--paper)">'
                f"<title>{escape(tick.title)}</title></path>"
            )
        else:
            yield _box(
                "bad" if tick.tone == "bad" else "over", (x - 1, y + BAR), (2, 8), tick.title
            )


def _marks(chart: Chart, foot: int) -> Iterator[str]:
    free = 0.0
    words = {"boot": "booted", "start": "agent started", "jump": "clock jumped", "gap": "gap"}
    for mark in sorted(chart.marks, key=lambda m: m.at_ms):
        x = _x(chart, mark.at_ms)
        yield _stroke(mark, x, foot)
        label = words[mark.kind]
        if x >= free:
            yield _text(
                min(x + 3, WIDTH - RIGHT - len(label) * LETTER),
                TOP - 14,
                label,
                "mark",
                title=mark.title,
            )
            free = x + LETTER * len(label) + 12


def _stroke(mark: Mark, x: float, foot: int) -> str:
    colour = {"boot": "busy", "start": "good", "jump": "bad", "gap": "bad"}[mark.kind]
    return (
        f'<line x1="{x:g}" x2="{x:g}" y1="{TOP - 26}" y2="{foot}" stroke="var(--{colour})" stroke-width="1.5" '
        f'stroke-dasharray="4 3"><title>{escape(mark.title)}</title></line>'
    )


def _legend(chart: Chart, y: int) -> Iterator[tuple[int, str]]:
    """Each element with the row that it stands in."""
    x, row = float(LEFT), 0
    for state in chart.states:
        width = 22 + LETTER * len(state) + 14
        if x + width > WIDTH - RIGHT:
            x, row = float(LEFT), row + 1
        at = y + 20 * row
        yield row, f'<rect class="{tone(state)}" x="{x:g}" y="{at - 10}" width="14" height="12"/>'
        yield row, _text(x + 20, at, state, "soft")
        x += width


def _attempts(facts: list[Fact], clock: Clock) -> Iterator[str]:
    """The one that began last first; heartbeats, which are many and alike, stay out."""
    told = [fact for fact in facts if not fact.stream.startswith("heartbeat/")]
    order = {fact.stream: fact.n for fact in reversed(told)}
    told.sort(key=lambda fact: (-order[fact.stream], fact.n))
    for stream, group in groupby(told, key=lambda fact: fact.stream):
        story = list(group)
        states = [fact.dst for fact in story if not fact.is_note]
        ended = states[-1] if states else "notes"
        length = clock.between(story[0], story[-1])
        head = f"{escape(printable(stream))} <span>{escape(printable(ended))}, {len(story)} facts, {length}</span>"
        yield f"<details open><summary>{head}</summary><table>"
        yield from _rows(story, clock)
        yield "</table></details>"


def _rows(story: Iterable[Fact], clock: Clock) -> Iterator[str]:
    for fact in story:
        first, *below = words_of(fact)
        lines = f"<pre>{escape(chr(10).join(below))}</pre>" if below else ""
        when = escape(clock.at(fact).day_and_time)
        yield f"<tr><td>{when}</td><td>{escape(arrow_of(fact))}</td><td>{escape(first)}{lines}</td></tr>"


def _range(chart: Chart) -> str:
    about = "~" if chart.doubtful else ""
    return f"{moment(chart.from_ms)}{about} to {moment(chart.to_ms)}{about}"
