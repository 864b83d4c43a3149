"""`cloudly release check | create | show`: releases from compose files, and what a Supervisor is told of one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table
from cloudly.cli.people import ByOption, by_now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudly.balena.compose.notes import Note

COMMIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION = re.compile(r"[^\s\x00-\x1f]{1,200}")
EXAMPLES = {
    "version": "2.1.0",
    "--version": "--version 2.1.0",
    "--release": "--release 8f3c1d2ab90e4c5f",
    "--image": "--image main=registry.example/app@sha256:<64 hex digits>",
    "--label": "--label main=io.balena.features.supervisor-api=1",
}
ComposeFile = Annotated[
    Path,
    typer.Argument(
        metavar="COMPOSE_FILE",
        help="A docker-compose file; - reads it from stdin.",
        allow_dash=True,
    ),
]
Which = Annotated[
    str,
    typer.Argument(metavar="RELEASE", help="Its version, its commit, or the commit's beginning."),
]


def check(compose_file: ComposeFile, *, as_json: AsJson = False) -> None:
    """Say what keeps a compose file from being a release. Needs no database, and knows no earlier releases."""
    from cloudly.balena.compose.notes import BadCompose
    from cloudly.balena.compose.read import read_compose

    problems: tuple[Note, ...] = ()
    try:
        composed = read_compose(_read(compose_file))
        warnings = composed.warnings
    except BadCompose as bad:
        problems, warnings = bad.problems, bad.warnings
    if as_json:
        print_json({"ok": not problems, "problems": _rows(problems), "warnings": _rows(warnings)})
    else:
        _tell(problems, warnings)
        if not problems:
            images = ((one.name, one.image) for one in composed.services)
            print_table(("service", "image"), list(images), empty="")
    if problems:
        raise typer.Exit(1)


def create(  # noqa: PLR0913 - options of a command
    compose_file: ComposeFile,
    *,
    version: Annotated[str, typer.Option(help="Its version, for people.")],
    release: Annotated[
        str | None,
        typer.Option(help="Its commit, for the Supervisor; otherwise made of what the file says."),
    ] = None,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a release of a compose file. Nothing is ordered: `cloudly release set` does that."""
    from cloudly.balena.compose.read import read_compose
    from cloudly.store.releases import composed_release, define_release, used_again

    matching(VERSION, version, "--version")
    if release is not None:
        matching(COMMIT, release, "--release")
    composed = read_compose(_read(compose_file))
    new, who = composed_release(composed, version, release), by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: define_release(db, new, who.at_ms, by=who))
        again = store.read_now(lambda db: used_again(db, new))
    if as_json:
        made = {"release": new.commit, "version": version, "images": new.images}
        print_json(made | {"warnings": _rows(composed.warnings), "used_again": again})
        return
    for warning in again:
        typer.echo(f"cloudly: warning: {warning}", err=True)
    _tell((), composed.warnings, err=True)
    typer.echo(f"release {version} is {new.commit}: {', '.join(new.images)}")


def show(
    release: Which,
    *,
    target: Annotated[
        bool, typer.Option("--target", help="The target state, as any device's Supervisor gets it.")
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show a release: its services, volumes and networks, and who wants it."""
    from cloudly.service.releases import described
    from cloudly.store.releases import find_release, sample_target, wanted_by

    with opened(data_dir) as store:
        number = store.read_now(lambda db: find_release(db, release))
        if target:
            print_json(store.read_now(lambda db: sample_target(db, number, store.app_uuid)))
            return
        found = store.read_now(
            lambda db: described(db, number) | {"wanted_by": wanted_by(db, number)}
        )
    if as_json:
        print_json(found)
        return
    print_table(
        ("", ""),
        [
            ("version", found["version"]),
            ("release", found["release"]),
            ("made of", "a compose file" if found["compose"] is not None else "images and labels"),
            ("volumes", ", ".join(found["volumes"]) or None),
            ("networks", ", ".join(found["networks"]) or None),
            ("wanted by", _wanting(found["wanted_by"])),
        ],
        empty="",
    )
    for name, service in found["services"].items():
        typer.echo()
        print_table((name, ""), list(_service_rows(service)), empty="")


def matching(form: re.Pattern[str], text: str, option: str) -> str:
    """Raises BadParameter."""
    if form.fullmatch(text) is None:
        raise typer.BadParameter(f"{option} {text!r} is malformed; for example {EXAMPLES[option]}")
    return text


def _read(compose_file: Path) -> bytes:
    """One byte more than a compose file may have at most."""
    from cloudly.balena.compose.document import MAX_BYTES

    if str(compose_file) == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with compose_file.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _rows(notes: Iterable[Note]) -> list[dict[str, object]]:
    return [{"line": one.line, "where": one.where, "reason": one.reason} for one in notes]


def _tell(problems: tuple[Note, ...], warnings: tuple[Note, ...], *, err: bool = False) -> None:
    if err:
        for one in warnings:
            typer.echo(f"cloudly: warning: {one}", err=True)
        return
    rows = [(one.line, "refused", one.where or "-", one.reason) for one in problems]
    rows += [(one.line, "warning", one.where or "-", one.reason) for one in warnings]
    if rows:
        print_table(("line", "what", "where", "reason"), rows, empty="")
        typer.echo()


def _wanting(wanted_by: dict[str, list[str]]) -> str:
    nodes = [node[:12] for node in wanted_by["nodes"]]
    fleets = [f"the fleet {name}, for each that enrolls" for name in wanted_by["fleets"]]
    return ", ".join([*nodes, *fleets]) or "nobody: `cloudly release set` orders it"


def _service_rows(service: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "image", service["image"]
    for section in ("environment", "labels", "composition"):
        for name, held in service[section].items():
            yield f"{section}.{name}", held if isinstance(held, str) else json.dumps(held)
