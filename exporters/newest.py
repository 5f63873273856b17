"""The newest prediction of every symbol, in one array."""

import numpy as np

from stream.records import PREDICTION, Records


def last_of_each(rows: Records) -> Records:
    """Return the last row of each symbol in ``PREDICTION[N]``, a copy: ``PREDICTION[symbols in rows]``."""
    return rows[list({symbol: index for index, symbol in enumerate(rows["symbol"].tolist())}.values())]


class Newest:
    """One row for each symbol, as a copy: a row of a big batch would keep the whole batch in memory."""

    def __init__(self) -> None:
        self._slots: dict[bytes, int] = {}
        self._rows: Records = np.zeros(64, PREDICTION)

    def put(self, rows: Records) -> None:
        """Keep the last row of each symbol in ``PREDICTION[N]``."""
        last = last_of_each(rows)
        slots = [self._slots.setdefault(symbol, len(self._slots)) for symbol in last["symbol"].tolist()]
        if len(self._slots) > len(self._rows):
            grown = np.zeros(2 * len(self._slots), PREDICTION)
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._rows[slots] = last

    def rows(self) -> Records:
        """Return all of them: ``PREDICTION[symbols]``, a view that later calls of `put` change."""
        return self._rows[: len(self._slots)]
