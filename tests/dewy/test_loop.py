"""`dewy server` and `dewy assets` as a whole: real processes, a registry in a directory, a real application."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.dewy.node import Directory, Node, archive, broken, web
from tests.dewy.supervised import alive, free_port, wait_for
from tests.fakes.github import FakeGitHub
from tests.load.load import Load


@pytest.fixture
def registry(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "registry")


def site(version: str) -> bytes:
    return archive({"VERSION": version, "index.html": f"<h1>{version}</h1>"})


# -- assets ------------------------------------------------------------------------------------------------------------


def test_assets_follow_the_registry(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", site("v1.0.0"))
    with Node(tmp_path / "node", "assets", registry.url) as node:
        node.wait_deployed("v1.0.0")
        node.wait_logged("Cached artifact", cache_key="v1.0.0--app_linux_amd64.tar.gz", source="registry")
        current = node.root / ".dewy" / "cache" / "current"
        wait_for(current.exists, "the file that names what is deployed")
        assert current.read_bytes() == b"v1.0.0--app_linux_amd64.tar.gz"
        registry.publish("v1.1.0", site("v1.1.0"))
        node.wait_deployed("v1.1.0")
        wait_for(lambda: current.read_bytes() == b"v1.1.0--app_linux_amd64.tar.gz", "its new content")
        node.wait_ticks()
        assert node.stop() == 0
    assert len(node.logged("Extract archive")) == 2  # nothing was deployed twice
    assert node.logged("Dewy run failure") == []


def test_a_fresh_process_deploys_nothing_again(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", site("v1.0.0"))
    for _ in range(2):
        with Node(tmp_path / "node", "assets", registry.url) as node:
            node.wait_deployed("v1.0.0")
            node.wait_ticks()
    assert len(node.logged("Extract archive")) == 1


def test_what_is_deployed_is_read_from_the_release_alone(tmp_path: Path, registry: Directory) -> None:
    """C11, C13: a `current` in the cache directory that names the newest artifact keeps nobody from deploying it."""
    registry.publish("v1.0.0", site("v1.0.0"))
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "current").write_text("v1.0.0--app_linux_amd64.tar.gz")
    with Node(tmp_path / "node", "assets", registry.url, env={"DEWY_CACHEDIR": str(cache)}) as node:
        node.wait_deployed("v1.0.0")


def test_a_bad_release_leaves_the_old_one_and_is_tried_again_when_it_changes(
    tmp_path: Path, registry: Directory
) -> None:
    """C11, B6."""
    registry.publish("v1.0.0", site("v1.0.0"))
    with Node(tmp_path / "node", "assets", registry.url) as node:
        node.wait_deployed("v1.0.0")
        good = site("v1.1.0")
        registry.publish("v1.1.0", bytes(len(good)))
        node.wait_logged("Error count", count=1)
        node.wait_logged("Deploy skipped", count=3, reason="rejected before")  # and nothing is done about it
        assert node.deployed() == "v1.0.0" and len(node.releases()) == 1
        assert node.logged("Error count reset") == [], "a release that cannot be deployed is no success"
        failures = node.logged("Dewy run failure")
        assert "\n" not in failures[0]["error"] and "app_linux_amd64.tar.gz" in failures[0]["error"]
        assert len(failures) == 1
        assert (node.root / ".dewy/cache/current").read_text() == "v1.0.0--app_linux_amd64.tar.gz"
        registry.publish("v1.1.0", good)  # mended, under the same tag and of the same size: only the date tells
        node.wait_deployed("v1.1.0")
        node.wait_logged("Error count reset", to=0)


def test_no_traceback_reaches_an_operator(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", b"this is no archive")
    args = ["-l", "info", "-f", "text"]
    with Node(tmp_path / "node", "assets", registry.url, *args) as node:
        wait_for(lambda: "Error count" in node.log.read_text(), "a failure")
    lines = node.log.read_text().splitlines()
    assert all(line.startswith("time=") for line in lines)
    assert "Traceback" not in node.log.read_text()


def test_a_real_directory_in_the_place_of_current_is_left_alone(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", site("v1.0.0"))
    node = Node(tmp_path / "node", "assets", registry.url)
    (node.root / "current").mkdir()
    (node.root / "current" / "mine").write_text("precious")
    with node:
        assert "current" in node.wait_logged("Dewy run failure")["error"]
    assert (node.root / "current" / "mine").read_text() == "precious"
    assert node.releases() == []


def test_slots(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0+blue", site("v1.0.0+blue"))
    args = ["--slot", "blue", "-l", "debug", "-f", "json"]
    with Node(tmp_path / "node", "assets", registry.url, *args) as node:
        node.wait_deployed("v1.0.0+blue")
        registry.publish("v1.1.0+green", site("v1.1.0+green"))
        node.wait_logged("Deploy skipped: slot mismatch", expected_slot="blue", actual_slot="green", tag="v1.1.0+green")
        registry.publish("v1.2.0+blue", site("v1.2.0+blue"))
        node.wait_deployed("v1.2.0+blue")
    assert len(node.releases()) == 2


def test_a_release_without_an_artifact_for_this_machine(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", site("v1.0.0"))
    with Node(tmp_path / "node", "assets", registry.url) as node:
        node.wait_deployed("v1.0.0")
        registry.publish("v1.1.0", site("v1.1.0"), name="app_plan9_mips.tar.gz")
        within = node.wait_logged("Artifact not found within grace period")
        assert within["level"] == "DEBUG" and "v1.1.0" in within["message"]
        old = time.time() - 3600
        os.utime(registry.path / "v1.1.0" / "app_plan9_mips.tar.gz", (old, old))
        assert "artifact not found" in node.wait_logged("Dewy run failure")["error"]
        registry.publish("v1.1.0", site("v1.1.0"))
        node.wait_deployed("v1.1.0")


def test_hooks(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", site("v1.0.0"))
    before = "echo before; ls current >&2"
    args = [f"--before-deploy-hook={before}", "--after-deploy-hook=cat current/VERSION", "-l", "debug", "-f", "json"]
    with Node(tmp_path / "node", "assets", registry.url, *args) as node:
        first = node.wait_logged("Execute hook failed", command=before)
        assert (first["stdout"], first["exit_code"]) == ("before", 2) and "current" in first["stderr"]
        assert node.logged("Before deploy hook failure")
        after = node.wait_logged("Execute hook", command="cat current/VERSION")
        assert after["stdout"] == "v1.0.0" and after["duration"] > 0


def test_a_tag_that_is_published_again_is_deployed_again(tmp_path: Path, registry: Directory) -> None:
    """C16: where no digest tells, the size does; it stands in the release's marker."""
    registry.publish("v1.0.0", site("v1.0.0"))
    with Node(tmp_path / "node", "assets", registry.url) as node:
        node.wait_deployed("v1.0.0")
        node.wait_ticks()
        registry.publish("v1.0.0", archive({"VERSION": "v1.0.0, mended"}))
        node.wait_deployed("v1.0.0, mended")
        node.wait_ticks(3)
    assert len(node.logged("Extract archive")) == 2


def test_two_applications_in_one_cache_directory(tmp_path: Path) -> None:
    """C12: same tag, same file name, same directory."""
    nodes = []
    cache = tmp_path / "cache"
    for name in ("one", "two"):
        registry = Directory(tmp_path / f"registry-{name}")
        registry.publish("v1.0.0", site(name))
        nodes.append(Node(tmp_path / name, "assets", registry.url, env={"DEWY_CACHEDIR": str(cache)}).start())
    for node in nodes:
        node.wait_deployed(node.root.name)
        node.wait_ticks(5)
        node.stop()
        assert len(node.logged("Extract archive")) == 1
    assert [path.read_text() for path in cache.rglob("current")] == ["v1.0.0--app_linux_amd64.tar.gz"] * 2


def test_a_cache_without_conditional_writes_is_told_in_v2_s_words(tmp_path: Path, registry: Directory) -> None:
    args = ["--cache", f"file://{tmp_path}/cache?registry-ttl=30s", "-l", "info", "-f", "text"]
    with Node(tmp_path / "node", "assets", registry.url, *args) as node:
        words = 'level=WARN msg="registry-ttl set but cache backend does not support atomic writes; ignoring" ttl=30s'
        wait_for(lambda: words in node.log.read_text(), "the warning")


def test_options_without_effect_are_named(tmp_path: Path, registry: Directory) -> None:
    with Node(tmp_path / "node", "assets", registry.url, "-p", "80", "-f", "json") as node:
        assert node.wait_logged("Option ignored", option="--port")["level"] == "WARN"


@pytest.mark.parametrize("scheme", ["s3", "redis"])
def test_a_cache_that_is_down_at_the_start_does_not_matter(tmp_path: Path, registry: Directory, scheme: str) -> None:
    registry.publish("v1.0.0", site("v1.0.0"))
    nobody = f"127.0.0.1:{free_port()}"
    urls = {
        "s3": f"s3://us-east-1/bucket/app?registry-ttl=30s&timeout=1s&endpoint=http://{nobody}",
        "redis": f"redis://{nobody}/0?registry-ttl=30s",
    }
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    with Node(tmp_path / "node", "assets", registry.url, "-c", urls[scheme], "-f", "json", env=keys) as node:
        node.wait_deployed("v1.0.0")
        assert [record for record in node.records() if record["level"] == "WARN"]


# -- a fleet -----------------------------------------------------------------------------------------------------------


def test_a_fleet_shares_answers_and_artifacts(tmp_path: Path) -> None:
    """One call per ttl, one download per release; and the token is nowhere in the logs."""
    token = "ghp_averysecrettoken"
    with FakeGitHub() as github:
        github.publish("v1.0.0", {"app_linux_amd64.tar.gz": site("v1.0.0")})
        cache = f"file://{tmp_path}/cache?locking=flock&registry-ttl=2s"
        args = ["--cache", cache, "-l", "debug", "-f", "json"]
        env = {**github.env, "GH_TOKEN": token}
        nodes = [Node(tmp_path / f"node-{n}", "assets", github.registry, *args, env=env).start() for n in range(3)]
        began = time.monotonic()
        for node in nodes:
            node.wait_logged("Registry result cache enabled", ttl=2_000_000_000)
            node.wait_deployed("v1.0.0")
        github.publish("v1.1.0", {"app_linux_amd64.tar.gz": site("v1.1.0")})
        for node in nodes:
            node.wait_deployed("v1.1.0")
            node.wait_ticks(5)
        windows = (time.monotonic() - began) / 2.0
        for node in nodes:
            assert node.stop() == 0
            assert len(node.logged("Extract archive")) == 2
            assert token not in node.log.read_text()
        assert len(github.downloads()) == 2
        assert len(github.polls()) <= windows + 1
        told = sum(len(node.logged("Registry result refreshed from upstream")) for node in nodes)
        assert told == len(github.polls())


def test_an_outage_of_the_upstream_costs_one_call_per_back_off_and_a_new_node_still_deploys(tmp_path: Path) -> None:
    with FakeGitHub() as github:
        github.publish("v1.0.0", {"app_linux_amd64.tar.gz": site("v1.0.0")})
        cache = f"file://{tmp_path}/cache?locking=flock&registry-ttl=1s"
        args = ["--cache", cache, "-l", "debug", "-f", "json"]
        with Node(tmp_path / "old", "assets", github.registry, *args, env=github.env) as old:
            old.wait_deployed("v1.0.0")
            github.mode("outage")
            old.wait_logged("upstream registry failed; serving stale cache")
            with Node(tmp_path / "new", "assets", github.registry, *args, env=github.env) as new:
                new.wait_deployed("v1.0.0")
                assert new.logged("Cached artifact")[0]["source"] != "registry"
                calls = len(github.polls())
                new.wait_ticks(5)
                assert len(github.polls()) <= calls + 2
            github.mode("healthy")
            old.wait_logged("upstream registry answers again")


# -- server ------------------------------------------------------------------------------------------------------------


def test_ten_releases_without_a_failed_request(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        node.wait_logged("Start notification")
        with Load("127.0.0.1", node.port, clients=4) as load:
            for number in range(1, 11):
                registry.publish(f"v1.{number}.0", web(f"v1.{number}.0"))
                wait_for(lambda tag=f"v1.{number}.0": tag in load.so_far().versions, "an answer of the new release")
                node.wait_logged("Restart notification", count=number)
        report = load.stop()
        assert report.failed == 0, report
        assert len(report.versions) == 11, report
        pid = node.served()["pid"]
        assert node.stop() == 0
        assert not alive(pid)
    assert len(node.releases()) == 7
    assert len(node.logged("Start notification")) == 1


def test_a_release_that_does_not_start_is_rolled_back(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        node.wait_logged("Start notification")
        before = node.wait_served("v1.0.0")
        with Load("127.0.0.1", node.port, clients=2) as load:
            registry.publish("v1.1.0", broken("v1.1.0"))
            node.wait_logged("Rolled back")
            node.wait_logged("Deploy skipped", count=3, reason="rejected before")  # and it is not tried again
            assert len(node.logged("Rolled back")) == 1
            assert node.served() == before and node.deployed() == "v1.0.0" and len(node.releases()) == 1
            assert (node.root / ".dewy/cache/current").read_text() == "v1.0.0--app_linux_amd64.tar.gz"
            registry.publish("v1.2.0", web("v1.2.0"))
            node.wait_served("v1.2.0")
        assert load.stop().failed == 0


def test_a_node_whose_registry_is_down_runs_what_it_has(tmp_path: Path, registry: Directory) -> None:
    """B3."""
    registry.publish("v1.0.0", web("v1.0.0"))
    node = Node(tmp_path / "node", "server", registry.url)
    with node:
        node.wait_logged("Start notification")
    away = registry.path.rename(tmp_path / "away")
    with node:
        node.wait_served("v1.0.0")
        assert "registry" in node.wait_logged("Current failure")["error"]
        away.rename(registry.path)
        registry.publish("v1.1.0", web("v1.1.0"))
        node.wait_served("v1.1.0")
        node.wait_logged("Error count reset")
    assert len(node.logged("Extract archive")) == 2


def test_a_registry_that_hangs_holds_up_no_start(tmp_path: Path) -> None:
    """B2, B3."""
    with FakeGitHub() as github:
        github.publish("v1.0.0", {"app_linux_amd64.tar.gz": web("v1.0.0")})
        node = Node(tmp_path / "node", "server", github.registry, env=github.env)
        with node:
            node.wait_logged("Start notification")
        github.mode("hang")
        with node:
            node.wait_served("v1.0.0")
            assert node.logged("Current failure") == []
            began = time.monotonic()
            assert node.stop() == 0
            assert time.monotonic() - began < 20


def test_a_stop_in_the_middle_of_the_first_start_loses_nothing(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    node = Node(tmp_path / "node", "server", registry.url)
    with node:
        node.wait_logged("Worker started")  # and a second passes before it counts as up
    assert node.deployed() == "v1.0.0" and node.logged("Dewy run failure") == []
    registry.path.rename(tmp_path / "away")
    with node:
        node.wait_served("v1.0.0")


def test_a_stop_in_the_middle_of_a_hand_over_keeps_the_last_good_one(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        node.wait_logged("Start notification")
        registry.publish("v1.1.0", web("v1.1.0"))
        node.wait_logged("Worker started", generation=2)
    assert node.deployed() == "v1.0.0" and node.logged("Dewy run failure") == []


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_ends(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        pid = node.wait_served("v1.0.0")["pid"]
        away = registry.path.rename(tmp_path / "away")
        warned = node.wait_logged("upstream registry failed; serving stale cache")
        assert warned["level"] == "WARN" and warned["age"] > 0 and "registry" in warned["error"]
        node.wait_ticks(5)
        away.rename(registry.path)
        node.wait_logged("upstream registry answers again")
        assert len(node.logged("upstream registry failed; serving stale cache")) == 1
        assert node.served()["pid"] == pid


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_restarts(tmp_path: Path, registry: Directory, number: signal.Signals) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        before = node.wait_served("v1.0.0")
        node.wait_logged("Start notification")
        node.signal(number)
        node.wait_logged("Restart notification", message=f"Restarted receiving by `{number.name}` signal")
        after = node.wait_served("v1.0.0")
        assert after["pid"] != before["pid"] and int(after["generation"]) == 2
    assert len(node.logged("Extract archive")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_and_waits(tmp_path: Path, registry: Directory, number: signal.Signals) -> None:
    """B7."""
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        pid = node.wait_served("v1.0.0")["pid"]
        node.signal(number)
        assert node.process.wait(30) == 0
        assert not alive(pid)
    assert len(node.logged("Shutdown notification")) == 1


def test_killed_and_started_again(tmp_path: Path, registry: Directory) -> None:
    """kill -9: no orphan, not even a stubborn one, and the next start runs what is deployed, without a new deploy."""
    registry.publish("v1.0.0", web("v1.0.0"))
    node = Node(tmp_path / "node", "server", registry.url, env={"WEB_IGNORE_TERM": "1"}).start()
    pid = node.wait_served("v1.0.0")["pid"]
    node.wait_logged("Start notification")
    node.kill()
    del node.env["WEB_IGNORE_TERM"]
    with node:  # at once: the port is free only when the guard has ended the old application
        node.wait_logged("Start notification", count=2)
        assert not alive(pid) and node.wait_served("v1.0.0")["pid"] != pid
    assert len(node.logged("Extract archive")) == 1


def test_a_signal_is_obeyed_while_a_tick_hangs(tmp_path: Path, registry: Directory) -> None:
    """B2: a hook stands for whatever may take long."""
    registry.publish("v1.0.0", web("v1.0.0"))
    args = ["-f", "json", "--before-deploy-hook", "echo > hanging; sleep 100", "--", "./current/web.py"]
    with Node(tmp_path / "node", "server", registry.url, *args) as node:
        wait_for((node.root / "hanging").exists, "the hook")
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began < 20


def test_a_port_that_is_taken_is_one_line_and_exit_code_1(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        node.wait_served("v1.0.0")
        args = ["-p", f"127.0.0.1:{node.port}", "--", "./current/web.py"]
        other = Node(tmp_path / "other", "server", registry.url, *args)
        with other:
            assert other.process.wait(30) == 1
        [line] = [line for line in other.log.read_text().splitlines() if line.startswith("dewy: ")]
        assert "already in use" in line
