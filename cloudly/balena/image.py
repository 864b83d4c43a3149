"""References to images by digest, and the repository each is in.

One repository per image (trap 4 of the recordings, and the Supervisor's source, `inspectByReference`): an image
`repository@sha256:new` in a repository of which the device has any image already is never pulled; the old content gets
the new name. So a repository is used for one digest, by any release, ever.
"""

from __future__ import annotations

import re
from typing import Final

MAX_REFERENCE: Final = 255
"""The Supervisor's `ShortString`."""
BY_DIGEST: Final = re.compile(r"([^\s@]+)@(sha256:[0-9a-f]{64})")
NAME: Final = re.compile(
    r"(?:(?P<registry>(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?)/)??"
    r"(?P<path>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?",
    re.ASCII,
)
"""As the distribution project writes references; what is before the first `/` is a registry if it looks like one."""
HUB: Final = "docker.io"
HOW_TO: Final = "push each image under a repository of its own, such as registry/v2/<random>"


def without_tag(image: str) -> str:
    """`repo:tag@sha256:…` as the Supervisor keeps it: it drops the tag of an image that has a digest."""
    name, digest = image.rsplit("@", 1)
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"


def is_well_formed(image: str) -> bool:
    """Whether an engine can parse the name before the digest."""
    found = BY_DIGEST.fullmatch(image)
    return found is not None and NAME.fullmatch(found[1]) is not None


def repository_of(image: str) -> str:
    """The one name of its repository: no tag, no digest, and Docker Hub's short names written out."""
    name = without_tag(image).rpartition("@")[0]
    registry, slash, path = name.partition("/")
    if not slash or not (set(registry) & set(".:") or registry == "localhost"):
        registry, path = HUB, name
    if registry in {HUB, "index.docker.io", "registry-1.docker.io"}:
        registry, path = HUB, path if "/" in path else f"library/{path}"
    return f"{registry}/{path}"


def digest_of(image: str) -> str:
    return image.rpartition("@")[2]
