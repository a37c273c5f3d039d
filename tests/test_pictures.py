"""Pictures as a person sees them: what files say of their pixels, which files are pictures."""

import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import mmclust as mm
from mmclust.data.decoding import decode, is_hidden, is_picture, reads_heif

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
RAMP = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(8, 0)


def half_blue():
    """(40, 20) pixels: blue on the left, red on the right."""
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(BLUE, (0, 0, 20, 20))
    return picture


def close(pixel, color, tolerance=6):
    return max(abs(a - b) for a, b in zip(pixel, color)) <= tolerance


def saved(file, picture, **options):
    picture.save(file, **options)
    return file


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "heic"])
def test_pictures_are_upright(tmp_path, suffix):
    assert reads_heif()
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    file = saved(tmp_path / f"a.{suffix}", half_blue(), exif=on_its_side.tobytes())
    for picture in (decode(file), mm.Images.of([Image.open(file)])[0]):
        assert picture.size == (20, 40)
        assert close(picture.getpixel((10, 2)), BLUE)
        assert close(picture.getpixel((10, 37)), RED)


def test_damaged_metadata_is_ignored(tmp_path):
    file = saved(tmp_path / "a.jpg", half_blue(), exif=b"Exif\0\0damaged", icc_profile=b"damaged")
    assert close(decode(file).getpixel((2, 2)), BLUE)


def tiff(bits, photometric, values):
    """A gray TIFF of one row, as Pillow does not write it; `values`: its bytes."""
    width = 8 * len(values) // bits
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: 1}
    entries = {**tags, 279: len(values)}.items()
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4) + values


@pytest.mark.parametrize(
    "name, values",
    [
        ("16 bits.png", np.uint16(RAMP * 65535)),
        ("16 bits.tif", np.uint16(RAMP * 65535)),
        ("big endian.tif", (RAMP * 65535).astype(">u2")),
        ("16 bits.jp2", np.uint16(RAMP * 65535)),
        ("16 bits.pgm", np.int32(RAMP * 65535)),
        ("0 to 1.tif", RAMP),
        ("other floats.tif", RAMP * 300 - 20),
        ("32 bits.tif", np.int32(RAMP * 10**6)),
    ],
)
def test_deep_pictures_are_scaled(tmp_path, name, values):
    pixels = np.asarray(decode(saved(tmp_path / name, Image.fromarray(values))))
    assert np.abs(pixels - 255.0 * RAMP[..., None]).max() <= 1


def test_deep_pictures_that_are_dark_stay_dark(tmp_path):
    for name, values in (("a.png", np.uint16([[0, 2570]])), ("b.tif", np.float32([[0, 0.04]]))):
        file = saved(tmp_path / name, Image.fromarray(values))
        assert decode(file).getextrema() == ((0, 10),) * 3
    not_finite = saved(tmp_path / "c.tif", Image.fromarray(np.float32([[np.nan, 1]])))
    assert decode(not_finite).getextrema() == ((0, 255),) * 3


@pytest.mark.parametrize("bits, values", [(12, b"\xff\xf0\x00"), (16, b"\xff\xff\0\0")])
def test_tiff_of_other_scales(tmp_path, bits, values):
    (tmp_path / "a.tif").write_bytes(tiff(bits, 1, values))
    assert [decode(tmp_path / "a.tif").getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 0)]
    if bits == 16:
        (tmp_path / "white is zero.tif").write_bytes(tiff(bits, 0, values))
        assert decode(tmp_path / "white is zero.tif").getpixel((0, 0)) == (0, 0, 0)


def test_a_transparent_color_of_16_bits(tmp_path):
    values = Image.fromarray(np.uint16([[500, 0]]))
    picture = decode(saved(tmp_path / "a.png", values, transparency=500))
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 0)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_color_profiles_are_applied(tmp_path, mode):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"----"), (b"bXYZ", b"rXYZ"), (b"----", b"bXYZ")):
        profile = profile.replace(old, new)  # what it calls red is blue
    profile = profile.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    red = Image.new("RGB", (4, 4), RED).convert(mode)
    assert close(decode(saved(tmp_path / "a.png", red, icc_profile=profile)).getpixel((0, 0)), BLUE)
    gray = Image.new("L", (4, 4), 100)  # the profile is of another mode, and means nothing
    file = saved(tmp_path / "gray.png", gray, icc_profile=profile)
    assert decode(file).getpixel((0, 0)) == (100,) * 3


@pytest.mark.parametrize(
    "picture, color",
    [
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), RED),
        (Image.new("YCbCr", (4, 4), (76, 85, 255)), RED),
        (Image.new("HSV", (4, 4), (0, 255, 255)), RED),
        (Image.new("LAB", (4, 4), (128, 128, 128)), (119, 119, 119)),
        (Image.new("LA", (4, 4), (0, 0)), WHITE),
        (Image.new("RGBA", (4, 4), (9, 9, 9, 0)).convert("RGBa"), WHITE),
        (Image.new("RGBA", (4, 4), RED).convert("P").convert("PA"), RED),
        (Image.new("1", (4, 4), 1), WHITE),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_modes_of_pillow(picture, color):
    assert close(mm.Images.of([picture])[0].getpixel((0, 0)), color)


def test_pictures_of_one_look_have_one_fingerprint():
    red, blue = (Image.new("P", (4, 4)) for _ in range(2))
    red.putpalette(RED), blue.putpalette(BLUE)
    prints = {
        look: mm.Images.of([picture]).fingerprint
        for look, picture in {
            "red": red,
            "blue": blue,
            "red in RGB": Image.new("RGB", (4, 4), RED),
            "black": Image.new("L", (4, 4)),
        }.items()
    }
    black_is_transparent = Image.new("L", (4, 4))
    black_is_transparent.info["transparency"] = 0
    prints["white"] = mm.Images.of([black_is_transparent]).fingerprint
    assert prints.pop("red in RGB") == prints["red"]
    assert len(set(prints.values())) == 4


def test_the_first_of_several_pictures_is_used(tmp_path):
    others = {"save_all": True, "append_images": [Image.new("RGB", (40, 20), WHITE)]}
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        assert close(decode(saved(tmp_path / name, half_blue(), **others)).getpixel((2, 2)), BLUE)


def test_content_says_what_is_a_picture(tmp_path):
    names = ("a.png", "b.JFIF", "c", "d.jpg_large", "IMG.2024")
    for name in names:
        saved(tmp_path / name, half_blue(), format="JPEG")
    saved(tmp_path / "e.avif", half_blue())
    saved(tmp_path / "f", half_blue(), format="AVIF")
    for name in ("raw.DNG", "old.tif~", "faces.bad"):
        saved(tmp_path / name, half_blue(), format="TIFF")
    saved(tmp_path / "clip.THM", half_blue(), format="JPEG")
    (tmp_path / "README").write_text("P3 is a paper\n")
    (tmp_path / "bitmap").write_text("BM stands for bitmap\n")
    (tmp_path / "drawing.svg").write_text("<svg/>")
    (tmp_path / "data.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    pictures = {f.name for f in tmp_path.iterdir() if is_picture(f)}
    assert pictures == {*names, "e.avif", "f"}
    data = mm.load_folder(tmp_path)
    assert len(data) == 7
    assert all(close(picture.getpixel((2, 2)), BLUE) for picture in data.images)
    for said in ("not read as pictures: 8 files (", "bitmap", "drawing.svg", ", ...)"):
        assert said in data.provenance


def test_heic(tmp_path):
    assert reads_heif()
    for name in ("a.HEIC", "b.jpg"):
        saved(tmp_path / name, half_blue(), format="HEIF")
    for picture in mm.load_folder(tmp_path).images:
        assert picture.size == (40, 20) and close(picture.getpixel((2, 2)), BLUE, 12)


SCRIPT = """
import sys
sys.modules["pillow_heif"] = None
from PIL import Image
import mmclust as mm
from mmclust.data import decoding
from pathlib import Path
Image.MAX_IMAGE_PIXELS = 1000
for name in sys.argv[1:]:
    try:
        print(decoding.decode(Path(name)).size)
    except ValueError as error:
        print(error)
print(decoding.is_picture(Path("a.heic")), decoding.describe_others([Path("a.heic")]))
"""


def test_what_needs_more_than_pillow(tmp_path):
    """HEIC without pillow-heif, and many pixels, in a process of its own."""
    for name in ("a.heic", "a.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    saved(tmp_path / "panorama.png", Image.new("L", (40, 40)))
    saved(tmp_path / "poster.png", Image.new("L", (50, 50)))
    names = ("a.heic", "a.jpg", "panorama.png", "poster.png")
    command = [sys.executable, "-W", "default::UserWarning", "-c", SCRIPT, *names]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    heif, renamed, panorama, poster, others = result.stdout.splitlines()
    for line in (heif, renamed, others):
        assert "HEIC" in line and 'pip install "mmclust[photos]"' in line
    assert "a.heic" in others and others.startswith("False")
    assert panorama == "(40, 40)"
    assert "poster.png" in poster and "at most 2,000" in poster
    assert "bomb" not in result.stdout + result.stderr


def test_hidden_files_are_no_pictures_and_no_classes(tmp_path):
    hidden = ".thumbs/1.png", "__MACOSX/cats/._1.png", "@eaDir/1.png/thumb.jpg", "cats/._1.png"
    for name in ("cats/1.png", "dogs/2.png", "Thumbs.db", ".DS_Store", *hidden):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        saved(tmp_path / name, half_blue(), format="PNG")
    data = mm.load_folder(tmp_path)
    assert data.classes == {"class": ["cats", "dogs"]} and len(data) == 2
    assert [is_hidden(name) for name in ("Thumbs.db", "thumbs")] == [True, False]


@pytest.mark.parametrize(
    "suffix", ["jpg", "png", "gif", "webp", "tif", "bmp", "ppm", "jp2", "avif"]
)
def test_damaged_files_are_named(tmp_path, suffix):
    """Whatever a decoder makes of damaged bytes: a picture, or an error that names the file."""
    content = saved(tmp_path / f"a.{suffix}", half_blue()).read_bytes()
    rng = random.Random(0)
    for _ in range(40):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        damaged = damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])]
        (tmp_path / f"a.{suffix}").write_bytes(damaged)
        try:
            assert decode(tmp_path / f"a.{suffix}").mode == "RGB"
        except ValueError as error:
            assert f"a.{suffix}" in str(error)


def test_nothing_can_be_decoded(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_text("<html>")
    with pytest.raises(ValueError, match=r"none of 2 pictures \(a\.png, b\.jpg\) can be decoded"):
        mm.load_folder(tmp_path, on_corrupt="skip")


@pytest.mark.parametrize(
    "images, message",
    [
        ([np.full((8, 8), 0.8)], r"picture 0: .*uint8 \(h, w, 3\).*float64.*255 \* x"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.float32)], r"picture 1: .*float32"),
        ([np.zeros((8, 8), np.uint16)], r"uint16 \(8, 8\).*x // 257"),
        ([np.zeros((8, 8, 3), np.int64)], "int64"),
        ([np.zeros((3, 8, 8), np.uint8)], r"\(3, 8, 8\).*transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 8, 8), np.float32), r"transpose\(1, 2, 0\).*\(255 \* x\)"),
        (np.random.default_rng(0).random((5, 128)), r"\(5, 128\).*\(n, h, w, 3\)"),
        (list(np.zeros((5, 128), np.uint8)), r"uint8 \(128,\)"),
        (np.zeros((8, 8, 3), np.uint8), r"\(8, 8, 3\).*in a list"),
        ([np.zeros((0, 8, 3), np.uint8)], r"\(0, 8, 3\)"),
        (["a.jpg", "b.jpg"], r"path, 'a\.jpg'.*PIL\.Image\.open"),
        ([Path("a.jpg")], r"path, 'a\.jpg'"),
        (Image.new("RGB", (8, 8)), "Image: give a list"),
        (None, "NoneType: give a list"),
        (mm.load_dataset("demo-fruit", n=2), r"'demo-fruit': give its \.images"),
    ],
)
def test_what_is_no_picture_is_refused(images, message):
    with pytest.raises(TypeError, match=message):
        mm.Images.of(images)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (8, 8, 4)])
def test_arrays_of_one_meaning(shape):
    white = np.full((2, *shape), 255, np.uint8)
    if shape != (8, 8, 4):
        assert mm.Images.of(white == 255)[1].getpixel((0, 0)) == WHITE
    for images in (white, list(white)):
        assert mm.Images.of(images)[1].getpixel((0, 0)) == WHITE
