"""Picture files as a person sees them: which files are pictures, and their pixels in RGB.

What a file says about its pixels is applied: orientation, depth, color profile, transparency. Of
animations and files of several pages the first picture is used. Not read: pictures that need a
program of their own to be seen, such as raw camera files, SVG or PSD.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

# with these suffixes a file is a picture, damaged or not; others are looked at
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".avif"),
}
HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
HEIF_REMEDY = 'pip install "mmclust[photos]"'
# raw files are TIFF, in which Pillow sees a small preview or the sensor's mosaic
RAW_SUFFIXES = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"}
# formats with a signature that no other kind of file has
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF")
# what macOS, Windows and network drives leave in folders, besides names that start with a dot
SYSTEM_NAMES = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"),
    *("system volume information", "lost+found", "@eadir", "#recycle", "@__thumb", "@recycle"),
}
# of Pillow, for too many pixels; the warning is raised where a caller made it an error
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error),
    *(OverflowError, RuntimeError, *BOMBS),
)
EQUAL_COLORS = 2  # of 255: a profile that changes no color by more is not applied

# A panorama of 100 megapixels is no attack; Pillow refuses what is more than twice its limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def is_hidden(path: Path) -> bool:
    """Whether a path, relative to the folder that is loaded, is or lies in what systems leave."""
    return any(part.startswith(".") or part.lower() in SYSTEM_NAMES for part in path.parts)


def is_picture(file: Path) -> bool:
    """Whether a file is a picture of a format that is read: by its suffix, else its content."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES or suffix in RAW_SUFFIXES:
        return suffix in SUFFIXES
    if suffix in HEIF_SUFFIXES:
        return reads_heif()
    try:
        with Image.open(file, formats=_formats()):
            return True
    except UNREADABLE:
        return False


def describe_others(files: Iterable[Path], most: int = 5) -> str:
    """What is said of files that are no pictures: their number, first names, and a remedy."""
    names = [f.name for f in files]
    if not names:
        return ""
    listed = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    text = f"{len(names)} files that are not read as pictures: {listed}"
    heif = sum(Path(name).suffix.lower() in HEIF_SUFFIXES for name in names)
    return f"{text} (for {heif} HEIC files: {HEIF_REMEDY})" if heif else text


def decode(file: Path, background: str = "white", side: int = 0) -> Image.Image:
    """The picture in a file, in RGB, as `as_seen` gives it.

    With `side`, a JPEG is decoded at 1/8, 1/4 or 1/2 of its size if both sides have at least so
    many pixels then: 12 megapixels in a tenth of the time. Pillow reads other formats completely.

    Raises:
        ValueError: it can't be decoded; names the file, the cause and the way out.
    """
    reads_heif()
    try:
        with Image.open(file) as picture:
            if side:
                picture.draft(None, (side, side))
            return as_seen(picture, background)
    except UNREADABLE as error:
        cause: object = error
        remedy = "repair or remove it, or load the folder with on_corrupt='skip'"
        if isinstance(error, BOMBS):
            cause = "it has too many pixels"
            remedy = f"save it with at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,}"
        elif not reads_heif() and _is_heif(file):
            cause = "HEIC"
            remedy = HEIF_REMEDY
        raise ValueError(f"picture {file} can't be decoded ({cause}): {remedy}") from error


def as_seen(picture: Image.Image, background: str = "white") -> Image.Image:
    """A picture of any mode in RGB, upright, and transparent parts shown on a background.

    Values of 16 bits are scaled by their type, floats from 0 to 1; other floats and integers
    of 32 bits have no agreed white, and are scaled from their smallest to their largest value.
    """
    picture.load()
    if picture.mode[0] in "IF":
        picture = _in_8_bits(picture)
    try:
        picture = ImageOps.exif_transpose(picture)
    except UNREADABLE:
        pass  # damaged EXIF, which viewers ignore
    if transparent(picture):
        picture = _without_premultiplying(picture).convert("RGBA")
    elif picture.mode not in ("L", "CMYK", "LAB"):
        picture = picture.convert("RGB")
    if transform := _to_srgb(_profile(picture), picture.mode):
        picture = transform.apply(picture)
    return opaque(picture, background)


def transparent(picture: Image.Image) -> bool:
    """Whether a picture may have transparent parts: an alpha channel or a transparent color."""
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return True
    return "transparency" in picture.info and picture.mode in ("1", "L", "P", "RGB")


def opaque(picture: Image.Image, background: str = "white") -> Image.Image:
    """The picture in RGB, its transparent parts shown on a background.

    Transparent pixels have no color of their own, and most files store black for them.
    """
    if not transparent(picture):
        return picture.convert("RGB")
    ground = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


@cache
def reads_heif() -> bool:
    """Whether pillow-heif is installed; Pillow reads HEIC and HEIF after the first call."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@cache
def _formats() -> list[str]:
    reads_heif()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _is_heif(file: Path) -> bool:
    with open(file, "rb") as stream:
        start = stream.read(12)
    return start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """A gray picture of 16 or 32 bits or floats, as L, or LA if one value is transparent."""
    values = np.asarray(picture).astype(np.float32)
    tags: Any = getattr(picture, "tag_v2", {})  # of a TIFF
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    if picture.mode.startswith("I;16"):
        low, high = 0, 2 ** tags.get(ExifTags.Base.BitsPerSample, (16,))[0] - 1
    elif picture.mode == "I" and picture.format in ("PNG", "PPM"):
        low, high = 0, 2**16 - 1
    elif picture.mode == "F" and low >= 0 and high <= 1:
        low, high = 0, 1
    scaled = np.nan_to_num((values - low) / max(high - low, 1e-30) * 255).clip(0, 255).round()
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is zero
        scaled = 255 - scaled
    gray = Image.fromarray(scaled.astype(np.uint8))
    gray.info = dict(picture.info)
    if (key := gray.info.pop("transparency", None)) is not None:
        gray.putalpha(Image.fromarray(np.uint8(255) * (values != key)))
    return gray


def _without_premultiplying(picture: Image.Image) -> Image.Image:
    straight = {"RGBa": "RGBA", "La": "LA"}.get(picture.mode)
    return picture.convert(straight) if straight else picture


def _profile(picture: Image.Image) -> bytes:
    if picture.mode == "LAB":  # Pillow has no other way to RGB
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return picture.info.get("icc_profile") or b""


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> Any:
    """The transform from a color profile to sRGB; None if there is no need, or no way."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = "RGBA" if mode == "RGBA" else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, target)
    except (ImageCms.PyCMSError, OSError, ImportError):
        return None  # damaged, of another mode, or Pillow was built without color management
    if mode == "RGB":
        steps = np.uint8(np.stack(np.meshgrid(*[np.arange(0, 256, 51)] * 3), -1).reshape(6, 36, 3))
        change = np.int16(transform.apply(Image.fromarray(steps))) - steps
        if np.abs(change).max() <= EQUAL_COLORS:
            return None
    return transform
