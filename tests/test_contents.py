"""Pictures of a folder are identified by what their files contain, which is read only once."""

import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

import mmclust as mm
from mmclust.data import contents

RED, BLUE = (200, 30, 40), (40, 70, 200)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty store, which remembers new files at once."""
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "store"))
    monkeypatch.setattr(contents, "SETTLED", -60)
    return tmp_path / "store"


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read."""
    names = []
    hash_file = contents._hash
    monkeypatch.setattr(contents, "_hash", lambda file: names.append(file.name) or hash_file(file))
    return names


def put(file, color):
    """A picture of equal size and times for every color, as archives and `rsync -t` leave them."""
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), color).save(file)
    os.utime(file, (315532800,) * 2)


def folder_of(path, *colors):
    for i, color in enumerate(colors):
        put(path / f"{i}.bmp", color)
    return path


def fingerprint(folder):
    return mm.load_folder(folder).images.fingerprint


def test_the_content_counts_and_nothing_else(tmp_path, mini):
    a, b = (folder_of(tmp_path / name, c, c) for name, c in (("a", RED), ("b", BLUE)))
    assert fingerprint(a) != fingerprint(b)
    features = [mini.features(mm.load_folder(folder).images) for folder in (a, b)]
    assert np.abs(features[0] - features[1]).max() > 0.01
    copy = tmp_path / "copy"
    shutil.copytree(a, copy, copy_function=shutil.copyfile)
    (copy / "0.bmp").rename(copy / "another name.bmp")
    assert fingerprint(copy) == fingerprint(a)


@pytest.mark.parametrize("position", [0, 2**16 - 1, 2**16, 10**5, 150_053])
def test_every_byte_counts(tmp_path, position):
    content = bytearray(150_054)  # white borders make both ends of many pictures equal
    hashes = set()
    for value in (0, 1):
        content[position] = value
        (tmp_path / "file").write_bytes(content)
        hashes.add(contents._hash(tmp_path / "file"))
    (tmp_path / "file").write_bytes(content + bytes(1))
    assert len(hashes | {contents._hash(tmp_path / "file")}) == 3


def test_only_changed_files_are_read_again(tmp_path, read):
    folder = folder_of(tmp_path / "a", RED, RED, BLUE)
    first = fingerprint(folder)
    assert sorted(read) == ["0.bmp", "1.bmp", "2.bmp"]
    assert fingerprint(folder) == first
    assert len(read) == 3
    time.sleep(0.05)  # more than a step of the file system's clock
    put(folder / "1.bmp", BLUE)
    assert fingerprint(folder) != first
    assert read[3:] == ["1.bmp"]


def test_a_file_that_may_still_change_is_read_again(tmp_path, read, monkeypatch):
    folder = folder_of(tmp_path / "a", RED)
    monkeypatch.setattr(contents, "SETTLED", 60)
    assert fingerprint(folder) == fingerprint(folder)
    assert read == ["0.bmp", "0.bmp"]


def test_damaged_hashes_are_reported_and_computed_again(tmp_path, store, read):
    folder = folder_of(tmp_path / "a", RED)
    first = fingerprint(folder)
    (file,) = (store / "contents").iterdir()
    file.write_bytes(file.read_bytes().replace(b"0.bmp", b"1.bmp"))
    with pytest.warns(UserWarning, match=f"{file} is damaged"):
        assert fingerprint(folder) == first
    assert len(read) == 2


def test_a_subset_reads_its_files_alone(tmp_path, read):
    folder = folder_of(tmp_path / "a", RED, BLUE, RED)
    data = mm.load_folder(folder)
    assert "3 images" in repr(data) and not read  # loading and showing read nothing
    few = data.subset([0, 1])
    assert few.images.fingerprint == fingerprint(folder_of(tmp_path / "b", RED, BLUE))
    assert "2.bmp" not in read
    (folder / "2.bmp").unlink()
    with pytest.raises(ValueError, match=r"2\.bmp can't be read.*load the folder again"):
        _ = data.images.fingerprint


def test_a_picture_that_changes_after_its_first_use_is_an_error(tmp_path):
    folder = folder_of(tmp_path / "a", RED, BLUE)
    images = mm.load_folder(folder).images
    _ = images.fingerprint
    time.sleep(0.05)
    os.utime(folder / "0.bmp")  # the same content
    assert images[0].getpixel((0, 0)) == RED
    put(folder / "0.bmp", BLUE)
    for use in (lambda: images[0], lambda: images.reduced(0, 4)):
        with pytest.raises(ValueError, match=r"0\.bmp has changed.*load the folder again"):
            use()
    assert images[1].getpixel((0, 0)) == mm.load_folder(folder).images[0].getpixel((0, 0)) == BLUE
