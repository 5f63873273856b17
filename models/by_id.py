"""Models by the id that their predictions carry."""

from pathlib import Path

from models.compiled_predictor import CompiledPredictor
from models.predictor import OrtPredictor, load_predictor
from models.registry import Registry, Version
from models.service import Engine
from stream.errors import ModelError, RegistryError, TickloomError

Loaded = CompiledPredictor | OrtPredictor


class ModelGone(TickloomError):
    """A model that made predictions and cannot be run any more."""

    exit_code = ModelError.exit_code


class ModelsById:
    """The models of a registry and the one of the settings, loaded when they are asked for."""

    def __init__(self, registry: Registry, base: Path, engine: Engine, available: tuple[str, ...]) -> None:
        """Look nothing up yet.

        Args:
            registry: where promoted models are.
            base: the model file of the settings.
            engine: what runs them, as in the worker: the engines differ in the last bits.
            available: the features in a row, in their order.
        """
        self._registry, self._base = registry, base
        self._engine, self._available = engine, available
        self._loaded: dict[int, Loaded] = {}

    def version_of(self, model_id: int) -> str | None:
        """Return the newest version that has this id, or None where the registry has none."""
        found = [each for each in self._registry.versions() if Version.parse(each).model_id == model_id]
        return found[-1] if found else None

    def predictor(self, model_id: int) -> Loaded:
        """Return a model, ready to run.

        Raises:
            ModelGone: it is nowhere, damaged, or takes features that there are not.
        """
        if model_id not in self._loaded:
            self._loaded[model_id] = self._load(model_id)
        return self._loaded[model_id]

    def _load(self, model_id: int) -> Loaded:
        version = self.version_of(model_id)
        where = self._base if version is None else self._registry.fetch(version)
        try:
            loaded = load_predictor(where, self._engine, available=self._available)
        except (ModelError, RegistryError) as error:
            raise ModelGone(f"model {model_id:016x} cannot be run: {error}") from None
        if loaded.model_id != model_id:
            raise ModelGone(
                f"model {model_id:016x} is gone: the registry {self._registry.url} does not have it, and {where} "
                f"is {loaded.model_id:016x}"
            )
        return loaded
