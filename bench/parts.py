"""`python -m bench.parts [--scale=quick] [--into=DIRECTORY] [PART...]`: prints parts of the page; plots go to docs/."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from bench.page import ROOT, SCALES, Scale

PARTS = ("fleet", "hits", "contended", "unpack", "others", "idle")
"""Modules with a `section(scale, directory)`, in the order of the page."""


def sections(scale: Scale, directory: Path, parts: Sequence[str] = PARTS) -> Iterator[str]:
    for part in parts:
        section: Callable[[Scale, Path], str] = import_module(f"bench.{part}").section
        yield section(scale, directory)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.parts")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--into", type=Path, default=ROOT / "docs")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    chosen = parser.parse_args()
    for text in sections(SCALES[chosen.scale], chosen.into, chosen.parts or PARTS):
        print(text, flush=True)


if __name__ == "__main__":
    main()
