"""The errors of tickloom: what went wrong, what was seen, what would be right.

    TickloomError
    ├── SettingsError          a setting is unknown, malformed or missing          (exit code 2)
    ├── RecordError            bytes that are not a block that this version reads
    │   ├── BadBlock           not a block, truncated, or of the wrong kind
    │   └── UnknownVersion     a block or a state row of a version that we do not know
    ├── SourceError            a feed, a file or an exchange cannot be read        (exit code 3)
    ├── ModelError             a model file that must not serve                    (exit code 4)
    ├── RegistryError          a registry of models cannot be read or changed      (exit code 4)
    ├── ArchiveError           an archive of Parquet files cannot be read, written or trusted
    ├── ServerError            an embedded server did not start or died            (exit code 5)
    ├── SinkError              a way out refused what we wrote
    │   ├── SinkUnavailable    it is away, full or slow: wait with the same batch  (retriable)
    │   └── SinkRejected       it will never take this batch: dead-letter it
    ├── FeedError              the WebSocket feed says what a client of it does not understand
    │   ├── FeedRefused        a gateway will not have us, or not give us this
    │   └── MessagesLost       messages are missing, and cannot be had       (reading may go on)
    └── InvariantError         our own promise is broken: the worker must stop     (exit code 70)

``retriable`` and ``exit_code`` are data on the class, so that policy is read, not repeated.
"""


class TickloomError(Exception):
    """Base of every error that tickloom raises on purpose."""

    retriable = False
    exit_code = 1


class SettingsError(TickloomError):
    """A setting is unknown, malformed or missing."""

    exit_code = 2


class RecordError(TickloomError):
    """Bytes that this version of tickloom does not read."""


class BadBlock(RecordError):
    """Not a block: wrong magic, wrong kind, or a length that does not add up."""


class UnknownVersion(RecordError):
    """A block or a state row that was written by a version that we do not know."""


class SourceError(TickloomError):
    """A feed, a file or an exchange cannot be read."""

    exit_code = 3


class ModelError(TickloomError):
    """A model file is damaged, mis-shaped or was made for other features."""

    exit_code = 4


class RegistryError(TickloomError):
    """A registry of models that cannot be read or changed, or a version that it does not have."""

    exit_code = 4


class ServerError(TickloomError):
    """An embedded server did not start, or has died."""

    exit_code = 5


class SinkError(TickloomError):
    """A way out refused what we wrote."""


class SinkUnavailable(SinkError):
    """The sink is away, full or slow; the same batch may succeed later."""

    retriable = True


class ArchiveError(TickloomError):
    """An archive that cannot be read or written, or that does not hold what it says."""


class SinkRejected(SinkError):
    """The sink will never take this batch."""


class FeedError(TickloomError):
    """What a gateway sent is not what this version reads."""


class FeedRefused(FeedError):
    """A gateway refuses a client, or a request of it; ``code`` says why, as in docs/feed.md."""

    def __init__(self, message: str, code: str = "REFUSED") -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class MessagesLost(FeedError):
    """Messages of the feed are missing; ``item`` is the `Gap` or `Reset` that says which."""

    def __init__(self, item: object) -> None:
        super().__init__(f"messages are missing: {item}")
        self.item = item


class InvariantError(TickloomError):
    """One of our own promises is broken; going on would spread corrupt data."""

    exit_code = 70
