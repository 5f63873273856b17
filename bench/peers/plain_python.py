"""Peer: the same plain Python as in peers that read Kafka, called in a loop. No Kafka."""

from bench.markets import load_ticks
from bench.peers.meter import Job, Meter
from bench.peers.work import WORKS


def main(job: Job) -> None:
    """Measure until the job's limits are reached."""
    ticks = load_ticks(job.market, job.limit_ticks)
    work = WORKS[job.work]
    states = {tick[0]: work.new_state() for tick in ticks}
    last = {}
    meter = Meter(job)
    meter.start()
    for symbol, *tick in ticks:
        last[symbol] = work.advance(states[symbol], *tick)
        if meter.tick():
            break
    meter.finish(last)


if __name__ == "__main__":
    main(Job.from_argv())
