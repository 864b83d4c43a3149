"""One target made Cloudly's: read, planned, written, read back, compared.

Rules:
- What is refused is refused before a token is made, and before anything is written.
- A token that was made for a target that could not be written is revoked: nobody has it, and nobody should.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as but

from cloudly.image import config_json
from cloudly.image.config_json import Config, Plan, Wanted
from cloudly.image.home import Token
from cloudly.image.places import Place
from cloudly.problems import BadOrder


def configure(  # noqa: PLR0913 - what, how, and both ends of the token's life
    place: Place,
    wanted: Wanted,
    *,
    take_token: Callable[[], Token],
    give_up: Callable[[Token], None],
    replace: bool = False,
    keep_uuid: bool = False,
) -> tuple[Plan, Token]:
    """`wanted` without a token. Raises BadOrder, OSError; then the target is as it was."""
    before = read(place) or {}
    wanted = but(wanted, device_type=device_type(place, before, wanted.device_type))
    config_json.plan(before, wanted, replace=replace, keep_uuid=keep_uuid)
    token = take_token()
    try:
        full = but(wanted, join_token=token.text, application_id=token.fleet)
        plan = config_json.plan(before, full, replace=replace, keep_uuid=keep_uuid)
        write(place, plan.after)
    except BaseException:
        give_up(token)
        raise
    return plan, token


def read(place: Place) -> Config | None:
    """None: there is no config.json. Raises BadOrder, OSError."""
    raw = place.read()
    return None if raw is None else config_json.parse(raw, f"config.json ({place.said})")


def write(place: Place, config: Config) -> None:
    """What is on the disk afterwards is what counts. Raises BadOrder, OSError."""
    place.write(config_json.rendered(config))
    found = read(place) or {}
    wrong = sorted(key for key in {*config, *found} if found.get(key, ...) != config.get(key, ...))
    if wrong:
        raise BadOrder(
            f"{place.said}: what was read back differs in {', '.join(wrong)}: is the medium broken?"
        )


def device_type(place: Place, before: Config, given: str | None) -> str:
    """What the image says of itself counts; else what was given, else what stands there. Raises BadOrder."""
    image, there = place.device_type(), before.get("deviceType")
    if image is not None:
        if given not in {None, image}:
            raise BadOrder(f"the image is for {image}, and --device-type says {given}")
        return image
    found = given or there
    if not isinstance(found, str) or not found:
        raise BadOrder(
            "the device type is not known: --device-type, as balena calls it, for example"
            " --device-type raspberrypi4-64"
        )
    return found
