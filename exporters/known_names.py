"""What the values of FEATURES are called, read from Kafka when rows come that have other names than those known."""

from collections.abc import Callable, Iterable

from agents.feature_names import Catalogues, read_catalogues
from agents.features import Feature


class KnownNames:
    """Catalogues by id. A worker tells its names before its first row, so that who has a row can know them."""

    def __init__(self, bootstrap: str, on_new: Callable[[int, tuple[Feature, ...]], None] | None = None) -> None:
        """Know none.

        Args:
            bootstrap: address of Kafka.
            on_new: told each catalogue, once.
        """
        self.known: Catalogues = {}
        self._bootstrap, self._on_new = bootstrap, on_new

    async def learn(self, ids: Iterable[int]) -> set[int]:
        """Read the catalogues if one of these is not known; return those that still are not.

        Raises:
            KafkaError: the brokers do not answer.
        """
        missing = set(ids) - self.known.keys()
        if not missing:
            return missing
        for names_id, catalogue in (await read_catalogues(self._bootstrap)).items():
            if names_id not in self.known:
                self.known[names_id] = catalogue
                if self._on_new is not None:
                    self._on_new(names_id, catalogue)
        return missing - self.known.keys()
