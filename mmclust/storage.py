"""Files that are computed once: found by the hash of what they hold, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import platformdirs

# Arrays end in MARK and the CRC-32 of their key and bytes; np.load, mapped or not, ignores what follows the data. CRC-32 because every read pays:
# 4.2 GB/s on one core here, beside sha256 1.8, md5 0.7, blake2b 0.5. It finds every change of up to 32 bits in a row, and misses one in 2**32 of
# others; it guards against disks and killed writers, not against forgers. Rows are small: they carry a sha256.
MARK = b"mmclust\x01"
_warned: set[Path] = set()  # stores of which this process has said that they can't be written


def cache_dir() -> Path:
    """Where features and results are kept: `MMCLUST_CACHE`, by default mmclust in the user's cache folder."""
    return Path(os.environ.get("MMCLUST_CACHE") or platformdirs.user_cache_dir("mmclust"))


def key_of(*parts: object) -> str:
    """A hash of anything that JSON can write; numbers and strings of equal value give equal keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def write_atomically(path: Path, *data: bytes) -> None:
    """Write beside `path`, then rename: a reader sees the whole file or none, and a killed run leaves no half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save(path: Path, *data: bytes) -> None:
    """Write atomically. A store that can't be written (full, read-only) is told once per process, and costs no result."""
    try:
        write_atomically(path, *data)
    except OSError as error:
        if cache_dir() not in _warned:
            _warned.add(cache_dir())
            what = f"the store at {cache_dir()} can't be written ({error.strerror or error}): results of this run are kept in memory only"
            warnings.warn(f"{what}; free space or set MMCLUST_CACHE", stacklevel=3)


def warn_damaged(path: Path, error: Exception) -> None:
    """Warn that a stored file can't be used; that there is none is no damage."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        warnings.warn(
            f"{path} is damaged ({str(error) or type(error).__name__}): computed again",
            stacklevel=3,
        )


def touch_atime(path: Path) -> None:
    """Note that a file was used, in its access time: mounts with noatime note nothing by themselves. The time it was written stays."""
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _sha256(row: dict) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


def seal_row(row: dict) -> bytes:
    """A row as its file holds it, with the sha256 of its content."""
    return json.dumps(row | {"sha256": _sha256(row)}).encode()


def open_row(data: bytes, key: str) -> dict:
    """The row in a file's bytes.

    Raises:
        ValueError: it is damaged, or not of this key.
    """
    row = json.loads(data)
    if not isinstance(row, dict):
        raise ValueError("it holds no row")
    if row.pop("sha256", "") != _sha256(row):
        raise ValueError("its checksum is wrong")
    if row.get("key") != key:
        raise ValueError(f"it is the row of {row.get('key')}")
    return row


def append_checksum(key: str, parts: Iterable[bytes]) -> bytes:
    """What follows an array's bytes in its file: `MARK` and their checksum, which binds them to the key."""
    crc = zlib.crc32(key.encode())
    for part in parts:
        crc = zlib.crc32(part, crc)
    return MARK + crc.to_bytes(4, "little")


def check_array(path: Path) -> bool:
    """Whether an array's file is sealed; False for a whole one that an older version wrote.

    Raises:
        ValueError: it is damaged, or not of the key in its name. OSError: it can't be read.
    """
    with path.open("rb") as file:
        size = max(0, file.seek(0, os.SEEK_END) - len(MARK) - 4)
        file.seek(size)
        end = file.read()
        file.seek(0)
        if end == append_checksum(
            path.stem, (file.read(min(2**20, size - at)) for at in range(0, size, 2**20))
        ):
            return True
    if not end.startswith(MARK):
        with contextlib.suppress(Exception):  # numpy raises many kinds for a damaged header
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            if mapped.offset + mapped.nbytes == path.stat().st_size:
                return False
    raise ValueError("its checksum is wrong" if size else "it is cut short")


def load_or_compute(key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The stored array of this key, or `compute()`, stored. A damaged file is told and computed again; a full disk only costs the memory of it."""
    path = cache_dir() / "features" / f"{key}.npy"
    try:
        if check_array(path):
            values = np.load(path, allow_pickle=False)
            touch_atime(path)
            return values
    except (OSError, ValueError, EOFError) as error:
        warn_damaged(path, error)
    values = compute()
    buffer = io.BytesIO()
    np.save(buffer, values)
    save(path, buffer.getvalue(), append_checksum(key, [buffer.getvalue()]))
    return values
