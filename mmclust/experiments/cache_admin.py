"""The stored rows and features: `python -m mmclust.experiments.cache_admin [--verify] [--prune AGE] [--prune-stale] [--max-size SIZE] [--dry-run]`.

Shows the store that `MMCLUST_CACHE` names: how much of it there is, and when it was last used (the later of a file's access and modification
time; reading a row or features sets the former). Whatever is removed is computed again when it is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from mmclust import storage

NAMES = {"rows": r"[0-9a-f]{32}\.json", "features": r"[0-9a-f]{32}\.npy", "temporary": r"\..*\.tmp"}
DAY = 86400
AGES = {"m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
SIZES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
OTHER_CODE = "of other code"


@dataclass(frozen=True)
class Entry:
    """A file of the store; `kind` is one of `NAMES`, `used` the time of its last use."""

    path: Path
    kind: str
    size: int
    used: float


def age(text: str) -> float:
    """Seconds of "90m", "12h", "30d" or "4w"."""
    if not (match := re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip().lower())):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no age: a number and m, h, d or w, such as 30d"
        )
    return float(match[1]) * AGES[match[2]]


def size(text: str) -> float:
    """Bytes of "5GB", "300 MB", "2k" or "1000"."""
    if not (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: a number and B, kB, MB, GB or TB, such as 5GB"
        )
    return float(match[1]) * SIZES[match[2]]


def entries(folder: Path) -> list[Entry]:
    """The files of a store, the least recently used first; one that vanishes meanwhile is left out.

    Raises:
        ValueError: the folder is not a store, or not of mmclust alone.
    """
    rooms = [room for room in (folder / "rows", folder / "features") if room.is_dir()]
    if (
        not rooms
        and folder.exists()
        and {path.name for path in folder.iterdir()} - {"datasets", "words"}
    ):
        raise ValueError(f"{folder} holds neither rows nor features: this is no store of mmclust")
    found = []
    for room in rooms:
        if room.is_symlink():
            raise ValueError(
                f"{room} is a link, and nothing is removed elsewhere: set MMCLUST_CACHE to where it leads"
            )
        for path in room.iterdir():
            if not re.match(r"\.|[0-9a-f]{32}", path.name):
                raise ValueError(
                    f"{path} was not written by mmclust: {folder} is no store of its own"
                )
            kind = next(
                (kind for kind in (room.name, "temporary") if re.fullmatch(NAMES[kind], path.name)),
                None,
            )
            with contextlib.suppress(FileNotFoundError):
                stat = path.lstat()
                if kind and S_ISREG(stat.st_mode):
                    found.append(Entry(path, kind, stat.st_size, max(stat.st_atime, stat.st_mtime)))
    return sorted(found, key=lambda entry: entry.used)


def fault(entry: Entry, arrays: bool) -> str:
    """Why a file is of no use any more, empty if it is of use: damaged, or a row `OTHER_CODE` computed. Features are checked with `arrays` alone."""
    try:
        stat, row = entry.path.stat(), {}
        if entry.kind == "rows":
            row = storage.open_row(entry.path.read_bytes(), entry.path.stem) or {}
        elif entry.kind == "features" and arrays:
            storage.check_array(entry.path)
        with contextlib.suppress(OSError):
            os.utime(entry.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a look is no use
        return ""
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"damaged: {error}"


def condemned(
    files: list[Entry],
    faults: dict[Entry, str],
    older: float | None,
    other_code: bool,
    limit: float | None,
) -> dict[Entry, str]:
    """The files to remove, each with the reason."""
    out = {entry: what for entry, what in faults.items() if other_code or what != OTHER_CODE}
    for entry in files:
        unused = time.time() - entry.used
        if unused > DAY if entry.kind == "temporary" else older is not None and unused > older:
            out.setdefault(entry, f"not used for {unused / DAY:.1f} days")
    kept = [entry for entry in files if entry not in out and entry.kind != "temporary"]
    too_much = total(kept) - limit if limit is not None else 0
    for entry in kept:
        if too_much > 0:
            out[entry], too_much = "least recently used", too_much - entry.size
    return out


def total(files: Iterable[Entry]) -> int:
    return sum(entry.size for entry in files)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mmclust.experiments.cache_admin",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check features too; what is damaged is listed, and removed by any of the next three",
    )
    parser.add_argument(
        "--prune",
        type=age,
        metavar="AGE",
        help="remove what was not used for so long, such as 12h or 30d",
    )
    parser.add_argument(
        "--prune-stale",
        action="store_true",
        help="remove rows that other code than the present computed",
    )
    parser.add_argument(
        "--max-size",
        type=size,
        metavar="SIZE",
        help="remove the least recently used beyond this size, such as 5GB",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="list what would be removed, remove nothing"
    )
    args = parser.parse_args(arguments)
    try:
        files = entries(storage.cache_dir())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    faults = {entry: what for entry in files if (what := fault(entry, args.verify))}
    print(storage.cache_dir())
    for kind in NAMES:
        own = [entry for entry in files if entry.kind == kind]
        used = [time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)) for entry in own]
        print(
            f"{kind:>9}: {len(own)} files, {total(own) / 1e6:.3f} MB"
            + (f", last used from {used[0]} to {used[-1]}" if own else "")
        )
    print(f"{list(faults.values()).count(OTHER_CODE)} rows are of other code than the present")
    damaged = {entry for entry, what in faults.items() if what != OTHER_CODE}
    print(
        *(f"{entry.path} is {faults[entry]}" for entry in sorted(damaged, key=str)),
        sep="\n",
        end="\n" if damaged else "",
    )
    if not (args.prune_stale or args.prune is not None or args.max_size is not None):
        return int(bool(damaged))
    remove = condemned(files, faults, args.prune, args.prune_stale, args.max_size)
    for entry, reason in remove.items():
        if args.dry_run:
            print(f"would remove {entry.path} ({reason})")
            continue
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            parser.exit(1, f"{entry.path} can't be removed: {error.strerror}\n")
    print(
        f"{'would remove' if args.dry_run else 'removed'} {len(remove)} files, {total(remove) / 1e6:.3f} MB"
    )
    return int(bool(damaged) and args.dry_run)


if __name__ == "__main__":
    sys.exit(main())
