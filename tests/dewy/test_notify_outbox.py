"""Sending without keeping anybody waiting; and one message for a fleet, over real stores."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from dewy.log import Log
from dewy.notify import Message, NotSent, Once, Outbox, Post, Weight
from dewy.notify import once as o
from dewy.notify.once import Later, Mine, Note, Told
from dewy.notify.outbox import ROOM
from kvcache import Store, open_store
from tests import servers
from tests.dewy.supervised import PATIENCE, wait_for

NEWS = Message("news", event="news")


class Channel:
    """Keeps what is sent. `failing`: raised by the next sendings; `gate`: what each waits for."""

    name = "test"
    failure = "Test failure"
    quiet = False

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.failing: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def send(self, message: Message) -> None:
        assert self.gate.wait(PATIENCE)
        if self.failing:
            raise self.failing.pop(0)
        self.sent.append(message.text)

    def close(self) -> None:
        self.closed = True


class Sending:
    """An outbox at work."""

    def __init__(self, retries: tuple[float, ...] = (0.01, 0.01), once: Once | None = None) -> None:
        self.channel = Channel()
        self.outcomes: list[str] = []
        self.box = Outbox(self.channel, Log(), on_outcome=self.outcomes.append, retries=retries)
        self.once = once

    def __enter__(self) -> Sending:
        self.box.start(self.once)
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.gate.set()
        self.box.close(PATIENCE)


def test_in_order_and_all_of_them_when_it_ends() -> None:
    with Sending() as sending:
        for number in range(50):
            sending.box.put(Message(str(number)))
    assert sending.channel.sent == [str(number) for number in range(50)] and sending.channel.closed


def test_what_was_put_in_before_the_start_is_sent() -> None:
    sending = Sending()
    sending.box.put(NEWS)
    with sending:
        pass
    assert sending.channel.sent == ["news"]


def test_a_channel_that_hangs_holds_nobody_up() -> None:
    sending = Sending()
    sending.channel.gate.clear()
    sending.box.start()
    for _ in range(ROOM + 10):
        sending.box.put(NEWS)
    assert sending.outcomes.count("dropped") >= 9  # one is in its hands
    sending.box.close(0.05)
    assert not sending.channel.closed
    sending.channel.gate.set()


def test_news_of_another_channel_does_not_wait_for_one_that_hangs() -> None:
    slow, quick = Channel(), Channel()
    slow.gate.clear()
    post = Post([slow, quick], Log())
    post.start()
    post.put(NEWS)
    wait_for(lambda: quick.sent, "the other channel's message")
    slow.gate.set()
    post.close(PATIENCE)
    assert slow.sent == ["news"]


def test_quiet_keeps_news_back_and_nothing_else() -> None:
    sending = Sending()
    sending.channel.quiet = True
    with sending:
        for weight in Weight:
            sending.box.put(Message(weight.value, weight))
    assert sending.channel.sent == ["important", "failure"]


def test_what_fails_is_tried_again() -> None:
    with Sending() as sending:
        sending.channel.failing = [NotSent("busy"), NotSent("busy")]
        sending.box.put(NEWS)
        wait_for(lambda: sending.channel.sent, "the message")
    assert sending.outcomes == ["sent"]


@pytest.mark.parametrize(
    "failing",
    [[NotSent("no such channel", again=False)], [NotSent("busy")] * 3, [ZeroDivisionError("a fault of a library's")]],
)
def test_what_goes_on_failing_is_logged_and_given_up(
    failing: list[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with Sending() as sending:
        sending.channel.failing = failing
        sending.box.put(NEWS)
        wait_for(lambda: sending.outcomes, "the end of it")
        sending.box.put(Message("the next one"))
    assert sending.outcomes == ["failed", "sent"] and sending.channel.sent == ["the next one"]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["Test failure"]


def test_the_end_does_not_wait_for_another_try() -> None:
    with Sending(retries=(3600.0,)) as sending:
        sending.channel.failing = [NotSent("busy")]
        sending.box.put(NEWS)
        wait_for(lambda: not sending.channel.failing, "the first try")
    assert sending.channel.sent == []


# -- one message for the fleet -----------------------------------------------------------------------------------------


class Time:
    def __init__(self) -> None:
        self.at = time.time()

    def __call__(self) -> float:
        return self.at


@pytest.fixture(params=["file", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two stores that processes share: one with a clock of its own, one by the node's."""
    if request.param == "file":
        return f"file://{tmp_path}/store?locking=flock"
    server: servers.Redis = request.getfixturevalue("redis")
    return f"redis://127.0.0.1:{server.port}/0?prefix={tmp_path.name}-"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


def once_of(store: Store | None, node: str = "node", **more: object) -> Once:
    return Once(lambda: store, scope="ghr://owner/repo", node=node, log=Log(), **more)  # type: ignore[arg-type]  # `now`


@pytest.mark.servers
def test_of_many_threads_one_tells(store: Store) -> None:
    nodes = [once_of(store, f"node-{n}") for n in range(12)]
    with ThreadPoolExecutor(len(nodes)) as pool:
        claims = list(pool.map(lambda once: once.claim(NEWS, "slack://x"), nodes))
    mine = [claim for claim in claims if isinstance(claim, Mine)]
    assert len(mine) == 1 and all(isinstance(claim, Mine | Later) for claim in claims)
    nodes[0].sent(mine[0])
    assert {type(once.claim(NEWS, "slack://x")) for once in nodes} == {Told}
    assert isinstance(nodes[0].claim(NEWS, "slack://y"), Mine)  # other people
    assert isinstance(nodes[0].claim(Message("x", event="x"), "slack://x"), Mine)


def _tell(url: str, node: int, barrier: Barrier, events: int, told: Path) -> None:
    """One node of a fleet, in a process of its own."""
    channel = Channel()
    box = Outbox(channel, Log())
    with open_store(url) as store:
        barrier.wait(PATIENCE)
        box.start(once_of(store, f"node-{node}"))
        for event in range(events):
            box.put(Message(f"{event}", event=f"{event}"))
        box.close(PATIENCE)
    (told / str(node)).write_text("".join(f"{text}\n" for text in channel.sent))


@pytest.mark.servers
def test_of_many_processes_one_tells(url: str, tmp_path: Path) -> None:
    nodes, events = 4, 10
    context = multiprocessing.get_context("spawn")
    told = tmp_path / "told"
    told.mkdir()
    barrier = context.Barrier(nodes)
    fleet = [context.Process(target=_tell, args=(url, node, barrier, events, told)) for node in range(nodes)]
    for process in fleet:
        process.start()
    for process in fleet:
        process.join(2 * PATIENCE)
        assert process.exitcode == 0
    lines = [line for file in told.iterdir() for line in file.read_text().splitlines()]
    assert sorted(lines, key=int) == [str(event) for event in range(events)]


@pytest.mark.servers
def test_who_dies_before_it_tells_is_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real time: the lease is that of the store's clock."""
    assert isinstance(once_of(store, "dies").claim(NEWS, "c"), Mine)
    other = once_of(store, "other")
    later = other.claim(NEWS, "c")
    assert isinstance(later, Later) and 0 < later.seconds <= o.LEASE
    monkeypatch.setattr(o, "LEASE", 0.0)
    taken = other.claim(NEWS, "c")
    assert isinstance(taken, Mine)
    other.sent(taken)
    assert isinstance(once_of(store, "third").claim(NEWS, "c"), Told)


@pytest.mark.servers
def test_an_outbox_takes_over_from_one_that_died(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(o, "LEASE", 0.3)
    assert isinstance(once_of(store, "dies").claim(NEWS, "test"), Mine)
    with Sending(once=once_of(store, "other")) as sending:
        sending.box.put(NEWS)
        wait_for(lambda: sending.channel.sent, "the message")
    with Sending(once=once_of(store, "third")) as third:
        third.box.put(NEWS)
    assert third.channel.sent == [] and third.outcomes == ["told by another node"]


@pytest.mark.servers
def test_the_same_words_of_a_later_occurrence_are_news(store: Store) -> None:
    a, b = once_of(store, "a"), once_of(store, "b")
    first = a.claim(NEWS, "c")
    assert isinstance(first, Mine)
    a.sent(first)
    again = Message("news", event="news", not_before=time.time() + 1)  # the state in between began after the first
    second = a.claim(again, "c")
    assert isinstance(second, Mine)
    a.sent(second)
    assert isinstance(b.claim(NEWS, "c"), Told)


@pytest.mark.servers
def test_a_note_that_cannot_be_read_is_replaced(store: Store) -> None:
    claim = once_of(store).claim(NEWS, "c")
    assert isinstance(claim, Mine)
    store.write(claim.key, b"\xff{")
    assert isinstance(once_of(store).claim(NEWS, "c"), Mine)
    stored = Note.decode(store.read(claim.key))
    assert stored is not None and not stored.sent


@pytest.mark.servers
def test_old_notes_are_thrown_away(store: Store) -> None:
    clock = Time()
    once = once_of(store, now=clock)
    store.write("notices/old", Note(time.time() - 3 * o.WINDOW, "n", sent=True).encode())
    store.write("notices/new", Note(time.time(), "n", sent=True).encode())
    store.write("notices/foreign", b"?")
    clock.at += o.SWEEP_EVERY + 1
    claim = once.claim(NEWS, "c")
    assert isinstance(claim, Mine)
    once.sent(claim)
    assert list(store.list("notices/")) == sorted([claim.key, "notices/foreign", "notices/new"])


@pytest.mark.servers
def test_a_store_that_is_away_silences_nobody(tmp_path: Path) -> None:
    server = servers.Redis()
    with server:
        store = open_store(f"redis://127.0.0.1:{server.port}/0?timeout=500ms")
        store.write("x", b"")
    once = once_of(store)
    claim = once.claim(NEWS, "c")
    assert claim == Mine()
    once.sent(claim)
    assert once_of(None).claim(NEWS, "c") == Mine()
    store.close()


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_store_that_cannot_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str) -> None:
    """Without conditional writes, or shared by nobody."""
    with open_store(f"file://{tmp_path}/plain" if where == "file" else f"memory://{tmp_path.name}") as plain:
        once = once_of(plain)
        assert [once.claim(NEWS, "c") for _ in range(3)] == [Mine()] * 3
        assert list(plain.list()) == []
    assert [record.message for record in caplog.records] == [
        "--notify-once needs a cache backend with atomic writes; every node tells"
    ]
