"""Two stories of one node side by side: what baserunner journaled and what its Supervisor reported. Pure.

Rules:
- The journal's outcome is the truth of an update; the Supervisor's report is shown beside it and never changes it.
- A difference counts when the Supervisor was heard of `SETTLE_MS` after the outcome: it reports at most every 10 s.
- What neither has said yet is no disagreement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloudly.balena.image import without_tag
from cloudly.reports import load, mapping, text, whole
from cloudly.views import ago

SETTLE_MS = 120_000
SILENT_MS = 45 * 60_000
"""A Supervisor polls every 15 minutes at the longest that its default has, and a minute of jitter; two may be lost."""
FAILED = frozenset({"failed", "rolled-back"})


@dataclass(frozen=True, slots=True)
class Service:
    """One service as the Supervisor reports it."""

    name: str
    release: str
    image: str
    status: str
    progress_percent: int | None


@dataclass(frozen=True, slots=True)
class Reported:
    """What a Supervisor has said to Cloudly."""

    registered_at_ms: int
    seen_at_ms: int | None
    """Its last request of any kind."""
    at_ms: int | None
    """Its last report."""
    release: str | None
    """The commit that it says was applied to its end."""
    update_status: Mapping[str, str]
    """By release."""
    services: tuple[Service, ...]
    version: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class Journaled:
    """What baserunner has said to Cloudly, as far as it concerns the Supervisor."""

    heard_at_ms: int | None
    sees_supervisor: bool | None
    release: str | None
    """What it saw running, in its last heartbeat."""
    wanted: str | None
    wanted_version: str | None
    outcome: str | None
    """The state of the newest deployment, from the journal."""
    outcome_at_ms: int | None
    open: bool
    """That deployment is under way."""
    images: Mapping[str, str]
    """Of the wanted release, by service."""


def read_reported(row: Mapping[str, Any], app_uuid: str) -> Reported:
    """A row of `device`; tolerant of any JSON that a stranger may have reported."""
    report, info = load(row["report"]), load(row["info"])
    app = mapping(mapping(report.get("apps")).get(app_uuid))
    releases = {str(commit): mapping(told) for commit, told in mapping(app.get("releases")).items()}
    return Reported(
        registered_at_ms=row["registered_at_ms"],
        seen_at_ms=row["seen_at_ms"],
        at_ms=row["report_at_ms"],
        release=text(app.get("release_uuid")),
        update_status={
            commit: text(told.get("update_status")) or "" for commit, told in releases.items()
        },
        services=tuple(_services(releases)),
        version=text(report.get("supervisor_version")) or text(info.get("supervisor_version")),
        status=text(report.get("status")),
    )


def _services(releases: Mapping[str, Mapping[str, Any]]) -> Iterator[Service]:
    for commit, told in releases.items():
        for name, service in mapping(told.get("services")).items():
            said = mapping(service)
            yield Service(
                name=str(name),
                release=commit,
                image=text(said.get("image")) or "",
                status=text(said.get("status")) or "",
                progress_percent=whole(said.get("download_progress")),
            )


def disagreements(
    journaled: Journaled, reported: Reported | None, *, now_ms: int
) -> tuple[str, ...]:
    """Where the two stories cannot both be true, a sentence each."""
    if reported is None:
        return ()
    return (*_presence(journaled, reported, now_ms), *_outcome(journaled, reported))


def _presence(journaled: Journaled, reported: Reported, now_ms: int) -> Iterator[str]:
    heard, seen = journaled.heard_at_ms, reported.seen_at_ms
    if heard is None or now_ms - heard > SETTLE_MS:
        return
    if journaled.sees_supervisor and seen is not None and now_ms - seen > SILENT_MS:
        yield (
            f"The Supervisor answers baserunner, but it last asked Cloudly {ago(seen, now_ms)}:"
            " it gets no new target state."
        )
    if journaled.sees_supervisor is False and seen is not None and now_ms - seen < SETTLE_MS:
        yield (
            f"baserunner cannot reach the Supervisor, but Cloudly heard from it {ago(seen, now_ms)}."
        )


def _outcome(journaled: Journaled, reported: Reported) -> Iterator[str]:
    wanted, at = journaled.wanted, journaled.outcome_at_ms
    if wanted is None or at is None or reported.at_ms is None:
        return
    if (reported.seen_at_ms or 0) < at + SETTLE_MS:
        return  # it was not heard of since: its next report may say the same
    name = journaled.wanted_version or wanted[:12]
    if journaled.outcome == "succeeded":
        yield from _against_success(journaled, reported, name)
    elif journaled.outcome in FAILED and reported.release == wanted:
        yield f"The journal says that {name} {journaled.outcome}; the Supervisor reports that it runs."
    if (
        not journaled.open
        and journaled.outcome != "succeeded"
        and None not in {journaled.release, reported.release}
        and journaled.release != reported.release
    ):
        yield (
            f"baserunner saw release {_short(journaled.release)} running; the Supervisor reports"
            f" {_short(reported.release)}."
        )


def _against_success(journaled: Journaled, reported: Reported, name: str) -> Iterator[str]:
    if reported.release != journaled.wanted:
        runs = "no release" if reported.release is None else _short(reported.release)
        yield f"The journal says that {name} succeeded; the Supervisor reports that {runs} runs."
        return
    services = {one.name: one for one in reported.services if one.release == journaled.wanted}
    for service, image in journaled.images.items():
        said = services.get(service)
        if said is None:
            yield f"The journal says that {name} succeeded; the Supervisor reports no service {service}."
        elif said.status != "Running":
            yield (
                f"The journal says that {name} succeeded; the Supervisor reports that {service} is"
                f" {said.status or 'in no state'}."
            )
        elif said.image and said.image != without_tag(image):
            yield f"The Supervisor reports that {service} runs {said.image}, wanted is {image}."


def _short(commit: str | None) -> str:
    return "none" if commit is None else commit[:12]
