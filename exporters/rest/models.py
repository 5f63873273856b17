"""The registry of models, read beside the event loop: versions, roles, manifests and cards."""

import asyncio
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from exporters.rest.problems import NOT_FOUND, UNAVAILABLE, Problem
from models.artifact import manifest_path
from models.registry import Aliases, Registry, Version
from stream.errors import RegistryError
from stream.settings import Settings

T = TypeVar("T")

_MANIFESTS_KEPT: Final = 4096  # a version never changes, so what was read of it is true


class Models:
    """What the API tells of models. Nothing here changes the registry."""

    def __init__(self, settings: Settings) -> None:
        """Open it.

        Raises:
            SettingsError: no driver for the registry's URL is installed.
        """
        self._registry = Registry(settings.registry_url)
        self._default = settings.model
        self._manifest = functools.lru_cache(_MANIFESTS_KEPT)(self._registry.manifest)

    async def all(self) -> dict[str, Any]:
        """Return every version, newest first, and which of them has which role.

        Raises:
            Problem: the registry cannot be read.
        """
        return await self._in_thread(self._all)

    async def one(self, which: str) -> dict[str, Any]:
        """Return a version with its whole manifest.

        Args:
            which: a version, role, name (its newest), number or model id.

        Raises:
            Problem: there is none, or more than one; or the registry cannot be read.
        """
        return await self._in_thread(lambda: self._one(which))

    async def card(self, which: str) -> dict[str, Any]:
        """Return the card of a version.

        Raises:
            Problem: as `one`; or it has none.
        """
        return await self._in_thread(lambda: json.loads(self._file(which, "card.json")))

    async def card_page(self, which: str) -> bytes:
        """Return the card of a version as a page.

        Raises:
            Problem: as `one`; or it has none.
        """
        return await self._in_thread(lambda: self._file(which, "card.html"))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (RegistryError, OSError, ValueError) as error:
            raise Problem(UNAVAILABLE, f"the registry of models cannot be read: {error}"[:300]) from error

    def _all(self) -> dict[str, Any]:
        aliases = self._registry.aliases()
        versions = [self._described(version, aliases) for version in self._registry.versions()]
        versions.sort(key=lambda each: (each["published_time"] or "", each["version"]), reverse=True)
        return {
            "data": versions,
            "champion": aliases.champion,
            "previous": aliases.previous,
            "challengers": list(aliases.challengers),
            "generation": aliases.generation,
            "reason": aliases.reason,
        }

    def _one(self, which: str) -> dict[str, Any]:
        version = self._resolve(which)
        if version is None:
            return self._of_settings()
        described = self._described(version, self._registry.aliases())
        return described | {"manifest": dict(self._manifest(version)), "history": self._history(version)}

    def _resolve(self, which: str) -> str | None:
        """The version that is meant; None for the model of the settings, which no registry needs to know."""
        try:
            return self._registry.resolve(which)
        except RegistryError:
            manifest = self._default_manifest()
            if which in ("default", manifest.get("model_id")):
                return None
            raise Problem(
                NOT_FOUND, f"{which[:80]!r} is no version, or more than one; /v1/models lists them"
            ) from None

    def _described(self, version: str, aliases: Aliases) -> dict[str, Any]:
        parsed, manifest = Version.parse(version), self._manifest(version)
        roles = [role for role in ("champion", "previous") if getattr(aliases, role) == version]
        roles += ["challenger"] if version in aliases.challengers else []
        return {
            "version": version,
            "name": parsed.name,
            "number": parsed.number,
            "model": f"{parsed.model_id:016x}",
            "roles": roles,
            "horizon_ns": manifest.get("horizon_ns"),
            "published_time": _time(manifest.get("published_ns")),
            "published_by": manifest.get("published_by"),
            "metrics": manifest.get("metrics", {}),
            "has_card": "card.json" in manifest.get("files", {}),
        }

    def _history(self, version: str) -> list[dict[str, Any]]:
        changes = [each for each in self._registry.history() if version in each.named()]
        return [
            {
                "generation": each.generation,
                "time": _time(each.at_ns),
                "champion": each.champion,
                "by": each.by,
                "reason": each.reason,
            }
            for each in changes
        ]

    def _file(self, which: str, name: str) -> bytes:
        version = self._resolve(which)
        path = self._default.with_name(name)
        if version is None and path.is_file():
            return path.read_bytes()
        if version is None or name not in self._manifest(version).get("files", {}):
            raise Problem(NOT_FOUND, f"{which[:80]!r} has no {name}: `tickloom models evaluate` makes one")
        return self._registry.card_file(version, name)

    def _of_settings(self) -> dict[str, Any]:
        manifest = self._default_manifest()
        return {
            "version": None,
            "name": manifest.get("name", ""),
            "number": None,
            "model": manifest.get("model_id"),
            "roles": ["default"],
            "horizon_ns": manifest.get("horizon_ns"),
            "published_time": None,
            "published_by": None,
            "metrics": manifest.get("metrics", {}),
            "has_card": self._default.with_name("card.json").is_file(),
            "manifest": dict(manifest),
            "history": [],
        }

    def _default_manifest(self) -> Mapping[str, Any]:
        path: Path = manifest_path(self._default)
        try:
            value: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return value


def _time(at_ns: int | None) -> str | None:
    return None if not at_ns else f"{np.datetime64(at_ns, 'ns')}Z"
