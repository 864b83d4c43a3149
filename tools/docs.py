"""Write the pages of docs/ that come from code, or with `--check` say which of them the code has left behind.

- docs/machines.md: the state diagram of each machine, and who is awaited in each state, from the charts.
- docs/cli.md: the `--help` of every command.
- docs/schema/*.json: JSON Schema of what crosses a border, from `interfaces`.
- docs/schema/openapi.json: the admin API, from its routes.
- docs/schema/local-api.json: the device's local API, from its table of endpoints.

A page is a function without arguments that returns text; the same code gives the same text, on any machine.
"""

from __future__ import annotations

import os

# Read when typer is imported: plain text, without boxes.
os.environ["TYPER_USE_RICH"] = "0"

import argparse
import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.testing import CliRunner

if TYPE_CHECKING:
    from interfaces.wire import Wire
    from journal.chart import Chart

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100

Page = Callable[[], str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="compare, write nothing, exit 1 on a difference"
    )
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="the folder of the pages")
    asked = parser.parse_args()
    folder: Path = asked.to
    texts = {folder / name: page() for name, page in pages().items()}
    strangers = sorted(set((folder / "schema").glob("*.json")) - set(texts))
    if asked.check:
        return report([path for path, text in texts.items() if read(path) != text], strangers)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in strangers:
        path.unlink()
    print(f"docs: {len(texts)} pages written")
    return 0


def report(stale: list[Path], strangers: list[Path]) -> int:
    for path in stale:
        print(f"docs: {path} differs from the code; `make docs` writes it", file=sys.stderr)
    for path in strangers:
        print(f"docs: {path} belongs to no model any more; `make docs` removes it", file=sys.stderr)
    return 1 if stale or strangers else 0


def read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def pages() -> dict[str, Page]:
    return {
        "machines.md": machines,
        "cli.md": command_lines,
        "schema/openapi.json": admin_api,
        "schema/local-api.json": local_api,
        **{f"schema/{kebab(name)}.json": page for name, page in schemas()},
    }


# --- machines ---


def machines() -> str:
    parts = [
        "# The machines\n",
        "Written by `make docs` from the charts in `baserunner/*/machine.py`. The word in brackets is who acts next.\n",
    ]
    for package in machine_packages():
        module = importlib.import_module(f"{package}.machine")
        parts += [
            f"## {module.CHART.name}\n",
            first_paragraph(module),
            drawing(module.CHART),
            waits(module.CHART),
        ]
    return "\n".join(parts)


def machine_packages() -> list[str]:
    import baserunner

    packages = (
        found.name
        for found in pkgutil.iter_modules(baserunner.__path__, "baserunner.")
        if found.ispkg
    )
    return sorted(name for name in packages if importlib.util.find_spec(f"{name}.machine"))


def first_paragraph(module: object) -> str:
    return (inspect.getdoc(module) or "").partition("\n\n")[0] + "\n"


def drawing(chart: Chart) -> str:
    return f"```mermaid\n{chart.mermaid().rstrip()}\n```\n"


def waits(chart: Chart) -> str:
    rows = [
        "| state | who | waits for | deadline | then | found there after a restart |",
        "|---|---|---|---|---|---|",
    ]
    for state in chart.states:
        if state in chart.waits:
            on = chart.waits[state]
            deadline = "" if on.deadline_s is None else f"{on.deadline_s:g} s"
            rows.append(
                f"| {state} | {on.owner} | {on.waits_for} | {deadline} | {on.then} | {on.resume} |"
            )
    ends = ", ".join(state for state in chart.states if chart.is_final(state))
    return (
        "\n".join(rows)
        + f"\n\nIt ends in: {ends or 'nothing; it goes on as long as the agent does'}.\n"
    )


# --- command lines ---


def command_lines() -> str:
    from baserunner.cli import app as baserunner
    from cloudly.cli import app as cloudly

    parts = ["# The commands\n", "Written by `make docs` from `--help`.\n"]
    for name, app in (("baserunner", baserunner), ("cloudly", cloudly)):
        for path in commands(name, typer.main.get_command(app)):
            parts.append(f"{'#' * (len(path) + 1)} {' '.join(path)}\n")
            parts.append(f"```text\n{help_of(app, path)}\n```\n")
    return "\n".join(parts)


def commands(name: str, command: Any) -> Iterator[tuple[str, ...]]:
    """The paths of a command and of all below it, in the order that its help shows."""
    yield (name,)
    for below, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from ((name, *path) for path in commands(below, child))


def help_of(app: typer.Typer, path: tuple[str, ...]) -> str:
    shown = CliRunner().invoke(
        app, [*path[1:], "--help"], prog_name=path[0], terminal_width=WIDTH, max_content_width=WIDTH
    )
    if shown.exit_code != 0:
        raise SystemExit(
            f"docs: {' '.join(path)} --help ended with {shown.exit_code}: {shown.output}"
        )
    return "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())


# --- schemas ---


def schemas() -> Iterator[tuple[str, Page]]:
    """One page per model that is no part of another one: what is said in a request or in an answer.

    The local API's are in its own document.
    """
    import interfaces
    from interfaces.wire import Wire as Base

    for found in pkgutil.iter_modules(interfaces.__path__, "interfaces."):
        importlib.import_module(found.name)
    said = (model for model in Base.__subclasses__() if model.__module__ != "interfaces.local")
    models = {model.__name__: model for model in said}
    parts = {
        part for model in models.values() for part in model.model_json_schema().get("$defs", {})
    }
    for name in sorted(set(models) - parts):
        yield name, partial(schema, models[name])


def schema(model: type[Wire]) -> str:
    return (
        json.dumps(model.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    )


def admin_api() -> str:
    from cloudly.http.api.app import build

    return json.dumps(build().openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def local_api() -> str:
    from baserunner.local_api.described import document

    return json.dumps(document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
