"""`why`, `status`, `machines`, `doctor`, `--help`: what can be asked without changing anything."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from baserunner.cli import show
from baserunner.cli.clock import moment
from baserunner.machines import MACHINES
from interfaces.why import duration
from journal.facts import Stamp
from journal.succession import begin_epoch
from tests.cli.given import NODE, Device

CLOUDLY = "http://127.0.0.1:9"
"""Discard: nobody listens there."""


def test_an_attempt_under_way_says_what_it_waits_for_whose_turn_it_is_and_until_when(
    device: Device,
) -> None:
    with device.writing() as tell:
        device.update(tell, 1, upto="applying")

        said, told = device("why", "app-update"), device("why", "app-update/1", "--json").json

    assert said.code == 0
    assert said.out.startswith("app-update/1 is applying\n")
    for words in (
        "the release to be reported as applied",
        "supervisor",
        "ask the Supervisor to apply",
    ):
        assert words in said.out
    (answer,) = told
    assert (answer["stream"], answer["state"], answer["owner"]) == (
        "app-update/1", "applying", "supervisor",
    )  # fmt: skip
    assert answer["until_ms"] - answer["since_ms"] == 600_000


def test_two_answers_are_told_apart_by_an_empty_line(device: Device) -> None:
    with device.writing() as tell:
        tell("heartbeat/1", "run-started", agent_version="0.1.0")
        device.update(tell, 1, upto="downloading")

        assert device("why").out.count("\n\n") == 1


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("app-update", "app-update/2 ended as succeeded at "),
        ("app-update/1", "app-update/1 ended as succeeded at "),
        ("reboot", "no reboot has begun"),
    ],
)
def test_what_does_not_wait_says_how_it_ended(lived: Device, asked: str, says: str) -> None:
    said = lived("why", asked)

    assert said.code == 0
    assert says in said.out
    assert lived("why", asked, "--json").json == []


def test_a_question_about_what_there_is_not_is_not_answered_with_all_is_well(lived: Device) -> None:
    machine, stream = lived("why", "updates"), lived("why", "app-update/9")

    assert (machine.code, stream.code) == (2, 1)
    assert machine.is_one_line()
    assert stream.is_one_line()
    assert ", ".join(MACHINES) in machine.err


def test_with_an_agent_that_is_well_status_ends_with_zero(lived: Device) -> None:
    with lived.writing():
        said, told = lived("status"), lived("status", "--json")

    assert (said.code, told.code) == (0, 0)
    assert f"runs, pid {os.getpid()}" in said.out
    assert "app-update/2 to 1.2.0: succeeded" in said.out
    assert told.json == {
        "healthy": True, "problems": [], "agent_pid": os.getpid(), "node_id": NODE,
        "enrollment": "enrolled", "heartbeat": "resting", "last_answer_ms": None,
        "release": "1.2.0 (c2)", "update": "app-update/2", "update_version": "1.2.0",
        "update_state": "succeeded", "epoch": "e" * 32, "facts": 20, "unacked": 20,
        "unacked_core": 17, "epoch_began": "", "damaged": False, "locks": [],
    }  # fmt: skip


def test_without_an_agent_status_ends_with_one_and_says_what_to_do(lived: Device) -> None:
    told = lived("status", "--json")

    assert told.code == 1
    assert told.json["healthy"] is False
    assert told.json["problems"] == ["the agent does not run: start `baserunner run`"]


def test_status_without_a_journal_names_what_is_missing(device: Device) -> None:
    told = device("status", "--json")

    assert told.code == 1
    assert told.err == ""
    assert any("there is no journal" in problem for problem in told.json["problems"])


def test_status_of_a_damaged_journal_is_not_well(lived: Device) -> None:
    (lived.home / "journal.db").write_bytes(b"\xa5" * 20_000)

    told = lived("status", "--json")

    assert told.code == 1
    assert any("NOTADB" in problem for problem in told.json["problems"])


def test_of_a_journal_that_cannot_be_read_nothing_is_said_to_be_none(lived: Device) -> None:
    file = lived.home / "journal.db"
    file.write_bytes(file.read_bytes().replace(b"health-passed", b"h\xffalth-passed"))

    said = lived("status")

    assert said.code == 1
    assert said.out.count("unknown: the journal is damaged") == 2
    assert "none that this journal knows of" not in said.out


def test_status_and_doctor_say_that_this_epoch_follows_another_and_where_its_files_are(
    lived: Device,
) -> None:
    begin_epoch(
        lived.home,
        stamp=lambda: Stamp(1_795_415_000_000, "boot-1", 1),
        new_epoch=lambda: "f" * 32,
        why="tail-lost",
        problem="the core lane ends at 17, and Cloudly knows of 23",
        wanted=lambda _info: True,
    )

    status, doctor = lived("status"), lived("doctor", "--json")

    (journal,) = [finding for finding in doctor.json if finding["what"] == "journal"]
    assert journal["verdict"] == "note"
    for words in (status.out, journal["seen"]):
        assert "a new epoch began (tail-lost): the core lane ends at 17" in words
        assert "the files of the one before are in kept/1-eeeeeeee" in words


def test_why_says_that_nothing_goes_on_without_an_agent(lived: Device) -> None:
    with lived.writing() as tell:
        lived.update(tell, 3, upto="applying")
        running = lived("why")

    dead = lived("why")

    assert "no agent runs" not in running.out + running.err
    assert "no agent runs here: nothing goes on until `baserunner run`" in dead.err
    assert "app-update/3 is applying" in dead.out


def test_why_reads_a_copy_taken_off_a_device(lived: Device, tmp_path: Path) -> None:
    with lived.writing() as tell:
        lived.update(tell, 3, upto="applying")
    copy = tmp_path / "copy"
    shutil.copytree(lived.home, copy)
    export = tmp_path / "export.ndjson"
    lived("journal", "export", "--to", str(export))
    own = lived("why").out
    shutil.rmtree(lived.home)

    for where in (copy, copy / "journal.db", export):
        told = lived("why", "--file", str(where))

        assert told.code == 0, told.err
        assert told.out.splitlines()[:2] == own.splitlines()[:2]
        assert "no agent runs" not in told.err
    assert lived("why", "--file", str(tmp_path)).code == 1


def test_an_update_that_needs_a_rollback_is_not_well(device: Device) -> None:
    with device.writing() as tell:
        device.update(tell, 1, upto="verifying")
        tell("app-update/1", "health-failed", reason="service main is exited")

        told = device("status", "--json")

    assert told.code == 1
    assert "app-update/1 is rollback-needed: service main is exited" in told.json["problems"]


def test_every_machine_is_shown_with_owner_and_deadline(device: Device) -> None:
    table, drawn = device("machines"), device("machines", "--draw")
    told = device("machines", "--json").json

    assert [machine["name"] for machine in told] == list(MACHINES)
    assert set(told[0]) == {"name", "initial", "final", "arrows", "waits"}
    assert drawn.out.count("stateDiagram-v2") == len(MACHINES)
    for machine in told:
        for state in [*machine["final"], *machine["waits"]]:
            assert any(
                line.split()[:2] == [machine["name"], state] for line in table.out.splitlines()
            )


def test_the_doctor_looks_at_the_device_even_when_a_setting_is_wrong(lived: Device) -> None:
    told = lived("doctor", "--json")

    findings = {finding["what"]: finding for finding in told.json}
    assert told.code == 1
    assert findings["settings"]["verdict"] == "bad"
    assert "BASEOS_CLOUDLY_URL" in findings["settings"]["seen"]
    assert findings["journal"]["verdict"] == findings["data"]["verdict"] == "ok"
    assert findings["agent"]["verdict"] == "note"


def test_the_doctor_finds_cloudly_and_supervisor_missing_and_says_what_to_do(
    lived: Device,
) -> None:
    told = lived(
        "doctor",
        "--json",
        BASEOS_CLOUDLY_URL=CLOUDLY,
        BALENA_SUPERVISOR_ADDRESS=CLOUDLY,
        BALENA_SUPERVISOR_API_KEY="supervisorcanary",
    )

    findings = {finding["what"]: finding for finding in told.json}
    assert told.code == 1
    assert set(findings["cloudly"]) == {"verdict", "what", "seen", "todo"}
    for what in ("cloudly", "supervisor", "identity"):
        assert findings[what]["verdict"] == "bad"
        assert findings[what]["todo"]
    assert "supervisorcanary" not in told.out + told.err


def test_the_doctor_on_a_device_without_a_volume(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for place, says in ((tmp_path / "none", "is missing"), (tmp_path / "file", "is no directory")):
        findings = device("doctor", "--json", BASEOS_DATA_DIR=str(place)).json
        (data,) = [finding for finding in findings if finding["what"] == "data"]
        assert data["verdict"] == "bad"
        assert says in data["seen"]


def test_the_doctor_and_a_garbage_journal(device: Device) -> None:
    device.home.mkdir()
    (device.home / "journal.db").write_bytes(b"\xa5" * 20_000)

    said = device("doctor")

    assert said.code == 1
    assert "NOTADB" in said.out
    assert "when the agent starts, it keeps the files aside" in said.out


def test_another_user_is_told_so_and_not_that_nothing_is_there(
    lived: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baserunner.cli.show.os.access", lambda *_: False)

    for words in (("journal", "list"), ("why",), ("update", "check"), ("reboot", "--yes")):
        said = lived(*words)
        assert (said.code, said.is_one_line()) == (1, True)
        assert "run as the agent's user or root" in said.err
    (problem,) = lived("status", "--json").json["problems"]
    assert "may not look into" in problem


@pytest.mark.parametrize(
    "words",
    [
        ("frobnicate",),
        ("--frobnicate",),
        ("journal", "frobnicate"),
        ("journal", "show"),
        ("journal", "list", "--frobnicate"),
        ("why", "a", "b"),
        ("status", "now"),
        ("update", "sometimes"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_two_and_shows_the_usage(
    device: Device, words: tuple[str, ...]
) -> None:
    said = device(*words)

    assert said.code == 2
    assert said.out == ""
    assert "Usage: baserunner" in said.err


@pytest.mark.parametrize(
    "words", [(), ("journal",), ("update",), ("run",), ("doctor",), ("enroll",)], ids=" ".join
)
def test_every_command_explains_itself(device: Device, words: tuple[str, ...]) -> None:
    for option in ("-h", "--help"):
        said = device(*words, option)
        assert said.code == 0
        assert "Usage: baserunner" in said.out


def test_the_version_is_said(device: Device) -> None:
    assert device("--version").out == "baserunner 0.1.0\n"


@pytest.mark.parametrize(
    ("typed", "offered"), [("baserunner jour", "journal"), ("baserunner journal v", "verify")]
)
def test_words_are_completed(device: Device, typed: str, offered: str) -> None:
    said = device(
        _BASERUNNER_COMPLETE="complete_bash",
        COMP_WORDS=typed,
        COMP_CWORD=str(typed.count(" ")),
    )

    assert said.code == 0
    assert said.out.split() == [offered]


def test_on_a_narrow_terminal_names_stay_whole(
    lived: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)

    show.table(["stream", "what"], [["app-update/123456", "one two three four five"]], prose="what")

    assert "app-update/123456" in lived.capsys.readouterr().out


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (59_940, "59.9 s"),
        (245_000, "4 m 05 s"),
        (7_800_000, "2 h 10 m"),
        (273_600_000, "3 d 4 h"),
        (-3_200, "-3.2 s"),
    ],
)
def test_lengths_of_time_have_their_two_largest_units(milliseconds: int, said: str) -> None:
    assert duration(milliseconds) == said


def test_a_moment_beyond_the_calendar_is_its_number() -> None:
    assert moment(0) == "1970-01-01 00:00:00"
    assert moment(10**18) == str(10**18)
