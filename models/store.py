"""Where the registry's files (and an archive's) lie: a directory, or any object store that fsspec has a driver for.

Both promise two things, and the registry rests on nothing else: `Store.create` makes a file whole or not at all,
and only one of several who try at the same time; `Store.publish` makes a folder that is whole, or does not exist.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from stream.errors import RegistryError, SettingsError

MANIFEST: Final = "model.json"  # written last: a folder without it does not exist
_LEFT_OVER_S: Final = 3600.0  # a publication that is older than this is not going on any more


class Store(Protocol):
    """Folders of a few small files, by path relative to the store, with slashes between."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; none where there is no such folder."""
        ...

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: there is none.
            RegistryError: it cannot be read.
        """
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Make a file, whole and lasting; return False where there is one already."""
        ...

    def publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Make a folder of files, of which one is the manifest: whole and lasting, or not there at all."""
        ...

    def remove(self, folder: str) -> None:
        """Remove a folder: at once for everybody who looks."""
        ...

    def remove_file(self, path: str) -> None:
        """Remove a file; that there is none is fine.

        Raises:
            RegistryError: it cannot be removed.
        """
        ...

    def sweep(self) -> int:
        """Remove what interrupted publications left long ago; return how many."""
        ...


def open_store(url: str) -> Store:
    """Return the store at a directory or a URL such as ``s3://BUCKET/PREFIX``.

    Raises:
        SettingsError: no driver for such a URL is installed.
    """
    if "://" not in url:
        return DirectoryStore(Path(url))
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SettingsError(
            f"registry {url!r}: {error}; right would be a directory, or a URL as s3://B/P"
        ) from None
    return ObjectStore(files, root)


class DirectoryStore:
    """A directory of a POSIX file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        """See `Store`. Names that start with a dot are publications that are going on, or were cut off."""
        try:
            return sorted(name for name in os.listdir(self.root / folder) if not name.startswith("."))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, path: str) -> bytes:
        """See `Store`."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RegistryError(f"cannot read {self.root / path}: {error.strerror}") from None

    def create(self, path: str, data: bytes) -> bool:
        """See `Store`."""
        target = self.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            written = target.parent / f".new-{secrets.token_hex(8)}"
            _write(written, data)
            try:
                os.link(written, target)  # fails where there is one; a rename would take its place
            except FileExistsError:
                return False
            finally:
                written.unlink()
            _sync_folder(target.parent)
        except OSError as error:
            raise RegistryError(f"cannot write {target}: {error.strerror}") from None
        return True

    def publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """See `Store`."""
        target = self.root / folder
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            written = target.parent / f".new-{secrets.token_hex(8)}"
            written.mkdir()
            try:
                for name, data in files.items():
                    _write(written / name, data)
                _sync_folder(written)
                written.rename(target)
            except OSError:
                shutil.rmtree(written, ignore_errors=True)
                raise
            _sync_folder(target.parent)
        except OSError as error:
            raise RegistryError(f"cannot write {target}: {error.strerror}") from None

    def remove(self, folder: str) -> None:
        """See `Store`."""
        target = self.root / folder
        gone = target.parent / f".gone-{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            target.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def remove_file(self, path: str) -> None:
        """See `Store`."""
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise RegistryError(f"cannot remove {self.root / path}: {error.strerror}") from None

    def sweep(self) -> int:
        """See `Store`."""
        old_s, swept = time.time() - _LEFT_OVER_S, 0
        for left in [path for start in (".new-*", ".gone-*") for path in self.root.rglob(start)]:
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < old_s:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                    swept += 1
        return swept


class ObjectStore:
    """A prefix of an object store, by fsspec: there is no rename, so that the manifest is written last."""

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")

    def names(self, folder: str) -> list[str]:
        """See `Store`."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise RegistryError(f"cannot list {self._path(folder)}: {error}") from error
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found} - {""})

    def read(self, path: str) -> bytes:
        """See `Store`."""
        try:
            return bytes(self._files.cat_file(self._path(path)))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise RegistryError(f"cannot read {self._path(path)}: {error}") from error

    def create(self, path: str, data: bytes) -> bool:
        """See `Store`. Of several at once only one wins where the driver can make it so, as that of S3 does."""
        try:
            self._files.pipe_file(self._path(path), data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            raise RegistryError(f"cannot write {self._path(path)}: {error}") from error
        return True

    def publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """See `Store`."""
        for name in sorted(files, key=lambda name: name == MANIFEST):
            if not self.create(f"{folder}/{name}", files[name]):
                raise RegistryError(f"{self._path(folder)}/{name} exists already")

    def remove(self, folder: str) -> None:
        """See `Store`: the manifest first, without which the rest does not count."""
        for name in sorted(self.names(folder), key=lambda name: name != MANIFEST):
            self._files.rm_file(self._path(f"{folder}/{name}"))

    def remove_file(self, path: str) -> None:
        """See `Store`."""
        try:
            self._files.rm_file(self._path(path))
        except FileNotFoundError:
            return
        except Exception as error:
            raise RegistryError(f"cannot remove {self._path(path)}: {error}") from error

    def sweep(self) -> int:
        """See `Store`: what an interrupted publication left has no manifest, and does no harm."""
        return 0

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
