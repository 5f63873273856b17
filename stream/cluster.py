"""What an exporter asks a Kafka cluster about itself."""

from aiokafka.admin import AIOKafkaAdminClient

from exporters.waiting import BROKER_PATIENCE_S


async def cluster_id(bootstrap: str) -> str:
    """Return the id that the cluster gave itself when its storage was made.

    It is our *epoch*: while it is the same, (symbol, seq) means the same prediction.

    Raises:
        KafkaError: the cluster does not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(BROKER_PATIENCE_S * 1000))
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()
