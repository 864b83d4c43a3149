"""`cloudly release`: what should run, and where."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cloudly.cli import release_approval, release_ban, release_file
from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table
from cloudly.cli.people import ByOption, by_now
from cloudly.cli.policy import (
    ApplyDeadline,
    DownloadDeadline,
    HealthDeadline,
    HealthSoak,
    MaxApplyAttempts,
    policy_of,
)
from cloudly.cli.release_file import COMMIT, VERSION, matching

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudly.service.orders import Done, Write
    from cloudly.store.sql import Connection
    from cloudly.store.wanted import NewRelease
    from interfaces.desired import UpdatePolicy

T = TypeVar("T")

app = typer.Typer(
    help="Releases of the app layer, and which node should run which.", no_args_is_help=True
)
app.command("check")(release_file.check)
app.command("create")(release_file.create)
app.command("show")(release_file.show)
app.command("approve")(release_approval.approve)
app.command("refuse")(release_approval.refuse)
app.command("take-back")(release_approval.take_back)
app.command("ban")(release_ban.ban)
app.command("unban")(release_ban.unban)
app.command("bans")(release_ban.bans)

REST_S = 0.02
"""Before each decision: who waits for SQLite looks now and then, and would hardly ever find it free (measured: 5 s)."""
IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
SERVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")
LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@app.command("set")
def set_(  # noqa: PLR0913 - options of a command
    where: Annotated[
        list[str],
        typer.Argument(
            metavar="[NODE] VERSION",
            help="The node (or --fleet, or --all), and the version or the commit of a release.",
        ),
    ],
    *,
    release: Annotated[
        str | None,
        typer.Option(help="A commit, its identity: to define the release here, with --image."),
    ] = None,
    every_node: Annotated[
        bool, typer.Option("--all", help="Every node, and each that enrolls later.")
    ] = False,
    fleet: Annotated[
        str | None, typer.Option(help="Every node of that fleet, and each that enrolls into it.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="service=ref@sha256:..., once per service.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="service=key=value, for its container.")
    ] = None,
    health_soak: HealthSoak = None,
    health_deadline: HealthDeadline = None,
    apply_deadline: ApplyDeadline = None,
    download_deadline: DownloadDeadline = None,
    max_apply_attempts: MaxApplyAttempts = None,
    again: Annotated[
        bool, typer.Option("--again", help="Even if it is set already, or needed a rollback there.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also on nodes in quarantine.")] = False,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a release the desired state of a node, a fleet, or all; with --release, define it first."""
    if fleet is not None and every_node:
        raise typer.BadParameter("--fleet means one fleet and --all means each: give one of them")
    node, version = _where(where, many=every_node or fleet is not None)
    new = _asked(version, release, images_of(image or []), labels_of(label or []))
    policy = policy_of(
        health_soak_s=health_soak,
        health_deadline_s=health_deadline,
        apply_deadline_s=apply_deadline,
        download_deadline_s=download_deadline,
        max_apply_attempts=max_apply_attempts,
    )
    who = by_now(by).person
    import threading

    with opened(data_dir) as store:

        def write(work: Callable[[Connection], T]) -> T:
            threading.Event().wait(REST_S)
            return store.write_now(work)

        done = order(write, new, policy, node, again=again, fleet=fleet, force=force, by=who)
    if as_json:
        print_json(done)
        return
    for one in done:
        typer.echo(
            f"{one['node']}: " + str(one.get("unchanged") or f"generation {one['generation']}")
        )
    if not done:
        typer.echo("no nodes yet; each that enrolls will get it")


def _asked(
    version: str,
    commit: str | None,
    images: dict[str, str],
    labels: dict[str, dict[str, str]],
) -> NewRelease | str:
    """A release to define, or the name of one that there is."""
    matching(VERSION, version, "version")
    if commit is None:
        if images or labels:
            raise typer.BadParameter("--image and --label define a release: name it with --release")
        return version
    from cloudly.store.wanted import NewRelease

    return NewRelease(matching(COMMIT, commit, "--release"), version, images, labels)


def order(  # noqa: PLR0913 - whom, what, how
    write: Write,
    new: NewRelease | str,
    policy: UpdatePolicy,
    node: str | None,
    *,
    again: bool,
    fleet: str | None = None,
    force: bool = False,
    by: str = "",
) -> list[dict[str, object]]:
    """Define, or find by version or commit, and order for one node, a fleet, or all of them.

    One decision for a node, and one for each slice of a fleet. Raises BadOrder; then nothing was changed.
    """
    from functools import partial

    from cloudly.service import orders
    from cloudly.store.audit import By
    from interfaces.world import RealWorld, new_id, now_ms

    world = RealWorld()
    ask = orders.Ask(new, policy, again, By(by, now_ms(world)), partial(new_id, world), force=force)
    done = (
        orders.order_fleets(write, ask, fleet)
        if node is None
        else [write(lambda db: orders.order_node(db, ask, node))]
    )
    return [_told(one) for one in done]


def apply(  # noqa: PLR0913 - as `order`
    db: Connection,
    new: NewRelease | str,
    policy: UpdatePolicy,
    node: str | None,
    *,
    again: bool,
    fleet: str | None = None,
    force: bool = False,
    by: str = "",
) -> list[dict[str, object]]:
    """The same in a transaction that has begun. Raises BadOrder."""

    def write(work: Callable[[Connection], T]) -> T:
        return work(db)

    return order(write, new, policy, node, again=again, fleet=fleet, force=force, by=by)


def _told(done: Done) -> dict[str, object]:
    told: dict[str, object] = {"node": done.node_id, "generation": done.generation}
    return told | ({"deployment": done.deployment} if done.generation else {"unchanged": done.why})


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the releases and how they fare."""
    from cloudly.store import reading

    with opened(data_dir) as store:
        rows = [dict(row) for row in store.read_now(reading.releases)]
    for row in rows:
        row["images"] = json.loads(row["images"])
    if as_json:
        print_json(rows)
        return
    print_table(
        ("version", "release", "services", "wanted by", "succeeded", "never again"),
        [
            (row["version"], row["commit_id"][:12], " ".join(row["images"]), row["wanted_by"],
             row["succeeded"], row["never_again"])
            for row in rows
        ],
        empty="No releases yet. `cloudly release create` makes one of a compose file, `cloudly release set` of images.",
    )  # fmt: skip


def _where(where: list[str], *, many: bool) -> tuple[str | None, str]:
    expected = 1 if many else 2
    if len(where) != expected:
        raise typer.BadParameter("give NODE VERSION, --fleet FLEET VERSION, or --all VERSION")
    return (None if many else where[0]), where[-1]


def images_of(pairs: list[str]) -> dict[str, str]:
    """service=ref@sha256:...; by digest, because a tag may change under a release. Raises BadParameter."""
    images: dict[str, str] = {}
    for pair in pairs:
        service, _, image = pair.partition("=")
        images[matching(SERVICE, service, "--image")] = matching(IMAGE, image, "--image")
    return images


def labels_of(triples: list[str]) -> dict[str, dict[str, str]]:
    """service=key=value. Raises BadParameter."""
    labels: dict[str, dict[str, str]] = {}
    for triple in triples:
        service, _, rest = triple.partition("=")
        key, equals, value = rest.partition("=")
        if not equals:
            raise typer.BadParameter(f"--label {triple!r} is not service=key=value")
        labels.setdefault(matching(SERVICE, service, "--label"), {})[
            matching(LABEL, key, "--label")
        ] = value
    return labels
