"""The base of every model that crosses a border."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints


class Wire(BaseModel):
    """Frozen, tolerant of unknown fields, and silent about its input when it refuses."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


# Bounds on what a stranger may send. Ids are what goes into paths, logs and pages: a safe alphabet.
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""An id: 1..64 characters of letters, digits, `.`, `_`, `-`."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""A name for people: 1..200 characters."""

Line = Annotated[str, StringConstraints(max_length=2000)]
"""A sentence for people: at most 2,000 characters."""

Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""32 bytes in lower-case hex: a SHA-256."""
