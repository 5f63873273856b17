"""All clients of a run of `bench.fanout`, in one process: sockets, one compiled loop over them, and no objects.

It checks that every client gets every message once and in order, and takes the time from when a message was due to
when ``recv`` had brought it. The clients at the end of the list are stalled: they are connected and never read.
"""

import base64
import ctypes
import json
import os
import select
import socket
import sys
import time
from typing import Any, Final

import numpy as np

from bench.fanout_rows import FIRST_SEQ, SYMBOLS, layout
from stream.clock import NS_PER_S
from stream.compiled import compiled

_LIBRARY: Final = ctypes.CDLL(None)
_recv = _LIBRARY.recv
_recv.argtypes, _recv.restype = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_ssize_t
_clock_gettime = _LIBRARY.clock_gettime
_clock_gettime.argtypes, _clock_gettime.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_int
_epoll_wait = _LIBRARY.epoll_wait
_epoll_wait.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
_epoll_wait.restype = ctypes.c_int

_DONTWAIT: Final = 0x40
_AT_ONCE: Final = 512  # events of a wait
_BUFFER_BYTES: Final = 1 << 20
_CARRY_BYTES: Final = 1 << 18  # of a frame that has come in part; only what is used takes memory
_BUCKETS: Final = 128 * 48
# What is counted, by place.
COUNTS: Final = ("deliveries", "frames", "others", "gaps", "bad", "bytes", "closed", "newest_ns")
_STALLED_RECEIVE_BYTES: Final = 4096
_WARM_UP_NS: Final = NS_PER_S
_NOTHING_WITHIN_S: Final = 30.0


@compiled(cache=False)
def _number(data: Any, at: int, digits: int) -> Any:
    value: Any = 0
    for place in range(at, at + digits):
        value = value * 10 + np.int64(data[place]) - 48
    return value


@compiled(cache=False)
def _bucket(latency_ns: int) -> int:
    value = max(0, latency_ns) >> 10
    shift = 0
    while value >> shift >= 256:
        shift += 1
    return min(value if shift == 0 else 128 * shift + (value >> shift), 128 * 48 - 1)


@compiled(cache=False)
def _message(data: Any, at: int, size: int, places: Any, client: int, due: Any, now_ns: int, begin_ns: int,
             end_ns: int, counts: Any, buckets: Any) -> int:  # fmt: skip
    """Take one message of predictions; return when its last was due."""
    head, item, tail = places[0], places[1], places[2]
    room = size - head - tail + 1
    if room % (item + 1) != 0:
        counts[4] += 1
        return 0
    published_ns = 0
    for index in range(room // (item + 1)):
        start = at + head + index * (item + 1)
        symbol, seq = _number(data, start + places[3], 2), _number(data, start + places[4], 7)
        number = (seq - FIRST_SEQ) * SYMBOLS + symbol
        if due[client] >= 0 and number != due[client]:
            counts[3] += 1
        due[client] = number + 1
        published_ns = _number(data, start + places[5], 19)
        counts[7] = max(counts[7], published_ns)
        if begin_ns <= now_ns < end_ns:
            counts[0] += 1
            buckets[_bucket(now_ns - published_ns)] += 1
    return published_ns


@compiled(cache=False)
def _frames(data: Any, size: int, places: Any, client: int, due: Any, now_ns: int, window: Any, counts: Any,
            buckets: Any) -> int:  # fmt: skip
    """Take all whole frames; return how many bytes they had."""
    at = 0
    while size - at >= 2:
        length: Any = np.int64(data[at + 1]) & 0x7F
        header = 2
        if length == 126:
            header = 4
            if size - at < header:
                break
            length = np.int64(data[at + 2]) << 8 | np.int64(data[at + 3])
        elif length == 127:
            header = 10
            if size - at < header:
                break
            length = 0
            for place in range(at + 2, at + 10):
                length = length << 8 | np.int64(data[place])
        if size - at < header + length:
            break
        body = at + header
        # {"type":"pr...
        if data[at] == 0x81 and length > places[0] and data[body + 9] == 112 and data[body + 10] == 114:
            counts[1] += window[0] <= now_ns < window[1]
            published_ns = _message(
                data, body, length, places, client, due, now_ns, window[0], window[1], counts, buckets
            )
            if window[0] == 0 and published_ns > 0:
                window[0] = published_ns + window[2]
                window[1] = window[0] + window[3]
        else:
            counts[2] += 1
        at = body + length
    return at


@compiled(cache=False)
def _serve(epoll: int, fds: Any, places: Any, window: Any, due: Any, counts: Any, buckets: Any, patience_ns: int,
           grace_ns: int) -> None:  # fmt: skip
    """Read until ``grace_ns`` after the window, or for ``patience_ns`` when nothing comes."""
    events = np.zeros(3 * 512, np.uint32)  # struct epoll_event is packed: events, data
    buffer = np.zeros(1 << 20, np.uint8)
    carries, held = np.zeros((len(fds), 1 << 18), np.uint8), np.zeros(len(fds), np.int64)
    stamp = np.zeros(2, np.int64)
    _clock_gettime(0, stamp.ctypes)
    started_ns = stamp[0] * 1_000_000_000 + stamp[1]
    now_ns = started_ns
    while True:
        if window[0] == 0 and now_ns > started_ns + patience_ns:
            return
        if window[0] != 0 and now_ns > window[1] + grace_ns:
            return
        ready = _epoll_wait(epoll, events.ctypes, 512, 50)
        _clock_gettime(0, stamp.ctypes)
        now_ns = stamp[0] * 1_000_000_000 + stamp[1]
        for event in range(ready):
            client = np.int64(events[3 * event + 1])
            carried = held[client]
            buffer[:carried] = carries[client, :carried]
            got = np.int64(_recv(fds[client], buffer[carried:].ctypes, buffer.size - carried, 0x40))
            _clock_gettime(0, stamp.ctypes)
            now_ns = stamp[0] * 1_000_000_000 + stamp[1]
            if got <= 0:
                if got == 0:
                    counts[6] += 1
                    fds[client] = -1  # it stays readable; recv on -1 fails, and costs little
                continue
            counts[5] += got
            size = carried + got
            taken = _frames(buffer, size, places, client, due, now_ns, window, counts, buckets)
            rest = size - taken
            if rest > 1 << 18:
                counts[4] += 1
                rest = 0
            carries[client, :rest] = buffer[taken : taken + rest]
            held[client] = rest


def _connect(port: int, path: str, subscribe: bytes, stalled: bool) -> socket.socket:
    client = socket.socket()
    if stalled:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STALLED_RECEIVE_BYTES)
    client.settimeout(20.0)
    client.connect(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    lines = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    client.sendall("\r\n".join((f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *lines, "", "")).encode())
    while True:
        head = client.recv(4096, socket.MSG_PEEK)
        if not head:
            raise ConnectionError("the server closed instead of answering")
        end = head.find(b"\r\n\r\n")
        if end >= 0:
            break
    if not client.recv(end + 4).startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"the server refused: {head[:200]!r}")
    if subscribe:
        mask = b"\x00\x00\x00\x00"
        client.sendall(bytes([0x81, 0x80 | len(subscribe)]) + mask + subscribe)
    client.setblocking(False)
    return client


def run(port: int, path: str, subscribe: str, clients: int, stalled: int, seconds: float) -> dict[str, Any]:
    """Connect, read for ``seconds`` after a second of warming up, and return what was seen.

    Raises:
        OSError: the server refuses, or takes too long.
    """
    # Compiled before anybody is connected: it takes seconds.
    idle = select.epoll()
    arguments = np.array([-1], np.int64), layout().as_array()
    _serve(idle.fileno(), *arguments, np.zeros(4, np.int64), np.zeros(1, np.int64), np.zeros(8, np.int64),
           np.zeros(_BUCKETS, np.int64), 0, 0)  # fmt: skip
    sockets = [_connect(port, path, subscribe.encode(), number >= clients - stalled) for number in range(clients)]
    reading = sockets[: clients - stalled]
    epoll = select.epoll(clients)
    for client in reading:
        epoll.register(client.fileno(), select.EPOLLIN)
    fds = np.array([client.fileno() for client in reading])
    window = np.array([0, 0, _WARM_UP_NS, int(seconds * NS_PER_S)])
    return _read(epoll, fds, window)


def _read(epoll: Any, fds: Any, window: Any) -> dict[str, Any]:
    # epoll tells descriptors; what is known of a client stands at the place of its descriptor.
    places = np.full(int(fds.max()) + 1, -1, np.int64)
    places[fds] = fds
    counts, buckets = np.zeros(len(COUNTS), np.int64), np.zeros(_BUCKETS, np.int64)
    due = np.full(len(places), -1, np.int64)
    began_s = time.process_time()
    patience_ns = int(_NOTHING_WITHIN_S * NS_PER_S)
    _serve(epoll.fileno(), places, layout().as_array(), window, due, counts, buckets, patience_ns, NS_PER_S // 2)
    if window[0] == 0:
        raise TimeoutError(f"no message within {_NOTHING_WITHIN_S:g} s; counted: {counts.tolist()}")
    return {
        **dict(zip(COUNTS, counts.tolist(), strict=True)),
        "cpu_s": time.process_time() - began_s,
        "begin_ns": int(window[0]),
        "end_ns": int(window[1]),
        "latency_us": percentiles(buckets),
    }


def percentiles(buckets: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, float]:
    """Return p50 to p99.99 and the maximum in us, each to 1 %; the upper ends of their buckets."""
    total = int(buckets.sum())
    if total == 0:
        return {}
    reached = np.cumsum(buckets)
    found = {f"p{q:g}": int(np.searchsorted(reached, total * q / 100)) for q in (50, 90, 99, 99.9, 99.99)}
    found["max"] = int(np.flatnonzero(buckets)[-1])
    return {name: round(_upper_ns(bucket) / 1000, 1) for name, bucket in found.items()}


def _upper_ns(bucket: int) -> int:
    shift = max(0, bucket // 128 - 1)
    return ((bucket - 128 * shift + 1) << shift) << 10


if __name__ == "__main__":
    port, path, subscribe, clients, stalled, seconds = sys.argv[1:]
    print(json.dumps(run(int(port), path, subscribe, int(clients), int(stalled), float(seconds))))
