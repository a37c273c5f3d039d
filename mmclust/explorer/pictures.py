"""Pictures of the explorer: reading a folder or an upload, with limits; thumbnails.

Limits keep a mistake ("/" as the folder) or a hostile zip from filling the memory or the disk.
"""

from __future__ import annotations

import base64
import io
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmclust import storage
from mmclust.code_fingerprint import code_fingerprint
from mmclust.data.decoding import is_picture
from mmclust.data.download import unpack
from mmclust.data.folder import load_folder
from mmclust.data.folder_tree import visit
from mmclust.data.images import ImageDataset, Images

MB = 10**6
MAX_UPLOAD = 64 * MB  # bytes
MAX_UNPACKED = 256 * MB  # bytes of the files in an uploaded zip
MAX_FILES = 50_000  # files below a folder that are looked at, pictures or not
SIDE = 128  # pixels of a thumbnail


def thumbnails(images: Images) -> list[str]:
    """A square JPEG of each picture, as a data URI. The pixels are stored on disk."""

    def pixels() -> np.ndarray:
        pictures = (images.reduced(i, SIDE) for i in range(len(images)))
        squares = [ImageOps.pad(picture, (SIDE, SIDE), color="white") for picture in pictures]
        return np.stack([np.asarray(square) for square in squares])

    code = code_fingerprint([Images], alone=[thumbnails])
    key = storage.key_of("thumbnails", images.fingerprint, code)
    uris = []
    for square in storage.load_or_compute(key, pixels):
        file = io.BytesIO()
        Image.fromarray(square).save(file, "JPEG", quality=75)
        uris.append(f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}")
    return uris


def read_folder(path: Path, domain: str, max_pictures: int) -> ImageDataset:
    """The pictures below a folder. Raises ValueError for too many files, and what
    `mmclust.load_folder` raises."""
    n_pictures = 0
    advice = "give a folder below it, or a copy of some"
    below = (file for _, files in visit(path, []) for file in files)
    for n_files, file in enumerate(below, 1):
        n_pictures += is_picture(path / file)
        if n_pictures > max_pictures:
            raise ValueError(f"{path} holds more than {max_pictures:,} pictures: {advice}")
        if n_files > MAX_FILES:
            raise ValueError(f"{path} holds more than {MAX_FILES:,} files: {advice}")
    with warnings.catch_warnings():
        # A small file may unpack to gigabytes of pixels: it is left out like a damaged one.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        domain = domain.strip() or "photo"
        return load_folder(path, domain=domain, on_corrupt="skip", verbose=False)


def read_upload(
    files: Sequence[tuple[str, bytes]], domain: str, max_pictures: int
) -> tuple[ImageDataset, tempfile.TemporaryDirectory]:
    """The pictures among uploaded files, (name, content) of pictures or of one zip; and the
    directory that they are in. Raises ValueError if the upload is refused; nothing of it stays on
    disk."""
    names = _check_names(files)
    # Windows cannot remove a file that is still open.
    directory = tempfile.TemporaryDirectory(prefix="mmclust-upload-", ignore_cleanup_errors=True)
    folder = Path(directory.name) / "upload"
    try:
        if names[0].lower().endswith(".zip"):
            _unzip(files[0][1], folder.with_name(names[0]), folder)
        else:
            folder.mkdir()
            for name, (_, content) in zip(names, files):
                (folder / name).write_bytes(content)
        data = read_folder(folder, domain, max_pictures)
    except (ValueError, OSError) as error:
        directory.cleanup()
        message = str(error).replace(str(folder), "the upload").replace(f"{directory.name}/", "")
        raise ValueError(message) from error
    data.notes = tuple(note.replace(str(folder), "the upload") for note in data.notes)
    return data, directory


def _check_names(files: Sequence[tuple[str, bytes]]) -> list[str]:
    """The names of uploaded files without their folders."""
    if not files:
        raise ValueError("no upload yet: choose pictures, or one zip of pictures")
    size = sum(len(content) for _, content in files)
    if size > MAX_UPLOAD:
        sizes = f"an upload of {size / MB:.0f} MB, the limit is {MAX_UPLOAD // MB} MB"
        raise ValueError(f"{sizes}: give a folder's path instead")
    names = [Path(name.replace("\\", "/")).name for name, _ in files]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"duplicate file {duplicates[0]}: upload a zip with folders instead")
    zips = [name for name in names if name.lower().endswith(".zip")]
    if zips and len(files) > 1:
        raise ValueError(f"{zips[0]} comes with other files: upload one zip, or pictures")
    return names


def _unzip(content: bytes, archive: Path, folder: Path) -> None:
    archive.write_bytes(content)
    if not zipfile.is_zipfile(archive):
        raise ValueError(f"{archive.name} is not a zip, or damaged: make it again")
    try:
        unpack(archive, folder, most=MAX_UNPACKED)
    except ValueError as error:  # only the cause: the advice of `unpack` is about downloads
        raise ValueError(f"{archive.name} can't be unpacked: {error.__cause__ or error}") from error
