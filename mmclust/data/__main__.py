"""The papers' data sets on this disk: `python -m mmclust.data [NAME ...] [--data-dir DIR]`.

For each data set: whether it is there and has the numbers of pictures and classes of the papers'
table; if it is not there, where `mm.load_dataset` would download it from, or which files must be
placed where. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys

from mmclust.data.paper_datasets import PAPER_DATASETS, data_folder, status
from mmclust.scripts import print_any_text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m mmclust.data", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = ", ".join(PAPER_DATASETS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{known}; all by default")
    where = "the folder of the data sets (default: MMCLUST_DATA, else `datasets` in the cache)"
    parser.add_argument("--data-dir", metavar="DIR", help=where)
    args = parser.parse_args(arguments)
    print_any_text()
    if unknown := [name for name in args.names if name not in PAPER_DATASETS]:
        parser.error(f"unknown data set {unknown[0]!r}: choose from {known}")
    root = data_folder(args.data_dir)
    print(root)
    all_usable = True
    for name in args.names or PAPER_DATASETS:
        usable, description = status(name, root)
        all_usable &= usable
        print(f"{name:>9}: {description}")
    return int(bool(args.names) and not all_usable)


if __name__ == "__main__":
    sys.exit(main())
