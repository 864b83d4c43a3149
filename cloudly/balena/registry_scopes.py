"""What a registry token grants: asked scopes, cut down to what the asker may do. Pure.

Rules:
- A device may only pull, and only the repositories that its present target names on this registry. A rollback is a
  target too (it turns the target back in the transaction that orders it), so no other release needs to be granted.
- A publisher may pull and push, everywhere or below its prefix; nobody gets `delete`, `*` or the catalog.
- What is not granted is left out, without an error: so the contract wants it. What cannot be understood is not granted.

Source: distribution's "Token Scope Documentation" (`repository:name:action,action`) and its repository name grammar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypedDict

PULL = "pull"
PUSH = "push"
ACTIONS = (PULL, PUSH)
"""All that is ever granted, in the order of a token."""

MAX_NAME = 255  # distribution's RepositoryNameTotalLengthMax
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")

May = Callable[[str], frozenset[str]]
"""Which actions somebody may do on a repository of that name."""


class Access(TypedDict):
    """One entry of a token's `access` claim."""

    type: str
    name: str
    actions: list[str]


def is_repository(name: str) -> bool:
    """Whether a registry could have a repository of that name."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def repository_of(image: str, host: str) -> str | None:
    """The repository of an image reference on that registry, without tag and digest; None when it is elsewhere."""
    named, slash, rest = image.partition("/")
    if not slash or named != host:
        return None
    name = rest.partition("@")[0].partition(":")[0]
    return name if is_repository(name) else None


def device_may(images: Iterable[str], host: str) -> May:
    """Pull what these images are in, and nothing else."""
    repositories = {repository_of(image, host) for image in images} - {None}
    return lambda name: frozenset({PULL}) if name in repositories else frozenset()


def publisher_may(prefix: str) -> May:
    """Pull and push below that prefix, which ends between two components; everywhere when it is empty."""

    def may(name: str) -> frozenset[str]:
        inside = not prefix or name == prefix or name.startswith(f"{prefix}/")
        return frozenset(ACTIONS) if inside else frozenset()

    return may


def granted(asked: Iterable[str], may: May) -> list[Access]:
    """The asked scopes as far as they may be had, one entry per repository, in the order of asking."""
    actions: dict[str, frozenset[str]] = {}
    for name, wanted in filter(None, map(_repository_scope, _split(asked))):
        actions[name] = actions.get(name, frozenset()) | (wanted & may(name))
    return [
        Access(type="repository", name=name, actions=[one for one in ACTIONS if one in had])
        for name, had in actions.items()
        if had
    ]


def _split(asked: Iterable[str]) -> Iterable[str]:
    """Each `scope` parameter may hold several, with spaces between them."""
    for parameter in asked:
        yield from parameter.split(" ")


def _repository_scope(text: str) -> tuple[str, frozenset[str]] | None:
    """Name and actions of a `repository` scope. The name may hold a colon, so its end is looked for from behind."""
    kind, _, rest = text.partition(":")
    name, _, actions = rest.rpartition(":")
    if kind != "repository" or not is_repository(name):
        return None
    return name, frozenset(actions.split(","))
