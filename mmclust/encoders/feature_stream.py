"""Pictures through a model, batch by batch: some are decoded while others are in the model, and the rows of a large set go to disk as they come."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from open_clip.transform import MaybeToTensor
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from mmclust import storage
from mmclust.data.images import Images

STREAM_ABOVE = (
    4096  # images: the features of larger sets are kept on disk by batches, and read memory-mapped
)
MIN_FORWARD = 64  # pictures at least that are in the model at a time on a CPU: less memory than a batch, and the same bits, which fewer don't always give
SLICE = 16  # pictures that a thread decodes at a time


def batches(
    images: Images,
    size: int,
    preprocess: Callable,
    forward: Callable,
    device: torch.device,
    keep: Callable | None = None,
) -> Iterator[np.ndarray]:
    """`forward(pixels)` of each batch of `size` images, in order; the pictures of at most three batches are in memory.

    On a CPU two batches are in the model, each with half of torch's threads, while a third is decoded: no core waits for another at the end of
    every operation. Elsewhere one is in the model. Threads, not processes: Pillow and torch release Python's lock, and pictures may come from
    functions that can't be sent to a process; they are called by several threads at a time.

    Args:
        keep: gives the rows of a batch from its number and what computes them; by default computes them.

    Raises:
        The error of the first image that can't be made.
    """
    n, threads = -(-len(images) // size), torch.get_num_threads()
    slots = max(1, min(2, n, threads)) if device.type == "cpu" else 1
    picture, collate = split(preprocess)

    def decode(part: range) -> list[torch.Tensor]:
        return [picture(images[i]) for i in part]

    def through(pixels: list[torch.Tensor]) -> np.ndarray:
        pieces = max(1, len(pixels) // MIN_FORWARD) if device.type == "cpu" else 1
        return np.concatenate(
            [
                forward(collate([pixels[i] for i in piece]))
                for piece in np.array_split(np.arange(len(pixels)), pieces)
            ]
        )

    def rows(b: int) -> np.ndarray:
        which = range(b * size, min((b + 1) * size, len(images)))
        pixels = [
            x
            for part in decoders.map(
                decode, [which[i : i + SLICE] for i in range(0, len(which), SLICE)]
            )
            for x in part
        ]
        return models.submit(through, pixels).result()

    waiting: deque[Future] = deque()
    with (
        ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as decoders,
        ThreadPoolExecutor(
            slots, initializer=torch.set_num_threads, initargs=(threads // slots,)
        ) as models,
        ThreadPoolExecutor(slots + 1) as workers,
    ):
        try:
            for b in range(n):
                waiting.append(
                    workers.submit(keep or (lambda b, compute: compute()), b, partial(rows, b))
                )
                if len(waiting) > slots:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for later in waiting:
                later.cancel()
            torch.set_num_threads(
                threads
            )  # threads to come take the number that was set last, by whichever thread


def split(preprocess: Callable) -> tuple[Callable, Callable]:
    """What is done to each picture, and what makes pixels (b, 3, h, w) of b results. Where it ends as CLIP's does, pictures stay bytes until they
    are scaled together: a quarter of the memory, less work, the same numbers."""
    steps = preprocess.transforms if isinstance(preprocess, transforms.Compose) else []
    if (
        len(steps) < 2
        or not isinstance(steps[-2], (MaybeToTensor, transforms.ToTensor))
        or not isinstance(steps[-1], transforms.Normalize)
    ):
        return preprocess, torch.stack
    first = transforms.Compose(steps[:-2])

    def picture(image: Image.Image) -> torch.Tensor:
        image = first(image)
        return (
            functional.pil_to_tensor(image)
            if getattr(image, "mode", "") == "RGB"
            else steps[-2](image)
        )

    def collate(pictures: list[torch.Tensor]) -> torch.Tensor:
        pixels = torch.stack(pictures)
        return steps[-1](
            pixels.to(torch.get_default_dtype()).div_(255)
            if pixels.dtype == torch.uint8
            else pixels
        )

    return picture, collate


def stored(
    key: str, n: int, size: int, run: Callable[[Callable], Iterator[np.ndarray]]
) -> np.ndarray:
    """The n rows of this key, memory-mapped and read-only; what is not stored is computed by `run(keep)` (`batches` of `size`), each batch stored.

    A killed run goes on after its last batch; a damaged batch is computed again; processes that do the same at the same time take each other's
    batches. Where the store can't be written the rows are kept in memory.
    """
    path, parts = _path(key), [_part(key, size, b) for b in range(-(-n // size))]
    loose: dict[int, np.ndarray] = {}

    def keep(b: int, compute: Callable) -> np.ndarray:
        return loose[b] if b in loose else storage.load_or_compute(parts[b].stem, compute)

    for attempt in range(
        3
    ):  # again when another process was faster, or a batch was removed or damaged since
        if (found := _mapped(path)) is not None:
            for part in parts if attempt else ():
                with contextlib.suppress(OSError):
                    part.unlink()
            return found
        for b, rows in enumerate(run(keep)):
            if path.exists():
                break
            if not parts[b].exists():
                loose[b] = rows
        if not path.exists() and (loose or not _put_together(path, parts, n)):
            break
    return np.concatenate(list(run(keep)))


def store_batches(
    key: str, size: int, first: int, run: Callable[[Callable], Iterator[np.ndarray]]
) -> None:
    """Compute and store the batches that `run(keep)` gives, of which the first is number `first` of this key: a share of `stored`, which puts all
    of them together."""
    for _ in run(
        lambda b, compute: storage.load_or_compute(_part(key, size, first + b).stem, compute)
    ):
        if is_stored(key):
            break


def is_stored(key: str) -> bool:
    """Whether there is one file of all rows of this key."""
    return _path(key).exists()


def _path(key: str) -> Path:
    return storage.cache_dir() / "features" / f"{key}.npy"


def _part(key: str, size: int, b: int) -> Path:
    return _path(storage.key_of("batch", key, size, b))


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the array's own memory, only to be read: torch warns of arrays that can't be written, such as those mapped from the store."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(array)


def _mapped(path: Path) -> np.ndarray | None:
    try:
        storage.check_array(path)
        storage.touch_atime(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        storage.warn_damaged(path, error)
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def _missing() -> np.ndarray:
    raise KeyError


def _put_together(path: Path, parts: list[Path], n: int) -> bool:
    """Copy the batches into one file; False if it can't be written. Not through a map: on a full disk that ends the process."""

    def contents() -> Iterator[bytes]:
        for part in parts:
            rows = storage.load_or_compute(
                part.stem, _missing
            )  # a KeyError where it is not there or damaged
            if part == parts[0]:
                header = io.BytesIO()
                np.lib.format.write_array_header_1_0(
                    header,
                    np.lib.format.header_data_from_array_1_0(rows)
                    | {"shape": (n, *rows.shape[1:])},
                )
                yield header.getvalue()
            yield rows.tobytes()

    name = ""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(
                storage.append_checksum(
                    path.stem, ((file.write(data), data)[1] for data in contents())
                )
            )
        os.replace(name, path)
    except KeyError:
        Path(name).unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"{path} can't be written ({error.strerror or error}): these features are kept in memory",
            stacklevel=3,
        )
        if name:
            Path(name).unlink(missing_ok=True)
        return False
    return True
