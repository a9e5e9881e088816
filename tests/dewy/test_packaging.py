"""Unit files and image: as systemd reads them, and with options that exist."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dewy.options import BY_NAME
from dewy.status import what_is_missing

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = sorted((PACKAGING / "systemd").iterdir())


def parsed(unit: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names of systemd are case-sensitive
    parser.read(unit)
    return parser


def test_they_are_there() -> None:
    assert [unit.name for unit in UNITS] == ["dewy-assets.service", "dewy.service", "dewy.socket"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(tmp_path: Path, unit: Path) -> None:
    """`systemd-analyze verify` where there is one; it wants the program of ExecStart to exist."""
    parser = parsed(unit)
    assert parser.sections()[0] == "Unit" and parser["Unit"]["Description"] and parser["Install"]["WantedBy"]
    if unit.suffix == ".service":
        service = parser["Service"]
        assert (service["Type"], service["NotifyAccess"]) == ("notify", "main"), "dewy sends READY=1 itself"
        assert service["WorkingDirectory"].startswith("/var/lib/") and service["Restart"] == "always"
        command = service["ExecStart"].split()
        assert command[:2] == ["/usr/local/bin/dewy", "assets" if "assets" in unit.name else "server"]
        assert {option.removeprefix("--") for option in command if option.startswith("--")} <= BY_NAME.keys()
    if (verify := shutil.which("systemd-analyze")) is not None:
        for other in UNITS:  # the socket names the service
            text = other.read_text().replace("/usr/local/bin/dewy", sys.executable)
            (tmp_path / other.name).write_text(text)
        done = subprocess.run(
            [verify, "verify", "--man=no", str(tmp_path / unit.name)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_image_runs_dewy_as_first_process_and_not_as_root() -> None:
    text = (PACKAGING / "docker" / "Dockerfile").read_text()
    instructions = dict(re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE))
    assert instructions["ENTRYPOINT"] == '["dewy"]' and instructions["USER"] == "dewy"
    assert 'CMD ["dewy", "status", "--check"]' in instructions["HEALTHCHECK"]
    assert instructions["WORKDIR"] == "/app"


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        ({"running": False}, "dewy does not run here"),
        ({"running": True, "deployed": None}, "nothing is deployed yet"),
        ({"running": True, "deployed": {}, "mode": "assets"}, None),
        ({"running": True, "deployed": {}, "mode": "server", "application": None}, "the application does not run"),
        (
            {"running": True, "deployed": {}, "mode": "server", "application": {"running": False}},
            "the application does not run",
        ),
        ({"running": True, "deployed": {}, "mode": "server", "application": {"running": True}}, None),
    ],
)
def test_what_a_health_check_of_the_container_sees(facts: dict[str, object], missing: str | None) -> None:
    assert what_is_missing(facts) == missing
