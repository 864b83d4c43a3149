"""`POST /device/v2/{uuid}/log-stream`: what a device's Supervisor and containers print, as long as it prints.

Rules (recorded in supervisor/backend; what a Supervisor does with an answer was read in its source):
- Opened before the device has registered, with its own key; gzip, chunked, a line of JSON each.
- No answer while it is open: a Supervisor takes any for an error. At its end 201. No Retry-After, ever.
- What came is kept, however the stream ends: cut off, unreadable, revoked, superseded, or because we stop.
- Who sends faster than lines are written waits in its own socket; where more is printed than is kept, the page says
  how much.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from anyio import create_task_group
from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudly.balena.log_body import Body, steps
from cloudly.balena.log_lines import Splitter, parse
from cloudly.balena.log_pace import BYTES_OF_A_LINE
from cloudly.balena.log_watch import LOOK_EVERY_S, Place, Watch
from cloudly.http.answers import problem_answer
from cloudly.http.body import Gunzip, is_gzip
from cloudly.http.live import Closing
from cloudly.problems import Refused
from cloudly.settings import Settings
from cloudly.store.device_logs import DeviceLogs
from cloudly.store.log_chunks import Line, gap
from cloudly.store.store import Store
from cloudly.tokens import bearer
from interfaces.world import World, now_ms

LAST_ROUNDS = 8
LAST_BYTES = 1024 * 1024
"""What is unpacked at most of what was already here when a stream is told to end."""


class LogStreamApi:
    def __init__(
        self, store: Store, logs: DeviceLogs, world: World, settings: Settings, closing: Closing
    ) -> None:
        self._world = world
        self._watch = Watch(store, logs, world, closing, settings.logs_lines_per_s)

    @property
    def open(self) -> int:
        """Streams that are open now."""
        return self._watch.open

    def routes(self) -> list[Route]:
        return [Route("/device/v2/{uuid}/log-stream", self.stream, methods=["POST"])]

    async def stream(self, request: Request) -> Response:
        try:
            return await self._whole(request)
        except Refused as refused:
            return _last_word(refused)

    async def _whole(self, request: Request) -> Response:
        key = bearer(request.headers.get("authorization"))
        if key is None:
            raise Refused("node-unknown")
        gunzip = Gunzip() if is_gzip(request) else None
        peer = request.client.host if request.client is not None else ""
        body = Body(request.receive)
        async with self._watch.entered(request.path_params["uuid"], key, peer, body) as place:
            reader = Reader(place, self._watch, self._world, gunzip)
            async with create_task_group() as tasks:
                tasks.start_soon(body.pump)
                try:
                    end = await reader.read()
                finally:
                    reader.finish()
                tasks.cancel_scope.cancel()
        return Response(status_code=201) if end is None else _last_word(end)


class Reader:
    """Turns the body of one stream into lines that are kept."""

    def __init__(self, place: Place, watch: Watch, world: World, gunzip: Gunzip | None) -> None:
        self._place = place
        self._watch = watch
        self._world = world
        self._gunzip = gunzip
        self._splitter = Splitter()
        self._pace = watch.pace(place.uuid)
        self._last_bytes = LAST_BYTES

    async def read(self) -> Refused | None:
        """Until it ends; why, if that was not its own doing."""
        place, body = self._place, self._place.body
        while True:
            await body.news(self._watch.rest_s(place))
            await self._watch.look(place)
            if place.end is not None:
                return await self._last(place.end)
            if not place.admitted:
                if body.is_gone:
                    return None
                continue
            chunks, is_over = body.take(), body.has_ended or body.is_gone
            if chunks:
                place.since_s = self._world.monotonic()
            try:
                for chunk in chunks:
                    await self._keep(chunk)
            except zlib.error:
                return self._unreadable()
            if is_over and place.end is None:
                return None

    def finish(self) -> None:
        """What is left: a line without an end, and how many were left out at last."""
        if not self._place.admitted:
            return
        lines = []
        rest = self._splitter.finish()
        if rest is not None:
            lines += self._lines([rest])
        lines += self._gap(now_ms(self._world))
        self._watch.logs.add(self._place.uuid, lines)

    async def _last(self, end: Refused) -> Refused:
        """What of it was here already when it was told to end."""
        for _ in range(LAST_ROUNDS if self._place.admitted else 0):
            try:
                for chunk in self._place.body.take():
                    for piece in self._pieces(chunk):
                        self._take(piece)
            except zlib.error:
                return self._unreadable()
            await checkpoint()
        return end

    async def _keep(self, chunk: bytes) -> None:
        for piece in self._pieces(chunk):
            kept = self._take(piece)
            now_s = self._world.monotonic()
            wait_s = max(
                self._pace.work.take(len(piece), now_s), self._watch.in_all.take(kept, now_s)
            )
            await self._turn(wait_s)

    def _pieces(self, chunk: bytes) -> Iterator[bytes]:
        """What it unpacks to; told to end, no more than can be done at once. Raises zlib.error."""
        for piece in steps(self._gunzip, chunk):
            if self._place.end is not None:
                self._last_bytes -= len(piece)
            if self._last_bytes < 0:
                self._watch.logs.add(self._place.uuid, [gap(now_ms(self._world), 0, "ended")])
                return
            yield piece

    async def _turn(self, wait_s: float) -> None:
        """Others have theirs; until there is room, and as long as it takes for what this one has used up."""
        logs, place = self._watch.logs, self._place
        if logs.is_due(place.uuid):
            logs.write()
        await checkpoint()
        until_s = self._world.monotonic() + wait_s
        while place.end is None and not place.body.is_gone:
            left_s = until_s - self._world.monotonic()
            if left_s <= 0 and logs.has_room(place.uuid):
                return
            await self._world.sleep(min(LOOK_EVERY_S, max(left_s, LOOK_EVERY_S / 4)))
            await self._watch.look(place)
            logs.write()

    def _take(self, piece: bytes) -> float:
        """Its lines on their way to the disk; how much work that is, in lines."""
        lines = self._lines(self._splitter.feed(piece))
        self._watch.logs.add(self._place.uuid, lines)
        return sum(1 + len(line.text) / BYTES_OF_A_LINE for line in lines)

    def _lines(self, found: Iterator[tuple[bytes, int]] | list[tuple[bytes, int]]) -> list[Line]:
        now, now_s, key = now_ms(self._world), self._world.monotonic(), self._place.key
        shedding = self._pace.shedding
        lines: list[Line] = []
        for raw, over in found:
            if not raw:
                continue
            left_out = shedding.left_out
            if not shedding.keeps(len(raw), now_s):
                continue
            if left_out:
                lines += self._gap(now)
            line = parse(raw, now, over=over, secret=key)
            if line is not None:
                lines.append(line)
        return lines

    def _gap(self, now: int) -> list[Line]:
        left_out = self._pace.shedding.counted()
        return [gap(now, left_out, "rate")] if left_out else []

    def _unreadable(self) -> Refused:
        self._watch.logs.add(self._place.uuid, [gap(now_ms(self._world), 0, "unreadable")])
        return Refused("malformed", "The body is not gzip, as its header says.", status=400)


def _last_word(refused: Refused) -> Response:
    """The rest of the body is nobody's: the connection ends with the answer."""
    answer = problem_answer(refused.problem)
    answer.headers["connection"] = "close"
    return answer
