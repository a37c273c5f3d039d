"""Data sets: rendered worlds and folders of pictures."""

from mmclust.worlds import WORLDS


def load_dataset(name: str, **options):
    """A data set by name: the worlds demo-fruit, demo-card, demo-face and tuning-... (`n`, `seed`, `size`), or a folder's path (`domain`).

    Raises:
        ValueError: for a name that is neither.
    """
    from pathlib import Path

    from mmclust.datasets.demo import load_demo
    from mmclust.datasets.folder import load_folder

    if name in WORLDS:
        return load_demo(name, **options)
    if Path(name).expanduser().is_dir():
        return load_folder(name, **{k: v for k, v in options.items() if k in ("domain", "on_corrupt")})
    raise ValueError(f"data set {name!r} is neither a folder nor one of: {', '.join(WORLDS)}")


def load_folder(path, **options):
    """Any directory of pictures, with `labels.csv` or class folders if there are any. See `mmclust.datasets.folder.load_folder`."""
    from mmclust.datasets.folder import load_folder as load

    return load(path, **options)
