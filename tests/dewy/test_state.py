"""A node's memory: what it holds, that it survives, and that many may change it."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.errors import DeployError
from dewy.log import Log
from dewy.memory import Memory
from dewy.plan import Artifact, Rejected
from dewy.state import MOST_GOOD, MOST_REJECTED, State, StateFile, from_json, to_json
from tests.crash.dying import crashes
from tests.crash.full_disk import small_disk

V1 = Artifact("v1--a", "v1", digest="sha256:11", size=1)
V2 = Artifact("v2--a", "v2", digest="sha256:22", size=2, published=5.0)
V2_AGAIN = Artifact("v2--a", "v2", digest="sha256:23", size=2)

texts = st.text(max_size=8)
times = st.floats(0, 4e9)
artifacts = st.builds(
    Artifact, texts, texts, texts, st.none() | texts, st.none() | st.integers(0, 2**40), st.none() | times
)
states = st.builds(
    State,
    st.none() | texts,
    st.lists(st.builds(Rejected, artifacts, texts, times), max_size=3).map(tuple),
    st.lists(texts, max_size=3).map(tuple),
)


@given(states)
def test_what_is_written_is_read(state: State) -> None:
    assert from_json(to_json(state)) == state


def test_a_release_is_rejected_until_it_changes_or_somebody_says_so() -> None:
    state = State().reject(V2, "bad", 7.0)
    assert state.reject(V2, "worse", 8.0).rejected == (Rejected(V2, "worse", 8.0),)
    assert len(state.reject(V2_AGAIN, "bad too", 8.0).rejected) == 2
    assert state.pinned("v1") == State("v1", state.rejected)
    assert state.pinned("v2") == State("v2")
    assert state.pinned("v1").unpinned() == State()
    assert state.accept("v2") == State()


def test_service_in_order() -> None:
    state = State().served("a").served("b").served("a")
    assert state.good == ("b", "a") and state.served("a") is state
    assert state.failed("b").good == ("a",)


def test_it_does_not_grow_for_ever() -> None:
    state = State()
    for number in range(200):
        state = state.served(str(number)).reject(Artifact(str(number), "v"), "", 0.0)
    assert len(state.good) == MOST_GOOD and state.good[-1] == "199"
    assert len(state.rejected) == MOST_REJECTED and state.rejected[-1].artifact.key == "199"


def test_before_anything_was_written_it_is_empty_and_stays_unwritten(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    assert file.read() == State() and file.pid() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pin": 1, "good": [], "rejected": []}', "\0"])
def test_what_is_not_ours_is_not_guessed_at(tmp_path: Path, content: str) -> None:
    file = StateFile(tmp_path)
    file.change(lambda state: state.pinned("v1"))
    file.path.write_text(content)
    with pytest.raises(DeployError, match="not readable; move it away"):
        file.change(State.unpinned)
    assert file.path.read_text() == content


def serve(root: Path, name: str) -> None:
    for number in range(10):
        StateFile(root).change(lambda state, id=f"{name}{number}": state.served(id))


def test_changes_of_many_processes_are_all_there(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=serve, args=(tmp_path, name)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert set(StateFile(tmp_path).read().good) == {f"{name}{number}" for name in "abcd" for number in range(10)}


def test_who_reads_meanwhile_sees_the_state_before_or_after(tmp_path: Path) -> None:
    file, over = StateFile(tmp_path), threading.Event()
    file.change(lambda _: State(pin="v0"))
    seen: list[str | None] = []
    torn: list[DeployError] = []

    def read() -> None:
        while not over.is_set():
            try:
                seen.append(StateFile(tmp_path).read().pin)
            except DeployError as error:
                torn.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    try:
        for number in range(200):
            file.change(lambda _, tag=f"v{number}": State(pin=tag))
    finally:
        over.set()
        reading.join()
    assert seen and None not in seen and torn == []


def test_killed_at_any_step_of_a_change(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    old, new = State().pinned("v1"), State().pinned("v2")
    file.change(lambda _: old)
    seen = []
    for _ in crashes(lambda: StateFile(tmp_path).change(lambda _: new)):
        seen.append(file.read())
        file.change(lambda _: old)
    assert set(seen) <= {old, new} and len(seen) > 3
    file.change(lambda _: new)
    assert file.read() == new


def test_one_dewy_at_a_time(tmp_path: Path) -> None:
    with StateFile(tmp_path).running():
        pid = StateFile(tmp_path).pid()
        assert pid is not None
        with (
            pytest.raises(DeployError, match=rf"another dewy \(pid {pid}\) runs in {tmp_path}"),
            StateFile(tmp_path).running(),
        ):
            pass
    assert StateFile(tmp_path).pid() is None


def test_who_only_looks_keeps_nobody_from_starting(tmp_path: Path) -> None:
    over = threading.Event()
    file = StateFile(tmp_path)
    with file.running():
        pass

    def look() -> None:
        while not over.is_set():
            file.pid()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            with StateFile(tmp_path).running():
                pass
    finally:
        over.set()
        looking.join()


# -- while the disk takes no writes ------------------------------------------------------------------------------------


def test_a_full_disk_forgets_nothing_that_this_dewy_knows(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        file = StateFile(disk.root)
        file.change(lambda state: state.served("a"))
        memory = Memory(file, Log())
        memory.refresh()
        with disk.full():
            memory.note(lambda state: state.reject(V1, "bad", 1.0))
            memory.refresh()
            assert memory.state == State().served("a").reject(V1, "bad", 1.0)
            assert file.read() == State().served("a")
        memory.refresh()
        assert file.read() == memory.state == State().served("a").reject(V1, "bad", 1.0)
        file.change(State.unpinned)
        memory.refresh()
        assert memory.state == State().served("a"), "an operator's later word stands"
