"""Mends how clickhouse-driver 0.2.11 reads sparse columns: those of which nearly all values are the type's default.

It makes a list of them, with a default of its own, which Arrow takes for no time, date or truth value: a question
about a table with a time that is nearly always 0 fails. Of every other column it makes an array of its type.
"""

import functools
from typing import Any

import numpy as np
from clickhouse_driver.columns.base import SparseSerialization


@functools.cache
def mend_sparse_columns() -> None:
    """Make the driver's sparse columns arrays, wherever it reads into arrays. To call it again changes nothing."""
    as_list = SparseSerialization.apply_sparse

    def as_array(self: Any, items: Any) -> Any:
        if not isinstance(items, np.ndarray) or items.dtype == object:
            return as_list(self, items)
        whole = np.zeros(self.items_total - 1, items.dtype)
        whole[np.array(self.sparse_indexes, np.int64) - 1] = items
        return whole

    SparseSerialization.apply_sparse = as_array
