"""The options of an update policy, which each order to update takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from interfaces.desired import UpdatePolicy

HealthSoak = Annotated[
    float | None, typer.Option(min=0, help="Seconds of unbroken health that count, on a node.")
]
HealthDeadline = Annotated[
    float | None, typer.Option(min=0.1, help="Seconds until health is given up.")
]
ApplyDeadline = Annotated[
    float | None, typer.Option(min=0.1, help="Seconds until an apply is given up.")
]
DownloadDeadline = Annotated[float | None, typer.Option(min=0.1, help="Seconds for the download.")]
MaxApplyAttempts = Annotated[
    int | None, typer.Option(min=1, max=100, help="How often to try to apply.")
]


def policy_of(**given: float | None) -> UpdatePolicy:
    """The defaults, but for what was given. Raises BadParameter."""
    from pydantic import ValidationError

    from interfaces.desired import UpdatePolicy

    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        if not math.isfinite(value):
            raise typer.BadParameter(f"{_option(name)} must be finite")
    try:
        return UpdatePolicy.model_validate(chosen)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        raise typer.BadParameter(f"{_option(str(first['loc'][0]))}: {first['msg']}") from None


def _option(field: str) -> str:
    return f"--{field.removesuffix('_s').replace('_', '-')}"
