"""Stretch: confluent-kafka and plain Python again, but on our blocks of ticks instead of JSON messages.

What this gains over `confluent_loop` is the format's; what the worker gains over this is the engine's.
"""

import numpy as np

from bench.markets import ticks_of
from bench.peers.confluent_loop import consumer_of, finish, produce, producer_of, value_of
from bench.peers.meter import Job, Meter
from bench.peers.work import WORKS, State, Values
from stream.records import TICK, decode_block


def main(job: Job) -> None:
    """Measure until the job's limits are reached, all is acknowledged and committed."""
    consumer, producer = consumer_of(job), producer_of(job)
    work = WORKS[job.work]
    meter, last, states = Meter(job), dict[str, Values](), dict[str, State]()
    is_done = False
    while not is_done:
        for message in consumer.consume(8, 1.0):
            raw = value_of(message)
            if not meter.ticks:
                meter.start()
            rows = []
            for symbol, *tick in ticks_of(decode_block(raw, TICK)):
                state = states.get(symbol) or states.setdefault(symbol, work.new_state())
                last[symbol] = work.advance(state, *tick)
                rows.append(tuple(work.outgoing(last[symbol]).values()))
                if meter.tick():
                    is_done = True
                    break
            produce(producer, job.out_topic, np.array(rows).tobytes(), None, message.partition())
            if is_done:
                break
        producer.poll(0)
    finish(producer, consumer)
    meter.finish(last)
    consumer.close()


if __name__ == "__main__":
    main(Job.from_argv())
