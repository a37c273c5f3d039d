"""Image features in batches: decoding and model run at the same time, large results go to disk.

A large set (more than `STREAM_ABOVE` images) is stored batch by batch and read memory-mapped, a
smaller one is computed in memory. The store itself (paths, checksums) is `mmclust.storage`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
import torch
from open_clip.transform import MaybeToTensor, ResizeKeepRatio
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from mmclust import storage
from mmclust.data.images import Images

STREAM_ABOVE = 4096  # images: the features of larger sets are stored in batches and memory-mapped
# Images per CPU forward pass: less memory than for a whole batch, and bit-identical results, which
# smaller passes do not always give.
MIN_FORWARD = 64
SLICE = 16  # images that one thread decodes at a time
LONGEST = 20  # of a picture more than so many times as long as wide, only the middle is scaled
OVERSAMPLING = 2  # a picture is decoded with at least so many pixels for each that it is scaled to

ComputeBatch = Callable[[], np.ndarray]
StoreBatch = Callable[[int, ComputeBatch], np.ndarray]  # batch number, how to compute it -> rows
Run = Callable[[StoreBatch], Iterator[np.ndarray]]  # the rows of each batch, in order


def is_large(n_images: int) -> bool:
    """Whether the features of so many images are stored in batches and memory-mapped."""
    return n_images > STREAM_ABOVE


def compute_batch(number: int, compute: ComputeBatch) -> np.ndarray:
    """The `StoreBatch` that stores nothing."""
    return compute()


def batches(
    images: Images, size: int, preprocess: Callable, forward: Callable, device: torch.device,
    store_batch: StoreBatch = compute_batch,
) -> Iterator[np.ndarray]:  # fmt: skip
    """`forward(pixels)` of each batch of `size` images, in order.

    At most three batches of pictures are in memory. On a CPU two are in the model, each with half
    of torch's threads, while a third is decoded: so no core waits for another after every
    operation. On other devices one is in the model. Pictures are made in several threads at a time
    (Pillow and torch release Python's lock). Raises the error of the first that can't be decoded.
    """
    n_batches = -(-len(images) // size)
    threads = torch.get_num_threads()
    # batches in the model at a time
    slots = max(1, min(2, n_batches, threads)) if device.type == "cpu" else 1
    prepare, finish = split_preprocessing(preprocess)
    side = side_to_decode(preprocess)

    def decode(indices: range) -> list[torch.Tensor]:
        return [prepare(images.reduced(i, side)) for i in indices]

    def compute(number: int) -> np.ndarray:
        indices = range(len(images))[number * size : (number + 1) * size]
        slices = [indices[i : i + SLICE] for i in range(0, len(indices), SLICE)]
        pictures = list(chain.from_iterable(decoders.map(decode, slices)))
        return models.submit(_forward_batch, pictures, finish, forward, device).result()

    waiting: deque[Future] = deque()
    with (
        _pool(threads, torch_threads=1) as decoders,
        _pool(slots, torch_threads=threads // slots) as models,
        ThreadPoolExecutor(slots + 1) as workers,
    ):
        try:
            for number in range(n_batches):
                waiting.append(workers.submit(store_batch, number, partial(compute, number)))
                if len(waiting) > slots:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads)  # new threads start with the number set last, anywhere


def _pool(workers: int, torch_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(torch_threads,))


def _forward_batch(
    pictures: list[torch.Tensor], finish: Callable, forward: Callable, device: torch.device
) -> np.ndarray:
    """The rows of one batch; on a CPU in several passes of at least `MIN_FORWARD` images."""
    passes = max(1, len(pictures) // MIN_FORWARD) if device.type == "cpu" else 1
    parts = np.array_split(np.arange(len(pictures)), passes)
    stacks = (torch.stack([pictures[i] for i in part]).to(device) for part in parts)
    return np.concatenate([forward(finish(pixels)) for pixels in stacks])


def side_to_decode(preprocess: Callable) -> int | None:
    """The pixels that a picture's shorter side needs if it is scaled first; otherwise None."""
    size = getattr(preprocess, "scales_to", None)
    if isinstance(preprocess, transforms.Compose):
        first = preprocess.transforms[0]
        size = first.size if isinstance(first, (transforms.Resize, ResizeKeepRatio)) else None
    if not size:
        return None
    return OVERSAMPLING * max(size if isinstance(size, Sequence) else [size])


def split_preprocessing(preprocess: Callable) -> tuple[Callable, Callable]:
    """`preprocess` as two functions: for each picture, and for b results (b, 3, h, w) on a device.

    If it ends as CLIP's does, pictures stay uint8 until a batch is scaled together, on the device
    of the model: a quarter of the memory, less work, the same numbers.
    """
    steps = preprocess.transforms if isinstance(preprocess, transforms.Compose) else []
    if (
        len(steps) < 2
        or not isinstance(steps[-2], (MaybeToTensor, transforms.ToTensor))
        or not isinstance(steps[-1], transforms.Normalize)
    ):
        return preprocess, torch.Tensor.contiguous
    resize = transforms.Compose(steps[:-2])
    crops = isinstance(steps[0], transforms.Resize) and isinstance(steps[1], transforms.CenterCrop)
    to_tensor, normalize = steps[-2:]

    def prepare(picture: Image.Image) -> torch.Tensor:
        picture = resize(_middle(picture) if crops else picture)
        is_rgb = getattr(picture, "mode", "") == "RGB"
        return functional.pil_to_tensor(picture) if is_rgb else to_tensor(picture)

    def finish(pixels: torch.Tensor) -> torch.Tensor:
        if pixels.dtype == torch.uint8:
            pixels = pixels.to(torch.get_default_dtype()).div_(255)
        return normalize(pixels)

    return prepare, finish


def _middle(picture: Image.Image) -> Image.Image:
    """The middle of a very long picture, to be scaled and cropped to its middle: complete, one of
    1 by 30,000 pixels would be scaled to 160 by 4,800,000."""
    longest = LONGEST * min(picture.size)
    if max(picture.size) <= longest:
        return picture
    left, top = (max(0, side - longest) // 2 for side in picture.size)
    return picture.crop((left, top, picture.width - left, picture.height - top))


def load_or_encode(key: str, n_images: int, size: int, run: Run) -> np.ndarray:
    """The features (n_images, h) of this key, computed by `run(store_batch)` and stored.

    Those of a large set are memory-mapped and read-only. A killed run continues after its last
    batch; a damaged batch is computed again; processes that compute the same features at the same
    time use each other's batches. If the store cannot be written, the features stay in memory.
    """
    if not is_large(n_images):
        return storage.load_or_compute(key, lambda: np.concatenate(list(run(compute_batch))))
    path = _path(key)
    features = _map(path)
    if features is not None:
        return features
    batch_keys = [_batch_key(key, size, number) for number in range(-(-n_images // size))]
    unsaved: dict[int, np.ndarray] = {}  # batches that could not be written

    def store_batch(number: int, compute: ComputeBatch) -> np.ndarray:
        if number in unsaved:
            return unsaved[number]
        return storage.load_or_compute(batch_keys[number], compute)

    def stored_batches() -> Iterator[np.ndarray]:  # until another process has stored all of them
        return takewhile(lambda rows: not path.exists(), run(store_batch))

    for number, rows in enumerate(stored_batches()):
        if not _path(batch_keys[number]).exists():
            unsaved[number] = rows
    if not unsaved and not path.exists():
        _join(path, n_images, stored_batches())
    features = _map(path)
    if features is None:
        return np.concatenate(list(run(store_batch)))
    _remove(*map(_path, batch_keys))
    return features


def store_batches(key: str, size: int, first: int, run: Run) -> None:
    """Compute and store the batches of `run`, numbered from `first`, for `load_or_encode`."""

    def store_batch(number: int, compute: ComputeBatch) -> np.ndarray:
        return storage.load_or_compute(_batch_key(key, size, first + number), compute)

    for _ in run(store_batch):
        if is_stored(key):
            break


def is_stored(key: str) -> bool:
    """Whether all features of this key are stored in one file."""
    return _path(key).exists()


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares an array's memory, read-only or not, and must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(array)


def _path(key: str) -> Path:
    return storage.cache_dir() / "features" / f"{key}.npy"


def _batch_key(key: str, size: int, number: int) -> str:
    return storage.key_of("batch", key, size, number)


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _map(path: Path) -> np.ndarray | None:
    """The features in a file, memory-mapped; None if it is missing, or damaged and now removed."""
    try:
        storage.check_array(path)
        storage.touch_atime(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:  # nothing to remove: by now another process may have written it
        pass
    except (OSError, ValueError) as error:
        storage.warn_damaged(path, error)
        _remove(path)
    return None


def _join(path: Path, n_images: int, batches: Iterator[np.ndarray]) -> None:
    """Write all batches into one file, or warn that this is not possible.

    Not through a memory map of the new file: on a full disk this would kill the process.
    """
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(storage.append_checksum(path.stem, _write(file, n_images, batches)))
        if not path.exists():
            temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        warnings.warn(f"{path} cannot be written ({reason}): features stay in memory", stacklevel=3)
    finally:
        _remove(temporary)


def _write(file: BinaryIO, n_images: int, batches: Iterator[np.ndarray]) -> Iterator[bytes]:
    """Write the rows of all batches as one .npy file; yields what is written."""
    for number, rows in enumerate(batches):
        data = rows.tobytes()
        if number == 0:
            header = np.lib.format.header_data_from_array_1_0(rows)
            header["shape"] = (n_images, *rows.shape[1:])
            buffer = io.BytesIO()
            np.lib.format.write_array_header_1_0(buffer, header)
            data = buffer.getvalue() + data
        file.write(data)
        yield data
