"""`cloudly node logs`: what a device's containers and its Supervisor printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
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
    from cloudly.store.log_files import Search
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
        _tell_elsewhere(store, settings.data_dir)
        with _quietly():
            seen, unread = _newest(settings.data_dir, row["node_id"], wanted, count, printer)
            if follow:
                _follow(settings.data_dir, row["node_id"], wanted, seen, printer)
            elif not any(seen.values()) and not as_json and not unread:
                typer.echo("no such lines: the device has sent none, or the filters leave none")
    if unread:
        raise typer.Exit(1)


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
) -> tuple[dict[int, int], bool]:
    """Print the newest so many; the places of each file after which more may come, and whether one is unreadable."""
    from cloudly.store.log_files import Following, search

    following = Following(directory, node_id).begin()
    with search(directory, node_id, wanted) as found:
        newest = list(islice(_lines(found), count or None))
    unread = following.problems | found.problems
    _tell(directory, unread)
    for kept in reversed(newest):
        printer(kept)
        following.seen[kept.slot] = max(kept.n, following.seen.get(kept.slot, 0))
    return following.seen, bool(unread)


def _lines(found: Search) -> Iterator[Kept]:
    """The newest first."""
    while True:
        if found.look():
            continue
        kept = found.take()
        if kept is None:
            return
        yield kept


def _follow(
    directory: Path,
    node_id: str,
    wanted: Wanted,
    seen: dict[int, int],
    printer: Callable[[Kept], None],
) -> None:
    import anyio

    from cloudly.store.log_files import Following
    from interfaces.world import RealWorld

    async def on_and_on() -> None:
        world, following, told = RealWorld(), Following(directory, node_id, seen=seen), set[int]()
        while True:
            lines, _ = following.news()
            for kept in lines:
                if wanted.wants(kept.line):
                    printer(kept)
            new = {slot: one for slot, one in following.problems.items() if slot not in told}
            told = set(following.problems)
            _tell(directory, new)
            sys.stdout.flush()
            await world.sleep(LOOK_EVERY_S)

    anyio.run(on_and_on)


def _tell(directory: Path, problems: Mapping[int, Exception]) -> None:
    """Of files that cannot be read; what the others have is shown."""
    from cloudly.store.log_file import file_of

    for slot, problem in problems.items():
        typer.echo(
            f"cloudly: {file_of(directory, slot).name} could not be read: {problem}; its server sets a"
            " damaged one aside when it meets the damage",
            err=True,
        )


def _tell_elsewhere(store: Store, directory: Path) -> None:
    from cloudly import servers
    from interfaces.world import RealWorld

    if store.is_shared:
        here = servers.directory_id(directory, RealWorld())
        for place in servers.elsewhere(store.read_now(servers.listed), here):
            typer.echo(
                f"cloudly: a server keeps logs at {place}, which are not shown here", err=True
            )


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
        "slot": kept.slot,
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
