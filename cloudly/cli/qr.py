"""A join code as a QR code: on a terminal, or in a file that only its owner may read.

It holds the join token: whoever photographs it can enroll a device with it.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interfaces.join_code import JoinCode

KINDS = (".svg", ".png")


def check_file(file: Path) -> None:
    """Whether a code can be written there, before a token is made for it. Raises BadOrder."""
    from cloudly.problems import BadOrder

    if file.suffix.lower() not in KINDS:
        raise BadOrder(f"{file} is no picture that can be made: name it .svg or .png")
    if not file.parent.is_dir():
        raise BadOrder(f"{file.parent} is no directory")


def draw(code: JoinCode) -> None:
    """On the terminal. Its letters are blocks, so it is said where they cannot be printed. Raises BadOrder."""
    import segno

    from cloudly.problems import BadOrder

    drawing = io.StringIO()
    segno.make_qr(code.text()).terminal(drawing, compact=True)
    try:
        drawing.getvalue().encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        raise BadOrder(
            f"this terminal cannot show a QR code in {sys.stdout.encoding}: use --qr-file"
        ) from None
    sys.stdout.write(drawing.getvalue())


def write(code: JoinCode, file: Path) -> None:
    """0600, whole or not at all. Raises OSError."""
    from cloudly.durable import write_durably
    from cloudly.join_picture import picture

    write_durably(file, picture(code, file.suffix.lower()[1:]))
