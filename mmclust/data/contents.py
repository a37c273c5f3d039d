"""What files contain, as hashes that are stored until a file changes.

As in git's index, a hash is stored with the state of its file: size, times and inode. The time of
the inode's last change counts, which no program can set: zips, `rsync -t` and reproducible archives
give different files equal names, sizes and modification times.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from mmclust.storage import key_of, read_row, write_row
from mmclust.threads import cores

# Seconds. What changed less than this before it was read may change again and keep its times.
SETTLED = 2.0
CHUNK = 2**16  # bytes


class Files:
    """Files of a folder, by position in `names` (paths relative to it), as they were first read."""

    def __init__(self, folder: Path, names: Iterable[str | Path]) -> None:
        self.folder = folder
        self.names = [str(name) for name in names]
        self._hashed: dict[int, tuple[str, str]] = {}  # position -> state, hash

    def path(self, position: int) -> Path:
        return self.folder / self.names[position]

    def hashes(self, positions: Iterable[int]) -> list[str]:
        """A hash of each file's content; ValueError if one can't be read."""
        positions = list(positions)
        if new := [i for i in positions if i not in self._hashed]:
            try:
                hashed = hash_files(self.folder, [self.names[i] for i in new])
            except OSError as error:
                problem = f"picture {error.filename} can't be read ({error.strerror})"
                remedy = "make it readable, or remove it and load the folder again"
                raise ValueError(f"{problem}: {remedy}") from error
            self._hashed.update(zip(new, hashed))
        return [self._hashed[i][1] for i in positions]

    def check(self, position: int) -> None:
        """Raise ValueError if a file's content has changed: results are stored under its hash."""
        path = self.path(position)
        state, content = self._hashed.get(position, ("", ""))
        if state and _state(path) != state and _hash(path) != content:
            remedy = "load the folder again"
            raise ValueError(f"picture {path} has changed since it was first used: {remedy}")


def hash_files(folder: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """The state and a hash of the content of each file; known ones are not read again."""
    key = key_of("contents", str(folder.resolve()))
    known: dict[str, list[str]] = (read_row(key, "contents") or {}).get("files", {})
    start = time.time()
    states = {name: _state(folder / name) for name in names}
    new = [name for name in states if known.get(name, [""])[0] != states[name]]
    with ThreadPool(cores()) as pool:
        hashes = pool.imap(_hash, [folder / name for name in new], chunksize=64)
        title = f"{folder.name}: reading files"
        progress = tqdm(hashes, title, len(new), leave=False, delay=1)
        hashed = {name: [states[name], content] for name, content in zip(new, progress)}
    if settled := {n: v for n, v in hashed.items() if _last_change(v[0]) < start - SETTLED}:
        write_row(key, {"key": key, "files": known | settled}, "contents")
    known = known | hashed
    return [(states[name], known[name][1]) for name in names]


def _state(file: Path) -> str:
    status = os.stat(file)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _last_change(state: str) -> float:
    """Unix time in seconds."""
    _, modified, changed, _ = map(int, state.split())
    return max(modified, changed) / 1e9


def _hash(file: Path) -> str:
    """The sha256 of a file's size, its CRC-32, first and last chunk.

    The sha256 of all takes twice as long. Different pictures with one size and equal ends have the
    same CRC-32 with probability 2**-32.
    """
    content = file.read_bytes()
    checksum = f"{len(content)} {zlib.crc32(content)} ".encode()
    return hashlib.sha256(checksum + content[:CHUNK] + content[-CHUNK:]).hexdigest()[:32]
