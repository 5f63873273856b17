"""Free ports for servers that must be told theirs before they start."""

import random
import socket
from pathlib import Path

from stream.errors import ServerError

LOOPBACK = "127.0.0.1"
_LOWEST = 20_000
_TRIES = 200
# No port twice in one process: its taker may not have begun to listen yet.
_given_out: set[int] = set()


def free_port() -> int:
    """A loopback TCP port that nobody listens on, below the range that the system gives to outgoing connections.

    Not simply "bind port 0": such a port comes from the range of outgoing connections. While a server is down, any
    connection may take its port there; a client that keeps trying to reconnect can even connect to itself, and then
    the server cannot come back on its port.

    Raises:
        ServerError: none was free in 200 tries.
    """
    highest = _first_outgoing_port()
    for _ in range(_TRIES):
        port = random.randrange(_LOWEST, highest)  # noqa: S311 - no secret
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in _given_out:
            _given_out.add(port)
            return port
    raise ServerError(f"no free port on {LOOPBACK} between {_LOWEST} and {highest - 1} in {_TRIES} tries")


def answers(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _first_outgoing_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768  # Linux's default; macOS and others start at 49152
    return first if first > _LOWEST + 1_000 else 32_768
