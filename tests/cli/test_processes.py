"""The commands as processes: pipes that close, Ctrl-C, terminals; and the demo, as a new user starts it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulators.demo.stage import LOCK, Stage, StageFailure
from tests.cli.given import Device
from tests.signals import hear_signals

PYTHON = sys.executable


def bash(
    script: str, data: Path, *, within_s: float = 30, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which `baserunner` is ours."""
    return subprocess.run(
        ["bash", "-c", f'baserunner() {{ "{PYTHON}" -m baserunner "$@"; }}; {script}'],
        env={"PATH": os.environ["PATH"], "BASEOS_DATA_DIR": str(data), **more},
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "journal list --json", "journal tail -n 1000", "journal tail -f", "journal tail -f --json",
        "journal export", "journal show app-update/2", "machines --draw", "why", "status", "--help",
        "journal stats --json", "journal grep app", "journal timeline --json", "journal replay app-update/2 --json",
    ],
)  # fmt: skip
def test_a_reader_that_goes_away_ends_the_command_without_a_word(lived: Device, words: str) -> None:
    with lived.writing() as tell:
        for attempt in range(3, 40):  # more than a pipe and the buffers before it hold
            lived.update(tell, attempt, upto="offered")

    done = bash(f"baserunner {words} | head -1; exit ${{PIPESTATUS[0]}}", lived.data)

    said = [line for line in done.stderr.splitlines() if not line.startswith("no agent runs here")]
    assert said == []
    assert done.returncode in {0, 1}
    assert done.stdout.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_ends_a_tail_that_follows_without_a_word(lived: Device) -> None:
    with lived.writing() as tell:
        tail = subprocess.Popen(
            [
                PYTHON,
                "-u",
                "-m",
                "baserunner",
                "journal",
                "tail",
                "-f",
                "-n",
                "1",
                "--since",
                "2026-11-01",
            ],
            env={"PATH": os.environ["PATH"], "BASEOS_DATA_DIR": str(lived.data)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_signals,  # noqa: PLW1509 - it takes no lock that a thread may hold
        )
        assert tail.stdout is not None
        before = tail.stdout.readline()
        lived.update(tell, 3, upto="offered")
        fresh = tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        rest, errors = tail.communicate(timeout=10)

    assert "app-update/2" in before
    assert "app-update/3" in fresh
    assert (tail.returncode, rest, errors) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(
    lived: Device,
    more: dict[str, str],
    coloured: bool,  # noqa: FBT001 - a column of the table
) -> None:
    ours, theirs = pty.openpty()
    subprocess.run(
        [PYTHON, "-m", "baserunner", "journal", "list"],
        env={
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "BASEOS_DATA_DIR": str(lived.data),
            **more,
        },
        stdout=theirs,
        timeout=30,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)

    assert ("\x1b[32m" in shown) is coloured
    assert "\x1b[32m" not in bash("baserunner journal list", lived.data).stdout


@pytest.mark.slow
def test_a_demo_that_breaks_off_says_why_in_a_line_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    stage = tmp_path / "demo"
    code = (
        "import sys; from simulators.demo import __main__ as demo, script\n"
        "async def stuck(teller, verdict): raise script.StageFailure('the [story] is stuck')\n"
        "script._first_release = stuck\n"
        f"sys.argv = ['demo', '--once', '--directory', {str(stage)!r}]\n"
        "sys.exit(demo.main())\n"
    )

    done = subprocess.run(
        [PYTHON, "-c", code], capture_output=True, text=True, timeout=90, check=False
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "the story broke off: the [story] is stuck" in done.stdout
    assert _left_of(stage) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_in_the_middle_leaves_nothing_running(
    tmp_path: Path, how: signal.Signals
) -> None:
    stage = tmp_path / "demo"
    demo = subprocess.Popen(
        [PYTHON, "-u", "-m", "simulators.demo", "--directory", str(stage)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=hear_signals,  # noqa: PLW1509 - it takes no lock that a thread may hold
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "enrolled as node" in line:
            break
    running = _left_of(stage)
    demo.send_signal(how)
    rest, _ = demo.communicate(timeout=30)

    assert demo.returncode == 0
    assert "Traceback" not in rest
    assert len(running) >= 3  # the harness sees them
    assert _left_of(stage) == []


def _left_of(stage: Path) -> list[str]:
    """Processes whose environment or words name this demo's directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(stage).encode() in seen and int(process.name) != os.getpid():
            found.append(process.name)
    return found


def test_a_directory_that_no_demo_made_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(StageFailure, match=r"thesis\.txt"):
        Stage(tmp_path, speed=2.0)

    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_second_demo_does_not_pull_the_ground_from_under_the_first(tmp_path: Path) -> None:
    first = Stage(tmp_path, speed=2.0)
    (tmp_path / "data" / "journal").write_text("story")
    with (tmp_path / LOCK).open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with pytest.raises(StageFailure, match="another demo is up"):
        Stage(tmp_path, speed=2.0)

    assert (tmp_path / "data" / "journal").exists()
    first.end()


def test_a_directory_of_an_earlier_demo_is_made_anew(tmp_path: Path) -> None:
    first = Stage(tmp_path, speed=2.0)
    (tmp_path / "data" / "journal").write_text("old story")
    first.write_shell()
    first.end()

    Stage(tmp_path, speed=2.0).end()

    assert list((tmp_path / "data").iterdir()) == []


def test_the_demo_gives_another_terminal_what_the_commands_need(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "it's here", speed=2.0)
    stage.write_shell()
    stage.end()

    done = subprocess.run(
        [
            "sh",
            "-c",
            '. "$1"; command -v baserunner; command -v cloudly; echo "$BASEOS_DATA_DIR"',
            "sh",
            str(stage.shell),
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == str(tmp_path / "it's here" / "data")
    assert done.stdout.count("\n") == 3
    assert stage.shell.stat().st_mode & 0o777 == 0o600
