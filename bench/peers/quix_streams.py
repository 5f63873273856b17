"""Peer: Quix Streams, with its defaults. One JSON message per tick through a `StreamingDataFrame`, the symbol's
state in its RocksDB store (with changelog and checkpoints), one JSON message out.

It runs in an environment of its own (`bench/quix_environment.py`): it asks for older packages than tickloom does.
"""

from typing import Any

from quixstreams import Application, State

from bench.peers.meter import Job, Meter
from bench.peers.work import WORKS, Values, arguments_of


def main(job: Job) -> None:
    """Measure until the job's limits are reached, and the last checkpoint is done."""
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.name,
        auto_offset_reset="earliest",
        state_dir=job.scratch,
        loglevel="WARNING",
    )
    work = WORKS[job.work]
    ticks = app.topic(job.topic, value_deserializer="json", key_deserializer="str")
    rows = app.topic(job.out_topic, value_serializer="json", key_serializer="str")
    meter, last = Meter(job), dict[str, Values]()
    is_done = False

    def indicators(tick: dict[str, Any], state: State) -> Values:
        nonlocal is_done
        if not meter.ticks:
            meter.start()
        windows = state.get("windows") or work.new_state()
        values = work.advance(windows, *arguments_of(tick))
        state.set("windows", windows)
        last[tick["symbol"]] = values
        if not is_done and meter.tick():
            is_done = True
            app.stop()
        return work.outgoing(values)

    app.dataframe(ticks).apply(indicators, stateful=True).to_topic(rows)
    app.run()
    meter.finish(last)


if __name__ == "__main__":
    main(Job.from_argv())
