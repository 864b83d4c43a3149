"""`python -m simulators.demo [--once]`: play the story; stay up until Ctrl-C, or end with a verdict."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

import anyio
from rich.console import Console
from rich.markup import escape

from simulators.demo.script import Verdict, play
from simulators.demo.stage import Stage, StageFailure

console = Console(highlight=False, soft_wrap=True)

LOOK = (
    "baserunner journal list",
    "baserunner journal show app-update/2",
    "baserunner journal verify",
    "baserunner why",
    "baserunner status",
    "baserunner doctor",
    "cloudly node list",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the story, with a verdict")
    parser.add_argument("--directory", type=Path, default=Path("build/demo"), help="made anew")
    parser.add_argument("--speed", type=float, default=2.0, help="how fast the Supervisor works")
    arguments = parser.parse_args()
    for gone in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal ends the processes too
        signal.signal(gone, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        stage = Stage(arguments.directory.resolve(), arguments.speed)
    except StageFailure as failure:
        console.print(f"[bold red]demo:[/bold red] {escape(str(failure))}")
        return 2
    try:
        verdict = anyio.run(play, stage)
        _print_verdict(verdict)
        if not arguments.once:
            _point_at(stage)
            anyio.run(_stay_up, stage)
    except StageFailure as failure:
        console.print(f"[bold red]the story broke off:[/bold red] {escape(str(failure))}")
        console.print(f"logs: {stage.directory / 'logs'}")
        return 1
    except KeyboardInterrupt:
        console.print("\nended")
        return 0
    finally:
        stage.end()
    return 0 if verdict.kept else 1


async def _stay_up(stage: Stage) -> None:
    while True:
        stage.check_alive()
        await stage.world.sleep(1.0)


def _print_verdict(verdict: Verdict) -> None:
    console.print()
    for kept, promise in verdict.seen:
        console.print(f"  {'[green]kept  [/green]' if kept else '[red]BROKEN[/red]'}  {promise}")
    passed = sum(kept for kept, _ in verdict.seen)
    console.print(f"\ndemo: {passed} passed, {len(verdict.seen) - passed} failed")


def _point_at(stage: Stage) -> None:
    shell = shlex.quote(str(stage.shell))
    console.print("\nThe device is still up. Look at it in a browser:\n")
    console.print(f"  {stage.page}")
    console.print("\nand from another terminal, which the first line makes one on the device:\n")
    console.print(f"  . {shell}")
    for words in LOOK:
        console.print(f"  {words}")
    console.print("\nCtrl-C here ends it.")


if __name__ == "__main__":
    sys.exit(main())
