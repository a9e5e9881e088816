"""Which artifact of a release is for this machine, told by its file name. Pure, but for `this_platform`.

Names are as people make them: `app_linux_amd64.tar.gz`, `app-1.2.0-x86_64-unknown-linux-musl.tgz`, `app-macos-x64.zip`.
Words that can stand for nothing else count wherever they occur; words that occur inside others (`win` in `darwin`,
`arm` in `arm64`) only between separators.
"""

from __future__ import annotations

import os
import platform
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Libc: TypeAlias = Literal["gnu", "musl", ""]

V2_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar", ".zip")
"""What Dewy v2 can unpack too."""
ARCHIVES: Final = (*V2_ARCHIVES, ".tar.zst", ".tzst", ".7z")


@dataclass(frozen=True, slots=True)
class Platform:
    """A machine by its Go names: `os` (linux, darwin, ...), `arch` (amd64, arm64, 386, arm, ...).

    `libc` only tells on Linux. `arm`: the version of a 32-bit ARM, 0 where unknown or another architecture.
    """

    os: str
    arch: str
    libc: Libc = ""
    arm: int = 0


_GO_ARCH: Final = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "x86": "386",
    "loongarch64": "loong64",
}
_IN_32_BITS: Final = {"amd64": "386", "arm64": "arm"}


def this_platform(
    *,
    system: str | None = None,
    machine: str | None = None,
    pointer_bits: int | None = None,
    libc: Callable[[], Libc] | None = None,
) -> Platform:
    """The platform that this process runs on; the parameters stand in for what the system would say.

    A 32-bit process on a 64-bit kernel (common on small ARM boards) counts as 32 bits, since so do its libraries.
    """
    goos = (system or platform.system()).lower()
    machine = (machine or platform.machine()).lower()
    arch = "arm" if re.match(r"arm(?!64)", machine) else _GO_ARCH.get(machine, machine)
    if (pointer_bits or 8 * struct.calcsize("P")) == 32:
        arch = _IN_32_BITS.get(arch, arch)
    version = re.match(r"armv([5-8])", machine)
    arm = 0
    if arch == "arm":
        arm = min(7, int(version[1])) if version else 7 if machine in ("aarch64", "arm64") else 6
    return Platform(goos, arch, (libc or _system_libc)() if goos == "linux" else "", arm)


def _system_libc() -> Libc:
    try:
        return "gnu" if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc") else "musl"
    except (ValueError, OSError):  # musl knows no such name
        return "musl"


# -- words ----------------------------------------------------------------------------------------------------------

# For each platform: words that count anywhere, and words that count only between separators.
_Words: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
_OS: Final[dict[str, _Words]] = {
    "linux": (("linux",), ()),
    "darwin": (("darwin", "macos"), ("osx", "macosx", "mac", "apple", "osx64", "mac64")),
    "windows": (("windows",), ("win", "win32", "win64")),
}
_ARCH: Final[dict[str, _Words]] = {
    "amd64": (("amd64", "x86_64", "x86-64"), ("x64", "linux64", "win64", "osx64", "mac64", "macos64")),
    "arm64": (("arm64", "aarch64"), ()),
    "386": ((), ("386", "i386", "i486", "i586", "i686", "x86", "ia32", "linux386", "linux32", "win32")),
    "arm": ((), ("arm", "armhf", "armel", "arm32", "linuxarm")),  # and armv5 to armv7, see _arm_version
    "ppc64le": (("ppc64le", "powerpc64le"), ()),
    "ppc64": ((), ("ppc64", "powerpc64")),
    "loong64": (("loong64", "loongarch64"), ()),
}
_UNIVERSAL: Final = frozenset({"all", "universal", "universal2"})
"""One file for every architecture of a Mac."""
_ARM_TOKEN: Final = re.compile(r"armv?([5-7])[a-z]*")
_NEEDS_NEWER_CPU: Final = re.compile(r"(?:amd64|x86[_-]64)[._-]?v[2-9](?![0-9])")
_SEPARATOR: Final = re.compile(r"[^a-z0-9]+")
_TEMPORARY: Final = (".part", ".partial", ".tmp", ".filepart", ".crdownload")
_LOOKALIKES: Final = {"linux": ("android",), "darwin": ("ios", "tvos", "watchos", "ipados")}
"""Other systems whose names contain ours: `aarch64-linux-android`, `arm64-apple-ios`."""
_BESIDES: Final = frozenset({"checksum", "checksums", "md5sums", "sbom", "sha256", "sha256sums", "sha512sums", "sig"})
"""What lies beside a program and is none, where there is no extension to tell."""


def is_archive(name: str, suffixes: tuple[str, ...] = ARCHIVES) -> bool:
    """Whether the name says that it can be unpacked."""
    return name.lower().endswith(suffixes)


def is_temporary(name: str) -> bool:
    """Whether a file is hidden, or still being copied by the look of its name."""
    return name.startswith(".") or name.lower().endswith(_TEMPORARY)


def fits(name: str, machine: Platform) -> bool:
    """Whether an artifact of this name can run on the machine."""
    return _rank(name, machine) is not None


def choose(names: Iterable[str], machine: Platform, *, keep: str | None = None) -> str | None:
    """The artifact for the machine, or None.

    `keep` is the choice for the same release that was announced before: it stays as long as it is there and fits, so
    that a fleet does not deploy one release twice because its leaders, or the order of the list, differ.
    Preferred, in this order: archives over plain binaries, the machine's own libc, a build for older CPUs over one that
    may not run, what Dewy v2 would choose, and what is listed first.
    """
    ranked = [(rank, name) for name in names if (rank := _rank(name, machine)) is not None]
    if keep is not None and any(name == keep for _, name in ranked):
        return keep
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None  # min takes the first of equals


def _rank(name: str, machine: Platform) -> tuple[int, ...] | None:
    """The smaller the better; None where it does not fit."""
    lower = name.lower()
    archive = is_archive(lower)
    stem = lower[: -len(max((s for s in ARCHIVES if lower.endswith(s)), key=len))] if archive else lower
    tokens = frozenset(filter(None, _SEPARATOR.split(stem.replace("x86_64", "amd64").replace("x86-64", "amd64"))))
    if is_temporary(lower) or not _says(stem, tokens, _os_words(machine.os)):
        return None
    if any(token.startswith(_LOOKALIKES.get(machine.os, ())) for token in tokens):
        return None
    if not archive and not (_is_plain_binary(stem, machine) and tokens.isdisjoint(_BESIDES)):
        return None
    arm = _arm_version(tokens) if machine.arch == "arm" else 0
    universal = machine.os == "darwin" and bool(tokens & _UNIVERSAL)
    named = _says_arch(stem, tokens, machine.arch) or arm > 0
    libc = _libc_rank(stem, tokens, machine.libc)
    if not (named or universal) or libc is None or (machine.arm and arm > machine.arm):
        return None
    newer_cpu = machine.arch == "amd64" and _NEEDS_NEWER_CPU.search(stem) is not None
    return (not archive, libc, newer_cpu, not named, -arm, not _v2_takes(lower, machine))


def _says(stem: str, tokens: frozenset[str], words: _Words) -> bool:
    anywhere, alone = words
    return any(word in stem for word in anywhere) or not tokens.isdisjoint(alone)


def _says_arch(stem: str, tokens: frozenset[str], arch: str) -> bool:
    if arch == "386" and "win32" in tokens and _says_arch(stem, tokens, "amd64"):
        return False  # `win32-x64`: there win32 is the name of the system
    return _says(stem, tokens, _ARCH.get(arch, ((arch,), ())))


def _os_words(goos: str) -> _Words:
    return _OS.get(goos, ((goos,), ()))


def _v2_takes(name: str, machine: Platform) -> bool:
    arches = (machine.arch, "x86_64") if machine.arch == "amd64" else (machine.arch,)
    systems = (machine.os, "macos") if machine.os == "darwin" else (machine.os,)
    return is_archive(name, V2_ARCHIVES) and any(a in name for a in arches) and any(s in name for s in systems)


def _arm_version(tokens: frozenset[str]) -> int:
    """The version of 32-bit ARM that a name asks for; 0 where it says nothing."""
    named = [int(found[1]) for token in tokens if (found := _ARM_TOKEN.fullmatch(token))]
    if named:
        return max(named)
    return 7 if "armhf" in tokens else 5 if "armel" in tokens else 0


def _libc_rank(stem: str, tokens: frozenset[str], libc: Libc) -> int | None:
    """0: the machine's own. 1: the name says nothing. 2: another that runs, a static musl build on glibc."""
    musl = "musl" in stem
    gnu = any(token.startswith(("gnu", "glibc")) for token in tokens)
    if libc == "musl":
        return 0 if musl else None if gnu else 1
    return 2 if musl else 0 if gnu and libc == "gnu" else 1


def _is_plain_binary(name: str, machine: Platform) -> bool:
    """Whether a name without an archive's suffix looks like a program, rather than a checksum or a package.

    It has no extension, where what follows the last dot belongs to the version or the platform, or one of a program.
    """
    _, dot, extension = name.rpartition(".")
    if not dot or extension == "bin" or extension.isdigit() or (extension == "exe" and machine.os == "windows"):
        return True
    tokens = frozenset(filter(None, _SEPARATOR.split(extension)))
    return len(tokens) > 1 and _says(extension, tokens, _os_words(machine.os))
