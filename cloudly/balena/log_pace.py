"""How much of a device's log is taken. Pure: the time is an argument.

Rules:
- What a device may have kept is bounded by its own rate, with a stock for moments; beyond it lines are counted instead.
- Once lines are left out, they are until there is stock for a second again: a gap and then a whole passage can be
  read, every tenth line cannot.
- What a device may make us unpack is bounded too: there its bytes wait in its own socket.
"""

from __future__ import annotations

BYTES_OF_A_LINE = 256
"""A longer line counts as several."""
STOCK_S = 50.0
"""How many seconds' worth may come at once: a start of many services prints a few thousand lines."""
WORK_STOCK_S = 4.0


class Bucket:
    """So much a second, and a stock; it may be overdrawn."""

    def __init__(self, per_s: float, stock: float) -> None:
        self._per_s = per_s
        self._stock = stock
        self._level = stock
        self._at_s: float | None = None

    def level(self, now_s: float) -> float:
        if self._at_s is not None:
            grown = max(0.0, now_s - self._at_s) * self._per_s
            self._level = min(self._stock, self._level + grown)
        self._at_s = now_s
        return self._level

    def take(self, amount: float, now_s: float) -> float:
        """Take it, and how many seconds to wait before more is taken."""
        self._level = self.level(now_s) - amount
        return max(0.0, -self._level / self._per_s)


class Shedding:
    """Which lines of one device are kept."""

    def __init__(self, lines_per_s: float) -> None:
        self._bucket = Bucket(lines_per_s, lines_per_s * STOCK_S)
        self._enough = lines_per_s
        self._sheds = False
        self.left_out = 0
        """Lines since the last that was kept."""

    def keeps(self, size: int, now_s: float) -> bool:
        """Whether a line of so many bytes is kept; one that is not is counted."""
        cost = 1 + size // BYTES_OF_A_LINE
        level = self._bucket.level(now_s)
        self._sheds = level < (self._enough if self._sheds else 1)
        if self._sheds:
            self.left_out += 1
            return False
        self._bucket.take(cost, now_s)
        return True

    def counted(self) -> int:
        """How many were left out, told once."""
        counted, self.left_out = self.left_out, 0
        return counted
