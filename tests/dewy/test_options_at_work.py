"""Options over real processes: a file and the environment alone, slots, and the fall-back."""

from __future__ import annotations

from pathlib import Path

from tests.dewy.node import Directory, Node, archive, web

MAC = "app_darwin_arm64.tar.gz"


def release(version: str) -> bytes:
    return archive({"VERSION": version})


def test_all_from_a_file_and_the_environment(tmp_path: Path) -> None:
    registry = Directory(tmp_path / "registry")
    registry.publish("v1.0.0", web("1"))
    file = tmp_path / "dewy.toml"
    env = {"DEWY_CONFIG": str(file), "DEWY_LOG_LEVEL": "error", "DEWY_KEEP": "2", "DEWY_INTERVALL": "1"}
    # The flags of `Node` go first: it polls five times a second and logs at DEBUG.
    node = Node(tmp_path / "node", "server", registry.url, "--no-telemetry", env=env)
    file.write_text(
        f"""
        registry = "file:///nowhere"
        interval = "1h"
        keep = 9
        telemetry = true
        port = ["127.0.0.1:{node.port}"]
        command = ["./current/web.py"]
        """
    )
    with node:
        for version in ("1", "2", "3"):
            registry.publish(f"v{version}.0.0", web(version))
            node.wait_served(version)
        node.wait_ticks()
        assert len(node.releases()) == 2
        [ignored] = node.logged("Option ignored")
        assert (ignored["option"], ignored["reason"]) == (
            "DEWY_INTERVALL",
            "no such option; did you mean DEWY_INTERVAL?",
        )
        assert node.stop() == 0


def test_r6_a_newest_release_without_an_artifact_does_not_block(tmp_path: Path) -> None:
    registry = Directory(tmp_path / "registry")
    registry.publish("v1.0.0", release("1"))
    registry.publish("v2.0.0", release("2"), name=MAC)
    with (
        Node(tmp_path / "patient", "assets", registry.url) as patient,
        Node(tmp_path / "node", "assets", registry.url, "--fallback") as node,
    ):
        node.wait_deployed("1")
        passed_over = node.wait_logged("Newest release passed over", newest="v2.0.0", tag="v1.0.0")
        assert passed_over["level"] == "WARN"
        patient.wait_logged("Artifact not found within grace period")
        assert patient.deployed() is None  # as Dewy v2
        node.wait_ticks()
        assert len(node.logged("Newest release passed over")) == 1
        registry.publish("v2.0.0", release("2"))
        node.wait_deployed("2")
        patient.wait_deployed("2")
        (registry.path / "v2.0.0" / "app_linux_amd64.tar.gz").unlink()  # uploaded again, in a moment
        node.wait_logged("Artifact not found within grace period", count=2)
        assert node.deployed() == "2"


def test_r6_blue_and_green_of_one_version(tmp_path: Path) -> None:
    registry = Directory(tmp_path / "registry")
    registry.publish("v1.0.0+blue", release("blue"))
    registry.publish("v1.0.0+green", release("green"))
    cache = ["-c", f"file://{tmp_path}/cache?locking=flock&registry-ttl=1h"]
    with (
        Node(tmp_path / "blue", "assets", registry.url, "--slot", "blue", *cache) as blue,
        Node(tmp_path / "green", "assets", registry.url, "--slot", "green", *cache) as green,
    ):
        blue.wait_deployed("blue")
        green.wait_deployed("green")
    registry.publish("v2.0.0+green", release("green 2"))
    with (
        Node(tmp_path / "waits", "assets", registry.url, "--slot", "blue") as waits,
        Node(tmp_path / "goes", "assets", registry.url, "--slot", "blue", "--fallback") as goes,
    ):
        goes.wait_deployed("blue")
        waits.wait_logged("Deploy skipped: slot mismatch", expected_slot="blue", actual_slot="green")
        assert waits.deployed() is None
