"""Diagnoses: one at a time, each that Cloudly asks for once, told by the journal."""

from __future__ import annotations

import logging

from baserunner.diagnosis import machine as diagnosis
from baserunner.diagnosis.steps import DiagnosisSteps
from baserunner.drive import Alarm
from baserunner.shared import Shared
from journal.problems import Parked
from journal.recall import Stream, recall

log = logging.getLogger(__name__)

REST_S = 3600.0
"""How long to wait where nothing wakes us; a new order does."""


class Diagnoses:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def run(self) -> None:
        """A stream that a newer agent wrote is parked: then no diagnosis is made, the rest of the agent goes on."""
        try:
            await self._answer_all()
        except Parked as parked:
            log.error("diagnoses are parked: %s", parked)  # noqa: TRY400 - one line

    async def _answer_all(self) -> None:
        shared = self._shared
        while True:
            newest = self._newest()
            wanted = shared.diagnosis
            if newest is not None and not newest.ended:
                await self._look(newest, newest.believed.diagnosis)
            elif wanted is not None and (newest is None or newest.believed.diagnosis != wanted):
                name = shared.journal.next_stream_name("diagnosis")
                await self._look(recall(shared.journal, name, diagnosis.MACHINE), wanted)
            else:
                await shared.diagnosis_alarm.wait(REST_S)

    def _newest(self) -> Stream[diagnosis.Diagnosis] | None:
        journal = self._shared.journal
        for info in journal.streams("diagnosis", newest=1):
            return recall(journal, info.name, diagnosis.MACHINE)
        return None

    async def _look(self, stream: Stream[diagnosis.Diagnosis], wanted: str) -> None:
        shared = self._shared
        steps = DiagnosisSteps(
            near=shared.near, journal=shared.journal, seen=shared.seen, diagnosis=wanted
        )
        await shared.driver(5.0).drive(stream, steps.steps, Alarm())
