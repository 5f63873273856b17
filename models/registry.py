"""The registry: every model that was ever published, and which of them serves.

A version is a folder ``NAME/NNNNNN-MODELID`` with ``model.onnx``, its manifest ``model.json`` and, where there are,
``card.json`` and ``card.html``. It never changes. Which version has which role stands in
``aliases/GGGGGGGG.json``, one file for each change: the highest generation counts, and to write the next one is a
compare-and-swap, because only one writer can make it. So no change is lost, and what was in service when can be
read there for ever.

Workers do not look here by themselves: a promotion is a message (`models/promotion.py`).
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from agents import features
from models.artifact import load, manifest_path
from models.store import MANIFEST, open_store
from stream.clock import Clock, wall_ns
from stream.errors import ModelError, RegistryError

MODEL: Final = "model.onnx"
CARDS: Final = ("card.json", "card.html")
ROLES: Final = ("champion", "previous")
_ALIASES: Final = "aliases"
_CLAIMS: Final = "claims"
_NIGHTS: Final = "nights"
_DONE: Final = "done"
_ATTEMPTS: Final = 100
_VERSION: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)/([0-9]{6})-([0-9a-f]{16})")


@dataclass(frozen=True)
class Version:
    """The name of a version, which is its path in the registry as well."""

    name: str
    number: int
    model_id: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the version that ``text`` names.

        Raises:
            RegistryError: it is not of the form, and so may be any path.
        """
        match = _VERSION.fullmatch(text)
        if match is None:
            raise RegistryError(f"{text!r} names no version; right would be as in momentum/000001-718e0a2ddc1319ff")
        return cls(match[1], int(match[2]), int(match[3], 16))

    def __str__(self) -> str:
        return f"{self.name}/{self.number:06d}-{self.model_id:016x}"


@dataclass(frozen=True)
class Aliases:
    """Which version has which role, as of one generation."""

    generation: int = 0
    champion: str | None = None  # None: workers serve the model of their settings
    previous: str | None = None  # what was champion before
    challengers: tuple[str, ...] = ()
    reason: str = ""
    by: str = ""
    at_ns: int = 0

    def named(self) -> set[str]:
        """Return the versions that have a role."""
        return {version for version in (self.champion, self.previous, *self.challengers) if version is not None}


class Registry:
    """A registry in a directory or an object store. All calls block; none of them is for the event loop."""

    def __init__(self, url: str, cache: Path | None = None) -> None:
        """Open a registry; it is made when the first version is published.

        Args:
            url: a directory, or a URL that fsspec knows, such as ``s3://BUCKET/PREFIX``.
            cache: where files of an object store are put to be loaded; not needed for a directory.

        Raises:
            SettingsError: no driver for such a URL is installed.
        """
        self.url = url
        self._store = open_store(url)
        self._cache = cache

    def publish(
        self,
        model: Path,
        *,
        by: str,
        available: tuple[str, ...] = features.NAMES,
        clock: Clock = wall_ns,
    ) -> str:
        """Publish a model file with its manifest and the cards beside it; return the version.

        A file that is there already, to the byte, is not published again: its version is returned.

        Args:
            model: path of the model; ``card.json`` and ``card.html`` in its folder go with it.
            by: who publishes it, for whoever asks later.
            available: the features that the engine computes.
            clock: of now.

        Raises:
            ModelError: it must not serve.
            RegistryError: the store refuses.
        """
        artifact = load(model, available)
        for version in self.versions(artifact.card.name):
            if self.manifest(version).get("sha256") == artifact.sha256:
                return version
        files = {MODEL: model.read_bytes()}
        files |= {name: (model.parent / name).read_bytes() for name in CARDS if (model.parent / name).is_file()}
        manifest = json.loads(manifest_path(model).read_text("utf-8"))
        manifest |= {
            "file": MODEL,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            "published_ns": clock(),
            "published_by": by,
        }
        if manifest["files"][MODEL] != artifact.sha256:
            raise ModelError(f"model {model} was changed while it was read; publish it again")
        name, model_id = artifact.card.name, artifact.card.model_id
        if name in (_ALIASES, _NIGHTS) or not _VERSION.fullmatch(str(Version(name, 0, model_id))):
            raise ModelError(f"model {model} is named {name!r}; right would be letters, digits, dots and dashes")
        published = str(Version(name, self._claim(name), model_id))
        files[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
        self._store.publish(published, files)
        return published

    def versions(self, name: str | None = None) -> list[str]:
        """Return the versions that there are, of one name or of all, by name and number."""
        names = (
            [name]
            if name is not None
            else [each for each in self._store.names("") if each not in (_ALIASES, _NIGHTS)]
        )
        found = [f"{each}/{number}" for each in names for number in self._store.names(each)]
        whole = [version for version in found if _VERSION.fullmatch(version) and self._has_manifest(version)]
        return sorted(whole)

    def manifest(self, version: str) -> dict[str, Any]:
        """Return the manifest of a version.

        Raises:
            RegistryError: there is no such version, or its manifest is not one.
        """
        return self._json(version, MANIFEST)

    def card(self, version: str) -> dict[str, Any] | None:
        """Return the card of a version, or None where it was published without one.

        Raises:
            RegistryError: there is no such version, or its card is not JSON.
        """
        if "card.json" not in self.manifest(version).get("files", {}):
            return None
        return self._json(version, "card.json")

    def card_file(self, version: str, name: str) -> bytes:
        """Return a card of a version as it was published.

        Args:
            version: which.
            name: one of `CARDS`.

        Raises:
            RegistryError: there is no such version, or it was published without one.
        """
        return self._read(version, name)

    def resolve(self, text: str) -> str:
        """Return the version that somebody means: by its name, role, number, model id, or the newest of a name.

        Raises:
            RegistryError: none, or more than one.
        """
        if text in ROLES:
            version: str | None = getattr(self.aliases(), text)
            if version is None:
                raise RegistryError(f"nothing is {text} yet")
            return version
        known = self.versions()
        if text in known:
            return text
        of_name = [version for version in known if version.startswith(f"{text}/")]
        if of_name:
            return of_name[-1]
        parts = [version for version in known if _is_part(text, version)]
        if len(parts) == 1:
            return parts[0]
        right = ", ".join(parts or known[-5:]) or "nothing: publish one first"
        raise RegistryError(f"{text!r} names {len(parts)} versions of {self.url}; there is {right}")

    def fetch(self, version: str) -> Path:
        """Return a path to load a version from. It is not checked: `models.artifact.load` does that.

        Raises:
            RegistryError: there is no such version, or it cannot be read.
        """
        Version.parse(version)
        if "://" not in self.url:
            return Path(self.url) / version / MODEL
        if self._cache is None:
            raise RegistryError(f"{self.url} is no directory, and there is no place to put its files")
        folder = self._cache / version
        folder.mkdir(parents=True, exist_ok=True)
        for name in (MODEL, MANIFEST):
            (folder / name).write_bytes(self._read(version, name))
        return folder / MODEL

    def aliases(self) -> Aliases:
        """Return which version has which role now.

        Raises:
            RegistryError: the newest file of aliases is not one.
        """
        newest = self._store.names(_ALIASES)[-1:]
        return self._aliases_of(newest[0]) if newest else Aliases()

    def history(self) -> list[Aliases]:
        """Return every change of roles, the oldest first."""
        return [self._aliases_of(name) for name in self._store.names(_ALIASES)]

    def update(
        self,
        change: Callable[[Aliases], Aliases],
        *,
        reason: str,
        by: str,
        clock: Clock = wall_ns,
        beyond: int = 0,
    ) -> Aliases:
        """Change roles; return what holds now. Of several at once each sees what those before it did.

        Args:
            change: returns the new roles from those that hold. It may be called again, and may raise.
            reason: why, for whoever asks later.
            by: who.
            clock: of now.
            beyond: the new generation is higher than this one as well.

        Raises:
            RegistryError: the store refuses, or others are quicker all the time.
        """
        for _ in range(_ATTEMPTS):
            held = self.aliases()
            new = change(held)
            generation = max(held.generation, beyond) + 1
            new = dataclasses.replace(new, generation=generation, reason=reason, by=by, at_ns=clock())
            raw = (json.dumps(dataclasses.asdict(new), indent=2) + "\n").encode()
            if self._store.create(f"{_ALIASES}/{new.generation:08d}.json", raw):
                return new
        raise RegistryError(f"others changed the roles in {self.url} {_ATTEMPTS} times meanwhile; try again")

    def attempts(self, night: str) -> tuple[int, bool]:
        """Return how many attempts at a night's retraining there were, and whether it is done with."""
        names = self._store.names(f"{_NIGHTS}/{night}")
        return sum(name.isdigit() for name in names), _DONE in names

    def claim_night(self, night: str, attempt: int, by: str) -> bool:
        """Take an attempt at a night's retraining; of several who try, on whatever machines, one gets True.

        Raises:
            RegistryError: the store refuses.
        """
        return self._store.create(f"{_NIGHTS}/{night}/{attempt:06d}", by.encode())

    def close_night(self, night: str, by: str) -> None:
        """Say that a night's retraining is done with, whatever came of it: nobody claims it any more."""
        self._store.create(f"{_NIGHTS}/{night}/{_DONE}", by.encode())

    def remove(self, version: str) -> None:
        """Remove a version.

        Raises:
            RegistryError: it has a role.
        """
        Version.parse(version)
        if version in self.aliases().named():
            raise RegistryError(f"{version} has a role; promote another one first")
        self._store.remove(version)

    def sweep(self) -> int:
        """Remove what interrupted publications left; return how many."""
        return self._store.sweep()

    def _claim(self, name: str) -> int:
        """Return a number that nobody else has or had: a publication that is cut off leaves a hole."""
        taken = [int(number) for number in self._store.names(f"{name}/{_CLAIMS}") if number.isdigit()]
        number = max(taken, default=0) + 1
        while not self._store.create(f"{name}/{_CLAIMS}/{number:06d}", b""):
            number += 1
        return number

    def _has_manifest(self, version: str) -> bool:
        return MANIFEST in self._store.names(version)

    def _read(self, version: str, name: str) -> bytes:
        Version.parse(version)
        try:
            return self._store.read(f"{version}/{name}")
        except FileNotFoundError:
            raise RegistryError(f"{self.url} has no {version}/{name}") from None

    def _json(self, version: str, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self._read(version, name))
        except ValueError as error:
            raise RegistryError(f"{version}/{name} of {self.url} is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise RegistryError(f"{version}/{name} of {self.url} is no JSON object")
        return value

    def _aliases_of(self, name: str) -> Aliases:
        try:
            value: Mapping[str, Any] = json.loads(self._store.read(f"{_ALIASES}/{name}"))
            return Aliases(**{**value, "challengers": tuple(value["challengers"])})
        except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
            raise RegistryError(f"{_ALIASES}/{name} of {self.url} cannot be read: {error!r}") from None


def _is_part(text: str, version: str) -> bool:
    """Return whether ``text`` is the number of a version, or the beginning of its model id."""
    each = Version.parse(version)
    is_number = text.isdigit() and len(text) <= 6 and int(text) == each.number
    return is_number or (len(text) >= 4 and f"{each.model_id:016x}".startswith(text))
