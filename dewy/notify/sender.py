"""Who speaks: what messages say of the node they come from."""

from __future__ import annotations

import getpass
import hashlib
import socket
from colorsys import hls_to_rgb, rgb_to_hls
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MOST_LINES = 50
MOST_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Sender:
    """This node: `root` is its working directory, with `current` in it."""

    host: str
    user: str
    root: Path
    version: str

    @classmethod
    def here(cls, root: Path, version: str) -> Self:
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a user without a name, as containers have them
            user = "unknown"
        return cls(socket.gethostname() or "unknown-host", user, root, version)


def color_of(host: str) -> str:
    """A colour that tells hosts apart, the one that Dewy v2 gives it; never an alarming red."""
    red, green, blue = hashlib.md5(host.encode(), usedforsecurity=False).digest()[:3]
    hue, light, saturation = rgb_to_hls(red / 255, green / 255, blue / 255)
    if saturation > 0.5 and (hue < 20 / 360 or hue > 340 / 360):
        rotated = hls_to_rgb((hue + 35 / 360) % 1.0, light, saturation)
        red, green, blue = (round(part * 255) for part in rotated)
    return f"#{red:02x}{green:02x}{blue:02x}"


def cut(output: str) -> str:
    """The end of what a hook wrote, where failures are explained."""
    lines = output.splitlines()
    text = "\n".join(lines[-MOST_LINES:])
    short = text[-MOST_CHARACTERS:]
    return short if len(lines) <= MOST_LINES and short == text else f"...\n{short}"
