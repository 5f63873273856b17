"""Peer: confluent-kafka (librdkafka) and plain Python. One JSON message per tick, one out.

State is in memory only: a restart would have to read the topic from its start. librdkafka's threads count as CPU of
the process, and may use a second core.
"""

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from bench.peers.meter import Job, Meter
from bench.peers.work import WORKS, State, Values, arguments_of


def consumer_of(job: Job) -> Consumer:
    """Return a consumer of the job's ticks, from their start."""
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.name,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([job.topic])
    return consumer


def producer_of(job: Job) -> Producer:
    """Return a producer that waits for all replicas."""
    return Producer({"bootstrap.servers": job.bootstrap, "acks": "all", "linger.ms": 5})


def value_of(message: Message) -> bytes:
    """Return what a message holds.

    Raises:
        KafkaException: it is not a message but an error.
    """
    if message.error():
        raise KafkaException(message.error())
    value: bytes = message.value()
    return value


def produce(producer: Producer, topic: str, value: bytes, key: bytes | None, partition: int) -> None:
    """Send; where librdkafka's queue is full, wait until there is room."""
    while True:
        try:
            producer.produce(topic, value, key, partition)
            return
        except BufferError:
            producer.poll(0.05)


def finish(producer: Producer, consumer: Consumer) -> None:
    """Wait until all is acknowledged, then commit.

    Raises:
        KafkaException: something was not acknowledged.
    """
    if producer.flush(60.0):
        raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))  # noqa: SLF001  (its public name)
    consumer.commit(asynchronous=False)


def main(job: Job) -> None:
    """Measure until the job's limits are reached, all is acknowledged and committed."""
    consumer, producer = consumer_of(job), producer_of(job)
    work = WORKS[job.work]
    meter, last, states = Meter(job), dict[str, Values](), dict[str, State]()
    is_done = False
    while not is_done:
        for message in consumer.consume(500, 1.0):
            raw = value_of(message)
            if not meter.ticks:
                meter.start()
            tick = orjson.loads(raw)
            symbol = tick["symbol"]
            state = states.get(symbol) or states.setdefault(symbol, work.new_state())
            values = work.advance(state, *arguments_of(tick))
            last[symbol] = values
            produce(
                producer, job.out_topic, orjson.dumps(work.outgoing(values)), message.key(), message.partition()
            )
            if meter.tick():
                is_done = True
                break
        producer.poll(0)
    finish(producer, consumer)
    meter.finish(last)
    consumer.close()


if __name__ == "__main__":
    main(Job.from_argv())
