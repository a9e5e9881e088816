"""What `dewy.http` promises of every call, against real servers on loopback."""

from __future__ import annotations

import base64
import gzip
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dewy.errors import ConfigError
from dewy.http import IDLE_AT_MOST, CallFailed, Client, TimedOut, shown
from dewy.transport import Pools
from kvcache import UpstreamError
from tests.dewy.site import Answering, Recorder, Site
from tests.servers import certificates

SECRET = "Bearer top-secret-token"
Start = Callable[..., Site]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a site; all are stopped in the end."""
    sites: list[Site] = []

    def starts(answering: Answering, tls: ssl.SSLContext | None = None) -> Site:
        sites.append(Site(answering, tls))
        threading.Thread(target=sites[-1].serve_forever, args=(0.05,), daemon=True).start()
        return sites[-1]

    yield starts
    for site in sites:
        site.shutdown()
        site.server_close()


@pytest.fixture
def client() -> Iterator[Client]:
    with_env = Client({})
    yield with_env
    with_env.close()


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def to(location: str, status: int = 302) -> Answering:
    return lambda request: request.reply(status, Location=location)


def hello(request: Recorder) -> None:
    request.reply(200, b"hello")


# -- credentials and redirects ----------------------------------------------------------------------------------------


def test_a_credential_does_not_follow_a_redirect_to_another_host(start: Start, client: Client) -> None:
    files = start(hello)
    api = start(to(f"{files.url}/file?sig=1"))
    answer = client.call("GET", f"{api.url}/asset", deadline=soon(), credential=SECRET)
    assert (answer.body, answer.url) == (b"hello", f"{files.url}/file?sig=1")
    assert api.credentials == [SECRET]
    assert files.credentials == [None]  # same address, another port: another origin


def test_a_credential_stays_within_its_origin(start: Start, client: Client) -> None:
    api = start(lambda request: hello(request) if request.path == "/new" else to("/new", 301)(request))
    assert client.call("GET", f"{api.url}/old", deadline=soon(), credential=SECRET).status == 200
    assert api.credentials == [SECRET, SECRET]


def test_a_credential_that_was_dropped_does_not_come_back(start: Start, client: Client) -> None:
    api = start(lambda request: hello(request) if request.path == "/back" else to(f"{other.url}/x")(request))
    other = start(lambda request: to(f"{api.url}/back")(request))
    assert client.call("GET", f"{api.url}/go", deadline=soon(), credential=SECRET).body == b"hello"
    assert api.credentials == [SECRET, None]
    assert other.credentials == [None]


def test_no_redirect_from_https_to_http(start: Start, tls: tuple[ssl.SSLContext, Path]) -> None:
    plain = start(hello)
    secure = start(to(plain.url), tls[0])
    client = Client({"SSL_CERT_FILE": str(tls[1])})
    with pytest.raises(CallFailed, match=r"redirected to http://127\.0\.0\.1:\d+, which is not followed"):
        client.call("GET", secure.url, deadline=soon(), credential=SECRET)
    assert plain.asked == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[broken", "gopher:x"])
def test_only_http_is_followed(start: Start, client: Client, location: str) -> None:
    api = start(to(location))
    with pytest.raises(CallFailed, match="redirected"):
        client.call("GET", api.url, deadline=soon())


def test_redirects_end(start: Start, client: Client) -> None:
    api = start(to("/again"))
    with pytest.raises(CallFailed, match="more than 5 times"):
        client.call("GET", api.url, deadline=soon())
    assert len(api.asked) == 6


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_post_is_never_redirected(start: Start, client: Client, status: int) -> None:
    other = start(hello)
    api = start(to(other.url, status))
    assert client.call("POST", api.url, deadline=soon(), body=b"x", credential=SECRET).status == status
    assert other.asked == []


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_server_that_says_nothing(start: Start) -> None:
    leave = threading.Event()
    site = start(lambda request: leave.wait(30))
    client = Client({}, silent_at_most=0.3)
    with pytest.raises(TimedOut, match="no answer in time"):
        client.call("GET", site.url, deadline=soon())
    leave.set()


def test_headers_that_drip_end_with_the_time_out(start: Start) -> None:
    def drip(request: Recorder) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 400:
            request.wfile.write(bytes([byte]))
            time.sleep(0.05)

    site = start(drip)
    client = Client({}, silent_at_most=0.5)
    began = time.monotonic()
    with pytest.raises(TimedOut):
        client.call("GET", site.url, deadline=soon())
    assert time.monotonic() - began < 10  # all of it would take 20 s, with never more than 0.05 s between two bytes


def test_a_body_that_drips_ends_at_the_deadline(start: Start, client: Client) -> None:
    def drip(request: Recorder) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "400")
        request.end_headers()
        for _ in range(400):
            request.wfile.write(b"x")
            time.sleep(0.05)

    site = start(drip)
    began = time.monotonic()
    with pytest.raises(TimedOut, match="did not end in time"):
        client.call("GET", site.url, deadline=soon(0.5))
    assert time.monotonic() - began < 10


def test_nothing_is_sent_after_the_deadline(start: Start, client: Client) -> None:
    site = start(hello)
    with pytest.raises(TimedOut, match="no time left"):
        client.call("GET", site.url, deadline=time.monotonic() - 1)
    assert site.asked == []


# -- failures ---------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_twice(start: Start, client: Client) -> None:
    site = start(lambda request: request.connection.shutdown(socket.SHUT_RDWR))
    with pytest.raises(CallFailed, match="the connection broke"):
        client.call("GET", site.url, deadline=soon())
    assert len(site.asked) == 1


def test_a_body_that_is_cut_short(start: Start, client: Client) -> None:
    def cut(request: Recorder) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"x" * 50)
        request.close_connection = True

    site = start(cut)
    with pytest.raises(CallFailed, match="broke before the answer was complete"):
        client.call("GET", site.url, deadline=soon())


def test_a_chunked_body_that_is_cut_short(start: Start, client: Client) -> None:
    def cut(request: Recorder) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"5\r\nhello\r\n")
        request.close_connection = True

    site = start(cut)
    with pytest.raises(CallFailed, match="broke before the answer was complete"):
        client.call("GET", site.url, deadline=soon())


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"])
def test_what_is_no_http(start: Start, client: Client, answer: bytes) -> None:
    def speak(request: Recorder) -> None:
        request.wfile.write(answer)
        request.close_connection = True

    with pytest.raises(CallFailed):
        client.call("GET", start(speak).url, deadline=soon())


def test_nobody_listens(client: Client) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(CallFailed, match=rf"^{url}: no connection: Connection refused$"):
            client.call("GET", url, deadline=soon())


def test_a_host_that_does_not_exist(client: Client) -> None:
    with pytest.raises(CallFailed, match=r"^http://no-such-host\.invalid/: the host's name cannot be resolved$"):
        client.call("GET", "http://no-such-host.invalid/", deadline=soon())


@pytest.mark.parametrize("url", ["http://a..b/", "http://x" + "y" * 300 + "/", "http:///nowhere"])
def test_a_host_that_cannot_exist(client: Client, url: str) -> None:
    with pytest.raises(CallFailed):
        client.call("GET", url, deadline=soon())


def test_errors_hold_no_secret(start: Start, client: Client) -> None:
    site = start(lambda request: request.connection.shutdown(socket.SHUT_RDWR))
    url = site.url.replace("http://", "http://user:hunter2@")
    with pytest.raises(UpstreamError) as caught:
        client.call("GET", f"{url}/file?X-Amz-Signature=hunter3", deadline=soon(), credential="Bearer hunter4")
    assert "hunter" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert shown(f"{url}/file?sig=1#x") == f"{site.url}/file"


def test_a_body_beyond_the_limit(start: Start, client: Client) -> None:
    site = start(lambda request: request.reply(200, b"x" * 2000))
    with pytest.raises(CallFailed, match="more than 1000 bytes"):
        client.call("GET", site.url, deadline=soon(), limit=1000)


def test_a_compressed_body_counts_as_what_it_becomes(start: Start, client: Client) -> None:
    site = start(lambda request: request.reply(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip"))
    with pytest.raises(CallFailed, match="more than 1000000 bytes"):
        client.call("GET", site.url, deadline=soon(), limit=1_000_000)
    site.answering = lambda request: request.reply(200, gzip.compress(b"text" * 1000), Content_Encoding="gzip")
    assert client.call("GET", site.url, deadline=soon()).body == b"text" * 1000
    site.answering = lambda request: request.reply(200, b"not gzip at all", Content_Encoding="gzip")
    with pytest.raises(CallFailed, match="broken encoding"):
        client.call("GET", site.url, deadline=soon())


# -- connections ------------------------------------------------------------------------------------------------------


def test_connections_are_kept_for_a_while(start: Start) -> None:
    site = start(hello)
    now = [time.monotonic()]
    client = Client({}, clock=lambda: now[0])
    for pause in (0.0, 1.0, IDLE_AT_MOST + 1, 1.0):
        now[0] += pause
        client.call("GET", site.url, deadline=now[0] + 20)
    ports = [address for _, _, _, address in site.asked]
    assert ports[0] == ports[1]
    assert ports[1] != ports[2]
    assert ports[2] == ports[3]


def test_thirty_threads_share_a_client(start: Start, client: Client) -> None:
    site = start(hello)
    done: list[bytes] = []

    def work() -> None:
        for _ in range(5):
            done.append(client.call("GET", site.url, deadline=soon(60)).body)

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [b"hello"] * 150


def test_who_asks_says_so(start: Start, client: Client) -> None:
    site = start(hello)
    client.call("GET", site.url, deadline=soon())
    assert site.asked[0][2]["User-Agent"].startswith("dewy")


# -- TLS and proxies --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """(a server's context, the file of the authority that vouches for it)."""
    made = certificates.make(tmp_path_factory.mktemp("tls"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    return context, made.ca


def test_a_private_authority(start: Start, tls: tuple[ssl.SSLContext, Path]) -> None:
    site = start(hello, tls[0])
    assert Client({"SSL_CERT_FILE": str(tls[1])}).call("GET", site.url, deadline=soon()).body == b"hello"
    with pytest.raises(CallFailed, match=r"TLS failed: .*\(a private authority is named by SSL_CERT_FILE\)"):
        Client({}).call("GET", site.url, deadline=soon(), credential=SECRET)
    assert len(site.asked) == 1


def test_dripping_headers_over_tls(start: Start, tls: tuple[ssl.SSLContext, Path]) -> None:
    def drip(request: Recorder) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 400:
            request.wfile.write(bytes([byte]))
            time.sleep(0.05)

    site = start(drip, tls[0])
    client = Client({"SSL_CERT_FILE": str(tls[1])}, silent_at_most=0.5)
    began = time.monotonic()
    with pytest.raises(TimedOut):
        client.call("GET", site.url, deadline=soon())
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"^SSL_CERT_FILE: '.*ca\.pem': expected readable certificates"):
        Client({"SSL_CERT_FILE": str(file)})


def test_a_proxy_is_used_for_what_is_not_here(start: Start) -> None:
    proxy = start(lambda request: request.reply(200, b"by proxy"))
    address = proxy.url.replace("http://", "http://user:pass%2Fword@")
    client = Client({"HTTP_PROXY": address, "NO_PROXY": "internal.test, 10.0.0.0/8"})
    assert client.call("GET", "http://github.test/x", deadline=soon(), credential=SECRET).body == b"by proxy"
    method, path, headers, _ = proxy.asked[0]
    assert (method, path) == ("GET", "http://github.test/x")
    assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"user:pass/word").decode()
    here = start(hello)
    assert client.call("GET", here.url, deadline=soon()).body == b"hello"  # loopback is never proxied
    assert len(proxy.asked) == 1


def test_https_through_a_proxy_hides_everything_from_it(start: Start) -> None:
    proxy = start(lambda request: request.reply(407))
    client = Client({"https_proxy": proxy.url.replace("http://", "http://user:hunter2@")})
    with pytest.raises(CallFailed, match=r"^https://github\.test/x: the proxy failed: ") as caught:
        client.call("GET", "https://github.test/x", deadline=soon(), credential=SECRET)
    assert "hunter2" not in str(caught.value)
    method, path, headers, _ = proxy.asked[0]
    assert (method, path) == ("CONNECT", "github.test:443")
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("http://example.com/", True),
        ("https://example.com/", True),
        ("http://internal.test/", False),
        ("http://api.internal.test/", False),
        ("http://notinternal.test/", True),
        ("http://dotted.test/", False),
        ("http://x.dotted.test/", False),
        ("http://10.1.2.3/", False),
        ("http://11.1.2.3/", True),
        ("http://192.0.2.7/", False),
        ("http://[2001:db8::1]/", False),
        ("http://port.test:8080/", False),
        ("http://port.test/", True),
        ("http://localhost:1/", False),
        ("http://127.9.9.9/", False),
        ("http://[::1]:1/", False),
    ],
)
def test_whom_no_proxy_names(url: str, proxied: bool) -> None:
    named = "internal.test,.dotted.test,10.0.0.0/8,192.0.2.7,2001:db8::/32,port.test:8080"
    pools = Pools({"ALL_PROXY": "proxy.test:3128", "no_proxy": named}, ssl.create_default_context())
    assert (pools.for_url(url).proxy is not None) == proxied
    everybody = Pools({"ALL_PROXY": "proxy.test:3128", "no_proxy": "*"}, ssl.create_default_context())
    assert everybody.for_url(url).proxy is None


@pytest.mark.parametrize("proxy", ["socks5://user:hunter2@proxy:1080", "http://", "http://user:hunter2@proxy:99999"])
def test_a_proxy_that_cannot_be_used(proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY: expected a proxy as http://") as caught:
        Client({"HTTPS_PROXY": proxy})
    assert "hunter2" not in str(caught.value)


def test_a_cgi_script_takes_no_proxy_from_its_caller() -> None:
    pools = Pools({"HTTP_PROXY": "http://evil.test", "REQUEST_METHOD": "GET"}, ssl.create_default_context())
    assert pools.for_url("http://example.com/").proxy is None


def test_urllib3_is_imported_only_where_it_is_used() -> None:
    code = "import sys, dewy.registry; sys.exit(any(m in sys.modules for m in ('urllib3', 'jwt', 'boto3', 'fsspec')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
