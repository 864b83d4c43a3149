"""`POST /baseos/v1/nodes/token`: a device announces the node token that it drew, by its hash."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudly.http.answers import json_answer
from cloudly.http.body import read_body
from cloudly.http.device import caller_of, parse
from cloudly.problems import Refused
from cloudly.settings import Settings
from cloudly.store import rotation
from cloudly.store.store import Store
from interfaces.node_token import NodeTokenAnswer, NodeTokenRequest

MAX_TOKEN = 4 * 1024


class NodeTokenApi:
    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def routes(self) -> list[Route]:
        return [Route("/baseos/v1/nodes/token", self.announce, methods=["POST"])]

    async def announce(self, request: Request) -> Response:
        """Durable before it is answered. Whether a token was used before is asked of all nodes, so it is alone."""
        caller = await caller_of(request, self._store)
        body = await read_body(request, limit=MAX_TOKEN, deadline_s=self._settings.body_deadline_s)
        asked = parse(NodeTokenRequest, body)
        if asked.node_id != caller.node_id:
            raise Refused("node-mismatch")
        generation = await self._store.write(
            partial(
                rotation.announce,
                node=caller.node,
                presented=caller.token_hash,
                following=bytes.fromhex(asked.token_hash),
            ),
        )
        answer = NodeTokenAnswer(
            node_id=caller.node_id,
            generation=generation,
            incarnation=self._store.incarnation,
        )
        return json_answer(answer)
