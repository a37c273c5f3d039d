"""Picture files as a person sees them: which files are pictures, and their pixels in RGB.

What a file says about its pixels is applied: orientation, depth, color profile, transparency. Of
animations and files of several pages the first picture is used. Not read: pictures that need a
program of their own to be seen, such as raw camera files, SVG or PSD.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

# with these suffixes a file is a picture, damaged or not; others are looked at
SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
HEIF = re.compile(rb"....ftyp(he|mif1|msf1)", re.DOTALL)
HEIF_REMEDY = 'pip install "mmclust[photos]"'
# Never pictures: raw files, which are TIFF for Pillow, with a preview or the sensor's mosaic;
# previews of videos; what people, editors and browsers set aside.
SET_ASIDE = {
    ".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".nef", ".nrw", ".orf", ".pef",
    ".rw2", ".srw", ".thm", ".bad", ".bak", ".crdownload", ".old", ".orig", ".part", ".tmp",
}  # fmt: skip
# formats with a signature that no other kind of file has; the last two need a recent Pillow, and
# pillow-heif
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF")
# what macOS, Windows and network drives leave in folders, besides names that start with a dot
SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "#recycle"}
# of Pillow, for too many pixels; the warning is raised where a caller made it an error
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_DAMAGED = (TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, struct.error)
UNREADABLE = (OSError, SyntaxError, ValueError, *_DAMAGED, *BOMBS)

# A panorama of 100 megapixels is no attack; Pillow refuses what is more than twice its limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or is what systems leave in folders."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_picture(file: Path) -> bool:
    """Whether a file is a picture of a format that is read: by its suffix, else its content."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES or (suffix in HEIF_SUFFIXES and reads_heif()):
        return True
    size = file.stat().st_size if file.is_file() else 0  # a pipe would wait for its writer
    if not size or suffix in SET_ASIDE or file.name.endswith("~"):
        return False
    reads_heif()
    try:
        with Image.open(file, formats=FORMATS):
            return True
    except UNREADABLE:
        return False


def describe_others(files: Sequence[Path]) -> str:
    """A note on files that are no pictures: their number, the first names, a remedy."""
    names = ", ".join([f.name for f in files[:5]] + ["..."][: len(files) > 5])
    number = "1 file" if len(files) == 1 else f"{len(files):,} files"
    text = f"left out, not read as pictures: {number} ({names})"
    heif = sum(f.suffix.lower() in HEIF_SUFFIXES for f in files)
    return f"{text}; for HEIC ({heif:,}): {HEIF_REMEDY}" if heif else text


def decode(file: Path, side: int = 0) -> Image.Image:
    """The picture in a file, in RGB, as `as_seen` gives it. ValueError if it can't be decoded.

    With `side`, a JPEG is decoded at 1/8, 1/4 or 1/2 of its size if both sides have at least so
    many pixels then: 12 megapixels in a tenth of the time. Pillow reads other formats completely.
    """
    reads_heif()
    try:
        with Image.open(file) as picture:
            if side:
                picture.draft(None, (side, side))
            return as_seen(picture)
    except UNREADABLE as error:
        cause: object = error
        remedy = "repair or remove it, or load the folder with on_corrupt='skip'"
        if isinstance(error, BOMBS):
            cause = "it has too many pixels"
            remedy = f"save it with at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,}"
        elif not reads_heif() and file.is_file() and HEIF.match(file.read_bytes()):
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
    with suppress(*UNREADABLE):  # viewers ignore damaged EXIF
        picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    elif picture.mode not in ("L", "CMYK", "LAB"):
        picture = picture.convert("RGB")
    if transform := _to_srgb(picture.info.get("icc_profile", b""), picture.mode):
        picture = transform.apply(picture)
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    # transparent pixels have no color of their own, and most files store black for them
    ground = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(ground, picture).convert("RGB")


@cache
def reads_heif() -> bool:
    """Whether pillow-heif is installed; Pillow reads HEIC and HEIF after the first call."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


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


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a color profile to sRGB; None if there is no need, or no way."""
    if not profile and mode != "LAB":  # Pillow has no other way from LAB to RGB
        return None
    target = "RGBA" if mode == "RGBA" else "RGB"
    try:
        lab = ImageCms.createProfile("LAB")
        source = ImageCms.ImageCmsProfile(lab if mode == "LAB" else io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).startswith(("sRGB IEC61966", "sRGB built-in")):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, target)
    except (ImageCms.PyCMSError, OSError, ImportError):
        return None  # damaged, of another mode, or Pillow was built without color management
