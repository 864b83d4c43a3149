"""`cloudly node journal`, `gaps`, `export-journal` and `verify-journal`: what Cloudly has of a node's journal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, shown
from cloudly.durations import UNITS_S

if TYPE_CHECKING:
    from cloudly.chunks import Kept
    from cloudly.store.sql import Connection
    from cloudly.story import Chapter, GapMark, Line, Turn

NodeArgument = Annotated[
    str, typer.Argument(metavar="NODE", help="Node id, the beginning of one, or host name.")
]
NEWEST = 100


def moment_ms(text: str, now_ms: int) -> int:
    """2h, 3d (ago), or an ISO 8601 moment, UTC unless it says otherwise."""
    ago = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if ago is not None:
        return now_ms - int(ago[1]) * UNITS_S[ago[2]] * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no moment; for example 2h (ago) or 2026-11-23T08:00"
        ) from None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def journal(  # noqa: PLR0913 - options of a command
    node: NodeArgument,
    *,
    epoch: Annotated[
        str | None, typer.Option(help="Only this epoch: its number, its id or the beginning of it.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option(help="Only this stream or machine: app-update/12, app-update.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="2h (ago) or 2026-11-23T08:00.")] = None,
    until: Annotated[str | None, typer.Option(help="The same, for the end.")] = None,
    count: Annotated[
        int, typer.Option("-n", min=0, help="So many of the newest facts; 0: all.")
    ] = NEWEST,
    heartbeats: Annotated[
        bool, typer.Option("--heartbeats", help="Do not leave heartbeats out.")
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Tell a node's story: its facts in order, with its epochs and with what is missing where it is missing."""
    from cloudly.store import reading
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    asked = Asked(
        stream,
        None if since is None else moment_ms(since, now),
        None if until is None else moment_ms(until, now),
        heartbeats or (stream or "").startswith("heartbeat"),
    )
    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        chapters = store.read_now(lambda db: _chapters(db, row["id"], asked, epoch, count))
    if as_json:
        print_json([asdict(one) for one in chapters])
        return
    if not any(one.lines or one.lost for one in chapters):
        typer.echo("no such facts: the node has not shipped any, or the filters leave none")
    for one in chapters:
        for text in _text(one):
            typer.echo(text)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which facts somebody wants to see."""

    stream: str | None
    since_ms: int | None
    until_ms: int | None
    heartbeats: bool

    @property
    def is_all(self) -> bool:
        return self.stream is None and self.since_ms is None and self.until_ms is None

    def wants(self, fact: Kept) -> bool:
        from cloudly.story import true_ms

        if self.stream is not None:
            name = fact.event.stream if fact.event is not None else ""
            if name != self.stream and name.partition("/")[0] != self.stream:
                return False
        at_ms = true_ms(fact)
        return (self.since_ms is None or at_ms >= self.since_ms) and (
            self.until_ms is None or at_ms <= self.until_ms
        )


def _chapters(
    db: Connection, node: int, asked: Asked, epoch: str | None, count: int
) -> list[Chapter]:
    """The newest so many facts that are wanted, the oldest chapter first."""
    from cloudly.store import story
    from cloudly.story import Part, chapter

    told: list[Chapter] = []
    left = count or story.END
    for row in reversed(_named(story.epochs(db, node), epoch)):
        facts = story.newest_first(db, node, row["n"], heartbeats=asked.heartbeats)
        found = list(islice(filter(asked.wants, facts), min(left + 1, sys.maxsize)))
        taken, rest = found[:left], found[left:]
        above = rest[0].n if rest else -1
        gaps = (
            story.gaps_between(db, node, row["n"], above=above, below=story.END, limit=story.END)
            if asked.is_all
            else []
        )
        part = Part(row, taken[::-1], gaps, previous=rest[0] if rest else None, at_start=not rest)
        told.append(chapter(part))
        left -= len(taken)
        if left <= 0:
            break
    return told[::-1]


def _named(rows: list[dict[str, Any]], epoch: str | None) -> list[dict[str, Any]]:
    """All epochs, or the one that is meant. Raises BadOrder."""
    from cloudly.problems import BadOrder

    if epoch is None:
        return rows
    found = [row for row in rows if str(row["n"]) == epoch or row["epoch"] == epoch] or [
        row for row in rows if row["epoch"].startswith(epoch)
    ]
    if len(found) != 1:
        known = ", ".join(f"{row['n']} ({row['epoch'][:12]})" for row in rows[-10:])
        raise BadOrder(f"{epoch!r} names {len(found)} epochs of this node; it has {known}")
    return found


def _text(chapter: Chapter) -> Iterator[str]:
    """A chapter as lines for people."""
    from cloudly.story import branch_words
    from interfaces.why import when

    yield shown(f"epoch {chapter.n} ({chapter.epoch}): {chapter.words}")
    for name, told in (
        ("problem", chapter.problem),
        ("follows", chapter.predecessor),
        ("the damaged files are on the device in", chapter.kept_in),
    ):
        if told:
            yield shown(f"    {name}: {told}")
    yield f"    Cloudly heard of it {when(chapter.began_at_ms)}" + (
        f", it ended {when(chapter.closed_at_ms)}" if chapter.closed_at_ms is not None else ""
    )
    if chapter.hole:
        yield shown(f"    ---- {chapter.hole} ----")
    for mark in chapter.branch:
        yield shown(f"    ---- {branch_words(mark)} ----")
    for line in chapter.lines:
        yield from _marks(line.before)
        yield from _fact(line)
    yield from _marks(chapter.lost)
    yield ""


def _marks(marks: Iterable[GapMark | Turn]) -> Iterator[str]:
    from cloudly.story import gap_words

    for mark in marks:
        words = gap_words(mark) if mark.what == "gap" else mark.words  # type: ignore[arg-type]
        yield shown(f"    ---- {words} ----")


def _fact(line: Line) -> Iterator[str]:
    from interfaces.why import when

    arrow = f"{line.src} -> {line.dst}" if line.dst else ""
    notes = [line.clock] if line.clock else []
    notes += ["carried over from the epoch before"] if line.carried else []
    said = f": {line.said}" if line.said else ""
    tail = f"  ({'; '.join(notes)})" if notes else ""
    name = line.kind or "not understood"
    yield shown(
        f"{when(line.when_ms)}  {line.stream or '-':18} {arrow:34} {name}{said}{tail}"
    ).rstrip()
    if line.attached is not None:
        source, omitted = line.attached.source, line.attached.omitted
        left_out = f", {omitted} left out" if omitted else ""
        why = f" ({line.attached.why})" if line.attached.why else ""
        yield shown(f"    {len(line.attached.lines)} lines of the {source}'s log{left_out}{why}")
        for text in line.attached.lines:
            yield shown(f"    | {text}")


def gaps(node: NodeArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show what Cloudly will never get of a node's journal, and why."""
    from cloudly.service import missing
    from cloudly.store import reading
    from interfaces.why import when

    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        rows = store.read_now(
            lambda db: [*missing.gaps(db, row["id"]), *missing.beside(db, row["id"])]
        )
        holes = store.read_now(lambda db: missing.holes(db, row["id"]))
    if as_json:
        print_json(rows + holes)
        return
    print_table(
        ("epoch", "lane", "from", "to", "facts", "noted", "reason", "kinds"),
        [
            (f"{one['epoch_n']} {one['epoch'][:12]}", one["lane"], one["first_seq"], one["last_seq"],
             one["last_seq"] - one["first_seq"] + 1, when(one["at_ms"]), one["words"],
             ", ".join(f"{n} {kind}" for kind, n in one["kinds"].items()))
            for one in rows
        ],
        empty="No ranges are missing." if holes else "Nothing is missing.",
    )  # fmt: skip
    for hole in holes:
        typer.echo(shown(f"before epoch {hole['epoch_n']}: {hole['words']}"))


def export_journal(node: NodeArgument, *, data_dir: DataDir = None) -> None:
    """Print all that Cloudly has of a node's journal, a line of JSON each: epochs, facts in order, gaps."""
    import json

    from cloudly.export import Export
    from cloudly.store import reading

    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        export = Export(row["id"], row["node_id"])
        while (part := store.read_now(export.step)) is not None:
            for line in part:
                typer.echo(json.dumps(line, ensure_ascii=True, separators=(",", ":")))


def verify_journal(
    node: NodeArgument, *, as_json: AsJson = False, data_dir: DataDir = None
) -> None:
    """Check the hash chain of all that Cloudly has of a node's journal; 1 if it is broken anywhere."""
    from cloudly.export import verify
    from cloudly.store import reading

    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        checks = store.read_now(lambda db: list(verify(db, row["id"])))
    if as_json:
        print_json([asdict(one) for one in checks])
    else:
        print_table(
            ("epoch", "lane", "facts", "missing", "let go", "not understood", "chain"),
            [
                (f"{one.epoch_n} {one.epoch[:12]}", one.lane, one.facts, one.missing, one.let_go, one.opaque,
                 "; ".join(one.problems) or "whole")
                for one in checks
            ],
            empty="Nothing was received yet.",
        )  # fmt: skip
    if any(one.problems for one in checks):
        raise typer.Exit(1)
