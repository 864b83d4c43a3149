"""One more device, which only asks for its target and keeps the time that each answer took.

usage: probe.py FILE PORT UUID KEY

Asks ten times a second over one connection, as a Supervisor that has the newest target; writes the times to FILE when
it is told to end.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import time
from pathlib import Path

EVERY_S = 0.1


class Probe:
    def __init__(self, port: int, uuid: str, key: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")
        self._path, self._key, self._tag = f"/device/v3/{uuid}/state", key, ""
        self.took: list[tuple[int, float]] = []

    def ask(self) -> None:
        match = f"If-None-Match: {self._tag}\r\n" if self._tag else ""
        request = f"GET {self._path} HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer {self._key}\r\n{match}\r\n"
        began = time.perf_counter()
        self._socket.sendall(request.encode())
        status, length = int(self._file.readline().split()[1]), 0
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            if name.lower() == "content-length":
                length = int(value)
            if name.lower() == "etag":
                self._tag = value
        self._file.read(length)
        self.took.append((status, time.perf_counter() - began))


def main() -> None:
    file, port, uuid, key = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    probe, told = Probe(port, uuid, key), []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    while not told:
        with contextlib.suppress(InterruptedError):
            probe.ask()
        time.sleep(EVERY_S)
    file.write_text(json.dumps(probe.took))


if __name__ == "__main__":
    main()
