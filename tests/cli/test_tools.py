"""`journal grep`, `stats`, `import`, `salvage`, and copies taken off a device: the rest of what 3 a.m. needs."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.given import Device


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


@pytest.fixture
def exported(lived: Device, tmp_path: Path) -> Path:
    to = tmp_path / "export.ndjson"
    assert lived("journal", "export", "--to", str(to)).code == 0
    return to


@pytest.mark.parametrize(
    ("pattern", "kinds"),
    [
        ("health-passed", ["health-passed", "health-passed"]),  # a kind
        ("update lock$", ["download-requested"] * 2),  # a sentence
        ('"version":"1.2', ["offered"]),  # data
        ("^succeeded$", ["health-passed"] * 2),  # a state
    ],
)
def test_what_is_sought_may_stand_in_kind_sentence_data_or_state(
    lived: Device, pattern: str, kinds: list[str]
) -> None:
    found = lived("journal", "grep", pattern, "--json", "-m", "app-update").lines

    assert [fact["kind"] for fact in found] == kinds


def test_with_a_number_the_newest_are_found_and_told_in_order(lived: Device) -> None:
    whole = lived("journal", "grep", "STAGED|APPLIED", "-i", "--json").lines

    assert len(whole) == 4
    assert lived("journal", "grep", "-i", "STAGED|APPLIED", "-n", "3", "--json").lines == whole[-3:]
    first = lived("journal", "grep", "-i", "STAGED|APPLIED", "-n", "3", "--after", "0", "--json")
    assert first.lines == whole[:3]


def test_nothing_found_ends_with_one_and_a_pattern_that_is_none_with_two(lived: Device) -> None:
    nothing, broken = lived("journal", "grep", "nosuchthing"), lived("journal", "grep", "(")

    assert (nothing.code, nothing.out, nothing.err) == (1, "", "")
    assert (broken.code, broken.is_one_line()) == (2, True)


def test_the_counts_of_stats_add_up(lived: Device) -> None:
    told = lived("journal", "stats", "--json").lines
    whole = len(lived("journal", "tail", "-n", "1000", "--json").lines)

    for what in ("lane", "kind", "day"):
        assert sum(each["facts"] for each in told if each["what"] == what) == whole
    (files,) = [each for each in told if each["what"] == "files"]
    assert files["file_bytes"] == (lived.home / "journal.db").stat().st_size
    states = {each["state"]: each for each in told if each.get("machine") == "app-update"}
    assert (states["applying"]["visits"], states["applying"]["ms"]) == (2, 4_000)
    assert "not yet acked by Cloudly" in lived("journal", "stats").out


def test_an_import_is_the_journal_again(lived: Device, exported: Path, tmp_path: Path) -> None:
    said = lived("journal", "import", str(exported), "--to", str(tmp_path / "new"))

    assert said.code == 0
    again = lived("journal", "export", "--file", str(tmp_path / "new")).out
    assert again == exported.read_text(encoding="utf-8")
    twice = lived("journal", "import", str(exported), "--to", str(tmp_path / "new"))
    assert (twice.code, twice.is_one_line()) == (1, True)


@pytest.mark.parametrize("how", ["changed", "cut", "binary", "missing", "folder"])
def test_an_export_that_is_not_whole_makes_no_journal(
    lived: Device, exported: Path, tmp_path: Path, how: str
) -> None:
    match how:
        case "changed":
            exported.write_text(exported.read_text().replace("1.2.0", "6.6.6"))
        case "cut":
            exported.write_text("\n".join(exported.read_text().splitlines()[:9]))
        case "binary":
            exported.write_bytes(b'{"format": "\xff\xfe')
        case "missing":
            exported.unlink()
        case "folder":
            exported.unlink()
            exported.mkdir()

    said = lived("journal", "import", str(exported), "--to", str(tmp_path / "new"))

    assert (said.code, said.is_one_line()) == (1, True)
    assert not (tmp_path / "new").exists()


def test_an_export_is_asked_like_a_journal(lived: Device, exported: Path) -> None:
    for words in (("list", "--json"), ("show", "app-update/2"), ("timeline",), ("verify",)):
        there = lived("journal", *words, "--file", str(exported))
        assert there == lived("journal", *words)


def test_all_that_is_wrong_with_an_export_is_named(lived: Device, exported: Path) -> None:
    changed = exported.read_text().replace('\\"soak_s\\":2.0', '\\"soak_s\\":9.9')
    exported.write_text(changed)

    told = lived("journal", "verify", "--json", "--file", str(exported))

    assert told.code == 1
    assert len(told.json["problems"]) == 2


def test_a_copy_with_a_wal_is_read_with_its_newest_facts_and_stays_as_it_is(
    lived: Device, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with lived.writing() as tell:
        lived.update(tell, 3, upto="staged")
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(lived.home / name, copy / name)
    before = files_in(copy)
    assert (copy / "journal.db-wal").stat().st_size > 0

    newest = lived("journal", "tail", "-n", "1", "--json", "--file", str(copy)).json

    assert (newest["stream"], newest["kind"]) == ("app-update/3", "staged")
    assert files_in(copy) == before


@pytest.mark.parametrize("words", ["list", "verify", "stats", "timeline", "export"])
def test_another_programs_database_is_named_as_that(
    lived: Device, tmp_path: Path, words: str
) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE core (x)")
    connection.close()

    said = lived("journal", words, "--file", str(other))

    assert (said.code, said.is_one_line()) == (1, True)
    assert "not a journal" in said.err


def test_a_file_that_may_not_be_read_is_one_line(
    lived: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baserunner.cli.show.os.access", lambda *_: False)

    for words in (("list",), ("verify",), ("salvage", "--to", str(lived.data / "to"))):
        said = lived("journal", *words, "--file", str(lived.home / "journal.db"))
        assert (said.code, said.is_one_line()) == (1, True)
        assert "may not read" in said.err


def test_a_whole_journal_is_salvaged_whole(lived: Device, tmp_path: Path) -> None:
    said = lived("journal", "salvage", "--to", str(tmp_path / "out"), "--json")

    assert said.code == 0
    assert said.json["whole"] is True
    there = lived("journal", "export", "--file", str(tmp_path / "out")).out
    assert there == lived("journal", "export").out


def test_of_a_damaged_journal_the_rest_is_salvaged_and_the_original_only_read(
    lived: Device, tmp_path: Path
) -> None:
    with lived.writing() as tell:
        for attempt in range(3, 12):
            lived.update(tell, attempt, upto="verifying")
            tell(f"app-update/{attempt}", "health-passed", soak_s=2.0)
    damage(lived.home / "journal.db", page_of=60)
    before = files_in(lived.home)

    said = lived("journal", "salvage", "--to", str(tmp_path / "out"))
    told = lived("journal", "salvage", "--to", str(tmp_path / "json"), "--json").json

    core = told["lanes"]["core"]
    assert said.code == 1
    assert files_in(lived.home) == before
    (lost,) = core["lost"]
    assert lost[0] <= 60 <= lost[1]
    assert core["verified"] > 10
    assert f"{lost[0]}-{lost[1]}" in said.out
    kept = lived("journal", "tail", "-n", "1000", "--json", "--file", str(tmp_path / "out")).lines
    assert len(kept) == told["kept"]
    assert lived("journal", "verify", "--file", str(tmp_path / "out")).code == 1
    assert lived("journal", "show", "app-update/1", "--file", str(tmp_path / "out")).code == 0
    evidence = (tmp_path / "out" / "evidence.ndjson").read_text(encoding="utf-8").splitlines()
    assert len(evidence) == 1 + told["kept"]


def test_a_salvage_goes_over_no_journal(lived: Device) -> None:
    before = files_in(lived.home)

    said = lived("journal", "salvage", "--to", str(lived.home))

    assert (said.code, said.is_one_line()) == (1, True)
    assert files_in(lived.home) == before


def test_a_journal_with_dropped_facts_says_which_and_that_this_is_no_fault(lived: Device) -> None:
    from baserunner.retention import LIMITS
    from journal.journal import Journal

    tight = replace(LIMITS, max_bytes=1, keep_log=1, keep_core=100)
    with Journal.open(lived.home, stamp=lived.stamp, new_epoch=str) as journal:
        for percent in range(30):
            journal.note("app-update/2", "progressed", {"percent": percent})
        assert journal.retain(tight).dropped > 0

    said, told = lived("journal", "verify"), lived("journal", "verify", "--json").json

    (gap,) = told["gaps"]
    where = f"log {gap['first_seq']} to {gap['last_seq']} were dropped (space):"
    assert said.code == 0
    assert where in said.out
    assert f"{gap['kinds']['progressed']} progressed" in said.out
    assert any(each.get("mark") == "gap" for each in lived("journal", "timeline", "--json").lines)


def damage(file: Path, *, page_of: int) -> None:
    """Zero the page that holds this fact of the core lane."""
    connection = sqlite3.connect(file)
    ((mark,),) = connection.execute("SELECT hash FROM core WHERE seq = ?", (page_of,))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = bytearray(file.read_bytes())
    at = whole.find(mark) // 4096 * 4096
    assert at > 0
    whole[at : at + 4096] = bytes(4096)
    file.write_bytes(whole)
