"""What the exporter and the readers of Redis have in common: keys, connections, and words for what went wrong."""

import asyncio
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from stream.errors import SettingsError

PREFIX: Final = "tickloom:"
# A healthy server answers in a millisecond. Whoever asks repeats what he asked, which is harmless.
TIMEOUT_S: Final = 1.0
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class RedisServer:
    """One Redis or Valkey server that we are told of by its URL."""

    def __init__(self, url: str) -> None:
        """Take the URL; a connection is made when the first command is sent.

        Args:
            url: ``redis://[[USER]:PASSWORD@]HOST:PORT/DB``, or ``rediss://`` for TLS, with ``?ssl_ca_certs=FILE``
                and ``&ssl_certfile=FILE&ssl_keyfile=FILE`` where they are needed.

        Raises:
            SettingsError: not such a URL, or a file that it names is not there.
        """
        try:
            # Our callers retry, with the patience that they have; redis-py must not add its own.
            self.client: Redis = Redis.from_url(
                url,
                protocol=2,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
            # Connects to nothing; refuses what it does not know.
            self.client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, RedisError) as error:
            raise SettingsError(f"setting 'redis' is not a Redis URL: {error}") from None
        where = self.client.connection_pool.connection_kwargs
        for name in _FILES:
            if name in where and not Path(where[name]).is_file():
                raise SettingsError(f"setting 'redis': {name} is {where[name]}, and there is no such file")
        self.where = f"Redis at {where.get('host', 'localhost')}:{where.get('port', 6379)}"

    def explain(self, error: Exception) -> str:
        """Return what an error of a command means, and what would help."""
        match error:
            case OutOfMemoryError():
                return f"{self.where} is full (maxmemory): give it more memory, or a shorter redis_ttl_s"
            case AuthenticationError() | NoPermissionError():
                return f"{self.where} refuses our user or password: {error}"
            case BusyLoadingError():
                return f"{self.where} is still loading its data"
            case ReadOnlyError():
                return f"{self.where} is a read-only replica; the setting `redis` must name the primary"
            case RedisTimeoutError() | TimeoutError() | asyncio.TimeoutError():
                return f"{self.where} does not answer within {TIMEOUT_S:g} s"
            case RedisConnectionError() | OSError():
                return f"{self.where} cannot be reached: {error}"
            case ResponseError():
                return f"{self.where} refuses our command: {error}"
        return f"{self.where}: {error!r}"

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


def prediction_key(prefix: str, symbol: str) -> str:
    """Return the key of a symbol's hash, which is also the name of its channel."""
    return f"{prefix}prediction:{symbol}"


def as_text(value: Any) -> str:
    """Return a reply of Redis as text: keys and fields are ASCII."""
    return value.decode("ascii") if isinstance(value, bytes) else str(value)
