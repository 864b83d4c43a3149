"""A plan from the words of a command: phases, durations, shares, or a whole file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cloudly.cli.token import duration_s

if TYPE_CHECKING:
    from cloudly.rollouts.phases import Phase
    from cloudly.rollouts.plan import HaltPolicy, Plan

OPTION = re.compile(r":(?:soak=([0-9]+[smhd]|0)|at-least=([0-9]{1,7})|(approval))$")
SHARE = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,4})?)\s*%")
HALT = {"base_rate", "worst_rate", "alpha", "min_failures", "most_failures", "dark_counts"}
LARGEST = 1_000_000


def plan_of(
    file: Path | None, *, phases: list[str], windows: list[str], soak: str | None, **said: Any
) -> Plan:
    """From a file, or from options named as the plan's parts; None: not said. Raises BadOrder, BadParameter."""
    from cloudly.rollouts import plan

    given = {name: value for name, value in said.items() if value is not None}
    if file is not None:
        if given or phases or windows or soak:
            raise typer.BadParameter(
                "--plan says everything: leave the other options of the plan away"
            )
        return plan.read(_read(file))
    soak_s = None if soak is None else _seconds("--soak", soak)
    halt = {name: given.pop(name) for name in HALT & set(given)}
    if phases:
        given["phases"] = tuple(
            phase_of(text, number, soak_s) for number, text in enumerate(phases, 1)
        )
    elif soak_s is not None:
        usual = plan.Plan().phases
        given["phases"] = tuple(one.model_copy(update={"soak_s": soak_s}) for one in usual)
    return plan.made(**given, windows=_windows(windows), halt=_halt(halt))


def _halt(said: dict[str, Any]) -> HaltPolicy:
    from pydantic import ValidationError

    from cloudly.problems import BadOrder
    from cloudly.rollouts.phases import flaws
    from cloudly.rollouts.plan import HaltPolicy

    try:
        return HaltPolicy(**said)
    except ValidationError as problem:
        raise BadOrder(f"this is no plan: {flaws(problem)}; nothing was changed") from None


def phase_of(text: str, number: int, soak_s: int | None = None) -> Phase:
    """`canary:1%`, `25`, `lab:label.site=lab`, each with `:soak=1h`, `:at-least=3`, `:approval` behind it."""
    from cloudly.problems import BadOrder
    from cloudly.rollouts.phases import SOAK_S, phase

    rest, options = text.strip(), dict[str, Any]()
    while found := OPTION.search(rest):
        rest = rest[: found.start()]
        if found[1] is not None:
            options["soak_s"] = 0 if found[1] == "0" else duration_s(found[1])
        elif found[2] is not None:
            options["at_least"] = int(found[2])
        else:
            options["needs_approval"] = True
    at_least = options.pop("at_least", None)
    made = phase(rest, number, **{"soak_s": SOAK_S if soak_s is None else soak_s, **options})
    if at_least is None:
        return made
    if made.share_bp is None:
        raise BadOrder(f"{text!r} is no phase: at-least is of a share, like canary:1%:at-least=3")
    return type(made)(**{**made.model_dump(), "at_least": at_least})


def share(option: str, text: str | None) -> float | None:
    """`2%` as 0.02."""
    if text is None:
        return None
    found = SHARE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{option} {text!r} is no share; for example 2% or 0.5%")
    return float(found[1]) / 100


def seconds(option: str, text: str | None) -> int | None:
    """`14d` in seconds."""
    return None if text is None else _seconds(option, text)


def _seconds(option: str, text: str) -> int:
    if text in {"0", "0s"}:
        return 0
    if text == "never":
        raise typer.BadParameter(f"{option} must end some time; for example 1h")
    try:
        return duration_s(text)
    except typer.BadParameter as problem:
        raise typer.BadParameter(
            f"{option}: {text!r} is no duration; for example 90s, 30m, 1h, 14d"
        ) from problem


def _windows(texts: list[str]) -> tuple[Any, ...]:
    from pydantic import ValidationError

    from cloudly.problems import BadOrder
    from cloudly.rollouts.phases import flaws
    from cloudly.rollouts.windows import window

    made = []
    for text in texts:
        try:
            made.append(window(text))
        except ValidationError as problem:
            raise BadOrder(
                f"{text!r} is no window: {flaws(problem)}; nothing was changed"
            ) from None
        except ValueError as problem:
            raise BadOrder(f"{problem}; nothing was changed") from None
    return tuple(made)


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise typer.BadParameter(f"{file} is larger than any plan: at most {LARGEST} bytes")
    return content
