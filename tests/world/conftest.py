"""What several stories need."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from baserunner import desk, updates
from baserunner.enrollment import steps as enrollment
from cloudly.balena import log_watch

if importlib.util.find_spec("sniffio") is None:
    # httpx's ASGI transport looks for it at each request; knowing that it is not there saves a tenth of all time.
    sys.modules["sniffio"] = None  # type: ignore[assignment]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for orders, tokens, the lock and idle log streams every ten minutes: in a story of days these looks are
    nearly all of it."""
    monkeypatch.setattr(desk, "ORDERS_EVERY_S", 600.0)
    monkeypatch.setattr(updates, "HOLD_EVERY_S", 600.0)
    monkeypatch.setattr(enrollment, "TOKEN_LOOK_S", 600.0)
    monkeypatch.setattr(log_watch, "LOOK_EVERY_S", 600.0)
