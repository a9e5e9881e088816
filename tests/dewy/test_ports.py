"""`--port`: what is accepted, what is refused and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.errors import ConfigError
from dewy.ports import HIGHEST, LARGEST_RANGE, LOWEST, Listen, parse_ports


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["8000"], ["8000"]),
        ([" 8000 "], ["8000"]),
        (["+8000"], ["8000"]),
        (["080"], ["80"]),
        (["080", "80"], ["80"]),
        (["8001,8000"], ["8000", "8001"]),
        (["8001", "8000,8001"], ["8000", "8001"]),
        (["8000-8002"], ["8000", "8001", "8002"]),
        (["8000 - 8001"], ["8000", "8001"]),
        (["8000-8000"], ["8000"]),
        (["9000", "10000"], ["9000", "10000"]),
        (["127.0.0.1:8000"], ["127.0.0.1:8000"]),
        (["127.0.0.1:8000-8001"], ["127.0.0.1:8000", "127.0.0.1:8001"]),
        (["127.0.0.2:80", "127.0.0.1:80"], ["127.0.0.1:80", "127.0.0.2:80"]),
        (["0.0.0.0:8000", "8000"], ["8000"]),
        (["LocalHost:8000", "localhost:8000"], ["localhost:8000"]),
        (["my-host:8000"], ["my-host:8000"]),
        (["[::1]:8000", "[0:0:0:0:0:0:0:1]:8000"], ["[::1]:8000"]),
        (["[::]:8000", "8000"], ["8000", "[::]:8000"]),
        (["1", "65535"], ["1", "65535"]),
    ],
)
def test_accepted(values, expected):
    assert [str(listen) for listen in parse_ports(values)] == expected


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("http", "a port such as 8000"),
        ("80 80", "a port such as 8000"),
        ("8_000", "a port such as 8000"),
        ("٨٠٠٠", "a port such as 8000"),
        ("0x50", "a port such as 8000"),
        ("-80", "a port such as 8000"),
        ("80-", "a port such as 8000"),
        ("80-90-100", "a port such as 8000"),
        (":8000", "a port such as 8000"),
        ("127.0.0.1:", "a port such as 8000"),
        ("::1:8000", "a port such as 8000"),
        ("unix:/run/app.sock", "a port such as 8000"),
        ("/run/app.sock", "a port such as 8000"),
        ("300.0.0.1:80", "'300.0.0.1' is no IP address"),
        ("[::zz]:80", "a port such as 8000"),
        ("0", "port number must be between 1 and 65535, got 0"),
        ("00", "port number must be between 1 and 65535, got 0"),
        ("65536", "port number must be between 1 and 65535, got 65536"),
        ("9" * 5000, "port number must be between 1 and 65535, got 99999999999999999999…"),
        ("90-80", "start port (90) cannot be greater than end port (80)"),
        ("1000-1101", "port range too large (102 ports), at most 101"),
    ],
)
def test_refused_in_one_line_that_names_value_and_form(value, part):
    with pytest.raises(ConfigError) as caught:
        parse_ports([value])
    message = str(caught.value)
    assert part in message
    assert message.startswith(f"--port: {value!r}: ")
    assert "\n" not in message


def test_the_largest_range_is_that_of_dewy_v2():
    assert len(parse_ports([f"1000-{1000 + LARGEST_RANGE - 1}"])) == LARGEST_RANGE


def test_all_addresses_and_one_of_them_cannot_both_be_opened():
    with pytest.raises(ConfigError, match="'8000' asks for port 8000 on all addresses already"):
        parse_ports(["7999-8001", "127.0.0.1:8000"])
    with pytest.raises(ConfigError, match=r"'\[::\]:8000' asks for port 8000"):
        parse_ports(["[::1]:8000", "[::]:8000"])


hosts = st.one_of(
    st.just(""),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["localhost", "my-host", "a.example"]),
)
addresses = st.builds(Listen, st.integers(LOWEST, HIGHEST), hosts)


@given(addresses)
def test_what_is_written_is_read(listen):
    assert parse_ports([str(listen)])[0] in (listen, Listen(listen.port, ""))


@given(st.sets(st.integers(LOWEST, HIGHEST), max_size=20), st.randoms())
def test_sorted_and_each_once_however_they_are_given(ports, random):
    shuffled = [str(port) for port in ports] * 2
    random.shuffle(shuffled)
    half = len(shuffled) // 2
    parsed = parse_ports([",".join(shuffled[:half]), *shuffled[half:]])
    assert [listen.port for listen in parsed] == sorted(ports)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        parse_ports([text])
    except ConfigError as error:
        assert str(error).isprintable()
