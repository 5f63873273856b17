"""What a model says about itself: the metadata inside its file.

Evolution rules as for records: a new field has a default, a field never changes its meaning or its unit, and a
file of an unknown ``schema_version`` is refused.
"""

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import ModelError

SCHEMA_VERSION: Final = 1
CLASSES: Final = ("down", "flat", "up")
_PREFIX: Final = "tickloom."  # the exporter writes entries of its own beside ours

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """A few real steps from the zero state, with what the model answered when it was exported."""

    features: Floats  # [T, F], the model's features in the model's order
    answers: Floats  # [T, 4]: probabilities of down, flat, up; expected return in bps
    tolerance: float  # on |answer - golden|, relative to 1 + |golden|: CPUs round differently


@dataclass(frozen=True)
class ModelCard:
    """The metadata of one model."""

    name: str
    version: int  # rises with each training of the same name
    feature_names: tuple[str, ...]  # in the order of the model's input
    horizon_ns: int  # how far ahead it predicts
    dead_band_bps: float  # a move within +- this is "flat"
    clip_bps: float  # the return it was trained on was cut off at +- this
    warmup_ticks: int  # steps after which its state no longer depends on where it started
    layers: int
    units: int
    trained_from_ns: int  # event time of the training span
    trained_to_ns: int
    data_sha256: str  # of all ticks that it was trained and judged by, or of the file of their features
    weights_sha256: str  # of the tensors in the graph; `onnx_wire.read_graph` computes it
    code_version: str
    golden: Golden
    libraries: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)  # on the held-out span, in serving mode
    training: Mapping[str, Any] = field(default_factory=dict)  # the settings that it was trained with
    classes: tuple[str, ...] = CLASSES
    opset: int = 0  # of the graph's operators; 0 is not known
    producer: str = ""  # what exported the graph, with its version
    schema_version: int = SCHEMA_VERSION

    @property
    def model_id(self) -> int:
        """The first 8 bytes of the SHA-256 of the weights, as an unsigned number."""
        return int(self.weights_sha256[:16], 16)

    def to_entries(self) -> dict[str, str]:
        """Return the card as entries of ONNX ``metadata_props``: one JSON value for each field."""
        values = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        values["golden"] = {
            "features": _pack(self.golden.features),
            "answers": _pack(self.golden.answers),
            "tolerance": self.golden.tolerance,
        }
        return {_PREFIX + key: json.dumps(value) for key, value in values.items()}

    @classmethod
    def from_entries(cls, entries: Mapping[str, str]) -> "ModelCard":
        """Return the card that `to_entries` wrote.

        Raises:
            ModelError: not written by tickloom, of an unknown schema, or a field is missing or malformed.
        """
        ours = {key.removeprefix(_PREFIX): value for key, value in entries.items() if key.startswith(_PREFIX)}
        if "schema_version" not in ours:
            raise ModelError(
                f"the model has no tickloom metadata ({_PREFIX}schema_version); `tickloom train` writes it"
            )
        if ours["schema_version"] != str(SCHEMA_VERSION):
            raise ModelError(
                f"the model's metadata has schema version {ours['schema_version']}; "
                f"this tickloom reads version {SCHEMA_VERSION}"
            )
        try:
            values = {key: json.loads(value) for key, value in ours.items()}
            golden = values["golden"]
            values["golden"] = Golden(
                _unpack(golden["features"], len(values["feature_names"])),
                _unpack(golden["answers"], len(CLASSES) + 1),
                float(golden["tolerance"]),
            )
            for key in ("feature_names", "classes"):
                values[key] = tuple(values[key])
            card = cls(**values)
            card.check()
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the model's metadata cannot be read: {type(error).__name__}: {error}") from None
        return card

    def check(self) -> None:
        """Check each field for itself.

        Raises:
            ValueError: a field cannot be.
        """
        if tuple(self.classes) != CLASSES:
            raise ValueError(f"classes are {self.classes}; right would be {CLASSES}")
        if len(set(self.feature_names)) != len(self.feature_names) or not self.feature_names:
            raise ValueError(f"feature_names are {self.feature_names}; right would be one or more, each once")
        for name in ("horizon_ns", "warmup_ticks", "layers", "units", "version"):
            value = getattr(self, name)
            if type(value) is not int or value <= 0:
                raise ValueError(f"{name} is {value!r}; right would be a whole number above 0")
        if len(self.weights_sha256) != 64 or int(self.weights_sha256, 16) < 0:
            raise ValueError(f"weights_sha256 is {self.weights_sha256!r}; right would be 64 hexadecimal digits")
        steps = len(self.golden.features)
        if steps == 0 or len(self.golden.answers) != steps or not 0 < self.golden.tolerance < 0.01:
            raise ValueError(f"golden vectors of {steps} steps with tolerance {self.golden.tolerance}")


def _pack(values: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")


def _unpack(text: str, width: int) -> Floats:
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    return values.reshape(-1, width).astype(np.float32)
