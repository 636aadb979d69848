"""Addresses of a server: IPv4, IPv6 or a name."""

import socket
from ipaddress import ip_address

from configs.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket; port 0 takes a free one.

    Raises:
        ConfigError: If the address is invalid or in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"The address {in_url(host)}:{port} cannot be used ({error}). "
            "Choose another --port, where 0 takes a free one, or another --host."
        ) from error


def in_url(host: str) -> str:
    """Returns a host as in URLs and request headers: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(listener: socket.socket) -> bool:
    """Returns whether a socket is reachable only from this machine."""
    address = listener.getsockname()[0]
    return ip_address(address.partition("%")[0]).is_loopback
