"""The locks: exact, hashed, without an address, one version of a package everywhere, and true to pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("build", "cloudly", "dev", "device")


def pins(lock: str) -> dict[str, str]:
    """Package -> version, of one lock."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, flags=re.MULTILINE))


def asked(lock: str) -> list[Requirement]:
    """What pyproject.toml asks for, of what this lock is for."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, extras = pyproject["project"], pyproject["project"]["optional-dependencies"]
    lines = {
        "build": pyproject["build-system"]["requires"],
        "device": project["dependencies"],
        "cloudly": [*project["dependencies"], *extras["cloudly"]],
        "dev": [*project["dependencies"], *extras["cloudly"], *extras["dev"]],
    }[lock]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_a_pinned_package_or_a_hash_so_there_is_no_address_or_path(lock: str) -> None:
    pin = re.compile(r"[a-z0-9.-]+==[0-9][a-z0-9.]*( ; [\w '!=.]+)? \\")
    hashed = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")

    lines = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if not (pin.fullmatch(line) or hashed.fullmatch(line))] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_what_pyproject_asks_for_is_in_the_lock_in_a_version_that_fits(lock: str) -> None:
    locked = pins(lock)

    unmet = [
        str(wanted)
        for wanted in asked(lock)
        if not wanted.specifier.contains(locked.get(canonicalize_name(wanted.name), "0"))
    ]

    assert unmet == [], "run `make lock`"


@pytest.mark.parametrize("lock", ["build", "cloudly", "device"])
def test_a_package_has_one_version_in_all_locks(lock: str) -> None:
    assert pins(lock).items() <= pins("dev").items()


def test_a_device_gets_none_of_the_control_planes_packages() -> None:
    only_cloudly = {canonicalize_name(wanted.name) for wanted in asked("cloudly")} - {
        canonicalize_name(wanted.name) for wanted in asked("device")
    }

    assert only_cloudly
    assert not only_cloudly & pins("device").keys()


def test_a_compiled_package_has_the_hashes_of_more_than_one_platform() -> None:
    text = (ROOT / "requirements" / "device.lock").read_text(encoding="utf-8")

    of_core = text.partition("\npydantic-core==")[2].partition("==")[0]

    # 2.50 has over a hundred files; a lock written from one machine's own wheel would have one.
    assert of_core.count("--hash=") > 20
