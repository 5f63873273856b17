"""Peer: the running sums of `indicators`, called in a loop. No Kafka."""

from bench.markets import load_ticks
from bench.peers.indicators import advance, new_state
from bench.peers.meter import Job, Meter


def main(job: Job) -> None:
    """Measure until the job's limits are reached."""
    ticks = load_ticks(job.market, job.limit_ticks)
    states = {tick[0]: new_state() for tick in ticks}
    last = {}
    meter = Meter(job)
    meter.start()
    for symbol, *prices in ticks:
        last[symbol] = advance(states[symbol], *prices)
        if meter.tick():
            break
    meter.finish(last)


if __name__ == "__main__":
    main(Job.from_argv())
