"""Peer: a plain Faust agent, as Faust's own tutorial has them. One JSON `faust.Record` per message, the symbol's
state in a table (written to its changelog at each tick), one JSON message out."""

from pathlib import Path
from typing import Any

import faust

from bench.peers.meter import Job, Meter
from bench.peers.work import WORKS, Values


class Tick(faust.Record, serializer="json"):  # type: ignore[call-arg]
    """A tick as Faust users write it."""

    symbol: str
    event_ns: int
    price: float | None = None
    size: float | None = None
    side: int | None = None
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None


class Row(faust.Record, serializer="json"):  # type: ignore[call-arg]
    """The values after a tick."""

    symbol: str
    values: dict[str, float]


def main(job: Job) -> None:
    """Run the worker; it is ended by a signal once it has answered."""
    app = faust.App(
        job.name,
        broker=f"kafka://{job.bootstrap}",
        autodiscover=False,
        store="memory://",
        topic_partitions=job.partitions,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        datadir=Path(job.scratch),
        stream_buffer_maxsize=4096,
        topic_disable_leader=True,
    )
    work = WORKS[job.work]
    ticks = app.topic(job.topic, key_type=str, value_type=Tick, partitions=job.partitions)
    rows = app.topic(job.out_topic, key_type=str, value_type=Row, partitions=job.partitions)
    table = app.Table("windows", default=work.new_state, partitions=job.partitions)
    meter, last = Meter(job), dict[str, Values]()

    @app.agent(ticks)  # type: ignore[untyped-decorator, unused-ignore]
    async def indicators(stream: Any) -> None:
        meter_is_open = True
        async for tick in stream:
            if not meter_is_open:
                continue
            if not meter.ticks:
                meter.start()
            state = table[tick.symbol]
            values = work.advance(
                state,
                tick.event_ns,
                tick.price,
                tick.size,
                tick.side,
                tick.bid,
                tick.ask,
                tick.bid_size,
                tick.ask_size,
            )
            table[tick.symbol] = state
            last[tick.symbol] = values
            await rows.send(key=tick.symbol, value=Row(symbol=tick.symbol, values=work.outgoing(values)))
            if meter.tick():
                await app.producer.flush()
                await app.consumer.commit()
                meter.finish(last)
                meter_is_open = False

    faust.Worker(app, loglevel="warn").execute_from_commandline()


if __name__ == "__main__":
    main(Job.from_argv())
