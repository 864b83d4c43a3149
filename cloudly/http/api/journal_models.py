"""A chapter of a node's journal as the API shows it."""

from __future__ import annotations

from dataclasses import asdict

from cloudly.http.api.paging import Shown
from cloudly.story import Chapter, GapMark, Line, Turn, gap_words


class MarkShown(Shown):
    """Something before a fact, or at an epoch's end: missing facts, a reboot, a jump of the clock."""

    what: str
    """gap, reboot, jump; or before, here: of the device's own, beside another writer's."""
    words: str
    lane: str | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    why: str | None = None


class AttachedShown(Shown):
    source: str
    lines: list[str]
    omitted: int
    why: str


class LineShown(Shown):
    n: int
    lane: str
    seq: int
    stream: str
    kind: str
    src: str
    dst: str
    when_ms: int
    clock: str
    """Empty: `when_ms` is believable; else what is wrong with it."""
    received_at_ms: int
    said: str
    attached: AttachedShown | None
    carried: bool
    opaque: bool
    before: list[MarkShown]


class ChapterShown(Shown):
    """An epoch, or the part of it on this page."""

    n: int
    epoch: str
    why: str
    words: str
    problem: str
    kept_in: str
    predecessor: str
    hole: str
    began_at_ms: int
    closed_at_ms: int | None
    lines: list[LineShown]
    lost: list[MarkShown]
    branch: list[MarkShown]
    more_gaps: bool
    whole: bool


def chapter_of(chapter: Chapter) -> ChapterShown:
    told = {name: getattr(chapter, name) for name in ChapterShown.model_fields}
    return ChapterShown.model_validate(
        told
        | {
            "lines": [_line(one) for one in chapter.lines],
            "lost": [_mark(one) for one in chapter.lost],
            "branch": [_mark(one) for one in chapter.branch],
        }
    )


def _line(line: Line) -> LineShown:
    told = {name: getattr(line, name) for name in LineShown.model_fields}
    attached = line.attached and AttachedShown.model_validate(asdict(line.attached))
    return LineShown.model_validate(
        told | {"attached": attached, "before": [_mark(one) for one in line.before]}
    )


def _mark(mark: GapMark | Turn) -> MarkShown:
    if isinstance(mark, Turn):
        return MarkShown(what=mark.what, words=mark.words)
    return MarkShown(
        what=mark.what,
        words=gap_words(mark),
        lane=mark.lane,
        first_seq=mark.first_seq,
        last_seq=mark.last_seq,
        why=mark.why,
    )
