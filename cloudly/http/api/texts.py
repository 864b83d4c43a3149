"""The texts that the API takes, each with the only form that it may have: nothing else comes near the database."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from cloudly.durations import FORM

FleetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
TokenName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]{1,200}$")]
ReleaseName = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]{1,200}$")]
"""A commit, its beginning, or a version."""
PublisherName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Prefix = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._/-]{0,200}$")]
Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,200}$")]
"""A name for people, in one line."""
Duration = Annotated[str, StringConstraints(pattern=f"^({FORM})$")]
"""24h, 30m, 90s, 7d, or never."""
