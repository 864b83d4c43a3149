"""Releases: list, one, its contents, make one of a compose file, check a compose file without making anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import Body, Path, Query

from cloudly.access import Permission
from cloudly.balena.compose.notes import BadCompose, Note
from cloudly.balena.compose.read import read_compose
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterNumber, Limit, Page, Shown, page_of
from cloudly.http.api.texts import Commit, ReleaseName, Version
from cloudly.service.releases import described
from cloudly.store import lists
from cloudly.store import releases as store

releases = Resource("releases")

ComposeFile = Annotated[
    bytes,
    Body(media_type="application/yaml", description="A docker-compose file, as it is: no JSON."),
]
ReleasePath = Annotated[
    ReleaseName,
    Path(alias="release", description="Its commit, the beginning of it, or its version."),
]
VersionAsked = Annotated[Version, Query(description="Its version, for people.")]
CommitAsked = Annotated[
    Commit | None,
    Query(description="Its commit, for the Supervisor; otherwise made of what the file says."),
]


class ReleaseShown(Shown):
    release: str
    """Its commit: its identity."""
    version: str
    created_at_ms: int
    composed: bool
    """Made of a compose file."""
    images: dict[str, str]
    """By service."""


class ServiceContents(Shown):
    image: str
    environment: dict[str, Any]
    labels: dict[str, Any]
    composition: dict[str, Any]


class ReleaseContents(Shown):
    """All that a release says; its environment may hold secrets."""

    release: str
    version: str
    created_at_ms: int
    services: dict[str, ServiceContents]
    volumes: dict[str, Any]
    networks: dict[str, Any]
    compose: str | None
    """The file that it was made from."""


class NoteShown(Shown):
    line: int
    where: str
    reason: str


class ComposeChecked(Shown):
    ok: bool
    problems: list[NoteShown]
    warnings: list[NoteShown]
    images: dict[str, str]


class ReleaseMade(ReleaseShown):
    warnings: list[NoteShown]
    used_again: list[str]
    """Images that another release has under the very same name: devices stumble over them."""


@releases.on("GET", "/releases", needs=Permission.RELEASES_READ)
async def list_releases(
    call: Called, after: AfterNumber = None, limit: Limit = 100
) -> Page[ReleaseShown]:
    """The newest first."""
    rows = await call.read(lambda db: lists.releases(db, after=after, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: row["id"])
    return Page(items=[_shown(row) for row in shown], next=following)


@releases.on("POST", "/releases", needs=Permission.RELEASES_WRITE, status=201)
async def create_release(
    call: Called, compose: ComposeFile, version: VersionAsked, commit: CommitAsked = None
) -> ReleaseMade:
    """Of a compose file. Nothing is ordered. The same file and version give the same release again."""
    composed = read_compose(compose)
    new = store.composed_release(composed, version, commit)
    number = await call.write(lambda db: store.define_release(db, new, call.now_ms, by=call.by))
    used_again = await call.read(lambda db: store.used_again(db, new))
    shown = await _found(call, number)
    notes = _notes(composed.warnings)
    return ReleaseMade(**shown.model_dump(), warnings=notes, used_again=used_again)


@releases.on("POST", "/releases/check", needs=Permission.RELEASES_READ)
async def check_compose_file(call: Called, compose: ComposeFile) -> ComposeChecked:  # noqa: ARG001
    """What keeps a compose file from being a release; knows no earlier releases, and makes none."""
    try:
        composed = read_compose(compose)
    except BadCompose as bad:
        problems, warnings = _notes(bad.problems), _notes(bad.warnings)
        return ComposeChecked(ok=False, problems=problems, warnings=warnings, images={})
    images = {one.name: one.image for one in composed.services}
    warnings = _notes(composed.warnings)
    return ComposeChecked(ok=True, problems=[], warnings=warnings, images=images)


@releases.on("GET", "/releases/{release}", needs=Permission.RELEASES_READ)
async def get_release(call: Called, release: ReleasePath) -> ReleaseShown:
    return await _found(call, await _number(call, release))


@releases.on("GET", "/releases/{release}/contents", needs=Permission.RELEASES_CONTENTS)
async def get_contents(call: Called, release: ReleasePath) -> ReleaseContents:
    """Also the compose file and the environment, which may hold secrets."""
    number = await _number(call, release)
    return ReleaseContents.model_validate(await call.read(lambda db: described(db, number)))


async def _number(call: Call, release: str) -> int:
    return await call.read(lambda db: store.find_release(db, release))


async def _found(call: Call, number: int) -> ReleaseShown:
    rows = await call.read(lambda db: lists.releases(db, after=number + 1, limit=1))
    return _shown(rows[0])


def _shown(row: Mapping[str, Any]) -> ReleaseShown:
    return ReleaseShown.model_validate({**row, "release": row["commit_id"]})


def _notes(notes: Iterable[Note]) -> list[NoteShown]:
    return [NoteShown.model_validate(one) for one in notes]
