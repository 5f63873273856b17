"""Free ports: usable, and out of the way of outgoing connections."""

import socket
from pathlib import Path

import pytest

from stream.embedded.ports import LOOPBACK, answers, free_port


def test_a_free_port_can_be_listened_on_and_then_answers() -> None:
    port = free_port()
    assert not answers(port)
    with socket.create_server((LOOPBACK, port)):
        assert answers(port)


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    setting = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not setting.exists():
        pytest.skip("this system does not tell its range of outgoing ports")
    first_outgoing = int(setting.read_text().split()[0])
    assert all(1024 < free_port() < max(first_outgoing, 32_768) for _ in range(50))
