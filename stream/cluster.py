"""What a process asks a Kafka cluster about itself."""

from typing import Final

from aiokafka.admin import AIOKafkaAdminClient

_PATIENCE_MS: Final = 5_000


async def cluster_id(bootstrap: str) -> str:
    """Return the id that the cluster gave itself when its storage was made.

    It is our *epoch*: while it is the same, (symbol, seq) means the same prediction.

    Raises:
        KafkaError: the cluster does not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_PATIENCE_MS)
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()
