"""The baseline: what a plain Faust worker does with ticks. One JSON `faust.Record` per message, a rolling mean in
a table, one prediction message out: the shape of Faust's own tutorial.

Run by `bench/spine.py` in a process of its own; it prints nothing and is ended by a signal.
"""

import sys
from pathlib import Path

import faust

WINDOW = 32


class Tick(faust.Record, serializer="json"):  # type: ignore[call-arg]
    """A tick as Faust users write it."""

    symbol: str
    price: float


class Prediction(faust.Record, serializer="json"):  # type: ignore[call-arg]
    """What the plain agent sends."""

    symbol: str
    mean: float


def main(broker: str, partitions: int, datadir: Path) -> None:
    """Run the worker until it is ended."""
    app = faust.App(
        "plain",
        broker=f"kafka://{broker}",
        autodiscover=False,
        store="memory://",
        topic_partitions=partitions,
        web_enabled=False,
        datadir=datadir,
        stream_buffer_maxsize=4096,
    )
    ticks = app.topic("plain-ticks", key_type=str, value_type=Tick)
    predictions = app.topic("plain-predictions", key_type=str, value_type=Prediction)
    windows = app.Table("plain-windows", default=list, partitions=partitions)

    @app.agent(ticks)  # type: ignore[untyped-decorator, unused-ignore]
    async def predict(stream: faust.StreamT) -> None:
        async for tick in stream:
            window = [*windows[tick.symbol], tick.price][-WINDOW:]
            windows[tick.symbol] = window
            mean = sum(window) / len(window)
            await predictions.send(key=tick.symbol, value=Prediction(symbol=tick.symbol, mean=mean))

    faust.Worker(app, loglevel="warn").execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
