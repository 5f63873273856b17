"""Peer: an aiokafka consumer and producer and plain Python. One JSON message per tick, one out.

State is in memory only: a restart would have to read the topic from its start.
"""

import asyncio

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.peers.meter import Job, Meter
from bench.peers.work import WORKS, State, Values, arguments_of


async def run(job: Job) -> None:
    """Measure until the job's limits are reached, all is acknowledged and committed."""
    consumer = AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.bootstrap,
        group_id=job.name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(bootstrap_servers=job.bootstrap, acks="all", linger_ms=5)
    work = WORKS[job.work]
    meter, last, states = Meter(job), dict[str, Values](), dict[str, State]()
    await producer.start()
    await consumer.start()
    is_done = False
    while not is_done:
        for messages in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            for message in messages if not is_done else ():
                if not meter.ticks:
                    meter.start()
                tick = orjson.loads(message.value)
                symbol = tick["symbol"]
                state = states.get(symbol) or states.setdefault(symbol, work.new_state())
                values = work.advance(state, *arguments_of(tick))
                last[symbol] = values
                await producer.send(
                    job.out_topic, orjson.dumps(work.outgoing(values)), message.key, message.partition
                )
                if meter.tick():
                    is_done = True
                    break
    await producer.flush()
    await consumer.commit()
    meter.finish(last)
    await consumer.stop()
    await producer.stop()


def main(job: Job) -> None:
    """Run the loop on uvloop, as it is fastest."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(job))


if __name__ == "__main__":
    main(Job.from_argv())
