"""A device that was fenced: what it says of itself until it is enrolled again."""

from __future__ import annotations

import json

from baserunner.enrollment.machine import MACHINE
from journal.facts import Fact, Lane

TOLD = (
    (
        "node-token-rejected",
        {"node_id": "n", "reason": "Another device speaks as this node.", "token_fingerprint": ""},
    ),
    ("token-given", {"token_fingerprint": "a"}),
    ("register-requested", {"node_id": "n", "token_fingerprint": "a"}),
    ("register-refused", {"reason": "The join token is used up.", "code": "token-used-up"}),
)


def a_fact(kind: str, values: dict[str, str]) -> Fact:
    return Fact(
        lane=Lane.CORE, seq=1, n=1, stream="enrollment/2", kind=kind, src="new", dst="ready",
        at_ms=0, boot_id="boot-1", mono_ms=0, skew_ms=None, data=json.dumps(values), hash=b"",
    )  # fmt: skip


def test_why_it_had_to_enroll_anew_stands_before_what_became_of_that() -> None:
    believed = MACHINE.start
    for kind, values in TOLD:
        believed = MACHINE.fold(believed, a_fact(kind, values))

    assert believed.reason == (
        "Another device speaks as this node. It asked to enroll anew: The join token is used up."
    )


def test_a_first_enrollment_that_is_refused_says_only_that() -> None:
    believed = MACHINE.fold(MACHINE.start, a_fact(*TOLD[-1]))

    assert believed.reason == "The join token is used up."
