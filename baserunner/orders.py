"""Orders from an operator at the CLI to the running agent: a spool of small files in the agent's home.

An order is a file written under another name and renamed; the agent answers by replacing it with `<id>.answer`.
(A private local API for neighbours is a later piece; an operator with a shell on the device has the data directory.)
"""

from __future__ import annotations

import contextlib
import os
import stat
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from baserunner.problems import BaserunnerProblem

FOLDER = "orders"
TOKEN_FILE = "join-token"  # noqa: S105 - a file's name
MAX_BYTES = 4096


class OrderKind(StrEnum):
    CHECK = "check"
    """Heartbeat now."""
    FORCE = "force"
    """Apply the update under way even if others hold locks: their locks are deleted."""
    BREAK_LOCK = "break-lock"
    """End the update lock `lock` of a neighbour, for `reason`."""
    REBOOT = "reboot"


class Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    kind: OrderKind
    by: str
    lock: str = Field(default="", max_length=100)
    reason: str = Field(default="", max_length=500)


class OrderAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    done: bool
    said: str


def place(home: Path, order_id: str, order: Order) -> Path:
    """Put an order down for the agent. Returns where its answer will be. Raises BaserunnerProblem."""
    folder = home / FOLDER
    try:
        prepare(home)
        temporary = folder / f"{order_id}.new"
        temporary.write_text(order.model_dump_json(), encoding="utf-8")
        temporary.replace(folder / f"{order_id}.order")
    except OSError as error:
        raise BaserunnerProblem(
            f"cannot put an order into {folder}: {error.strerror}; run as the agent's user or root"
        ) from None
    return folder / f"{order_id}.answer"


def prepare(home: Path) -> None:
    """Make the spool, and give it to the agent's user: `docker exec` comes in as root. Raises OSError."""
    folder = home / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = home.stat()
    if os.geteuid() == 0 and folder.stat().st_uid != owner.st_uid:
        os.chown(folder, owner.st_uid, owner.st_gid)


def take_orders(home: Path) -> list[tuple[str, Order]]:
    """The orders waiting, each once: an order is gone from the spool when this returns it."""
    taken = []
    for path in sorted((home / FOLDER).glob("*.order")):
        with contextlib.suppress(OSError):
            raw = _read(path)
            path.unlink()
            try:
                taken.append((path.stem, Order.model_validate_json(raw)))
            except ValidationError:
                answer(home, path.stem, OrderAnswer(done=False, said="the order is malformed"))
    return taken


def answer(home: Path, order_id: str, given: OrderAnswer) -> None:
    """Say what came of it. If nobody can read it any more, nothing is lost: the journal has what happened."""
    with contextlib.suppress(OSError):
        path = home / FOLDER / f"{order_id}.answer"
        temporary = path.with_suffix(".answer-new")
        temporary.write_text(given.model_dump_json(), encoding="utf-8")
        temporary.replace(path)


def _read(path: Path) -> bytes:
    """The beginning of a plain file; empty for anything else: a pipe in the spool must not hold up the agent."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)
