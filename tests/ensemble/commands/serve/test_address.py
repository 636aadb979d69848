"""A server listens on IPv4 and IPv6, and an address that cannot be used is one sentence."""

import socket

import pytest

from configs.errors import ConfigError
from ensemble.commands.serve.__main__ import in_url, is_loopback, listen


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "shown", "loopback"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost", "localhost", True),
        ("0.0.0.0", "0.0.0.0", False),
        ("::1", "[::1]", True),
        ("::", "[::]", False),
    ],
)
def test_an_address_of_either_family_is_taken(host, shown, loopback):
    if ":" in host and not has_ipv6():
        with pytest.raises(ConfigError, match=r"The address \[::1?\]:0 cannot be used"):
            listen(host, 0)
        return
    with listen(host, 0) as listener:
        assert is_loopback(listener) == loopback
        assert in_url(host) == shown
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f":{port} cannot be used"):
            listen(host, port)


@pytest.mark.parametrize(
    ("host", "port"), [("::1::1", 0), ("x" * 70 + ".x", 0), ("127.0.0.1", 70_000)]
)
def test_an_address_that_cannot_be_used_is_one_sentence(host, port):
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        listen(host, port)
    assert "\n" not in str(caught.value)
