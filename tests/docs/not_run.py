"""Commands that the pages print and the tests cannot run, one by one, with the reason."""

from __future__ import annotations

from typing import Final

_INDEX: Final = "installs from a package index"
_SUITE: Final = "is the test suite, or longer than it"
_ROOT: Final = "changes the machine: files, users and services of the system"
_SYSTEMD: Final = "needs a system that systemd has started; `systemd-analyze verify` reads the unit files in tests/dewy"
_DOCKER: Final = "needs Docker, and images from a registry"

NOT_RUN: Final[dict[tuple[str, str], str]] = {
    ("README.md", "pip install 'kvcache-dewy[s3]'"): _INDEX,
    ("README.md", "make demo"): "sets up a virtual environment, then runs `dewy demo`, as docs/index.md does",
    ("README.md", "make test"): _SUITE,
    ("docs/tutorial.md", "pip install kvcache-dewy"): _INDEX,
    ("docs/tutorial.md", "pip install 'kvcache-dewy[s3]'"): _INDEX,
    (
        "docs/how-to/systemd.md",
        "sudo python3 -m venv /opt/dewy && sudo /opt/dewy/bin/pip install 'kvcache-dewy[s3]'",
    ): _INDEX,
    ("docs/how-to/systemd.md", "sudo ln -s /opt/dewy/bin/dewy /usr/local/bin/dewy"): _ROOT,
    (
        "docs/how-to/systemd.md",
        "sudo useradd --system --home-dir /var/lib/dewy --shell /usr/sbin/nologin dewy",
    ): _ROOT,
    (
        "docs/how-to/systemd.md",
        "sudo install -m 0644 packaging/systemd/dewy.service /etc/systemd/system/dewy.service",
    ): _ROOT,
    ("docs/how-to/systemd.md", "sudo systemctl enable --now dewy"): _SYSTEMD,
    ("docs/how-to/systemd.md", "systemctl status dewy"): _SYSTEMD,
    ("docs/how-to/systemd.md", "journalctl -u dewy -p warning"): _SYSTEMD,
    ("docs/how-to/systemd.md", "sudo systemctl reload dewy"): _SYSTEMD,
    ("docs/how-to/systemd.md", "sudo -u dewy dewy rollback -C /var/lib/dewy"): _ROOT,
    (
        "docs/how-to/systemd.md",
        "sudo install -m 0644 packaging/systemd/dewy.socket /etc/systemd/system/dewy.socket",
    ): _ROOT,
    ("docs/how-to/systemd.md", "sudo systemctl enable --now dewy.socket"): _SYSTEMD,
    ("docs/how-to/docker.md", "docker build -f packaging/docker/Dockerfile -t dewy ."): _DOCKER,
    (
        "docs/how-to/docker.md",
        "docker run -p 8000:8000 -e DEWY_REGISTRY=ghr://owner/repo -e DEWY_PORT=8000 -e GH_TOKEN -v app:/app "
        "dewy server -- ./current/app",
    ): _DOCKER,
    ("docs/how-to/docker.md", "docker stop --time 60 CONTAINER"): _DOCKER,
}
"""(page, command as `program.command_of` gives it) -> why."""
