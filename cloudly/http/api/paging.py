"""Lists in pages: `?limit` and `?after`, by the key of the last thing that was shown, never by counting rows.

Rules:
- A page is complete up to its `next`: what is added meanwhile pushes nothing out and shows nothing twice.
- `next` is given back as it came; what it looks like is nobody's business but ours. Null: there is no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict

from cloudly.problems import Refused

T = TypeVar("T")
R = TypeVar("R")

MOST = 500
PLACE = re.compile(r"([0-9]{1,15})\.([0-9]{1,19})")
MOST_N = 2**62


class Shown(BaseModel):
    """The base of what the API answers."""

    model_config = ConfigDict(frozen=True, from_attributes=True, extra="ignore")


class Asked(BaseModel):
    """The base of what the API takes: a field that it does not know is refused, because it may be a mistyped one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Page(Shown, Generic[T]):
    items: list[T]
    next: str | None
    """Give it as `after` for the next page."""


Limit = Annotated[int, Query(ge=1, le=MOST, description="So many at most.")]
AfterNumber = Annotated[
    int | None, Query(alias="after", ge=0, le=2**53, description="The `next` of the page before.")
]
AfterName = Annotated[
    str | None,
    Query(
        alias="after",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="The `next` of the page before.",
    ),
]
AfterPlace = Annotated[
    str | None,
    Query(alias="after", max_length=40, description="The `next` of the page before."),
]


def page_of(
    rows: Sequence[R], limit: int, key: Callable[[R], object]
) -> tuple[list[R], str | None]:
    """Of one row more than was asked for: the page, and where the next one begins."""
    shown = list(rows[:limit])
    return shown, str(key(shown[-1])) if len(rows) > limit else None


def place_of(after: str | None) -> tuple[int, int] | None:
    """The two numbers of a place in a journal. Raises Refused."""
    if after is None:
        return None
    found = PLACE.fullmatch(after)
    if found is None or int(found[2]) > MOST_N:
        raise Refused("malformed", "query.after: give the `next` of the page before.")
    return int(found[1]), int(found[2])
