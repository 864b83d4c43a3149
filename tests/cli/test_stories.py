"""`journal show`, `replay` and `diff`: one attempt told, by clocks that lie and through boots that break it off."""

from __future__ import annotations

import pytest

from tests.cli.given import Device

HOUR_MS = 3_600_000
IN_1970_MS = 30_000


@pytest.fixture
def broken_off(device: Device) -> Device:
    """An attempt that power cut in the middle: the clock began in 1970, and was told the time after a while."""
    with device.writing() as tell:
        tell("heartbeat/1", "run-started", agent_version="0.1.0")
        device.skew_ms = 2_000
        device.update(tell, 1, upto="applying")
    device.reboot("boot-2", clock_ms=IN_1970_MS)
    with device.writing() as tell:
        tell("heartbeat/1", "run-ended", how="interrupted")
        tell("heartbeat/2", "run-started", agent_version="0.1.0")
        tell("app-update/1", "applied")
        device.wall_ms += 40 * HOUR_MS
        tell("app-update/1", "health-passed", soak_s=2.0)
    return device


def test_a_reboot_a_restart_and_a_jump_of_the_clock_stand_where_they_were(
    broken_off: Device,
) -> None:
    out = broken_off("journal", "show", "app-update/1").out

    lines = out.splitlines()
    (booted,) = [n for n, line in enumerate(lines) if "the host booted again" in line]
    (started,) = [n for n, line in enumerate(lines) if "the agent started again" in line]
    (jumped,) = [n for n, line in enumerate(lines) if "the clock jumped by 40 h" in line]
    assert "apply-requested" in lines[booted - 1]
    assert booted + 1 == started
    assert "applied:" in lines[started + 1]
    assert started + 2 == jumped
    assert "health-passed" in lines[jumped + 1]


def test_a_clock_that_nobody_told_the_time_is_marked_and_explained(broken_off: Device) -> None:
    lines = broken_off("journal", "show", "app-update/1").out.splitlines()

    (applied,) = [line for line in lines if " applied:" in line]
    (offered,) = [line for line in lines if " offered:" in line]
    assert applied.split()[0].endswith("~")
    assert not offered.split()[0].endswith("~")
    assert lines[-1].startswith("~  by the device's own clock")


def test_a_clock_that_was_told_the_time_later_in_its_boot_is_believed(broken_off: Device) -> None:
    with broken_off.writing() as tell:
        broken_off.skew_ms = 1_795_415_200_000 - broken_off.wall_ms
        tell("heartbeat/2", "heartbeat-sent")

    facts = broken_off("journal", "show", "app-update/1", "--json").lines

    assert all(fact["clock_trusted"] for fact in facts)
    believed = [fact["believed_ms"] for fact in facts]
    assert believed == sorted(believed)
    assert "~" not in broken_off("journal", "show", "app-update/1").out


def test_the_time_in_a_state_across_boots_says_so_and_is_no_more_sure_than_the_clocks(
    broken_off: Device,
) -> None:
    lines = broken_off("journal", "show", "app-update/1").out.splitlines()

    (applying,) = [line for line in lines if line.startswith("  applying ")]
    (verifying,) = [line for line in lines if line.startswith("  verifying ")]
    assert applying.split()[1].startswith("~")
    assert applying.endswith("across boots")
    assert verifying.split()[1:3] == ["1.0", "s"]  # the wall clock says 40 h


def test_an_open_attempt_ends_with_what_it_waits_for(device: Device) -> None:
    with device.writing() as tell:
        device.update(tell, 1, upto="applying")

        lines = device("journal", "show", "app-update/1").out.splitlines()

    (now,) = [n for n, line in enumerate(lines) if line == "app-update/1 is applying"]
    assert "the release to be reported as applied" in lines[now + 1]
    assert any(line.startswith("  applying ") and "since then" in line for line in lines[:now])


def test_lines_of_logs_stand_below_their_note_and_cannot_drive_the_terminal(lived: Device) -> None:
    from journal.journal import Journal

    with Journal.open(lived.home, stamp=lived.stamp, new_epoch=str) as journal:
        lines = ["pulling", "\x1b[2Jno space left <b>"]
        journal.note(
            "app-update/2", "lines", {"source": "supervisor", "lines": lines, "omitted": 7}
        )

    out = lived("journal", "show", "app-update/2").out

    assert "lines: the last 2 lines of the supervisor's log, 7 older ones left out\n" in out
    assert "  | pulling\n" in out
    assert "  | \ufffd[2Jno space left <b>\n" in out
    assert "\x1b" not in out


def test_progress_is_folded_into_its_first_and_last_unless_all_is_asked_for(lived: Device) -> None:
    from journal.journal import Journal

    with Journal.open(lived.home, stamp=lived.stamp, new_epoch=str) as journal:
        for percent in range(0, 100, 10):
            journal.note("app-update/2", "progressed", {"percent": percent})

    out, whole = (lived("journal", "show", "app-update/2", *more).out for more in ((), ("--all",)))

    assert (out.count("progressed:"), whole.count("progressed:")) == (2, 10)
    assert "... 8 more" in out


def test_a_fact_whose_data_is_of_another_shape_is_shown_as_it_is(lived: Device) -> None:
    from journal.journal import Journal

    with Journal.open(lived.home, stamp=lived.stamp, new_epoch=str) as journal:
        journal.note("app-update/2", "lines", {"lines": 5, "source": ["x"]})
        journal.note("app-update/2", "never-heard-of", {"a": {"b": 1}})

    said = lived("journal", "show", "app-update/2")

    assert said.code == 0
    assert "never-heard-of: a={'b': 1}" in said.out


def test_a_replay_shows_the_state_and_what_changed_in_the_belief_after_each_fact(
    lived: Device,
) -> None:
    said, told = (lived("journal", "replay", "app-update/2", *more) for more in ((), ("--json",)))

    assert said.code == 0
    assert '    target.version: "1.2.0"' in said.out
    assert "    apply_attempts: 0 -> 1" in said.out
    assert [step["state"] for step in told.lines] == [
        "offered", "admitted", "downloading", "staged", "applying", "verifying", "succeeded",
    ]  # fmt: skip
    assert [step["belief"]["apply_attempts"] for step in told.lines] == [0, 0, 0, 0, 1, 1, 1]


def test_a_replay_until_a_fact_ends_with_what_was_known_then(lived: Device) -> None:
    steps = lived("journal", "replay", "app-update/2", "--json").lines

    upto = lived("journal", "replay", "app-update/2", "--until", str(steps[3]["seq"]), "--json")

    assert upto.lines == steps[:4]
    assert lived("journal", "replay", "app-update/2", "--until", "1").code == 1


def test_a_replay_says_where_it_parks(lived: Device) -> None:
    from journal.journal import Journal

    with Journal.open(lived.home, stamp=lived.stamp, new_epoch=str) as journal:
        journal.append("app-update/3", "teleported", "new", "elsewhere")

    said = lived("journal", "replay", "app-update/3")

    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "teleported" in said.err


def test_two_attempts_side_by_side_are_the_same_or_show_where_they_part(lived: Device) -> None:
    with lived.writing() as tell:
        lived.update(tell, 3, upto="verifying")
        tell("app-update/3", "health-failed", reason="service main is exited")

    same, other = (lived("journal", "diff", "app-update/1", f"app-update/{n}") for n in (2, 3))
    told = lived("journal", "diff", "app-update/1", "app-update/3", "--json").lines

    assert (same.code, other.code) == (0, 1)
    assert [row["a"]["kind"] for row in told if row["same"]][-1] == "applied"
    assert [(row["a"], row["b"] and row["b"]["kind"]) for row in told][-1] == (
        None, "health-failed",
    )  # fmt: skip
    assert "service main is exited" in other.out
    assert "verifying -> rollback-needed" in other.out


def test_what_took_much_longer_in_one_attempt_is_marked(device: Device) -> None:
    with device.writing() as tell:
        device.update(tell, 1, upto="staged")
        device.update(tell, 2, upto="downloading")
        for _ in range(100):
            next(device.tick)
        tell("app-update/2", "staged")

    lines = device("journal", "diff", "app-update/1", "app-update/2").out.splitlines()

    (slow,) = [line for line in lines if "  ~  " in line]
    assert slow.split("~")[1].split()[:4] == ["+1", "m", "41", "s"]


@pytest.mark.parametrize(
    "words", [("diff", "app-update/1", "app-update/9"), ("replay", "app-update/9")], ids=" ".join
)
def test_what_is_not_there_is_one_line(lived: Device, words: tuple[str, ...]) -> None:
    said = lived("journal", *words)

    assert (said.code, said.is_one_line()) == (1, True)
    assert "baserunner journal list" in said.err
