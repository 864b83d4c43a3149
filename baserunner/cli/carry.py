"""`journal export`, `import` and `verify`: carrying a journal away, and being sure of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from baserunner.cli import pages, show
from baserunner.cli.source import is_export, load_file
from baserunner.words import said
from interfaces.why import printable
from journal.facts import Lane

if TYPE_CHECKING:
    from journal.survey import Survey
    from journal.tombstone import Tombstone
    from journal.verify import Problem


def write_export(survey: Survey, to: Path | None) -> None:
    from journal.export import lines

    if to is None:
        pages.out(lines(survey))
        return
    try:
        with to.open("x", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines(survey))
    except FileExistsError:
        show.fail(f"{to} is there already; give a new name", 2)
    except OSError as error:
        show.fail(f"cannot write {to}: {error.strerror}", 1)


def read_export(file: Path, to: Path, *, as_json: bool) -> None:
    from journal.problems import JournalProblem

    if reason := show.unreadable(file):
        show.fail(reason, 1)
    made = not to.exists()
    try:
        to.mkdir(parents=True, exist_ok=True)
        facts = load_file(file, to)
    except JournalProblem as problem:
        _forget(to, made=made)
        show.fail(str(problem), 1)
    except OSError as error:
        _forget(to, made=made)
        show.fail(f"cannot import {file} into {to}: {error.strerror or error}", 1)
    if as_json:
        show.as_json({"ok": True, "facts": facts, "to": str(to)})
    else:
        typer.echo(f"{facts} facts, every hash checked; read them with --file {to}")


def _forget(to: Path, *, made: bool) -> None:
    if made and to.is_dir() and not any(to.iterdir()):
        to.rmdir()


def verify_all(file: Path | None, *, as_json: bool) -> None:
    """Exits 1 if there is a fault. What was dropped for want of room is known, and no fault."""
    found = _checked(file)
    if as_json:
        faults = [{"lane": p.lane, "seq": p.seq, "what": p.what} for p in found.problems]
        gaps = [{**asdict(gap), "lane": gap.lane.value} for gap in found.gaps]
        told = {
            "ok": not faults,
            "events": found.events,
            "problems": faults,
            "gaps": gaps,
            "began": found.began,
        }
        show.as_json(told)
    else:
        _print_check(found)
    raise typer.Exit(1 if found.problems else 0)


def _print_check(found: Checked) -> None:
    if found.began:
        typer.echo(f"this epoch follows another: {said('epoch-began', json.dumps(found.began))}")
    for gap in found.gaps:
        typer.echo(f"{gap_words(gap)}; Cloudly never had them")
    if not found.problems:
        typer.echo(f"{found.events} facts, chain unbroken in both lanes")
        return
    rows = [[p.lane or "-", str(p.seq or "-"), p.what] for p in found.problems]
    show.table(["lane", "seq", "what is wrong"], rows, prose=["what is wrong"])
    typer.echo("keep a copy of the journal's files before anything else; Cloudly has its own")


def gap_words(gap: Tombstone) -> str:
    """Which facts the device dropped, and why."""
    kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(gap.kinds.items()))
    span = f"{gap.lane.value} {gap.first_seq} to {gap.last_seq}"
    return f"{span} were dropped ({gap.why}): {kinds}"


@dataclass(slots=True)
class Checked:
    problems: list[Problem]
    events: int = 0
    gaps: list[Tombstone] = field(default_factory=list)
    began: dict[str, Any] | None = None
    """What the epoch says of the one before it; None: it is the first one."""


def _checked(file: Path | None) -> Checked:
    """An export is checked line by line, so that all its faults are named; a journal as it stands."""
    from journal.problems import Damaged, JournalProblem
    from journal.verify import Problem, verify

    if file is not None and not show.unreadable(file) and is_export(file):
        from journal.export import check

        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                report = check(lines)
        except JournalProblem as problem:
            return Checked([Problem(None, None, str(problem))])
        return Checked(report.problems, report.events, began=report.began)
    with show.reader(file) as survey:
        try:
            report = verify(survey)
            gaps = [gap for lane in Lane for gap in survey.tombstones(lane)]
        except Damaged as damaged:  # so badly that not even its ends can be read
            return Checked([Problem(None, None, str(damaged))])
    return Checked(report.problems, report.events, gaps, report.began)
