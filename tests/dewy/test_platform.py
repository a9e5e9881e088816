"""Which file of a release is for which machine."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.registry.platform import ARCHIVES, Platform, choose, fits, is_temporary, this_platform

LINUX = Platform("linux", "amd64", "gnu")
ALPINE = Platform("linux", "amd64", "musl")
LINUX_ARM = Platform("linux", "arm64", "gnu")
LINUX_386 = Platform("linux", "386", "gnu")
PI_1 = Platform("linux", "arm", "gnu", 6)
PI_3 = Platform("linux", "arm", "gnu", 7)
MAC = Platform("darwin", "arm64")
MAC_INTEL = Platform("darwin", "amd64")
WINDOWS = Platform("windows", "amd64")
WINDOWS_386 = Platform("windows", "386")
FREEBSD = Platform("freebsd", "amd64")
ALL = [LINUX, LINUX_ARM, LINUX_386, PI_3, MAC, MAC_INTEL, WINDOWS, WINDOWS_386, FREEBSD]


@pytest.mark.parametrize(
    ("name", "machines"),
    [
        ("app_linux_amd64.tar.gz", [LINUX]),
        ("app_Linux_x86_64.tar.gz", [LINUX]),
        ("app-1.2.0-x86_64-unknown-linux-gnu.tar.xz", [LINUX]),
        ("app-linux-x86-64.zip", [LINUX]),
        ("app-linux-x64.tgz", [LINUX]),
        ("app-linux64.tar.bz2", [LINUX]),
        ("applinuxamd64.tar", [LINUX]),
        ("app_linux_aarch64.tar.zst", [LINUX_ARM]),
        ("app-linux-arm64.7z", [LINUX_ARM]),
        ("app_linux_arm64.tar.gz", [LINUX_ARM]),  # not for 32-bit ARM, in whose name it contains the word
        ("app_linux_armv7.tar.gz", [PI_3]),
        ("app-linux-armhf.tar.gz", [PI_3]),
        ("app-arm-unknown-linux-gnueabihf.tar.gz", [PI_3]),
        ("charm-linux-amd64.tar.gz", [LINUX]),
        ("app-linux-i386.tar.gz", [LINUX_386]),
        ("app-linux-i686.tbz2", [LINUX_386]),
        ("app_1.386.0_linux_amd64.tar.gz", [LINUX, LINUX_386]),  # a number that could be either
        ("app-linux-x86.txz", [LINUX_386]),
        ("app_darwin_arm64.tar.gz", [MAC]),
        ("app-aarch64-apple-darwin.tar.gz", [MAC]),
        ("app-macos-x64.zip", [MAC_INTEL]),
        ("app-osx-amd64.zip", [MAC_INTEL]),
        ("app-apple-arm64.tzst", [MAC]),
        ("app_macOS_universal.tar.gz", [MAC, MAC_INTEL]),
        ("app_darwin_all.tar.gz", [MAC, MAC_INTEL]),
        ("app_windows_amd64.zip", [WINDOWS]),
        ("app-win64.zip", [WINDOWS]),
        ("app-win32-x64.zip", [WINDOWS]),
        ("app-win32.zip", [WINDOWS_386]),
        ("app-win-x64.zip", [WINDOWS]),
        ("darwinner_linux_amd64.tar.gz", [LINUX, MAC_INTEL]),  # the price of words that count anywhere
        ("app-freebsd-amd64.tar.gz", [FREEBSD]),
        ("app-aarch64-linux-android.tar.gz", []),
        ("app-arm64-apple-ios.zip", []),
        ("app_linux.tar.gz", []),
        ("app_amd64.tar.gz", []),
        ("source.tar.gz", []),
        ("app_linux_amd64", [LINUX]),
        ("app-1.2.3-linux-amd64", [LINUX]),
        ("app-linux-amd64-1.2.3", [LINUX]),
        ("app.linux-amd64", [LINUX]),
        ("app_linux_amd64.bin", [LINUX]),
        ("app_windows_amd64.exe", [WINDOWS]),
        ("app_linux_amd64.deb", []),
        ("app_linux_amd64.tar.gz.sha256", []),
        ("app_linux_amd64.tar.gz.sig", []),
        ("app_linux_amd64.sbom.json", []),
        ("app_linux_amd64_checksums", []),
        ("app_linux_amd64.gz", []),
        (".app_linux_amd64.tar.gz", []),
        ("app_linux_amd64.tar.gz.part", []),
        ("shipped_to_web_server_at_20260501T000000.000000000Z.txt", []),
    ],
)
def test_a_name_fits_these_machines_and_no_others(name: str, machines: list[Platform]) -> None:
    """R8: with the words that v2 does not know."""
    assert [machine for machine in ALL if fits(name, machine)] == machines


@pytest.mark.parametrize(
    ("machine", "names", "expected"),
    [
        # archives before plain binaries, whatever the order
        (LINUX, ["app-linux-amd64", "app-linux-amd64.tar.gz"], "app-linux-amd64.tar.gz"),
        (LINUX, ["app-linux-amd64", "app-linux-amd64.sha256"], "app-linux-amd64"),
        # the machine's own libc; a static musl build runs on glibc, the other way round nothing does
        (LINUX, ["a-linux-musl-amd64.tgz", "a-linux-gnu-amd64.tgz"], "a-linux-gnu-amd64.tgz"),
        (LINUX, ["a-linux-musl-amd64.tgz", "a-linux-amd64.tgz"], "a-linux-amd64.tgz"),
        (LINUX, ["a-linux-musl-amd64.tgz"], "a-linux-musl-amd64.tgz"),
        (ALPINE, ["a-linux-gnu-amd64.tgz", "a-linux-musl-amd64.tgz"], "a-linux-musl-amd64.tgz"),
        (ALPINE, ["a-linux-amd64.tgz", "a-linuxmusl-amd64.tgz"], "a-linuxmusl-amd64.tgz"),
        (ALPINE, ["a-linux-gnu-amd64.tgz"], None),
        (ALPINE, ["a-linux-gnu-amd64.tgz", "a-linux-amd64.tgz"], "a-linux-amd64.tgz"),
        # a build that every CPU runs
        (LINUX, ["a_linux_amd64_v3.tgz", "a_linux_amd64_v1.tgz"], "a_linux_amd64_v1.tgz"),
        # the newest ARM that runs here
        (PI_1, ["a-linux-armv7.tgz", "a-linux-armv5.tgz", "a-linux-armv6.tgz"], "a-linux-armv6.tgz"),
        (PI_3, ["a-linux-armv6.tgz", "a-linux-armv7.tgz", "a-linux-arm64.tgz"], "a-linux-armv7.tgz"),
        (PI_1, ["a-linux-armhf.tgz"], None),
        # one that names the architecture before one for all
        (MAC, ["a-macos-universal.zip", "a-macos-arm64.zip"], "a-macos-arm64.zip"),
        # what Dewy v2 can read, too
        (LINUX, ["a_linux_amd64.tar.zst", "a_linux_amd64.zip"], "a_linux_amd64.zip"),
        (LINUX_ARM, ["a_linux_aarch64.tar.gz", "a_linux_arm64.tar.gz"], "a_linux_arm64.tar.gz"),
        # and else what comes first
        (LINUX, ["b_linux_amd64.zip", "a_linux_amd64.tar.gz"], "b_linux_amd64.zip"),
        (LINUX, [], None),
    ],
)
def test_the_preferred_one(machine: Platform, names: list[str], expected: str | None) -> None:
    assert choose(names, machine) == expected


def test_a_choice_that_was_announced_stays_as_long_as_it_fits() -> None:
    names = ["a_linux_amd64.tar.gz", "a_linux_amd64.zip"]
    assert choose(names, LINUX, keep="a_linux_amd64.zip") == "a_linux_amd64.zip"
    assert choose(names, LINUX, keep="a_linux_amd64.tar.xz") == "a_linux_amd64.tar.gz"
    assert choose([*names, "a_linux_arm64.zip"], LINUX, keep="a_linux_arm64.zip") == "a_linux_amd64.tar.gz"


words = st.sampled_from(
    ["linux", "darwin", "win", "amd64", "x86_64", "arm64", "arm", "armv7", "musl", "gnu", "v3", "app"]
)
generated = st.lists(words, min_size=1, max_size=5).flatmap(
    lambda parts: st.sampled_from([*ARCHIVES, "", ".sha256"]).map(lambda suffix: "-".join(parts) + suffix)
)


@given(st.lists(generated, max_size=6, unique=True), st.sampled_from(ALL))
def test_a_choice_fits_and_does_not_depend_on_what_does_not_fit(names: list[str], machine: Platform) -> None:
    chosen = choose(names, machine)
    fitting = [name for name in names if fits(name, machine)]
    assert (chosen in fitting) if fitting else (chosen is None)
    assert choose(fitting, machine) == chosen


@given(st.text(max_size=40), st.sampled_from(ALL))
def test_any_text_may_be_a_name(name: str, machine: Platform) -> None:
    assert fits(name, machine) in (True, False)
    if is_temporary(name):
        assert not fits(name, machine)


def test_no_artifact_of_one_system_fits_another() -> None:
    names = {m: f"app_{m.os}_{m.arch}.tar.gz" for m in ALL}
    for mine, other in itertools.permutations(ALL, 2):
        assert not fits(names[other], mine), (names[other], mine)


@pytest.mark.parametrize(
    ("system", "machine", "bits", "expected"),
    [
        ("Linux", "x86_64", 64, Platform("linux", "amd64", "gnu")),
        ("Linux", "x86_64", 32, Platform("linux", "386", "gnu")),
        ("Linux", "i686", 32, Platform("linux", "386", "gnu")),
        ("Linux", "aarch64", 64, Platform("linux", "arm64", "gnu")),
        ("Linux", "aarch64", 32, Platform("linux", "arm", "gnu", 7)),
        ("Linux", "armv6l", 32, Platform("linux", "arm", "gnu", 6)),
        ("Linux", "armv7l", 32, Platform("linux", "arm", "gnu", 7)),
        ("Linux", "armv8l", 32, Platform("linux", "arm", "gnu", 7)),
        ("Linux", "riscv64", 64, Platform("linux", "riscv64", "gnu")),
        ("Linux", "loongarch64", 64, Platform("linux", "loong64", "gnu")),
        ("Darwin", "arm64", 64, Platform("darwin", "arm64")),
        ("Darwin", "x86_64", 64, Platform("darwin", "amd64")),
        ("Windows", "AMD64", 64, Platform("windows", "amd64")),
        ("FreeBSD", "amd64", 64, Platform("freebsd", "amd64")),
    ],
)
def test_what_a_machine_says_of_itself_in_go_s_names(system: str, machine: str, bits: int, expected: Platform) -> None:
    assert this_platform(system=system, machine=machine, pointer_bits=bits, libc=lambda: "gnu") == expected


def test_this_machine_is_one() -> None:
    here = this_platform()
    assert here.os == here.os.lower()
    assert here.libc in ("gnu", "musl") or here.os != "linux"
