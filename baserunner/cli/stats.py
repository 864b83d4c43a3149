"""`journal stats`: how much, of what, on which days, how long in which states, and how large the files are.

Counting is SQLite's; times in states are followed fact by fact, for the newest facts when nothing narrows them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import typer

from baserunner.cli import asked, pages, show
from baserunner.cli.clock import UNTOLD, Clock, moment
from baserunner.cli.stays import Totals, Visits
from interfaces.why import duration
from journal.facts import Lane

if TYPE_CHECKING:
    from baserunner.cli.asked import Asked
    from journal.boots import Sought
    from journal.survey import Survey

FOLLOWED = 100_000
"""How many of the newest facts are followed through their states."""
DAY_MS = 86_400_000


def print_stats(survey: Survey, filters: Asked, *, as_json: bool) -> None:
    what = asked.sought(filters, survey)
    objects = [*_files(survey), *_lanes(survey), *_kinds(survey, what), *_days(survey, what)]
    objects += _states(survey, what)
    if as_json:
        pages.out(json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in objects)
    else:
        _print(objects)


def _files(survey: Survey) -> Iterator[dict[str, Any]]:
    yield {"what": "files", "epoch": survey.epoch, **survey.sizes()}


def _lanes(survey: Survey) -> Iterator[dict[str, Any]]:
    for lane in Lane:
        base, head, acked = survey.base(lane).seq, survey.head(lane).seq, survey.acked(lane).seq
        ends = {"oldest": base + 1, "head": head, "facts": head - base}
        yield {"what": "lane", "lane": lane.value, **ends, "acked": acked, "unacked": head - acked}


def _kinds(survey: Survey, what: Sought) -> Iterator[dict[str, Any]]:
    for lane in Lane:
        for kind, count, size in survey.kinds(lane, what):
            yield {
                "what": "kind",
                "lane": lane.value,
                "kind": kind,
                "facts": count,
                "data_bytes": size,
            }


def _days(survey: Survey, what: Sought) -> Iterator[dict[str, Any]]:
    facts: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for lane in Lane:
        for day, count, size in survey.days(lane, what):
            facts[day] += count
            sizes[day] += size
    for day in sorted(facts):
        shown = moment(day * DAY_MS)[:10]
        yield {"what": "day", "day": shown, "facts": facts[day], "data_bytes": sizes[day]}


def _states(survey: Survey, what: Sought) -> Iterator[dict[str, Any]]:
    clock, visits = Clock(survey), Visits()
    machines: dict[str, Totals] = {}
    facts = list(islice(survey.each(what, newest=True), FOLLOWED))
    for fact in reversed(facts):
        stay = visits.see(fact)
        if stay is not None:
            machines.setdefault(stay.stream.partition("/")[0], Totals(clock)).add(stay)
    for machine in sorted(machines):
        for total in machines[machine].all():
            took = {"ms": total.ms, "visits": total.visits, "sure": total.sure}
            yield {"what": "state", "machine": machine, "state": total.state, **took}


def _print(objects: list[dict[str, Any]]) -> None:
    for each in objects:
        if each["what"] == "files":
            typer.echo(
                f"epoch {each['epoch']}; file {size(each['file_bytes'])}, of which free {size(each['free_bytes'])}; "
                f"WAL {size(each['wal_bytes'])}"
            )
        if each["what"] == "lane":
            typer.echo(
                f"{each['lane']}: {each['facts']} facts, {each['oldest']} to {each['head']}; "
                f"not yet acked by Cloudly: {each['unacked']}"
            )
    total = sum(each["facts"] for each in objects if each["what"] == "kind") or 1
    _table("lane|kind|facts|share|bytes of data", objects, "kind", lambda e: [
        e["lane"], e["kind"], str(e["facts"]), f"{100 * e['facts'] / total:.1f} %", size(e["data_bytes"]),
    ])  # fmt: skip
    _table("day (UTC)|facts = writes|bytes of data", objects, "day", lambda e: [
        e["day"], str(e["facts"]), size(e["data_bytes"]),
    ])  # fmt: skip
    _table("machine|state|time|visits|on average", objects, "state", lambda e: [
        e["machine"], show.state(e["state"]), ("" if e["sure"] else UNTOLD) + duration(e["ms"]),
        str(e["visits"]), duration(e["ms"] / e["visits"]),
    ])  # fmt: skip


def _table(columns: str, objects: list[dict[str, Any]], what: str, row: Any) -> None:
    rows = [row(each) for each in objects if each["what"] == what]
    if rows:
        typer.echo()
        show.table(columns.split("|"), rows)


def size(count: int) -> str:
    """Bytes for people: 812 B, 14.2 kB, 1.4 MB."""
    if count < 1000:
        return f"{count} B"
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"
