"""The HTTP proxy against a small real server: transparent without a plan, and every fault as its page says."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time

import psutil
import pytest

from tests.proxy import (
    Answer,
    Corrupt,
    CutBody,
    DelayReply,
    DelayRequest,
    DropReply,
    DropRequest,
    Duplicate,
    Fault,
    HttpProxy,
    Outage,
    ResetBody,
    SlowBody,
    not_modified,
    refusal,
)
from tests.proxy.origin import Origin

VALUE = random.Random(7).randbytes(5000)
CLOSED = (http.client.RemoteDisconnected, ConnectionResetError)


@pytest.fixture
def origin():
    with Origin() as server:
        yield server


@pytest.fixture
def proxy(origin):
    with HttpProxy(origin.port) as running:
        yield running


@pytest.fixture
def client(proxy):
    connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=10)
    yield connection
    connection.close()


def call(client, method, path, body=None, **headers):
    """Status and body of the answer."""
    try:
        client.request(method, path, body, headers)
        answer = client.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        client.close()  # the next call connects anew
        raise


# -- without a plan ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["length", "chunked", "until-close"])
def test_bodies_pass_unchanged_however_they_are_framed(client, origin, how):
    path = f"/{how}/key"
    assert call(client, "PUT", path, iter([VALUE[:10], VALUE[10:]])) == (200, b"")
    assert origin.values[path] == VALUE
    assert call(client, "PUT", path, VALUE[1:]) == (200, b"")
    assert call(client, "GET", path) == (200, VALUE[1:])
    assert call(client, "PUT", path, b"") == (200, b"")
    assert call(client, "GET", path) == (200, b"")


def test_one_connection_carries_many_requests(client, proxy):
    for number in range(5):
        assert call(client, "PUT", f"/length/{number}", VALUE) == (200, b"")
    assert {entry.connection for entry in proxy.journal} == {1}


def test_answers_without_a_body(client):
    call(client, "PUT", "/length/key", VALUE)
    client.request("HEAD", "/length/key")
    answer = client.getresponse()
    assert (answer.status, answer.getheader("Content-Length"), answer.read()) == (200, "5000", b"")
    assert call(client, "DELETE", "/length/key") == (204, b"")
    assert call(client, "GET", "/length/other") == (404, b"nothing here")


def test_interim_answers_are_not_the_answer(client):
    call(client, "PUT", "/hints/key", VALUE)
    assert call(client, "GET", "/hints/key") == (200, VALUE)


def test_the_host_header_stays_the_clients(client, proxy):
    client.request("GET", "/length/none")
    assert client.getresponse().getheader("Host-Seen") == f"{proxy.host}:{proxy.port}"


def test_expect_continue_is_answered_before_the_body(proxy, origin):
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as raw:
        raw.sendall(b"PUT /length/key HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 100")
        raw.sendall(b"body")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
    assert origin.values == {"/length/key": b"body"}


def test_a_refusal_before_the_end_of_the_body_reaches_the_client(client, proxy):
    # More than the sockets hold: the server hangs up while the client still sends.
    assert call(client, "PUT", "/refuse/key", bytes(50_000_000))[0] == 413
    assert proxy.journal[0].sent < 50_000_000
    assert call(client, "GET", "/length/key")[0] == 404


def test_large_bodies_stream_with_flat_memory(client, origin):
    size, block = 256 * 1024 * 1024, bytes(1024 * 1024)
    origin.values["/length/small"] = b"x"
    call(client, "GET", "/length/small")
    before = psutil.Process().memory_info().rss
    peak = 0

    def blocks():
        nonlocal peak
        for _ in range(size // len(block)):
            peak = max(peak, psutil.Process().memory_info().rss)
            yield block

    assert call(client, "PUT", "/sink/large", blocks()) == (200, b"")
    assert origin.applied[-1] == ("PUT", "/sink/large", size)
    assert peak - before < 32 * 1024 * 1024


def test_a_client_that_goes_away_in_a_body_takes_its_request_with_it(proxy, origin):
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as raw:
        raw.sendall(b"PUT /length/key HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nhalf")
    eventually(lambda: proxy.journal and proxy.journal[0].over)
    assert origin.applied == []
    assert "the client went away" in proxy.journal[0].note


def test_a_server_that_is_down_resets_the_client(origin):
    with HttpProxy(1) as proxy:
        client = http.client.HTTPConnection(proxy.host, proxy.port, timeout=10)
        with pytest.raises(ConnectionResetError):
            call(client, "GET", "/length/key")
        assert "ConnectionRefusedError" in proxy.journal[0].note


def test_a_failure_of_the_proxy_itself_fails_the_test(origin):
    proxy = HttpProxy(origin.port).start()
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        raw.recv(1)
    with pytest.raises(RuntimeError, match="the proxy failed"):
        proxy.close()


# -- requests and answers that are lost, late or doubled --------------------------------------------------------------


def test_a_dropped_request_never_reaches_the_server(client, proxy, origin):
    proxy.plan = [Fault(DropRequest(), times=1)]
    with pytest.raises(CLOSED):
        call(client, "PUT", "/length/key", VALUE)
    assert origin.applied == []
    assert call(client, "PUT", "/length/key", VALUE) == (200, b"")


def test_a_dropped_reply_was_carried_out(client, proxy, origin):
    for action in (DropReply(), DropReply(reset=True)):
        proxy.plan = [Fault(action, times=1)]
        with pytest.raises(CLOSED):
            call(client, "PUT", f"/length/{action.reset}", VALUE)
    assert [applied[1] for applied in origin.applied] == ["/length/False", "/length/True"]
    proxy.wait_idle()
    assert [(entry.upstream, entry.answered, entry.note) for entry in proxy.journal] == [
        ([200], None, "closed"),
        ([200], None, "reset"),
    ]


@pytest.mark.parametrize("action", [DropRequest(silent=True), DropReply(silent=True)])
def test_silence_lasts_until_the_client_gives_up(client, proxy, origin, action):
    proxy.plan = [Fault(action)]
    client.timeout = 0.2
    with pytest.raises(TimeoutError):
        call(client, "PUT", "/length/key", VALUE)
    assert len(origin.applied) == isinstance(action, DropReply)
    proxy.wait_idle()


def test_a_delayed_request_lands_after_the_client_gave_up(client, proxy, origin):
    proxy.plan = [Fault(DelayRequest(0.5), times=1)]
    late = bytes(20_000_000)  # more than the sockets hold: the proxy takes it all before it waits
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as raw:
        raw.sendall(b"PUT /length/key HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(late) + late)
    assert origin.applied == []
    assert call(client, "PUT", "/length/key", b"retry") == (200, b"")
    assert origin.values["/length/key"] == b"retry"
    proxy.wait_idle()
    assert origin.values["/length/key"] == late


def test_a_delayed_reply_was_carried_out_at_once(client, proxy, origin):
    proxy.plan = [Fault(DelayReply(0.3))]
    began = time.monotonic()
    thread = threading.Thread(target=call, args=(client, "PUT", "/length/key", VALUE))
    thread.start()
    eventually(lambda: origin.applied)
    assert proxy.journal[0].answered is None
    thread.join()
    assert time.monotonic() - began >= 0.3
    assert proxy.journal[0].answered == 200


@pytest.mark.parametrize("answer", ["first", "second"])
def test_a_duplicate_is_carried_out_twice_and_answered_once(client, proxy, origin, answer):
    proxy.plan = [Fault(Duplicate(answer), times=1)]
    assert call(client, "PUT", "/length/key", iter([VALUE])) == (200, b"")
    assert call(client, "GET", "/length/key") == (200, VALUE)
    proxy.wait_idle()
    assert [applied for applied in origin.applied if applied[0] == "PUT"] == [("PUT", "/length/key", 5000)] * 2


def test_a_late_duplicate_is_overtaken_by_the_next_request(client, proxy, origin):
    proxy.plan = [Fault(Duplicate("first", after=0.3), times=1)]
    call(client, "PUT", "/length/key", b"old")
    call(client, "PUT", "/length/key", b"new")
    assert origin.values["/length/key"] == b"new"
    proxy.wait_idle()
    assert origin.values["/length/key"] == b"old"
    assert proxy.journal[1].note == "copy of #1"


# -- answers in the server's place ------------------------------------------------------------------------------------


def test_an_answer_in_the_servers_place(client, proxy, origin):
    proxy.plan = [Fault(refusal("s3", 429, retry_after=3), times=1)]
    client.request("PUT", "/length/key", VALUE)
    answer = client.getresponse()
    assert (answer.status, answer.getheader("Retry-After")) == (429, "3")
    assert b"TooManyRequests" in answer.read()
    assert origin.applied == []
    assert call(client, "PUT", "/length/key", VALUE) == (200, b"")


def test_an_answer_that_lies_about_a_request_that_was_carried_out(client, proxy, origin):
    proxy.plan = [Fault(refusal("gcs", 503, applied=True), times=1)]
    assert call(client, "PUT", "/length/key", VALUE)[0] == 503
    assert len(origin.applied) == 1


def test_not_modified_and_answers_to_head_have_no_body(client, proxy):
    proxy.plan = [Fault(not_modified(), nth=1), Fault(Answer(500, b"body"), nth=2)]
    assert call(client, "GET", "/length/key") == (304, b"")
    assert call(client, "HEAD", "/length/key") == (500, b"")
    assert call(client, "GET", "/length/key") == (404, b"nothing here")


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_a_body_that_is_cut_ends_short_of_its_length(client, proxy, how):
    call(client, "PUT", f"/{how}/key", VALUE)
    proxy.plan = [Fault(CutBody(after=1234))]
    with pytest.raises(http.client.IncompleteRead) as caught:
        call(client, "GET", f"/{how}/key")
    assert caught.value.partial == VALUE[:1234]


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_a_seamless_cut_looks_whole(client, proxy, how):
    call(client, "PUT", f"/{how}/key", VALUE)
    proxy.plan = [Fault(CutBody(after=1234, seamless=True), times=1)]
    assert call(client, "GET", f"/{how}/key") == (200, VALUE[:1234])
    assert call(client, "GET", f"/{how}/key") == (200, VALUE)


def test_a_reset_in_the_middle_of_an_answer(client, proxy):
    call(client, "PUT", "/length/key", VALUE)
    proxy.plan = [Fault(ResetBody(after=1234))]
    client.request("GET", "/length/key")
    answer = client.getresponse()
    assert answer.read(1234) == VALUE[:1234]
    with pytest.raises(ConnectionResetError):
        answer.read()


@pytest.mark.parametrize("action", [ResetBody(after=1234, where="request"), CutBody(after=1234, where="request")])
def test_a_request_that_breaks_off_is_not_carried_out(client, proxy, origin, action):
    proxy.plan = [Fault(action, times=1)]
    with pytest.raises((*CLOSED, BrokenPipeError)):
        call(client, "PUT", "/length/key", VALUE)
    proxy.wait_idle()
    assert origin.applied == []
    assert proxy.journal[0].sent == 1234
    assert call(client, "PUT", "/length/key", VALUE) == (200, b"")


def test_a_request_that_is_cut_without_a_seam_is_carried_out_short(client, proxy, origin):
    proxy.plan = [Fault(CutBody(after=1234, where="request", seamless=True))]
    assert call(client, "PUT", "/length/key", VALUE) == (200, b"")
    assert origin.values["/length/key"] == VALUE[:1234]


@pytest.mark.parametrize("action", [ResetBody(after=10), CutBody(after=10)])
def test_an_answer_without_a_body_still_ends_in_the_fault(client, proxy, action):
    proxy.plan = [Fault(action)]
    with contextlib.suppress(ConnectionResetError):  # a reset may overtake the head
        call(client, "PUT", "/length/key", VALUE)
    proxy.wait_idle()
    assert proxy.journal[0].note == ("reset" if isinstance(action, ResetBody) else "closed")


def test_one_corrupt_byte(client, proxy):
    call(client, "PUT", "/length/key", VALUE)
    proxy.plan = [Fault(Corrupt(at=4321))]
    status, body = call(client, "GET", "/length/key")
    assert status == 200
    assert [index for index, (a, b) in enumerate(zip(body, VALUE, strict=True)) if a != b] == [4321]


@pytest.mark.parametrize("where", ["request", "reply"])
def test_a_slow_body_trickles(client, proxy, where):
    value = VALUE[:3000]
    began = time.monotonic()
    proxy.plan = [Fault(SlowBody(0.1, block=1000, where=where))]
    assert call(client, "PUT", "/length/key", value) == (200, b"")
    assert call(client, "GET", "/length/key") == (200, value)
    assert time.monotonic() - began >= 0.2


# -- outages ----------------------------------------------------------------------------------------------------------


def test_down_resets_connections_and_refuses_new_ones_until_up(client, proxy):
    call(client, "PUT", "/length/key", VALUE)
    with proxy.outage():
        with pytest.raises((*CLOSED, BrokenPipeError)):
            call(client, "GET", "/length/key")
        with pytest.raises(ConnectionRefusedError):
            call(client, "GET", "/length/key")
    assert call(client, "GET", "/length/key") == (200, VALUE)


def test_an_outage_of_the_plan_ends_by_itself(client, proxy, origin):
    proxy.plan = [Fault(Outage(0.3), times=1)]
    with pytest.raises(CLOSED):
        call(client, "GET", "/length/key")
    with pytest.raises(ConnectionRefusedError):
        call(client, "GET", "/length/key")
    eventually(lambda: not refused(client))
    assert len(origin.applied) == 1


def test_up_does_not_end_an_outage_of_the_plan(client, proxy):
    proxy.plan = [Fault(Outage(0.5), times=1)]
    with pytest.raises(CLOSED):
        call(client, "GET", "/length/key")
    proxy.down()
    proxy.up()
    assert refused(client)


def refused(client):
    try:
        call(client, "GET", "/length/key")
    except ConnectionRefusedError:
        return True
    return False


def eventually(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- the journal ------------------------------------------------------------------------------------------------------


def test_the_history_tells_what_was_done_to_which_request(client, proxy):
    proxy.plan = [Fault(refusal("s3", 503), method="PUT")]
    call(client, "PUT", "/length/key", VALUE, **{"If-None-Match": "*"})
    call(client, "GET", "/length/key")
    proxy.wait_idle()
    first, second = proxy.history().splitlines()
    assert "PUT /length/key if-none-match=* [5000 B] -> server -, client 503 Answer(status=503" in first
    assert second.endswith("GET /length/key [0 B] -> server 404, client 404")
    proxy.forget()
    assert proxy.journal == []


def test_a_new_plan_begins_to_count_anew(client, proxy):
    for _ in range(2):
        proxy.plan = [Fault(refusal("plain", 500), nth=1)]
        assert [call(client, "GET", "/length/key")[0] for _ in range(2)] == [500, 404]
