"""The setting ``symbols``: the only symbols that lanes accept."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordError, SettingsError
from stream.records import TICK, encode_symbol


def read_symbols(setting: str | None) -> NDArray[np.bytes_] | None:
    """Return the symbols that a setting names, ``S24[K]``; None, which is any, where it is not set.

    Args:
        setting: ``A,B,C``, or ``@FILE`` of a file with a symbol in each line; blank lines count for nothing.

    Raises:
        SettingsError: the file cannot be read, a name is not a symbol, or there are none.
    """
    if setting is None:
        return None
    if setting.startswith("@"):
        try:
            names = Path(setting[1:]).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"setting 'symbols' is {setting!r}: cannot read the file: {error}") from None
    else:
        names = setting.split(",")
    try:
        symbols = [encode_symbol(name.strip()) for name in names if name.strip()]
    except RecordError as error:
        raise SettingsError(f"setting 'symbols': {error}") from None
    if not symbols:
        raise SettingsError(f"setting 'symbols' is {setting!r}, which names none; unset it to accept any")
    return np.array(symbols, TICK["symbol"])
