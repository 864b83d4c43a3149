"""The Supervisor's verdict on a target state: accepted or rejected as a whole, with its own words for each fault.

Rules:
- Unknown keys pass; a missing `class` means fleet; ids may be strings of digits.
- Every config, environment and label value is a string.
- A contract is only looked at for its form; whether a device meets it is not simulated.
- Names have at most 255 characters, and volumes and networks are objects, never null (code).

Source: `backend/target-state-validation.json`, 34 target states with the Supervisor's log lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

MISSING: Final = object()
CLASSES: Final = ("fleet", "app", "block")

CONFIG_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_:]*")
ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LABEL_NAME: Final = re.compile(r"[!#-&(-_a-~]+")
SERVICE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
MAX_NAME: Final = 255

CONFIG_NAME_RULE: Final = (
    "needs to start with a letter and may only contain alphanumeric characters plus '_' or ':'"
)
ENV_NAME_RULE: Final = (
    "needs to start with a letter and may only contain alphanumeric characters plus '_'"
)
LABEL_NAME_RULE: Final = (
    "may contain printable ASCII characters except space, single/double quotes and backtick"
)
SERVICE_NAME_RULE: Final = 'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed'
LENGTH_RULE: Final = "must be at most 255 chars long"

Faults = Iterator[str]


class TargetRejectedError(Exception):
    """A target state was refused as a whole; `faults` are the Supervisor's reasons, in its words."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def faults_of(device: Mapping[str, Any], uuid: str) -> tuple[str, ...]:
    """Why the Supervisor refuses what a target state says of one device; empty when it accepts it."""
    return tuple(_device(device, uuid))


def _device(device: Mapping[str, Any], at: str) -> Faults:
    yield from _device_name(device.get("name", MISSING), f"{at}.name")
    yield from _strings(
        device.get("config", MISSING),
        f"{at}.config",
        ("ConfigVarName", CONFIG_NAME),
        CONFIG_NAME_RULE,
    )
    apps = device.get("apps", MISSING)
    if not isinstance(apps, dict):
        yield _fault("{ [K in ShortString]: App }", f"{at}.apps", apps)
        return
    for uuid, app in apps.items():
        yield from _app(app, f"{at}.apps.{uuid}.0")


def _device_name(name: object, at: str) -> Faults:
    if not isinstance(name, str):
        yield _fault("DeviceName", at, name)
    elif "\n" in name:
        yield _fault("DeviceName", at, name, "must not contain newline chars")


def _app(app: Mapping[str, Any], at: str) -> Faults:
    yield from _number(app.get("id", MISSING), f"{at}.id")
    yield from _short(app.get("name", MISSING), f"{at}.name")
    yield from _class(app.get("class", "fleet"), f"{at}.class")
    for commit, release in (app.get("releases") or {}).items():
        yield from _release(release, f"{at}.releases.{commit}")


def _class(named: object, at: str) -> Faults:
    if named not in CLASSES:
        for index, known in enumerate(CLASSES):
            yield _fault(f'"{known}"', f"{at}.{index}", named)


def _release(release: Mapping[str, Any], at: str) -> Faults:
    yield from _number(release.get("id", MISSING), f"{at}.id")
    for name, service in (release.get("services") or {}).items():
        place = f"{at}.services.{name}"
        yield from _name(name, place, ("LabelName", SERVICE_NAME), SERVICE_NAME_RULE)
        yield from _service(service, place)
    for key, kind in (("volumes", "Volume"), ("networks", "Network")):
        for name, config in (release.get(key) or {}).items():
            yield from _name(
                name, f"{at}.{key}.{name}", ("LabelName", SERVICE_NAME), SERVICE_NAME_RULE
            )
            if not isinstance(config, dict | list):
                rule = f"Expected value to be an object of type {kind}, got: {_shown(config)}"
                yield _fault(kind, f"{at}.{key}.{name}", config, rule)


def _service(service: Mapping[str, Any], at: str) -> Faults:
    yield from _number(service.get("id", MISSING), f"{at}.0.id")
    yield from _number(service.get("image_id", MISSING), f"{at}.0.image_id")
    yield from _short(service.get("image", MISSING), f"{at}.0.image")
    yield from _strings(
        service.get("environment", MISSING),
        f"{at}.0.environment",
        ("EnvVarName", ENV_NAME),
        ENV_NAME_RULE,
    )
    yield from _strings(
        service.get("labels", MISSING), f"{at}.0.labels", ("LabelName", LABEL_NAME), LABEL_NAME_RULE
    )
    yield from _service_options(service, f"{at}.1")


def _service_options(service: Mapping[str, Any], at: str) -> Faults:
    yield from _option(service, at, "running", "boolean", lambda it: isinstance(it, bool))
    yield from _option(
        service, at, "composition", "{ [K in string]: unknown }", lambda it: isinstance(it, dict)
    )
    contract = service.get("contract", {})
    if not isinstance(contract, dict):
        shown = _shown(contract)
        yield _fault(
            "ContractObject",
            f"{at}.contract",
            contract,
            f"Expected value to be an object of type ContractObject, got: {shown}",
        )


def _option(
    of: Mapping[str, Any], at: str, key: str, kind: str, fits: Callable[[object], bool]
) -> Faults:
    if key in of and not fits(of[key]):
        yield _fault(kind, f"{at}.{key}", of[key])


def _number(value: object, at: str) -> Faults:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        yield _fault("number", f"{at}.0", value)
        yield _fault("string", f"{at}.1", value)
    elif not re.fullmatch(r"[1-9][0-9]*", str(value)):
        yield _fault("NumericIdentifier", at, value, "must be be an positive integer")


def _short(value: object, at: str) -> Faults:
    if not isinstance(value, str):
        yield _fault("ShortString", at, value)
    elif len(value) > MAX_NAME:
        yield _fault("ShortString", at, value, LENGTH_RULE)


def _strings(value: object, at: str, name: tuple[str, re.Pattern[str]], rule: str) -> Faults:
    if not isinstance(value, dict):
        yield _fault(f"{{ [K in {name[0]}]: string }}", at, value)
        return
    for key, held in value.items():
        yield from _name(key, f"{at}.{key}", name, rule)
        if not isinstance(held, str):
            yield _fault("string", f"{at}.{key}", held)


def _name(name: str, at: str, wanted: tuple[str, re.Pattern[str]], rule: str) -> Faults:
    kind, pattern = wanted
    if len(name) > MAX_NAME:
        yield _fault(kind, at, name, LENGTH_RULE)
    elif not pattern.fullmatch(name):
        yield _fault(kind, at, name, rule)


def _fault(kind: str, at: str, got: object, rule: str = "") -> str:
    reason = f" ({rule})" if rule else ""
    return f"Expecting {kind} at {at} but instead got: {_shown(got)}{reason}"


def _shown(got: object) -> str:
    return "undefined" if got is MISSING else json.dumps(got, ensure_ascii=False)
