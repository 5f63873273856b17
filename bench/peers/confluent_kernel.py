"""Stretch: confluent-kafka around our own lanes, without Faust: no table, no checkpoints, no model.

What the worker loses against this is the price of Faust and of being safe.
"""

from agents.lane import Lane, compile_kernels
from agents.windows import Windows
from bench.markets import FUTURE_NS, LATENESS_NS
from bench.no_model import NoModel
from bench.peers.confluent_loop import consumer_of, finish, produce, producer_of, value_of
from bench.peers.meter import Job, Meter
from stream.records import TICK, decode_block, encode_block


def main(job: Job) -> None:
    """Measure until the job's limits are reached, all is acknowledged and committed."""
    compile_kernels(NoModel())
    lanes = [Lane(number, Windows(LATENESS_NS, FUTURE_NS), NoModel()) for number in range(job.partitions)]
    consumer, producer = consumer_of(job), producer_of(job)
    meter = Meter(job)
    is_done = False
    while not is_done:
        for message in consumer.consume(8, 1.0):
            raw = value_of(message)
            if not meter.ticks:
                meter.start()
            partition = message.partition()
            predictions = lanes[partition].apply([(message.offset(), decode_block(raw, TICK))]).predictions
            produce(producer, job.out_topic, encode_block(predictions), None, partition)
            meter.ticks += len(predictions) - 1
            if meter.tick():
                is_done = True
                break
        producer.poll(0)
    finish(producer, consumer)
    meter.finish({})
    consumer.close()


if __name__ == "__main__":
    main(Job.from_argv())
