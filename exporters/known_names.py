"""What the values of FEATURES are called, read from Kafka when rows come that have other names than those known."""

import logging
from collections.abc import Callable, Iterable

from agents.feature_names import Catalogues, read_catalogues
from agents.features import Feature

logger = logging.getLogger(__name__)


class KnownNames:
    """Catalogues by id. A worker tells its names before its first row, so that who has a row can know them."""

    def __init__(self, bootstrap: str, on_new: Callable[[int, tuple[Feature, ...]], None]) -> None:
        """Know none.

        Args:
            bootstrap: address of Kafka.
            on_new: told each catalogue, once.
        """
        self.known: Catalogues = {}
        self._bootstrap, self._on_new = bootstrap, on_new

    async def learn(self, ids: Iterable[int]) -> bool:
        """Read the catalogues if one of these is not known; return whether now all are.

        Raises:
            KafkaError: the brokers do not answer.
        """
        missing = set(ids) - self.known.keys()
        if not missing:
            return True
        for names_id, catalogue in (await read_catalogues(self._bootstrap)).items():
            if names_id not in self.known:
                self.known[names_id] = catalogue
                self._on_new(names_id, catalogue)
        missing -= self.known.keys()
        for names_id in missing:
            logger.error("nobody has told what features of names_id %016x are called", names_id)
        return not missing
