"""`baserunner journal`: the story told, in words and as JSON, of a whole journal, a damaged one, and none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from journal.problems import Damaged
from journal.verify import Report
from tests.cli.given import NODE, Device

READING = [
    ("journal", "list"),
    ("journal", "show", "app-update/1"),
    ("journal", "tail"),
    ("journal", "tail", "-f"),
    ("journal", "tail", "-m", "app-update"),
    ("journal", "export"),
    ("journal", "verify"),
    ("journal", "timeline"),
    ("journal", "replay", "app-update/1"),
    ("journal", "diff", "app-update/1", "app-update/2"),
    ("journal", "stats"),
    ("journal", "grep", "app"),
    ("why",),
]


def test_every_attempt_is_listed_with_its_state_the_newest_first(lived: Device) -> None:
    said = lived("journal", "list")

    assert said.code == 0
    rows = [line.split() for line in said.out.splitlines()[2:-1]]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("heartbeat/2", "resting", "open"),
        ("app-update/2", "succeeded", "ended"),
        ("app-update/1", "succeeded", "ended"),
        ("heartbeat/1", "ended", "ended"),
        ("enrollment/1", "enrolled", "ended"),
    ]


def test_in_a_pipe_a_row_is_one_line_without_padding(lived: Device) -> None:
    lines = lived("journal", "list", COLUMNS="20").out.splitlines()

    assert len(lines) == 2 + 5 + 1
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_list_for_machines_is_one_object_a_line(lived: Device) -> None:
    first = lived("journal", "list", "--json").lines[0]

    assert first["stream"] == "heartbeat/2"
    assert first["lane"] == "log"
    assert first["ended"] is False
    assert set(first["last"]) == {"kind", "at_ms", "believed_ms", "seq"}


def test_the_story_of_an_attempt_shows_that_the_agent_was_started_in_the_middle(
    lived: Device,
) -> None:
    said = lived("journal", "show", "app-update/2")

    lines = said.out.splitlines()
    assert said.code == 0
    assert lines[0].startswith("app-update/2, from 2026-11-23 ")
    assert "new -> offered" in lines[1]
    (again,) = [number for number, line in enumerate(lines) if "the agent started again" in line]
    assert "apply-requested" in lines[again - 1]
    assert "applied" in lines[again + 1]
    told = lines.index("time in states")
    assert lines[told - 2].endswith("every service ran without a break for 2.0 s: committed")
    assert [line.split()[0] for line in lines[told + 1 : told + 7]] == [
        "offered", "admitted", "downloading", "staged", "applying", "verifying",
    ]  # fmt: skip


def test_a_story_without_a_restart_mentions_none(lived: Device) -> None:
    assert "again" not in lived("journal", "show", "app-update/1").out
    assert "again" not in lived("journal", "show", "heartbeat/2").out


def test_a_story_for_machines_holds_the_facts_of_the_stream_and_no_marks(lived: Device) -> None:
    facts = lived("journal", "show", "app-update/2", "--json").lines

    assert {fact["stream"] for fact in facts} == {"app-update/2"}
    assert [fact["dst"] for fact in facts][-1] == "succeeded"
    assert set(facts[0]) == {
        "lane", "seq", "n", "stream", "kind", "src", "dst", "at_ms", "skew_ms", "believed_ms", "clock_trusted",
        "boot_id", "mono_ms", "data", "said", "hash",
    }  # fmt: skip


@pytest.mark.parametrize("stream", ["app-update", "app-update/x", "nonsense", "/", "app-update/-1"])
def test_what_is_no_stream_name_is_wrong_usage(lived: Device, stream: str) -> None:
    said = lived("journal", "show", "--", stream)

    assert said.code == 2
    assert said.is_one_line()
    assert "app-update/12" in said.err


def test_a_stream_that_is_not_there_points_at_the_list(lived: Device) -> None:
    said = lived("journal", "show", "app-update/99")

    assert said.code == 1
    assert said.is_one_line()
    assert "baserunner journal list" in said.err


def test_the_tail_is_the_newest_facts_in_their_common_order(lived: Device) -> None:
    whole = lived("journal", "tail", "-n", "1000", "--json").lines

    assert [fact["n"] for fact in whole] == list(range(1, len(whole) + 1))
    assert lived("journal", "tail", "-n", "2", "--json").lines == whole[-2:]
    assert lived("journal", "tail", "-n", "0").out == ""
    assert lived("journal", "tail", "-n", "1").out.count("\n") == 1


def test_the_tail_of_one_machine_leaves_the_heartbeats_out(lived: Device) -> None:
    told = lived("journal", "tail", "-n", "9", "-m", "app-update", "--json").lines
    of_one = lived("journal", "tail", "-n", "9", "-m", "app-update/1", "--json").lines

    assert len(told) == 9
    assert [fact["stream"] for fact in told] == ["app-update/1"] * 2 + ["app-update/2"] * 7
    assert {fact["stream"] for fact in of_one} == {"app-update/1"}


def test_the_tail_of_a_machine_that_there_is_not_names_those_that_there_are(lived: Device) -> None:
    said = lived("journal", "tail", "-m", "updates")

    assert (said.code, said.is_one_line()) == (2, True)
    assert "app-update" in said.err


@pytest.mark.parametrize("count", ["-1", "many"])
def test_a_wrong_count_is_wrong_usage(lived: Device, count: str) -> None:
    assert lived("journal", "tail", "-n", count).code == 2


def test_an_export_can_be_checked_elsewhere(lived: Device, tmp_path: Path) -> None:
    from journal.export import check

    to = tmp_path / "export.ndjson"

    assert lived("journal", "export", "--to", str(to)).code == 0
    assert lived("journal", "export").out == to.read_text(encoding="utf-8")
    with to.open(encoding="utf-8") as lines:
        assert check(lines).ok


def test_an_export_never_replaces_a_file(lived: Device, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")

    said = lived("journal", "export", "--to", str(tmp_path / "there"))

    assert (said.code, said.is_one_line()) == (2, True)
    assert (tmp_path / "there").read_text() == "mine"
    nowhere = lived("journal", "export", "--to", str(tmp_path / "no" / "folder"))
    assert (nowhere.code, nowhere.is_one_line()) == (1, True)


def test_a_whole_journal_verifies(lived: Device) -> None:
    said, told = lived("journal", "verify"), lived("journal", "verify", "--json").json

    assert said.code == 0
    assert "chain unbroken" in said.out
    assert told == {"ok": True, "events": told["events"], "problems": [], "gaps": [], "began": None}


def test_a_changed_fact_is_found_and_ends_with_one(lived: Device) -> None:
    with sqlite3.connect(lived.home / "journal.db") as tampering:
        tampering.execute("UPDATE core SET data = '{}' WHERE seq = 3")
    tampering.close()

    said, told = lived("journal", "verify"), lived("journal", "verify", "--json")

    assert (said.code, told.code) == (1, 1)
    assert "keep a copy" in said.out
    assert told.json["ok"] is False
    assert told.json["problems"][0]["seq"] == 3


def test_a_journal_too_damaged_to_be_verified_is_a_finding_too(
    lived: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_damaged(_journal: object) -> Report:
        raise Damaged("read log", "a table has lost its row", "keep the files for salvage")

    monkeypatch.setattr("journal.verify.verify", too_damaged)

    said = lived("journal", "verify", "--json")

    assert said.code == 1
    assert said.json == {
        "ok": False,
        "events": 0,
        "problems": [
            {
                "lane": None,
                "seq": None,
                "what": "read log: a table has lost its row; keep the files for salvage",
            }
        ],
        "gaps": [],
        "began": None,
    }


def test_a_copy_is_read_wherever_it_is(lived: Device, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    lived.home.rename(copy)

    by_folder = lived("journal", "list", "--json", "--file", str(copy))
    by_file = lived("journal", "list", "--json", "--file", str(copy / "journal.db"))

    assert by_folder.out == by_file.out
    assert by_folder.lines


def test_an_empty_journal_says_so(device: Device) -> None:
    with device.writing():
        pass

    assert device("journal", "list").out == "the journal is empty\n"
    assert device("journal", "tail").out == ""
    assert device("why").out == "nothing waits: every attempt has come to its end\n"


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_without_a_journal_every_question_is_answered_in_one_line(
    device: Device, words: tuple[str, ...]
) -> None:
    said = device(*words)

    assert (said.code, said.is_one_line()) == (1, True)
    assert "BASEOS_DATA_DIR" in said.err


def test_a_missing_data_directory_is_the_same_one_line(device: Device, tmp_path: Path) -> None:
    device.data.rmdir()
    (tmp_path / "file").write_text("")

    for place in (device.data, tmp_path / "file"):
        said = device("journal", "list", BASEOS_DATA_DIR=str(place))
        assert (said.code, said.is_one_line()) == (1, True)


@pytest.mark.parametrize("words", READING, ids=" ".join)
@pytest.mark.parametrize("bad", ["noise", "nothing", "half", "holes", "folder", "future"])
def test_a_journal_that_cannot_be_read_is_one_line_and_stays_as_it_is(
    lived: Device, words: tuple[str, ...], bad: str
) -> None:
    spoil(lived.home / "journal.db", bad)

    said = lived(*words)

    assert said.code == 1
    if words[:2] != ("journal", "verify") or said.err:
        assert said.err.count("\n") == 1
        assert said.err.startswith("baserunner: ")


def spoil(file: Path, how: str) -> None:
    whole = file.read_bytes()
    match how:
        case "noise":
            file.write_bytes(bytes(n * 7 % 251 for n in range(20_000)))
        case "nothing":
            file.write_bytes(b"")
        case "half":
            file.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
        case "holes":  # the first page says that all is well, and nothing after it is
            file.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
        case "folder":
            file.unlink()
            file.mkdir()
        case "future":
            with sqlite3.connect(file) as newer:
                newer.execute("PRAGMA user_version = 99")
                newer.execute("UPDATE meta SET value = '99' WHERE name = 'oldest_writer'")
            newer.close()


def test_what_a_fact_says_cannot_drive_the_terminal(lived: Device) -> None:
    with lived.writing() as tell:
        tell("app-update/3", "offered", deployment="d", generation=3, release="c",
             version="\x1b[31m[bold]3", images=[], policy={})  # fmt: skip

    for words in (("journal", "show", "app-update/3"), ("status",), ("journal", "tail")):
        out = lived(*words).out
        assert "\x1b[31m" not in out
        assert "[bold]3" in out


def test_the_story_of_an_enrollment_names_the_node(lived: Device) -> None:
    assert NODE in lived("journal", "show", "enrollment/1").out
