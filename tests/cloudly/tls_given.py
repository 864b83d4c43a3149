"""What the stories about TLS begin with: `cloudly serve` with TLS as a process, and servers with bad certificates."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCAL = "https://127.0.0.1"


def run(
    *words: str, env: dict[str, str], stdin: str = "", check: bool = True, program: str = ""
) -> subprocess.CompletedProcess[str]:
    """One of our commands as a process, with nothing in its environment but what is given."""
    how = ["-c", program, *words[1:]] if program else ["-m", *words]
    done = subprocess.run(
        [sys.executable, *how],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **env},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class TlsServed:
    """`cloudly serve` with a certificate by its own CA, on a free port of loopback."""

    def __init__(self, data: Path, *, planted: str = "", **settings: str) -> None:
        self.data = data
        port = free_port()  # known before it starts: devices are told of it
        program = f"{planted}\nfrom cloudly.cli import main\nmain()"
        self.env = {
            "CLOUDLY_DATA_DIR": str(data),
            "CLOUDLY_TLS": "self",
            "CLOUDLY_PUBLIC_URL": f"{LOCAL}:{port}",
            "CLOUDLY_PORT": str(port),
            "CLOUDLY_HEARTBEAT_EVERY_S": "0.5",
            **settings,
        }
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "serve"],
            cwd=ROOT, env={"PATH": os.environ["PATH"], **self.env},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.url = self._url()
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _url(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"running on (https?://[\d.:]+)", line):
                return found[1]
        raise AssertionError("it did not start: " + "".join(self.log))

    def _drain(self) -> None:
        assert self.process.stderr is not None
        self.log += self.process.stderr

    def cli(self, *words: str) -> str:
        return run("cloudly", *words, env=self.env).stdout.strip()

    @property
    def ca(self) -> str:
        return self.cli("ca", "show", "--base64")

    def end(self) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server_with(context: ssl.SSLContext | None) -> Iterator[int]:
    """A server on loopback with that certificate, or without TLS; yields its port."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that does not trust us ends the handshake: that is the story

    server = Quiet(("127.0.0.1", 0), _Answers)
    if context is not None:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
