"""The Python client of the feed: ``from exporters.client import Feed``; see docs/feed.md.

    two gateways, or one        link ─▶ session ─▶ frames ─▶ continuity ─▶ feed ─▶ ``async for item in feed``
                                (connected again)            (A/B merge, gaps)

The one package that exports from here, because others program against it. It imports nothing of the engine but the
layout of records, so that it is there in a fraction of a second.
"""

from exporters.client.feed import Feed
from exporters.client.items import (
    Batch,
    Connected,
    Disconnected,
    FeatureNames,
    Gap,
    Item,
    Position,
    ReplayCompleted,
    Reset,
    Resumed,
)
from stream.errors import FeedError, FeedRefused, MessagesLost

__all__ = [
    "Batch",
    "Connected",
    "Disconnected",
    "FeatureNames",
    "Feed",
    "FeedError",
    "FeedRefused",
    "Gap",
    "Item",
    "MessagesLost",
    "Position",
    "ReplayCompleted",
    "Reset",
    "Resumed",
]
