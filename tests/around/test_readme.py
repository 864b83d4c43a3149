"""What the pages for people say is true: settings, commands, links."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

from baserunner import place, settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "docs/adr/*.md")
    for path in ROOT.glob(pattern)
)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def settings_in_readme() -> dict[str, str]:
    """Variable -> default, as the README's table has it."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.+?) \|", read("README.md"), flags=re.MULTILINE)
    return {name: default.strip("`") for name, default in rows}


def test_the_readme_names_every_variable_that_the_agent_reads_and_no_other() -> None:
    source = inspect.getsource(settings) + inspect.getsource(place)
    known = set(re.findall(r'"((?:BASEOS|BALENA|SERVEZONE)_[A-Z_]+)"', source))

    assert set(settings_in_readme()) == known


def test_the_defaults_in_the_readme_are_the_agents() -> None:
    read_back = settings.read_settings({"BASEOS_CLOUDLY_URL": "https://cloudly.example"})

    said = settings_in_readme()

    assert said["BASEOS_DATA_DIR"] == str(read_back.data_dir)
    assert said["BASEOS_LOCK_DIR"] == str(read_back.lock_dir)
    assert float(said["BASEOS_HEARTBEAT_MIN_S"]) == read_back.heartbeat_min_s
    assert float(said["BASEOS_SUPERVISOR_POLL_S"]) == read_back.supervisor_poll_s
    assert said["BASEOS_LOG_LEVEL"] == read_back.log_level
    assert said["BASEOS_CLOUDLY_URL"] == "required"
    assert {name for name, default in said.items() if default == "none"} == {
        "BALENA_DEVICE_UUID",
        "BALENA_SUPERVISOR_ADDRESS",
        "BALENA_SUPERVISOR_API_KEY",
        "BASEOS_ANCHOR_DIR",
        "BASEOS_CLOUDLY_CA",
        "BASEOS_CONFIG_JSON",
        "BASEOS_JOIN_TOKEN",
        "BASEOS_LOCAL_API_DIR",
        "BASEOS_LOCAL_API_GROUP",
        "BASEOS_LOCAL_API_PORT",
        "SERVEZONE_RUNTIME",
    }


@pytest.mark.parametrize("page", [str(page) for page in PAGES])
def test_every_link_and_every_path_in_a_page_leads_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    links = [(ROOT / page).parent / target for target in re.findall(r"\]\(([^)#:]+)\)", text)]
    paths = [
        ROOT / path.rstrip("/")
        for path in re.findall(
            r"`((?:journal|interfaces|baserunner|cloudly|simulators|tests|tools|docker)/[\w./-]*)`",
            text,
        )
    ]

    assert [str(path) for path in [*links, *paths] if not path.exists()] == []


def test_every_make_target_in_a_page_is_in_the_menu() -> None:
    menu = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), flags=re.MULTILINE))
    named = {
        target for page in PAGES for target in re.findall(r"\bmake ([a-z-]+)\b`", read(str(page)))
    }

    assert {"check-arm", "image", "lock"} <= named
    assert named <= menu


def commands(page: str) -> list[list[str]]:
    """Each command of ours in the blocks of a page, in words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", read(page), flags=re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words[:1] in (["baserunner"], ["cloudly"])]


@pytest.mark.parametrize("page", ["README.md", "docs/journal.md"])
def test_every_command_in_a_page_is_one_with_these_options(page: str) -> None:
    helped = re.split(r"^#+ (.+)$", read("docs/cli.md"), flags=re.MULTILINE)
    helps = dict(zip(helped[1::2], helped[2::2], strict=True))
    found = commands(page)

    assert len(found) >= 10
    for words in found:
        name = max((each for each in helps if words[: len(each.split())] == each.split()), key=len)
        assert "Commands:" not in helps[name], words
        for option in (word for word in words if re.match(r"--?[a-z]", word)):
            assert re.search(rf"[ ,]{option}\b", helps[name]), words


@pytest.mark.parametrize("page", [str(page) for page in PAGES])
def test_no_page_shows_a_path_of_the_machine_it_was_written_on(page: str) -> None:
    assert re.findall(r"/(?:root|home|work)/\S*", read(page)) == []
