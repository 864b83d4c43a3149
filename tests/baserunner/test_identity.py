"""state.json holds the identity, survives a power cut, and shows its contents to nobody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from baserunner import identity as room
from baserunner.identity import Identity, read_identity, set_aside, write_identity
from baserunner.problems import IdentityProblem

CANARY = "canary-secret-canary-secret-canary-secret-43x"


def an_identity(**changes: Any) -> Identity:
    return Identity.model_validate(
        {
            "node_id": "node-1",
            "enrollment": "enrollment/1",
            "enrollment_secret": CANARY,
            "node_token": "bnt_" + CANARY,
            **changes,
        }
    )


def test_what_was_written_is_read_again_with_its_secrets(tmp_path: Path) -> None:
    write_identity(tmp_path, an_identity())

    read = read_identity(tmp_path)

    assert read is not None
    assert read.enrollment_secret == SecretStr(CANARY)
    assert read.node_token == SecretStr("bnt_" + CANARY)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


def test_no_identity_yet_is_none(tmp_path: Path) -> None:
    assert read_identity(tmp_path) is None


@pytest.mark.parametrize("cut", [0, 1, 20, 60, 100])
def test_a_torn_file_is_a_problem_that_shows_nothing_of_it(tmp_path: Path, cut: int) -> None:
    write_identity(tmp_path, an_identity())
    whole = (tmp_path / "state.json").read_bytes()
    (tmp_path / "state.json").write_bytes(whole[:cut])

    with pytest.raises(IdentityProblem) as problem:
        read_identity(tmp_path)

    assert "canary" not in str(problem.value)
    assert "damaged" in str(problem.value)


def test_a_secret_of_the_wrong_shape_is_not_echoed(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(
        f'{{"node_id": "n", "enrollment": "e", "enrollment_secret": ["{CANARY}"]}}'
    )

    with pytest.raises(IdentityProblem) as problem:
        read_identity(tmp_path)

    assert "canary" not in str(problem.value)
    assert "enrollment_secret" in str(problem.value)


def test_a_damaged_file_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("half")

    aside = set_aside(tmp_path)

    assert aside.read_text() == "half"
    assert read_identity(tmp_path) is None


def syncs_around_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of fsyncs and the rename while an identity is written."""
    order: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        kind = "directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"  # noqa: PTH112
        order.append(f"fsync {kind}")
        real_fsync(descriptor)

    def replace(path: Path, target: Path) -> Path:
        order.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_identity(tmp_path, an_identity())
    return order


def test_it_is_durable_file_then_rename_then_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert syncs_around_rename(tmp_path, monkeypatch) == ["fsync file", "rename", "fsync directory"]


def test_without_the_directory_sync_this_harness_turns_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_fsync_directory", lambda _directory: None)

    assert syncs_around_rename(tmp_path, monkeypatch) != ["fsync file", "rename", "fsync directory"]


def test_a_directory_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(IdentityProblem, match="cannot write"):
        write_identity(tmp_path / "missing", an_identity())
