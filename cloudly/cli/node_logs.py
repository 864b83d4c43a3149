"""`cloudly node logs`: what a device's containers and its Supervisor printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloudly.cli.common import DataDir, opened, settings_of, shown
from cloudly.cli.node_journal import NodeArgument, moment_ms

if TYPE_CHECKING:
    from cloudly.log_view import LogView
    from cloudly.store.log_chunks import Kept
    from cloudly.store.log_reading import Wanted
    from cloudly.store.store import Store

NEWEST = 100
LOOK_EVERY_S = 1.0
INTERRUPTED = 130  # as shells say it: 128 and the number of SIGINT


def logs(  # noqa: PLR0913 - options of a command
    node: NodeArgument,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    system: Annotated[
        bool, typer.Option("--system", help="Only the Supervisor's own; with --service both.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="1h (ago) or 2026-11-23T08:00: when Cloudly received them.")
    ] = None,
    grep: Annotated[
        str | None, typer.Option(help="Only lines with this text, upper and lower case alike.")
    ] = None,
    count: Annotated[
        int, typer.Option("-n", min=0, help="So many of the newest lines; 0: all.")
    ] = NEWEST,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON each.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show what a device's containers and its Supervisor printed: oldest first, times are UTC.

    Cloudly keeps these lines for a bounded time and within a bounded size; where some are missing it says so.
    """
    from cloudly.store import reading
    from cloudly.store.log_rows import LogBounds
    from interfaces.world import RealWorld, now_ms

    now, settings = now_ms(RealWorld()), settings_of(data_dir)
    oldest_ms = now - LogBounds.of(settings).keep_ms
    since_ms = oldest_ms if since is None else max(oldest_ms, moment_ms(since, now))
    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        wanted = _wanted(store, service, since_ms, grep or "", system=system)
        printer = _printer(store, as_json=as_json)
        with _readable(), _quietly():
            last_n = _newest(settings.data_dir, row["node_id"], wanted, count, printer)
            if follow:
                _follow(settings.data_dir, row["node_id"], wanted, last_n, printer)
            elif last_n == 0 and not as_json:
                typer.echo("no such lines: the device has sent none, or the filters leave none")


def _wanted(store: Store, service: str | None, since_ms: int, text: str, *, system: bool) -> Wanted:
    """Raises BadOrder where there is no such service."""
    from cloudly.problems import BadOrder
    from cloudly.store import reading
    from cloudly.store.log_reading import Wanted

    names = {name: number for number, name in store.read_now(reading.services).items()}
    if service is not None and service not in names:
        known = ", ".join(sorted(names)) or "none yet"
        raise BadOrder(f"there is no service {service!r}; known are {known}")
    number = None if service is None else names[service]
    return Wanted(number, system, text, since_ms)


def _newest(
    directory: Path, node_id: str, wanted: Wanted, count: int, printer: Callable[[Kept], None]
) -> int:
    """Print the newest so many; the place after which more may come."""
    from cloudly.store.log_file import open_to_read
    from cloudly.store.log_reading import newest_n, pieces

    db = open_to_read(directory)
    if db is None:
        return 0
    try:
        last_n = newest_n(db, node_id)
        lines = (kept for piece in pieces(db, node_id, wanted) for kept in piece.lines)
        found = list(islice(lines, count or None))
    finally:
        db.close()
    for kept in reversed(found):
        printer(kept)
    return max(last_n, found[0].n) if found else last_n


def _follow(
    directory: Path, node_id: str, wanted: Wanted, last_n: int, printer: Callable[[Kept], None]
) -> None:
    import anyio

    from interfaces.world import RealWorld

    async def on_and_on() -> None:
        world, seen = RealWorld(), last_n
        while True:
            for kept in _since(directory, node_id, seen):
                seen = kept.n
                if wanted.wants(kept.line):
                    printer(kept)
            sys.stdout.flush()
            await world.sleep(LOOK_EVERY_S)

    anyio.run(on_and_on)


def _since(directory: Path, node_id: str, seen: int) -> Iterable[Kept]:
    """What came since; the file is opened anew each time, because another one may have taken its place."""
    from cloudly.store.log_file import open_to_read
    from cloudly.store.log_reading import after, newest_n

    db = open_to_read(directory)
    if db is None:
        return []
    try:
        return after(db, node_id, seen if seen <= newest_n(db, node_id) else 0)
    finally:
        db.close()


def _printer(store: Store, *, as_json: bool) -> Callable[[Kept], None]:
    from cloudly.log_view import log_view
    from cloudly.store import reading

    services = store.read_now(reading.services)

    def as_line(kept: Kept) -> None:
        nonlocal services
        if kept.line.service is not None and kept.line.service not in services:
            services = store.read_now(reading.services)
        view = log_view(kept, services)
        typer.echo(json.dumps(_fields(kept, view)) if as_json else _text(view))

    return as_line


def _fields(kept: Kept, view: LogView) -> dict[str, object]:
    from cloudly.store.log_chunks import Mark

    line = kept.line
    return {
        "n": kept.n,
        "received_at_ms": line.received_at_ms,
        "device_at_ms": line.device_at_ms,
        "source": view.source,
        "service_id": line.service,
        "marks": view.kind.split(),
        "lost": line.lost,
        "text": view.text if Mark.GAP in view.marks else line.text,
    }


def _text(view: LogView) -> str:
    from cloudly.store.log_chunks import Mark

    received = f" (received {_moment(view.received_at_ms)})" if view.apart else ""
    if Mark.GAP in view.marks:
        return shown(f"{_moment(view.at_ms)}  ---- {view.text} ----")
    mark = "!" if Mark.STDERR in view.marks else "?" if Mark.ODD in view.marks else " "
    return shown(f"{_moment(view.at_ms)}{received}  {view.source or '-':12} {mark} {view.text}")


def _moment(at_ms: int) -> str:
    from datetime import UTC, datetime

    try:
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return "at an impossible time"
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at_ms % 1000:03}"


@contextmanager
def _readable() -> Iterator[None]:
    """Raises StoreUnavailable where the file is damaged."""
    from sqlite3 import Error

    from cloudly.problems import StoreUnavailable
    from cloudly.store.log_file import FILE

    try:
        yield
    except Error as problem:
        raise StoreUnavailable(
            f"{FILE} could not be read: {problem}; the server sets a damaged one aside when it meets the damage"
        ) from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Ctrl-C ends it, and so does a reader that has seen enough: `| head` is no error."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush
        raise typer.Exit(0) from None
