"""`journal salvage`: what can be read of a damaged journal goes into a folder of its own; the original is only read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from baserunner.cli import show
from interfaces.why import printable


def print_salvage(file: Path | None, to: Path, *, as_json: bool) -> None:
    """Exits 0 if the journal was whole, 1 if something is wrong with it, or nothing could be salvaged."""
    from journal.problems import JournalProblem
    from journal.salvage import salvage
    from journal.salvaged import EVIDENCE, summary, write

    where = file or show.home()
    if reason := show.unreadable(where):
        show.fail(reason, 1)
    try:
        found = salvage(where)
        to.mkdir(parents=True, exist_ok=True)
        kept = write(found, to)
    except JournalProblem as problem:
        show.fail(str(problem), 1)
    except OSError as error:
        show.fail(f"cannot salvage {where} into {to}: {error.strerror or error}", 1)
    told = {**summary(found), "kept": kept, "to": str(to)}
    if as_json:
        show.as_json(told)
    else:
        _print(told, to, EVIDENCE)
    raise typer.Exit(0 if found.ok else 1)


def _print(told: dict[str, Any], to: Path, evidence: str) -> None:
    typer.echo(f"epoch {told['epoch'] or 'unknown'}: {'whole' if told['whole'] else 'damaged'}")
    columns = ("verified", "proven", "loose", "changed", "uncommitted")
    rows = []
    for lane, known in told["lanes"].items():
        lost = ", ".join(f"{first}-{last}" for first, last in known["lost"][:10]) or "nothing"
        more = f" and {len(known['lost']) - 10} more" if len(known["lost"]) > 10 else ""
        rows.append([lane, *(str(known[name]) for name in columns), lost + more])
    show.table(["lane", *columns, "lost"], rows, prose=["lost"])
    for problem in told["problems"]:
        typer.echo(f"- {printable(problem)}")
    typer.echo(
        f"{told['kept']} facts are in {to}: read them with --file {to}; {evidence} there says how far each is trusted"
    )
