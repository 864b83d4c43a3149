"""Which nodes `cloudly node list` shows: the newest, or those that a selector means, found a slice at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cloudly.store.sql import Row
    from cloudly.store.store import Store

Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        help="Only these: fleet=shops,label.site=lab,version<1.4,state!=dark; | between values is or.",
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many to show.")]


def rows_of(  # noqa: PLR0913 - which, how many, and as of when
    store: Store,
    select: str | None,
    *,
    limit: int,
    now_ms: int,
    every_s: float,
    retired: bool = False,
) -> list[Row]:
    """At most so many. Says so on stderr where there are more. Raises BadSelector."""
    from cloudly.store import reading

    if select is None:
        rows = store.read_now(lambda db: reading.nodes(db, limit=limit + 1, retired=retired))
    else:
        rows = _selected(store, select, limit=limit + 1, now_ms=now_ms, every_s=every_s)
    if len(rows) > limit:
        typer.echo(f"cloudly: there are more than these {limit}: --limit shows them", err=True)
    return rows[:limit]


def _selected(store: Store, select: str, *, limit: int, now_ms: int, every_s: float) -> list[Row]:
    """By number, oldest first, because they are looked for from there."""
    from cloudly.rollouts.selector import parse
    from cloudly.store import node_views, reading

    selector, dark_after_ms = parse(select), int(node_views.HEARTBEATS_DARK * every_s * 1000)
    found: list[Row] = []
    after = 0
    while len(found) < limit:
        some = store.read_now(
            lambda db, after=after: node_views.slices(  # type: ignore[misc]
                db,
                after_id=after,
                limit=node_views.SLICE,
                now_ms=now_ms,
                dark_after_ms=dark_after_ms,
            )
        )
        meant = [number for number, view in some if selector.matches(view)][: limit - len(found)]
        found += store.read_now(lambda db, meant=meant: reading.nodes_of(db, meant))  # type: ignore[misc]
        if len(some) < node_views.SLICE:
            break
        after = some[-1][0]
    return found
