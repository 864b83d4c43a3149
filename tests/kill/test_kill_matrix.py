"""SIGKILL in every state of an enrollment, an update and a rollback: before and after each commit and each step."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from baserunner.app_update.machine import CHART as APP_UPDATE
from baserunner.app_update.steps import AppUpdateSteps
from baserunner.enrollment.machine import CHART as ENROLLMENT
from baserunner.enrollment.steps import EnrollmentSteps
from tests.kill.harness import ENDS, Cell, Outcome, Plant

pytestmark = pytest.mark.slow

AT_ONCE = 3
"""A cell waits more than it computes."""


def run_cell(root: Path, point: str, nth: int) -> Outcome:
    return Cell(root).run(point, nth)


def worth_killing_at(points: tuple[str, ...]) -> list[tuple[str, int]]:
    """Each point once, heartbeats aside; and `applying` again, when the Supervisor has been told."""
    quiet = ("heartbeat", "run-")
    unique = [p for p in dict.fromkeys(points) if not any(word in p for word in quiet)]
    return [(point, 1) for point in unique] + [("after-step:app-update:applying", 2)]


def test_the_story_goes_on_after_a_kill_at_any_point(tmp_path: Path) -> None:
    undisturbed = Cell(tmp_path / "undisturbed").run("nowhere")
    assert undisturbed.ends == ENDS
    cells = worth_killing_at(undisturbed.points)
    assert len(cells) >= 40, cells

    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("fork")) as pool:
        runs = [
            pool.submit(run_cell, tmp_path / f"cell-{number}", point, nth)
            for number, (point, nth) in enumerate(cells)
        ]
        outcomes = [run.result() for run in runs]

    wrong = [fault for outcome in outcomes for fault in outcome.wrong(undisturbed)]
    assert not wrong, "\n".join(wrong)
    print(f"{len(outcomes)} kills, {sum(o.facts for o in outcomes)} facts, 0 lost")  # noqa: T201


def test_the_matrix_covers_every_state_on_the_way() -> None:
    """Written out, so that a state that is added must be put somewhere."""
    on_the_way = {
        "offered", "admitted", "downloading", "staged", "applying",
        "verifying", "rollback-needed", "rolling-back",
    }  # fmt: skip
    asleep = {"new", "unclear"}  # nothing is done in `new`; `unclear` has stories of its own

    assert set(APP_UPDATE.waits) == on_the_way | asleep
    assert set(ENROLLMENT.waits) == {
        "new", "ready", "asking",
        "awaiting-token", "backing-off", "refused",  # waiting for others: stories of their own
    }  # fmt: skip


def ask_with_another_secret_each_time() -> None:
    """No idempotency: what was asked before is forgotten."""
    asking = EnrollmentSteps.asking

    async def forgetful(self: EnrollmentSteps, attempt: Any) -> Any:
        self._draw(attempt.name, None)
        return await asking(self, attempt)

    EnrollmentSteps.asking = forgetful  # type: ignore[method-assign]


def tell_the_supervisor_at_every_look() -> None:
    """Acts without looking whether it has acted."""
    AppUpdateSteps._should_tell = lambda *_args, **_options: True  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("plant", "point", "symptom"),
    [
        (ask_with_another_secret_each_time, "after-effect:register", "it ended as"),
        (tell_the_supervisor_at_every_look, "after-commit:staged", "told to"),
    ],
)
def test_a_planted_defect_turns_the_matrix_red(
    tmp_path: Path, plant: Plant, point: str, symptom: str
) -> None:
    undisturbed = Cell(tmp_path / "undisturbed").run("nowhere")

    planted = Cell(tmp_path / "planted", plant=plant, patience_s=8).run(point)

    assert any(symptom in fault for fault in planted.wrong(undisturbed)), planted


def test_acknowledging_before_the_commit_turns_the_matrix_red(tmp_path: Path) -> None:
    undisturbed = Cell(tmp_path / "undisturbed").run("nowhere")

    planted = Cell(tmp_path / "planted", too_early=True).run("before-commit:staged")

    assert planted.lost
    assert planted.wrong(undisturbed)
