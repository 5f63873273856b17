"""How many messages does a gateway deliver to how many clients, how late, and at what cost?

    python -m bench.fanout [--servers tickloom,websockets,...] [--cells 1000x1000,...] [--seconds 5] [--json FILE]

A cell is CLIENTS x MESSAGES a second; every client follows every message, in mode ``full``, as JSON of about 450
bytes. One client in a hundred (of 100 or more) is stalled: it never reads. Messages are due by a schedule that
waits for nothing, and their latency counts from when they were due to when ``recv`` of the client has them, to 1 %.
The server is a process of its own; its CPU time is taken from the kernel over the time that counts (the network's
work on loopback is in the sender's). ``per_core`` is deliveries in that time by its CPU seconds.

``tickloom_pair`` are two gateways on one port, as one runs them where there are cores.

A server that does not keep up falls behind its schedule: `kept_up` says so, and latencies then say how far. All
clients are one process with a compiled loop (`bench.fanout_clients`), which counts every message of every client.
"""

import argparse
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench.fanout_servers import SERVERS
from bench.processor_time import ProcessorTime
from bench.spine import say
from stream.clock import NS_PER_S

_CELLS: Final = "1x1000,1x20000,100x500,100x5000,1000x100,1000x1000,1000x20000,5000x100,5000x1000"
_SUBSCRIBE: Final = '{"op":"subscribe","symbols":["*"],"mode":"full"}'
_STALLED_OF: Final = 100
_KEPT_UP: Final = 0.99
_PATIENCE_S: Final = 120.0


def run_cell(kind: str, clients: int, rate_per_s: int, seconds: float) -> dict[str, Any]:
    """Run one server with one set of clients and return what was seen.

    Raises:
        RuntimeError: the server or the clients failed.
    """
    stalled = clients // _STALLED_OF
    with contextlib.ExitStack() as ends:
        servers = [_start(ends, command) for command in _commands(kind, clients, rate_per_s)]
        for server in servers:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            if not port:
                raise RuntimeError(f"{kind} did not start: {server.communicate()[1][-2000:]}")
        subscribe = _SUBSCRIBE if kind.startswith("tickloom") else ""
        arguments = [port, "/feed", subscribe, clients, stalled, seconds]
        with ProcessorTime(*(server.pid for server in servers)) as cpu:
            answer = subprocess.run(
                [sys.executable, "-m", "bench.fanout_clients", *map(str, arguments)],
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE_S + seconds,
            )
        if answer.returncode:
            raise RuntimeError(f"the clients of {kind} failed: {answer.stderr[-2000:]}")
        seen = json.loads(answer.stdout)
    return _figures(kind, clients, stalled, rate_per_s, seen, cpu.between(seen["begin_ns"], seen["end_ns"]))


def _commands(kind: str, clients: int, rate_per_s: int) -> list[list[str]]:
    server = kind.removesuffix("_pair")
    command = [sys.executable, "-m", "bench.fanout_servers", server, str(clients), str(rate_per_s)]
    if server == kind:
        return [command]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    return [[*command, port], [*command, port]]


def _start(ends: contextlib.ExitStack, command: list[str]) -> "subprocess.Popen[str]":
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ends.enter_context(server)  # waits for it, and closes its pipes
    ends.callback(server.kill)
    return server


def _figures(
    kind: str, clients: int, stalled: int, rate_per_s: int, seen: dict[str, Any], server_s: float
) -> dict[str, Any]:
    seconds = (seen["end_ns"] - seen["begin_ns"]) / NS_PER_S
    due = (clients - stalled) * rate_per_s * seconds
    return {
        "server": kind,
        "clients": clients,
        "stalled": stalled,
        "rate_per_s": rate_per_s,
        "deliveries_per_s": round(seen["deliveries"] / seconds),
        "per_core": round(seen["deliveries"] / server_s) if server_s else None,
        "server_cpu_percent": round(100 * server_s / seconds, 1),
        "kept_up": seen["deliveries"] >= _KEPT_UP * due,
        "latency_us": seen["latency_us"],
        "messages_per_frame": round((seen["deliveries"] or 0) / max(seen["frames"], 1), 2),
        "out_of_order_or_missing": seen["gaps"],
        "unreadable": seen["bad"],
        "closed": seen["closed"],
        "clients_cpu_s": round(seen["cpu_s"], 2),
    }


def main() -> None:
    """Parse the command line, run, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default=",".join([*SERVERS, "tickloom_pair"]), help="with commas between")
    parser.add_argument("--cells", default=_CELLS, help="CLIENTSxMESSAGES a second, with commas between")
    parser.add_argument("--seconds", type=float, default=5.0, help="that count, of each cell")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    machine = {"cpu_count": os.cpu_count(), "python": platform.python_version()}
    report: dict[str, Any] = {"bench": "fanout", "machine": machine, "fed": "straight", "cells": []}
    for cell in arguments.cells.split(","):
        clients, rate = (int(part) for part in cell.split("x"))
        for kind in arguments.servers.split(","):
            figures = run_cell(kind, clients, rate, arguments.seconds)
            figures["load_average"] = round(os.getloadavg()[0], 1)
            latency = figures["latency_us"]
            say(
                f"{clients} clients x {rate}/s: {figures['deliveries_per_s']:,} deliveries/s, "
                f"{figures['per_core'] or 0:,} a core, p50 {latency.get('p50')} us, p99 {latency.get('p99')} us, "
                f"{'kept up' if figures['kept_up'] else 'fell behind'}",
                kind,
            )
            report["cells"].append(figures)
            time.sleep(0.2)
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
