"""Files that are computed once: found by the hash of what they hold, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import platformdirs


def cache_dir() -> Path:
    """Where features and results are kept: `MMCLUST_CACHE`, by default mmclust in the user's cache folder."""
    return Path(os.environ.get("MMCLUST_CACHE") or platformdirs.user_cache_dir("mmclust"))


def key_of(*parts) -> str:
    """A hash of anything that JSON can write; numbers and strings of equal value give equal keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: a reader sees the whole file or none, and a killed run leaves no half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def array(key: str, compute) -> np.ndarray:
    """The stored array of this key, or `compute()`, stored. A damaged file is computed again; a full disk only costs the memory of it."""
    path = cache_dir() / "features" / f"{key}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        pass
    values = compute()
    buffer = io.BytesIO()
    np.save(buffer, values)
    with contextlib.suppress(OSError):
        write_atomically(path, buffer.getvalue())
    return values
