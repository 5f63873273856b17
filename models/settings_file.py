"""A training's settings as a file: what a search writes, and what `tickloom train --settings` reads.

JSON, with the fields of `models.train.TrainSettings`. A field that is not there has its default; one that is
unknown or of another type is refused.
"""

import os
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from models.train import TrainSettings
from stream.errors import SettingsError

_ADAPTER: Final = TypeAdapter(with_config(ConfigDict(extra="forbid", strict=True))(TrainSettings))


def write_train_settings(path: Path, settings: TrainSettings) -> None:
    """Write settings to a file, which is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(_ADAPTER.dump_json(settings, indent=2))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_train_settings(path: Path) -> TrainSettings:
    """Read settings from a file.

    Raises:
        SettingsError: there is no such file, or it holds something else.
    """
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}, seen {each['input']!r:.80}"
            for each in error.errors()
        )
        raise SettingsError(f"{path} is no file of training settings: {wrong}") from None
