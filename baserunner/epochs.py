"""When a journal can no longer be continued, the next epoch begins: what is known goes on, what is not is told.

A new epoch costs flash and makes a chapter that people read; opening the journal only to hear the same again costs too.
Who says for ever that this journal is not the one (a broken proxy, a Cloudly that is not ours) gets a few epochs a day,
and is asked less and less often.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from baserunner.anchor import Anchor
from baserunner.machines import MACHINES
from baserunner.problems import EpochOver
from baserunner.settings import Settings
from baserunner.shared import Neighbours
from baserunner.updates import REMEMBERED_ATTEMPTS
from interfaces.world import new_id
from journal.facts import StreamInfo, split_name
from journal.problems import JournalProblem
from journal.reader import open_reader
from journal.succession import begin_epoch

log = logging.getLogger(__name__)

MOST, WITHIN_S = 5, 3600.0
"""So many epochs may begin in this time."""
SAID_WITHIN_S = 86_400.0
"""The same, where nothing here is damaged and only somebody says that this journal is over."""
FIRST_REST_S, MOST_REST_S = 10.0, 900.0


class Epochs:
    def __init__(self, settings: Settings, near: Neighbours) -> None:
        self._settings = settings
        self._near = near
        self._anchor = Anchor(settings.anchor_dir)
        self._begun: deque[float] = deque(maxlen=MOST)
        self.rest_s = 0.0
        """How long to leave the journal closed; longer and longer while no epoch may begin."""

    def lived(self, seconds: float) -> None:
        """The journal was open for so long: if longer than it had been closed, that was no trouble of always."""
        if seconds > self.rest_s:
            self.rest_s = 0.0

    def begin(self, over: EpochOver) -> str:
        """Begin the next epoch; the journal is closed. Returns why that was not possible, empty when it was."""
        now = self._near.world.monotonic()
        within_s = WITHIN_S if over.why == "salvaged" else SAID_WITHIN_S
        if len(self._begun) == MOST and now - self._begun[0] < within_s:
            self.rest_s = min(max(FIRST_REST_S, self.rest_s * 2), MOST_REST_S)
            hours = round(within_s / 3600)
            return f"{over}; and {MOST} epochs began within {hours} h, so no other one begins yet"
        known = self._known()
        try:
            began = begin_epoch(
                self._settings.home,
                stamp=self._near.clock.stamp,
                new_epoch=lambda: new_id(self._near.world),
                why=over.why,
                problem=str(over),
                wanted=self._still_needed(),
                final=_is_final,
                known=known,
                epochs=[str(known["epoch"])] if known else [],
            )
        except JournalProblem as problem:
            return f"{over}; and a new epoch could not begin: {problem}"
        self._begun.append(now)
        self.rest_s = 0.0
        log.warning(
            "epoch %s began after %s (%s): %d facts carried over, %d kept as evidence, %d lost, old files in %s",
            began.epoch, began.old_epoch or "an unreadable one", over, began.carried, began.evidence, began.lost,
            began.kept_in,
        )  # fmt: skip
        return ""

    def _known(self) -> dict[str, object]:
        """What the anchor holds of the epoch that ends, or of one after it."""
        held = self._anchor.held()
        return held.told() if held else {}

    def _still_needed(self) -> Callable[[StreamInfo], bool]:
        """The latest enrollment, and the attempts that must not be made again. Where nobody can say: all of them."""
        floors = {"enrollment": 0, "app-update": 0}
        try:
            with open_reader(self._settings.home) as reader:
                for machine, kept in (("enrollment", 1), ("app-update", REMEMBERED_ATTEMPTS)):
                    infos = reader.streams(machine, newest=kept)
                    floors[machine] = _attempt(infos[0]) if infos else 0
        except JournalProblem:
            pass

        def wanted(info: StreamInfo) -> bool:
            machine = info.name.partition("/")[0]
            return machine in floors and _attempt(info) >= floors[machine]

        return wanted


def _is_final(info: StreamInfo) -> bool:
    known = MACHINES.get(split_name(info.name)[0])
    return known is not None and info.state in known.machine.chart.final


def _attempt(info: StreamInfo) -> int:
    return split_name(info.name)[1]
