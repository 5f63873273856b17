"""Read the last checkpointed `STATE` row of a symbol from outside of any worker: from the table's changelog."""

from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from agents import features
from agents.checkpoint import is_newer
from agents.periods import DEFAULT, Periods
from agents.state import STATE, decode_state
from agents.validate import MARKS, OUTCOMES
from stream.ending import end_consumer
from stream.records import TICK, Records, encode_symbol, partition_of
from stream.topics import STATE_CHANGELOG

_POLL_MS = 500
_BAR = ("open", "high", "low", "close", "volume", "bars")


async def read_state(bootstrap: str, symbol: str) -> Records | None:
    """Return the newest row of ``symbol`` in the changelog, ``STATE[1]``, or None where there is none.

    Reads one partition from its start; compaction keeps that short. Cancelling it is safe.

    Raises:
        RecordError: not a symbol.
        UnknownVersion: the row was written by another version.
    """
    key = encode_symbol(symbol)
    partitions = await _count_partitions(bootstrap)
    if partitions == 0:
        return None
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        await consumer.start()
        number = int(partition_of(np.array([key], TICK["symbol"]), partitions)[0])
        where = TopicPartition(STATE_CHANGELOG, number)
        consumer.assign([where])
        await consumer.seek_to_beginning(where)
        end = (await consumer.end_offsets([where]))[where]
        newest: bytes | None = None
        while await consumer.position(where) < end:
            for message in (await consumer.getmany(where, timeout_ms=_POLL_MS)).get(where, []):
                if message.key == key and (newest is None or is_newer(message.value, newest)):
                    newest = message.value
        return None if newest is None else decode_state(newest)
    finally:
        await end_consumer(consumer)


async def _count_partitions(bootstrap: str) -> int:
    # A consumer knows only the topics that it subscribes to, and to ask for one by name may create it.
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        topics = {info["topic"]: info["partitions"] for info in await admin.describe_topics()}
    finally:
        await admin.close()
    return len(topics.get(STATE_CHANGELOG, ()))


def describe_state(row: Records, periods: Periods = DEFAULT) -> dict[str, Any]:
    """Return a ``STATE[1]`` row as plain values.

    Its scalars, whether it is halted (from ``halt_ns`` on, after the last resume), the ticks rejected by reason and
    accepted by mark, its open bars, and the features of its last tick. Features and bars have their names where the
    row was made with these ``periods``, else their places.
    """
    state = row[0]
    described: dict[str, Any] = {}
    for name in STATE.names or ():
        value = state[name]
        if isinstance(value, bytes):
            described[name] = value.decode("ascii")
        elif np.ndim(value) == 0:
            described[name] = value.item()
    described["model_id"] = f"{described['model_id']:016x}"
    described["halted"] = bool(state["halt_ns"] > state["resume_ns"])
    rejects, marks = state["rejects"].tolist(), state["marks"].tolist()
    described["rejects"] = {OUTCOMES[code]: count for code, count in enumerate(rejects) if count}
    described["marks"] = {MARKS[1 << bit]: count for bit, count in enumerate(marks) if count}
    last = state["recent"][int(max(described["seq"] - 1, 0)) % len(state["recent"])]
    same = described["periods_id"] == periods.id
    names = features.names(periods) if same else [str(place) for place in range(features.COUNT)]
    described["periods_id"] = f"{described['periods_id']:016x}"
    for place, bar in enumerate(state["bars"]):
        length = f"{periods.bars_s[place]:g}s" if same else str(place)
        described[f"bar_{length}"] = {name: bar[name].item() for name in _BAR if bar["prices"]}
    described["features"] = {name: float(value) for name, value in zip(names, last, strict=True)}
    return described
