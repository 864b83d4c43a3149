"""The few OData questions that a Supervisor asks, by their recorded form. Anything else is refused, not guessed."""

from __future__ import annotations

import re

from starlette.datastructures import QueryParams

from cloudly.problems import Refused

UUID = re.compile(r"uuid eq '([0-9a-f]{1,62})'")
DEVICE = re.compile(r"device eq ([0-9]{1,15})")


def asked_uuid(query: QueryParams) -> str:
    """Whose row `$filter=uuid eq '…'` asks for. Raises Refused."""
    return _asked(UUID, query)


def asked_device(query: QueryParams) -> int:
    """Whose rows `$filter=device eq …` asks for. Raises Refused."""
    return int(_asked(DEVICE, query))


def _asked(known: re.Pattern[str], query: QueryParams) -> str:
    found = known.fullmatch(query.get("$filter", ""))
    if found is None:
        raise Refused("malformed", "$filter: only what a Supervisor asks is answered", status=400)
    return found[1]
