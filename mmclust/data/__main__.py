"""The papers' data sets on this disk: `python -m mmclust.data [NAME ...] [--data-dir DIR]`. Nothing is downloaded.

Says of each whether it is there and has the numbers of the papers' table, or where `mm.load_dataset` would download it from, or what must be
placed where.
"""

from __future__ import annotations

import argparse
import sys

from mmclust.data.paper_datasets import PAPER_DATASETS, data_folder, status


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mmclust.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(PAPER_DATASETS)}; all of them by default",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where they lie; by default MMCLUST_DATA, else datasets in the cache folder",
    )
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.names if name not in PAPER_DATASETS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(PAPER_DATASETS)}")
    root = data_folder(args.data_dir)
    print(root)
    found = {name: status(name, root) for name in args.names or PAPER_DATASETS}
    for name, (_, said) in found.items():
        print(f"{name:>9}: {said}")
    return int(bool(args.names) and not all(usable for usable, _ in found.values()))


if __name__ == "__main__":
    sys.exit(main())
