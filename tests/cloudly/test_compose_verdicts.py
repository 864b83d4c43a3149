"""What a Supervisor rejects is refused when the release is made, and what is accepted here it accepts."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudly.balena.compose.fields import LEFT_OUT, PASSED, REFUSED
from cloudly.balena.compose.notes import BadCompose
from cloudly.balena.compose.read import Composed, commit_of, read_compose
from cloudly.balena.target import Target, TargetRelease, TargetService, target_state
from interfaces.desired import AppTarget
from interfaces.target_verdict import faults_of
from tests.cloudly.given import UUID
from tests.simulators.lab import RECORDINGS

RECORDED: Final[dict[str, dict[str, Any]]] = {
    row["case"]: row
    for row in json.loads((RECORDINGS / "backend" / "target-state-validation.json").read_text())
}
CLOUDLYS_OWN: Final = "no file says it: Cloudly writes this part of the target itself"
NO_CONTRACT: Final = "a compose file has no contract"
NOT_IN_A_FILE: Final = {
    "no device key for uuid": CLOUDLYS_OWN,
    "empty object {}": CLOUDLYS_OWN,
    "missing name": CLOUDLYS_OWN,
    "missing config": CLOUDLYS_OWN,
    "missing apps": CLOUDLYS_OWN,
    "config value number": CLOUDLYS_OWN,
    "config name with dash": CLOUDLYS_OWN,
    "name with newline": CLOUDLYS_OWN,
    "app missing id": CLOUDLYS_OWN,
    "app id not int": CLOUDLYS_OWN,
    "app missing name": CLOUDLYS_OWN,
    "app class bogus": CLOUDLYS_OWN,
    "release missing id": CLOUDLYS_OWN,
    "svc missing id": CLOUDLYS_OWN,
    "svc missing image_id": CLOUDLYS_OWN,
    "svc running string": CLOUDLYS_OWN,
    "svc contract null": NO_CONTRACT,
    "svc contract unmet requires": NO_CONTRACT,
    "svc contract bad type": NO_CONTRACT,
    "v2 style {local:..}": CLOUDLYS_OWN,
    "array body": CLOUDLYS_OWN,
    "string body": CLOUDLYS_OWN,
}
MENDED: Final = {
    "svc missing environment": "a file without one says an empty one",
    "svc missing labels": "a file without them says empty ones",
    "env value number": "a number in a file is text in the target",
    "label value bool": "a boolean in a file is text in the target",
}


def file_of(case: str) -> bytes:
    """The recorded release as the compose file that would say it."""
    (device,) = RECORDED[case]["target"].values()
    (app,) = device["apps"].values()
    (release,) = app["releases"].values()
    services = {name: _said(service) for name, service in release["services"].items()}
    sections = {key: release[key] for key in ("volumes", "networks")}
    return json.dumps({"services": services} | sections).encode()


def _said(service: dict[str, Any]) -> Any:
    composition = service["composition"]
    if not isinstance(composition, dict):
        return composition
    kept = {
        key: service[key] for key in ("image", "environment", "labels", "extra") if key in service
    }
    return composition | kept


def target_of(composed: Composed) -> dict[str, Any]:
    services = tuple(
        TargetService(n, one.name, n, one.image, one.labels, one.environment, one.composition)
        for n, one in enumerate(composed.services, 1)
    )
    release = TargetRelease(
        1, commit_of(composed, "1"), services, composed.volumes, composed.networks
    )
    body = target_state(uuid=UUID, app_uuid="a" * 32, target=Target("kiosk", release))
    device: dict[str, Any] = json.loads(body)[UUID]
    return device


def was_accepted(case: str) -> bool:
    return any("[success]" in line for line in RECORDED[case]["supervisor_log"])


def test_every_recorded_verdict_is_compared_or_has_a_reason_why_not() -> None:
    compared = set(RECORDED) - set(NOT_IN_A_FILE) - set(MENDED)

    assert len(RECORDED) == 34
    assert set(NOT_IN_A_FILE) | set(MENDED) <= set(RECORDED)
    assert compared == {
        "app missing class (default fleet)", "ids as strings", "unknown extra keys", "svc missing image",
        "env name with dash", "label name with space", "service name with space", "composition as string",
    }  # fmt: skip


@pytest.mark.parametrize("case", ["app missing class (default fleet)", "ids as strings"])
def test_a_recorded_release_that_was_accepted_is_accepted_and_means_the_same(case: str) -> None:
    (device,) = RECORDED[case]["target"].values()
    (app,) = device["apps"].values()
    (release,) = app["releases"].values()
    recorded = release["services"]["main"]

    target = target_of(read_compose(file_of(case)))

    (ours,) = next(iter(target["apps"]["a" * 32]["releases"].values()))["services"].values()
    same = ("image", "environment", "labels", "composition", "running")
    assert was_accepted(case)
    assert faults_of(target, UUID) == ()
    assert {key: ours[key] for key in same} == {key: recorded[key] for key in same}


@pytest.mark.parametrize(
    ("case", "where"),
    [
        ("svc missing image", "services.main"),
        ("env name with dash", "services.main.environment.A-B"),
        ("label name with space", "services.main.labels.a b"),
        ("service name with space", "services.bad name"),
        ("composition as string", "services.main"),
    ],
)
def test_a_recorded_release_that_was_rejected_is_refused_with_its_place(
    case: str, where: str
) -> None:
    assert not was_accepted(case)

    with pytest.raises(BadCompose) as refused:
        read_compose(file_of(case))

    assert [problem.where for problem in refused.value.problems] == [where]


@pytest.mark.parametrize("case", sorted(MENDED))
def test_what_a_file_cannot_say_wrongly_is_right_in_the_target(case: str) -> None:
    assert not was_accepted(case)

    assert faults_of(target_of(read_compose(file_of(case))), UUID) == ()


def test_an_unknown_key_passes_there_without_effect_and_is_refused_here() -> None:
    """The one difference, and wanted: what it would take without doing anything is a mistake of the writer."""
    assert was_accepted("unknown extra keys")

    with pytest.raises(BadCompose, match=r"services\.main\.extra"):
        read_compose(file_of("unknown extra keys"))


# -- whatever the file says

TEXT = st.text(max_size=8) | st.sampled_from(["", "a", "a b", "$", "$$", "${A}", "x" * 300, "\0"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(sorted({*PASSED, *REFUSED, *LEFT_OUT, "tmpfs", "x-a"}))
LIKELY = st.sampled_from(
    [
        "1m", "64m", "host", "service:a", "80:80", "data:/data", "/run", "always", "CMD", ["data:/d", "data:/e"],
        {"type": "tmpfs", "target": "/t"}, ["a"], ["b"], {"a": 1}, {"test": "x"}, True, 1, ["80", "81"], "a=b",
    ]
)  # fmt: skip
IMAGES = st.sampled_from([f"r.example/{name}@sha256:{n * 64}" for name in "ab" for n in "12"])
NAMES = st.sampled_from(["a", "b", "A_B", "a.b-c"]) | TEXT
SERVICES = st.builds(
    lambda image, environment, labels, fields: (
        {"image": image, "environment": environment, "labels": labels} | fields
    ),
    IMAGES,
    st.dictionaries(NAMES, SCALARS, max_size=3) | ANYTHING,
    st.dictionaries(NAMES, SCALARS, max_size=3) | ANYTHING,
    st.dictionaries(FIELDS, LIKELY | ANYTHING, max_size=3),
)
DOCUMENTS = st.builds(
    lambda services, volumes, networks: (
        {"services": services, "volumes": volumes, "networks": networks}
    ),
    st.dictionaries(NAMES, SERVICES | ANYTHING, max_size=3),
    st.dictionaries(NAMES | st.just("data"), st.none() | ANYTHING, max_size=2),
    st.dictionaries(NAMES, st.none() | ANYTHING, max_size=2),
)


def _check_told(bad: BadCompose) -> None:
    assert bad.problems
    assert str(bad).replace("\n", "").isprintable()


def _accepted(document: bytes) -> Composed | None:
    """None when it was refused; what is accepted is right in both targets. Anything else fails the test."""
    try:
        composed = read_compose(document)
    except BadCompose as bad:
        _check_told(bad)
        return None
    assert faults_of(target_of(composed), UUID) == ()
    images = [{"service": one.name, "image": one.image} for one in composed.services]
    told = {
        "deployment": "d",
        "release": commit_of(composed, "1"),
        "version": "1",
        "images": images,
    }
    AppTarget.model_validate(told)
    again = read_compose(document)
    assert json.dumps(target_of(again)) == json.dumps(target_of(composed))
    return composed


@given(DOCUMENTS | ANYTHING)
@settings(max_examples=150, deadline=None)
def test_whatever_is_accepted_is_a_target_that_the_supervisor_accepts(document: object) -> None:
    _accepted(json.dumps(document).encode())


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_bytes_are_they_are_read_or_refused(document: bytes) -> None:
    _accepted(document)
    _accepted(b"services:\n  a: &a {image: x}\n  b: " + document)


GOOD_TEXT = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20).map(
    lambda text: text.replace("$", "$$")
)
GOOD_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)


@given(
    st.dictionaries(GOOD_NAMES, GOOD_TEXT | st.integers() | st.booleans(), max_size=4),
    st.dictionaries(GOOD_NAMES, GOOD_TEXT | st.integers() | st.booleans(), max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "restart": st.sampled_from(["no", "always", "on-failure", "unless-stopped"]),
            "command": GOOD_TEXT.map(lambda text: ["sh", "-c", text]),
            "mem_limit": st.integers(1, 2**40).map(str),
            "ports": st.integers(1, 65535).map(lambda port: [f"{port}:80"]),
            "privileged": st.booleans(),
            "cap_add": st.lists(st.sampled_from(["CHOWN", "KILL"]), max_size=2),
            "volumes": st.just(["data:/data"]),
            "ulimits": st.dictionaries(st.sampled_from(["core", "nofile"]), st.integers(0, 9)),
        },
    ),
)
@settings(max_examples=80, deadline=None)
def test_a_file_that_keeps_the_rules_is_accepted_with_all_that_it_says(
    environment: dict[str, Any], labels: dict[str, Any], fields: dict[str, Any]
) -> None:
    image = f"r.example/a@sha256:{'1' * 64}"
    service = {"image": image, "environment": environment, "labels": labels} | fields
    document = {"services": {"main": service}, "volumes": {"data": {}}}

    composed = _accepted(json.dumps(document).encode())

    assert composed is not None
    (main,) = composed.services
    for name, given_value in environment.items():
        meant = str(given_value).lower() if isinstance(given_value, bool) else str(given_value)
        assert main.environment[name] == meant.replace("$$", "$")
    assert set(main.composition) == set(fields)
