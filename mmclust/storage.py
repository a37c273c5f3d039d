"""Files that are computed once: rows of results, arrays of features, hashes of pictures.

A file is named by the hash of everything its content depends on. It is written completely or not
at all, and contains a checksum: a damaged file is reported and computed again.

The command `python -m mmclust.storage [--prune DAYS]` shows how much is stored and when it was last
used; with --prune it removes files that were not used for so many days, and temporary files after a
day. What was removed is computed again when it is needed.
"""

from __future__ import annotations

import argparse
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

from mmclust.scripts import print_any_text

# An array's file ends in MARK and a CRC-32 of its key and bytes, which np.load ignores. The check
# is made at every read, and CRC-32 is faster: 4.2 GB/s on one core here, sha256 1.8. It misses
# damage with probability 2**-32, but does not protect from forgery. Rows contain a sha256.
MARK = b"mmclust\x01"
CHUNK = 2**20
DAY = 86400
KEY = "[0-9a-f]" * 32
PATTERNS = {
    "rows": [f"rows/{KEY}.json"],
    "features": [f"features/{KEY}.npy"],
    "contents": [f"contents/{KEY}.json"],
}
# of writes that were killed or are still running
PATTERNS["temporary"] = [f"{group}/.????????.tmp" for group in PATTERNS]
_warned: set[Path] = set()  # cache folders that this process has reported as not writable


def cache_dir() -> Path:
    """The folder of features and results: `MMCLUST_CACHE`, else mmclust in the user's cache."""
    folder = os.environ.get("MMCLUST_CACHE") or platformdirs.user_cache_dir("mmclust")
    return Path(folder).expanduser()


def key_of(*parts: object) -> str:
    """A hash (32 hex digits) of values as JSON; what JSON cannot write counts by its `str`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def write_atomically(path: Path, *data: bytes) -> None:
    """Write a temporary file beside `path` and rename it: readers see all of it or nothing."""
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
    """Write atomically; if that fails (full disk, read-only), warn once per process and go on."""
    try:
        write_atomically(path, *data)
    except OSError as error:
        if cache_dir() not in _warned:
            _warned.add(cache_dir())
            problem = f"{cache_dir()} can't be written ({error.strerror or error})"
            effect = "results of this run are kept in memory only"
            remedy = "free space or set MMCLUST_CACHE"
            warnings.warn(f"{problem}: {effect}; {remedy}", stacklevel=3)


def warn_damaged(path: Path, error: Exception) -> None:
    """Warn that a stored file can't be used; a missing file is not damage."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        reason = str(error) or type(error).__name__
        warnings.warn(f"{path} is damaged ({reason}): computed again", stacklevel=3)


def touch_atime(path: Path) -> None:
    """Set the access time to now, as `noatime` file systems do not; keep the modification time."""
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _sha256(row: dict) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


def seal_row(row: dict) -> bytes:
    """The content of a row's file: JSON with the sha256 of the row."""
    return json.dumps(row | {"sha256": _sha256(row)}).encode()


def open_row(data: bytes, key: str) -> dict:
    """The row in a file's content; ValueError if it is damaged or belongs to another key."""
    row = json.loads(data)
    if not isinstance(row, dict):
        raise ValueError("it contains no row")
    if row.pop("sha256", "") != _sha256(row):
        raise ValueError("its checksum does not match")
    if row.get("key") != key:
        raise ValueError(f"it is the row of {row.get('key')}")
    return row


def read_row(key: str, group: str = "rows") -> dict | None:
    """The stored row of this key, or None. A damaged file is reported and counts as missing."""
    path = cache_dir() / group / f"{key}.json"
    try:
        row = open_row(path.read_bytes(), key)
    except (OSError, ValueError) as error:
        warn_damaged(path, error)
        return None
    touch_atime(path)
    return row


def write_row(key: str, row: dict, group: str = "rows") -> None:
    """Store a row, which contains its key. If it cannot be written, a warning says so."""
    save(cache_dir() / group / f"{key}.json", seal_row(row))


def append_checksum(key: str, chunks: Iterable[bytes]) -> bytes:
    """What follows an array's bytes in its file: `MARK` and the checksum of its key and bytes."""
    crc = zlib.crc32(key.encode())
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
    return MARK + crc.to_bytes(4, "little")


def check_array(path: Path) -> None:
    """Raise ValueError if an array's file is damaged, or its content belongs to another key."""
    with path.open("rb") as file:
        size = max(0, file.seek(0, os.SEEK_END) - len(MARK) - 4)
        file.seek(size)
        end = file.read()
        file.seek(0)
        chunks = (file.read(min(CHUNK, size - start)) for start in range(0, size, CHUNK))
        if end != append_checksum(path.stem, chunks):
            raise ValueError("its checksum does not match")


def load_or_compute(key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The stored array of this key, or `compute()`, which is then stored if the disk allows it."""
    path = cache_dir() / "features" / f"{key}.npy"
    try:
        check_array(path)
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


def stored_files(group: str) -> list[tuple[float, int, Path]]:
    """Last use (Unix time in seconds), bytes and path of a group's files, the oldest use first."""
    files = []
    for path in (path for pattern in PATTERNS[group] for path in cache_dir().glob(pattern)):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            stat = path.stat()
            files.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    return sorted(files)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m mmclust.storage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    prune = "remove files that were not used for so many days"
    parser.add_argument("--prune", type=float, metavar="DAYS", help=prune)
    days = parser.parse_args(arguments).prune
    print_any_text()
    print(cache_dir())
    for group in PATTERNS:
        files = stored_files(group)
        dates = [time.strftime("%Y-%m-%d", time.localtime(used)) for used, _, _ in files]
        period = f", last used from {dates[0]} to {dates[-1]}" if dates else ""
        print(f"{group:>9}: {_amount(files)}{period}")
        if days is not None:
            limit = time.time() - DAY * (1 if group == "temporary" else days)
            old = [file for file in files if file[0] < limit]
            for _, _, path in old:
                path.unlink(missing_ok=True)
            print(f"           removed {_amount(old)}")
    return 0


def _amount(files: list[tuple[float, int, Path]]) -> str:
    return f"{len(files)} files, {sum(size for _, size, _ in files) / 1e6:.3f} MB"


if __name__ == "__main__":
    raise SystemExit(main())
