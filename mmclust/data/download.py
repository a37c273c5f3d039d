"""Archives from the web: downloaded once, resumed, checked, and unpacked without trusting what is in them."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import stat
import tarfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from mmclust import storage

INCOMING = ".incoming"  # below the data folder: what has come of a download so far
TRIES, WAIT = (
    4,
    0.5,
)  # so often in a row without a single new byte; seconds before the second of them, doubled before each further one
CHUNK = 2**16  # what a broken line costs at most, and far more than a system call
# An archive may grow to RATIO times its size or FLOOR bytes, whichever is more, up to MOST: pictures are compressed already, and the largest of
# the papers' sets, CIFAR-10, has 0.2 GB.
MOST, RATIO, FLOOR, MEMBERS = 50 * 10**9, 100, 2**24, 2 * 10**6


def file_name(url: str) -> str:
    """The last part of a URL's path: what the file is called here."""
    return unquote(PurePosixPath(urlsplit(url).path).name)


def source(url: str) -> str:
    """Where a file is really asked for: below `MMCLUST_MIRROR`, under its own name, if that is set."""
    mirror = os.environ.get("MMCLUST_MIRROR")
    return f"{mirror.rstrip('/')}/{PurePosixPath(urlsplit(url).path).name}" if mirror else url


def fetch(url: str, folder: Path, known_hash: str | None = None) -> Path:
    """The file of a URL in `folder`: as it lies there if it is the right one, else downloaded.

    A download that breaks is tried again, at once and in later runs, from where it broke if the server can. Without a known hash the file is
    checked against what `record` noted.

    Args:
        known_hash: "md5:..." or "sha256:...".

    Raises:
        ConnectionError: it can't be downloaded. ValueError: what came has another hash. OSError: it can't be stored.
        ImportError: without pooch.
    """
    try:
        import pooch
        import requests
    except ImportError as error:
        raise ImportError('downloads need pooch: pip install "mmclust[paper]"') from error

    pooch.get_logger().setLevel("WARNING")  # it prints each step, and asks for hashes to be copied
    file, incoming = folder / file_name(url), folder / INCOMING
    noted = _noted(file)
    known_hash = known_hash or noted
    if file.exists():
        if pooch.hashes.hash_matches(file, known_hash):
            return file
        warnings.warn(
            f"{file} is not the file with the hash {known_hash}: downloaded again", stacklevel=2
        )
    try:
        incoming.mkdir(parents=True, exist_ok=True)
        for stale in incoming.glob("tmp*"):  # pooch's, of a killed run
            stale.unlink()
        came = pooch.retrieve(
            source(url),
            known_hash,
            file.name,
            incoming,
            downloader=Resuming(incoming / f"{file.name}.part"),
        )
        os.replace(came, file)
    except requests.RequestException as error:
        ways = f"try again later (what has come is kept), or get {file.name} in another way and place it in {folder}"
        raise ConnectionError(
            f"{source(url)} can't be downloaded ({_reason(error)}): {ways}"
        ) from error
    except ValueError as error:
        ways = (
            f"if it was renewed there, and you trust it, remove {_record(file)}"
            if known_hash == noted
            else "another version may be served there"
        )
        raise ValueError(
            f"{source(url)} has not the hash {known_hash}, and was not kept: try again; {ways}"
        ) from error
    except OSError as error:
        raise OSError(
            error.errno,
            f"{file} can't be stored ({error.strerror}): free space in {folder} or set MMCLUST_DATA; what has come is kept",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            incoming.rmdir()
    return file


def record(file: Path, url: str) -> None:
    """Note beside a file where it came from and its sha256, against which `fetch` checks it from now on; what was noted before stays."""
    if not _record(file).exists():
        import pooch

        noted = {
            "url": source(url),
            "sha256": pooch.file_hash(file),
            "bytes": file.stat().st_size,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        storage.write_atomically(_record(file), json.dumps(noted, indent=1).encode())


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _noted(file: Path) -> str | None:
    try:
        return f"sha256:{json.loads(_record(file).read_bytes())['sha256']}"
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{_record(file)} is damaged: remove it, and {file.name} is taken as it is"
        ) from error


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    return (
        f"{response.status_code} {response.reason}"
        if response is not None
        else str(error) or type(error).__name__
    )


class Resuming:
    """A downloader for pooch that writes to `part`, goes on where an earlier run broke off, and tries again while the line is bad.

    It resumes only what the server vouches to be the same file (ETag or Last-Modified), so that no two versions are ever mixed.
    """

    def __init__(self, part: Path):
        self.part, self.tag = part, part.with_name(f"{part.name}.tag")

    @property
    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def __call__(self, url: str, output_file: str | os.PathLike[str], pooch: object) -> None:
        import requests

        failed = 0
        while True:
            before = self.size
            try:
                self._get(url)
                break
            except requests.RequestException as error:
                status = error.response.status_code if error.response is not None else 500
                failed = 1 if self.size > before else failed + 1
                if failed == TRIES or (status < 500 and status not in (408, 429)):
                    raise
                time.sleep(WAIT * 2 ** (failed - 1))
        os.replace(self.part, output_file)
        self.tag.unlink(missing_ok=True)

    def _get(self, url: str) -> None:
        import requests

        at = self.size if self.tag.exists() else 0
        headers = {"Accept-Encoding": "identity"} | (
            {"Range": f"bytes={at}-", "If-Range": self.tag.read_text()} if at else {}
        )
        with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
            span = answer.headers.get("Content-Range", "")
            if at and answer.status_code == 416 and span == f"bytes */{at}":
                return  # killed after its last byte
            if answer.status_code == 416 or (
                answer.status_code == 206 and not span.startswith(f"bytes {at}-")
            ):
                self.part.unlink()
                raise requests.ConnectionError(f"the server can't go on at byte {at}")
            answer.raise_for_status()
            resumed = answer.status_code == 206
            told = span.rpartition("/")[2] if resumed else answer.headers.get("Content-Length", "")
            total = int(told) if told.isdecimal() else None
            tag = answer.headers.get("ETag", "W/")
            tag = answer.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
            if not resumed:
                self.part.write_bytes(b"")
                self.tag.write_text(tag) if tag else self.tag.unlink(missing_ok=True)
            with (
                self.part.open("ab") as file,
                tqdm(
                    total=total,
                    initial=at * resumed,
                    unit="B",
                    unit_scale=True,
                    desc=self.part.stem,
                ) as bar,
            ):
                for chunk in answer.iter_content(CHUNK):
                    bar.update(file.write(chunk))
        if total is not None and self.size != total:
            raise requests.ConnectionError(f"{self.size} of {total} bytes came")


def unpack(archive: Path, target: Path, inner: str | None = None, most: int | None = None) -> None:
    """Unpack a zip or tar.gz to the folder `target`, which appears when it is whole: a killed run leaves a hidden folder that the next one removes.

    Files and folders only, below `target`; links, other paths and what grows like a bomb (`MOST`, `RATIO`, `MEMBERS`) are refused.

    Args:
        inner: name of archives within it, which are unpacked where they stand.
        most: bytes that it may grow to, where that is less than else.

    Raises:
        ValueError: the archive is damaged or not to be trusted. OSError: there is no space. Either way nothing of it is left.
    """
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _extract(archive, part, most)
        for nested in sorted(part.rglob(inner)) if inner else []:
            _extract(nested, nested.parent)
            nested.unlink()
        os.replace(part, target)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        RuntimeError,
    ) as error:  # RuntimeError: encrypted, unknown method
        raise ValueError(
            f"{archive} is no whole archive ({error}): remove it, and it is downloaded again"
        ) from error
    except OSError as error:
        raise OSError(
            error.errno,
            f"{archive} can't be unpacked to {target} ({error.strerror}): free space or set MMCLUST_DATA",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _extract(archive: Path, folder: Path, most: int | None = None) -> None:
    left = limit = min(most or MOST, MOST, max(FLOOR, RATIO * archive.stat().st_size))
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, kind, opened) in enumerate(_members(archive, limit)):
        if i >= MEMBERS:
            raise ValueError(f"{archive} holds more than {MEMBERS:,} files: it is refused")
        if kind == "other":
            raise ValueError(
                f"{archive} holds {name!r}, a link or device: it is refused, and better removed"
            )
        path = folder.joinpath(*_parts(archive, name))
        if "__MACOSX" in path.parts:
            continue
        if kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            continue
        if path.exists():
            raise ValueError(f"{archive} holds {name!r} twice: it is refused")
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened() as file, path.open("xb") as out:
            while chunk := file.read(2**20):
                left -= len(chunk)
                if left < 0:
                    raise _bomb(archive, limit)
                out.write(chunk)


def _bomb(archive: Path, limit: int) -> ValueError:
    return ValueError(
        f"{archive} ({archive.stat().st_size:,} bytes) grows beyond {limit:,} bytes when unpacked: it is refused as a bomb"
    )


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """The parts of a member's path; also those that only Windows would read out of it."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or parts[:1] == ("/",) or parts[:1] == ("//",) or PureWindowsPath(name).drive:
        raise ValueError(
            f"{archive} holds {name!r}, a path that leads out of its folder: it is refused, and better removed"
        )
    return parts


def _members(archive: Path, limit: int) -> Iterator[tuple[str, str, Callable]]:
    """Name, kind ("file", "folder" or "other") and a function that opens it, of each member in turn."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                special = stat.S_IFMT(info.external_attr >> 16) not in (
                    0,
                    stat.S_IFREG,
                    stat.S_IFDIR,
                )
                yield (
                    info.filename,
                    "other" if special else "folder" if info.is_dir() else "file",
                    lambda info=info: zipped.open(info),
                )
        return
    with gzip.open(archive) as plain:
        bounded: Any = _Bounded(plain, archive, limit)
        with tarfile.open(fileobj=bounded, mode="r|") as tar:
            for member in tar:
                yield (
                    member.name,
                    "file" if member.isreg() else "folder" if member.isdir() else "other",
                    lambda member=member: tar.extractfile(member),
                )
        while bounded.read(CHUNK):  # to the end, where gzip's checksum is
            pass


class _Bounded:
    """A stream that gives `limit` bytes and no more: tar's own headers may be bombs, too."""

    def __init__(self, file: gzip.GzipFile, archive: Path, limit: int) -> None:
        self.file, self.archive, self.limit, self.left = (
            file,
            archive,
            limit,
            limit + FLOOR,
        )  # FLOOR: headers and padding

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise _bomb(self.archive, self.limit)
        return data
