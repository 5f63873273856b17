"""Addresses as settings give them: ``HOST:PORT``, several with commas between."""

from typing import Final

LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")

Address = tuple[str, int]


def parse_addresses(text: str) -> list[Address]:
    """Return the addresses; brackets around one of IPv6 are left out.

    Raises:
        ValueError: one is none.
    """
    found = []
    for address in text.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError("HOST:PORT, or several with commas between; a port is 1 to 65535")
        found.append((host.removeprefix("[").removesuffix("]"), int(port)))
    return found
