"""Archives from the web: downloaded once by pooch, checked against a hash, unpacked safely.

An interrupted download is not resumed: it starts again from the first byte.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit
from zipfile import BadZipFile, ZipFile, is_zipfile

RETRIES = 3  # of a failed download, after 1, 2 and 3 seconds
# Against zip bombs: unpacked files may have RATIO times the archive's bytes, or FLOOR if more. That
# is enough for pictures, which are compressed already.
RATIO = 100
FLOOR = 2**24
# RuntimeError: a zip that is encrypted or compressed by an unknown method
DAMAGED = (BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)


def file_name(url: str) -> str:
    """The last part of a URL's path: the name of the file on this disk."""
    return unquote(PurePosixPath(urlsplit(url).path).name)


def source(url: str) -> str:
    """Where a file is downloaded from: its URL, or `MMCLUST_MIRROR`/<name of the file>."""
    mirror = os.environ.get("MMCLUST_MIRROR")
    return f"{mirror.rstrip('/')}/{PurePosixPath(urlsplit(url).path).name}" if mirror else url


def fetch(url: str, folder: Path, known_hash: str | None = None) -> Path:
    """The file of a URL in `folder`, downloaded if it is missing or has another hash.

    One process at a time may use a folder: `paper_datasets.obtain` holds a lock. `known_hash` is
    "md5:..." or "sha256:..."; without one the checksums in the archive find a damaged download.

    Raises:
        ConnectionError: it can't be downloaded. ValueError: the download has another hash.
        OSError: it can't be stored. ImportError: pooch is missing.
    """
    try:
        import pooch
        import requests
    except ImportError as error:
        raise ImportError('downloads need pooch: pip install "mmclust[paper]"') from error

    file = folder / file_name(url)
    if file.exists():
        if pooch.hashes.hash_matches(file, known_hash):
            return file
        warnings.warn(f"{file} does not have the hash {known_hash}: downloaded again", stacklevel=2)
    pooch.get_logger().setLevel("WARNING")  # at its default level it reports every step
    incoming = folder / ".incoming"
    shutil.rmtree(incoming, ignore_errors=True)  # of a killed run
    # A `Pooch` tries again after a failure, `pooch.retrieve` does not.
    downloads = pooch.create(incoming, base_url="", retry_if_failed=RETRIES)
    downloads.registry[file.name] = known_hash
    downloads.urls[file.name] = source(url)
    # Without this header, requests may decompress a .tar.gz that a server sends as compressed.
    downloader = pooch.HTTPDownloader(progressbar=True, headers={"Accept-Encoding": "identity"})
    try:
        os.replace(downloads.fetch(file.name, downloader=downloader), file)
    except requests.RequestException as error:
        response = error.response
        reason = error if response is None else f"{response.status_code} {response.reason}"
        remedy = f"try again later, or get {file.name} in another way and place it in {folder}"
        problem = f"{source(url)} can't be downloaded ({reason})"
        raise ConnectionError(f"{problem}: {remedy}") from error
    except ValueError as error:
        problem = f"{source(url)} does not have the hash {known_hash}"
        raise ValueError(f"{problem}: another version may be served there") from error
    except OSError as error:
        problem = f"{file} can't be stored ({error.strerror})"
        remedy = f"free space in {folder} or set MMCLUST_DATA"
        raise OSError(error.errno, f"{problem}: {remedy}") from error
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return file


def unpack(archive: Path, target: Path, inner: str | None = None, most: int | None = None) -> None:
    """Unpack a zip or tar.gz to the folder `target`, which appears only when it is complete.

    An archive with links, with paths that lead elsewhere, or with a content that is much larger
    than itself is refused. Archives of the name `inner` in it are unpacked where they are. `most`
    is a second limit of the unpacked bytes, beside that of `RATIO` and `FLOOR`.

    Raises ValueError for a damaged or refused archive, OSError without space or permission.
    """
    incomplete = target.with_name(f".{target.name}.part")
    shutil.rmtree(incomplete, ignore_errors=True)  # of a killed run
    try:
        _extract(archive, incomplete, most)
        for nested in sorted(incomplete.rglob(inner)) if inner else []:
            _extract(nested, nested.parent, most)
            nested.unlink()
        os.replace(incomplete, target)
    except DAMAGED as error:
        problem = f"{archive} is damaged or incomplete ({error})"
        raise ValueError(f"{problem}: remove it, and it is downloaded again") from error
    except OSError as error:
        problem = f"{archive} can't be unpacked to {target} ({error.strerror})"
        raise OSError(error.errno, f"{problem}: free space or set MMCLUST_DATA") from error
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def _extract(archive: Path, folder: Path, most: int | None) -> None:
    limit = max(FLOOR, RATIO * archive.stat().st_size)
    limit = limit if most is None else min(limit, most)
    folder.mkdir(parents=True, exist_ok=True)
    if is_zipfile(archive):
        with ZipFile(archive) as zipped:
            modes = ((m, m.external_attr >> 16) for m in zipped.infolist())
            files = ((m, m.filename, m.file_size, stat.S_ISLNK(mode)) for m, mode in modes)
            zipped.extractall(folder, _checked(archive, files, limit))
        return
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        members = ((m, m.name, m.size, not (m.isreg() or m.isdir())) for m in tar)
        # PEP 706; Debian 12's Python 3.11.2 has no filters yet, and `_checked` does without them
        options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, _checked(archive, members, limit), **options)
        while stream.read(2**20):  # to the end of the file: that is where its checksum is
            pass


def _checked(
    archive: Path, members: Iterable[tuple[Any, str, int, bool]], limit: int
) -> Iterator[Any]:
    """The members to extract, from (member, name, bytes, whether it is a link or device)."""
    total = 0
    for member, name, size, special in members:
        total += size
        path = PureWindowsPath(name)  # splits at slash and backslash, and knows drives
        problem = ""
        if path.anchor or ".." in path.parts:
            problem = f"holds {name!r}, a path that leads out of its folder"
        elif special:
            problem = f"holds {name!r}, a link or device"
        elif total > limit:
            packed = archive.stat().st_size
            problem = f"({packed:,} bytes) grows beyond {limit:,} bytes when unpacked"
        if problem:
            raise ValueError(f"{archive} {problem}: it is refused")
        if "__MACOSX" not in path.parts:
            yield member
