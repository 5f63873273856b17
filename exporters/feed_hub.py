"""All clients of a gateway, and the channels that they follow."""

import itertools
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from exporters.feed_channels import CHANNELS
from exporters.feed_client import FeedClient
from exporters.feed_fanout import Fanout
from exporters.feed_metrics import FeedMetrics
from exporters.feed_wire import Held, message_frame
from stream.clock import Clock

# Of a heartbeat and channel: 1,000 symbols with their seq are about 20 KiB a second and client.
_MAX_HEARTBEAT_SEQS: Final = 1000
_SOON_S: Final = 0.0
# Not all clients get theirs at once: what comes meanwhile would wait for as many writes.
BEAT_TURNS: Final = 10


class Hub:
    """The clients and a `Fanout` for each channel."""

    def __init__(self, metrics: FeedMetrics, clock: Clock, memory: int) -> None:
        """Make an empty hub.

        Args:
            metrics: told what became of messages.
            clock: gives ``send_ns``.
            memory: rows of each channel that clients can resume from at once.
        """
        self.clients: set[FeedClient] = set()
        self.holding: set[FeedClient] = set()  # those for whom something waits
        self._turns = itertools.cycle(range(BEAT_TURNS))
        self.channels: dict[str, Fanout] = {
            name: Fanout(channel, metrics, clock, memory // channel.weight) for name, channel in CHANNELS.items()
        }
        self._metrics, self._clock = metrics, clock
        metrics.queues = lambda: [client.waiting for client in self.clients]

    @property
    def epoch(self) -> str | None:
        """The Kafka cluster that numbers everything; None until it has answered."""
        return self.channels["prediction"].epoch

    def add(self, client: FeedClient) -> None:
        """Take a client in."""
        client.turn = next(self._turns)
        self.clients.add(client)
        self._metrics.clients = len(self.clients)

    def remove(self, client: FeedClient) -> None:
        """Let a client go."""
        self.clients.discard(client)
        self.holding.discard(client)
        for fanout in self.channels.values():
            fanout.leave(client)
        self._metrics.clients = len(self.clients)

    def flush(self) -> float:
        """Send to clients of `latest` what has moved, and to all what they have room for again.

        Returns:
            In how many seconds to call again, even if nothing comes until then: infinite for never.
        """
        for client in list(self.holding):
            client.pump()
        wait_s = _SOON_S if self.holding else float("inf")
        return min(wait_s, *(fanout.flush() for fanout in self.channels.values()))

    def beat(self, figures: Mapping[str, Any], turn: int) -> None:
        """Send a heartbeat to every client whose turn it is.

        Those that are behind have other things to read.

        Args:
            figures: are in it.
            turn: 0 to BEAT_TURNS - 1.
        """
        frames: dict[tuple[bytes, ...], Held] = {}
        for client in [client for client in self.clients if client.turn == turn and not client.holding]:
            key = tuple(
                name.encode() + following.followed.tobytes() for name, following in client.followings.items()
            )
            if key not in frames:
                seqs = {name: self._seqs(client, name) for name in client.followings}
                message = {
                    "type": "heartbeat",
                    "server_ns": self._clock(),
                    "epoch": self.epoch,
                    "seqs": seqs.pop("prediction", {}),
                    "channels": seqs,
                }
                frames[key] = Held(message_frame({**message, **figures}))
            client.post(frames[key])

    def tell_all(self, message: Mapping[str, Any]) -> None:
        """Send a message to every client."""
        held = Held(message_frame(message))
        for client in list(self.clients):
            client.post(held)

    def _seqs(self, client: FeedClient, name: str) -> dict[str, int]:
        if self.channels[name].filling:
            return {}  # nobody has been sent these yet
        board, seqs = self.channels[name].board, self.channels[name].sent_seqs()
        followed = client.followings[name].followed & (seqs > 0)
        slots = np.flatnonzero(followed)[:_MAX_HEARTBEAT_SEQS]
        names = [board.symbols[slot].decode() for slot in slots.tolist()]
        return dict(zip(names, seqs[slots].tolist(), strict=True))
