"""Why something is not finished is told in the same words on the device and in Cloudly."""

from __future__ import annotations

import html
import re
from pathlib import Path

import httpx

from baserunner.why import explain_all
from interfaces.why import lines
from journal.reader import open_reader
from simulators.world import run_virtual
from tests.world.kit import Place, a_place


def on_the_device(place: Place) -> list[list[str]]:
    """As `baserunner why` tells it, but for the heartbeat, which waits for its next turn for ever."""
    with open_reader(place.home) as reader:
        return [lines(why) for why in explain_all(reader, besides="heartbeat")]


async def on_the_page(place: Place) -> list[list[str]]:
    transport = httpx.ASGITransport(app=place.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        text = (await client.get(f"/nodes/{place.uuid}")).text
    told = []
    for section in re.findall(r'<section class="waits why">(.*?)</section>', text, re.DOTALL):
        title = re.findall(r"<h3>(.*?)</h3>", section)[0]
        label, rows = "", [html.unescape(title)]
        for tag, words in re.findall(r"<(dt|dd)>(.*?)</\1>", section):
            if tag == "dt":
                label = html.unescape(words)
            else:
                rows.append(f"  {label:<15}  {html.unescape(words)}")
                label = ""
        told.append(rows)
    return told


def test_the_page_and_the_device_say_the_same_of_what_is_not_finished(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.someone_locks()
            place.set_release("2.0.0")

            async def same() -> bool:
                return on_the_device(place) == await on_the_page(place) != []

            await place.until_state(
                "app-update/2", "downloading", "staged", "applying", within_s=3000
            )
            for _ in range(400):
                if await same():
                    break
                await place.world.sleep(5)

            told = on_the_device(place)
            assert told == await on_the_page(place)
            words = "\n".join(told[0])
            for label in (
                "waits for",
                "owner",
                "since",
                "until",
                "then",
                "after a restart",
                "tried",
            ):
                assert f"  {label:<15}  " in words
            assert len(told[0]) >= 9

    run_virtual(story)
