"""Features in batches: the bits of a plain loop, few pictures in memory, and every fault.

Faults are killed and simultaneous processes, damaged files and pictures, and a full disk.
"""

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import ExifTags, Image
from torchvision import transforms

import mmclust as mm
from benchmarks import encoding
from mmclust import storage
from mmclust.encoders import feature_stream
from mmclust.encoders.open_clip import OpenCLIPEncoder

N = 64  # pictures
SIZE = 8  # of a batch
HEAD = """
import os, sys, time
import numpy as np
import mmclust as mm
from mmclust.encoders import feature_stream
feature_stream.STREAM_ABOVE = 20
data = mm.load_folder(sys.argv[1], verbose=False)
"""
# Processes, one per log file, that write the number of each picture they make to their log.
SLOW = (
    HEAD
    + """
encoder, (path, *others) = mm.load_encoder("mini"), sys.argv[3:]
for other in others:
    if not os.fork():
        path, others = other, []
        break
log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def make(i):
    os.write(log, f"{i}\\n".encode())
    time.sleep(float(sys.argv[2]))
    return data.images[i]
images = mm.Images(len(data.images), make, "logged")
np.save(path + ".npy", encoder.features(images, 8))
codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in others]
sys.exit(max(codes, default=0))
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(N):
        picture = Image.fromarray(rng.integers(0, 256, (6, 5 + i % 3, 3), np.uint8))
        picture.resize((60, 50), Image.Resampling.BICUBIC).save(path / f"{i:03}.jpg")
    return path


@pytest.fixture(autouse=True)
def small_limits(tmp_path, monkeypatch):
    """An empty store, two threads, and sets of more than 20 images count as large."""
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_stream, "STREAM_ABOVE", 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def files():
    folder = storage.cache_dir() / "features"
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def batch_file(encoder, images, number: int) -> Path:
    key = storage.key_of("batch", encoder._features_key(images), SIZE, number)
    return storage.cache_dir() / "features" / f"{key}.npy"


def missing(encoder, images) -> list[int]:
    """The images of the batches that are not stored."""
    numbers = [b for b in range(N // SIZE) if not batch_file(encoder, images, b).exists()]
    return [i for b in numbers for i in range(b * SIZE, (b + 1) * SIZE)]


def fresh(mini) -> OpenCLIPEncoder:
    """The same weights, nothing in memory."""
    return OpenCLIPEncoder(mini.model, mini.preprocess, mini.tokenizer, "mini")


@torch.inference_mode()
def plain_features(encoder, images, size: int) -> np.ndarray:
    """A loop over batches; the tower with the identity in the place of its last projection."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other
    visual = encoder.model.visual
    dtype = next(encoder.model.parameters()).dtype
    identity = torch.eye(visual.proj.shape[0], dtype=dtype)
    parts = []
    for i in range(0, len(images), size):
        pixels = torch.stack([encoder.preprocess(image) for image in images[i : i + size]])
        with torch.autocast("cpu", torch.bfloat16, enabled=encoder.autocast):
            out = torch.func.functional_call(visual, {"proj": identity}, pixels.to(dtype))
        parts.append(out.float() if out.dtype == torch.bfloat16 else out)
    torch.set_num_threads(threads)
    return torch.cat(parts).numpy()


@pytest.fixture(scope="module")
def truth(mini, folder):
    return plain_features(mini, mm.load_folder(folder).images, SIZE)


class Drawn:
    """Images of a folder that record which were made; `before(i)` is called before each."""

    def __init__(self, folder, before=lambda i: None):
        self.pictures = mm.load_folder(folder).images
        self.made = []
        self.before = before
        self.images = mm.Images(len(self.pictures), self.make, "drawn")

    def make(self, i):
        self.before(i)
        self.made.append(i)
        return self.pictures[i]


def test_the_same_bits_as_a_plain_loop_over_batches(mini, folder):
    pictures = mm.load_folder(folder).images
    images = mm.Images(150, lambda i: pictures[i % N].rotate(i), "turned")
    features = fresh(mini).features(images, 130)  # two passes, and a batch of 20
    assert isinstance(features, np.memmap)
    assert not features.flags.writeable
    with ThreadPoolExecutor(1) as pool:  # the number of threads is restored, also for new ones
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    np.testing.assert_array_equal(features, plain_features(mini, images, 130))


def test_embeddings_are_projected_in_slices(mini, folder, monkeypatch):
    images = mm.load_folder(folder).images
    whole = fresh(mini).encode_images(images)
    monkeypatch.setattr("mmclust.encoders.base.ROWS_PER_PRODUCT", 20)
    np.testing.assert_allclose(fresh(mini).encode_images(images), whole, atol=1e-6)


@pytest.mark.parametrize(
    "case", ["default", "small", "another preprocessing", "float64", "autocast", "one thread"]
)
def test_the_same_bits_in_every_way(mini, folder, case, monkeypatch):
    images = mm.load_folder(folder).images[:36]
    encoder = fresh(mini)
    if case == "small":
        monkeypatch.setattr(feature_stream, "STREAM_ABOVE", 4096)
    if case == "another preprocessing":  # any function: it runs for each picture
        encoder.preprocess = lambda image: mini.preprocess(image.rotate(90))
    if case == "float64":
        model = copy.deepcopy(mini.model).double()
        encoder = OpenCLIPEncoder(model, mini.preprocess, mini.tokenizer, "double")
    if case == "autocast":
        encoder.autocast = True
    if case == "one thread":
        torch.set_num_threads(1)
    features = encoder.features(images, SIZE)
    np.testing.assert_array_equal(features, plain_features(encoder, images, SIZE))
    assert features.dtype == (np.float64 if case == "float64" else np.float32)
    assert isinstance(features, np.memmap) == (case != "small")
    assert len(files()) == 1


def test_cached_features_are_read_only(mini, folder):
    """`x -= x.mean(0)` of a user must not change what methods compute later."""
    images = mm.load_folder(folder).images[:10]
    encoder = fresh(mini)
    for array in (encoder.features(images), encoder.patch_tokens(images)):
        with pytest.raises(ValueError, match="read-only"):
            array -= array.mean(0)
    before = encoder.encode_images(images)
    words = encoder.encode_words(["red", "blue"])
    words -= words.mean(0)
    assert not np.allclose(words, encoder.encode_words(["red", "blue"]))
    supplied = np.ones_like(encoder.features(images))
    encoder.set_features(images, supplied)
    with pytest.raises(ValueError, match="read-only"):
        encoder.features(images)[:] = 0
    supplied += 1  # the user's array stays writable
    fresh(mini).encode_images(images)[:] = 0
    np.testing.assert_array_equal(fresh(mini).encode_images(images), before)


def test_another_preprocessing_after_the_first_use_counts(mini, folder):
    images = mm.load_folder(folder).images[:10]
    encoder = fresh(mini)
    before = encoder.encode_images(images)
    encoder.preprocess = transforms.Compose([transforms.Grayscale(3), mini.preprocess])
    assert np.abs(encoder.encode_images(images) - before).max() > 0.01
    encoder.preprocess = mini.preprocess
    np.testing.assert_array_equal(encoder.encode_images(images), before)


def put_photographs(folder, n=3):
    """JPEG files of 1200 x 900 pixels with detail of all sizes; every second one is rotated."""
    rng = np.random.default_rng(0)
    for i in range(n):
        pixels = sum(
            np.asarray(Image.fromarray(rng.random((3 * k, 4 * k)) * 255).resize((1200, 900))) / w
            for k, w in ((1, 2), (5, 4), (30, 8), (200, 8))
        )
        colors = np.stack([pixels, np.roll(pixels, 400), 255 - pixels], -1).clip(0, 255)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6 if i % 2 else 1
        picture = Image.fromarray(colors.astype(np.uint8))
        picture.save(folder / f"{i}.jpg", quality=90, exif=exif)
    return mm.load_folder(folder).images


def test_photographs_are_decoded_at_the_size_that_is_needed(mini, tmp_path):
    images = put_photographs(tmp_path)
    side = feature_stream.side_to_decode(mini.preprocess)
    assert side == 2 * 96
    assert [images.reduced(i, side).size for i in (0, 1)] == [(300, 225), (225, 300)]
    assert [images[i].size for i in (0, 1)] == [(1200, 900), (900, 1200)]
    full = mm.Images(len(images), images.__getitem__, "in full")
    cosines = (mini.encode_images(images) * mini.encode_images(full)).sum(1)
    assert cosines.min() > 0.995
    one_by_one = np.concatenate(list(mini._batches(mini.image_trunk, images, 1)))
    np.testing.assert_allclose(one_by_one, mini.features(images), atol=1e-4)


def test_pictures_are_never_decoded_smaller_than_asked(tmp_path):
    images = put_photographs(tmp_path, n=2)
    for side in (1, 112, 113, 114, 225, 226, 449, 451, 900, 2000):
        for i in (0, 1):
            assert min(images.reduced(i, side).size) >= min(side, 900)
    assert images.reduced(0, 112).size == (150, 113)
    Image.new("RGB", (1200, 900)).save(tmp_path / "0.png")
    png = mm.load_folder(tmp_path).images[1:2]  # has no smaller versions of itself
    assert png.reduced(0, 100).size == (1200, 900)
    half = (tmp_path / "1.jpg").read_bytes()[:-20000]
    (tmp_path / "0.jpg").write_bytes(half)
    with pytest.raises(ValueError, match=r"0\.jpg can't be decoded"):
        mm.load_folder(tmp_path).images.reduced(0, 100)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_the_size_that_a_preprocessing_needs(mode):
    preprocess = image_transform(224, is_train=False, resize_mode=mode)
    assert feature_stream.side_to_decode(preprocess) == 2 * 224
    tall = image_transform((224, 96), is_train=False, resize_mode=mode)
    assert feature_stream.side_to_decode(tall) == 2 * 224
    # what looks at pictures before they are scaled needs all of their pixels
    crop = transforms.Compose([transforms.CenterCrop(224), *preprocess.transforms])
    for unknown in (crop, lambda picture: preprocess(picture)):
        assert feature_stream.side_to_decode(unknown) is None


class MeasuredResize(transforms.Resize):
    """Notes the largest picture that it made."""

    largest = 0

    def forward(self, picture):
        scaled = super().forward(picture)
        self.largest = max(self.largest, scaled.width * scaled.height)
        return scaled


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (2, 9_999)])
def test_a_thin_picture_takes_no_more_memory_than_others(mini, size):
    resize = MeasuredResize(96, transforms.InterpolationMode.BICUBIC)
    preprocess = transforms.Compose([resize, *mini.preprocess.transforms[1:]])
    prepare, _ = feature_stream.split_preprocessing(preprocess)
    assert prepare(Image.new("RGB", size, "red")).shape == (3, 96, 96)
    assert 0 < resize.largest <= 96 * 96 * (feature_stream.LONGEST + 1)


@pytest.mark.parametrize("size", [(30, 601), (30, 1202), (907, 29), (5, 200), (60, 40), (20, 400)])
def test_the_middle_of_a_long_picture_is_that_of_all_of_it(mini, size):
    coarse = (size[1] // 5 + 1, size[0] // 5 + 1, 3)
    noise = np.random.default_rng(0).integers(0, 256, coarse, dtype=np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    prepare, finish = feature_stream.split_preprocessing(mini.preprocess)
    expected = mini.preprocess(picture).numpy()
    difference = np.abs(finish(prepare(picture)).numpy() - expected).mean()
    cut = max(size) > feature_stream.LONGEST * min(size)
    assert difference < (0.05 if cut else 1e-6)  # the crop lies between pixels, not quite the same
    beside = np.abs(np.roll(expected, 10, axis=1 + (size[0] > size[1])) - expected).mean()
    assert beside > 0.2


def test_few_pictures_are_in_memory(mini, folder):
    drawn = Drawn(folder)
    through = []
    in_memory = []

    def tower(pixels):
        in_memory.append(len(drawn.made) - sum(through))
        time.sleep(0.005)
        through.append(len(pixels))
        return pixels[:, 0, 0]

    for taken, _ in enumerate(mini._batches(tower, drawn.images, SIZE)):
        time.sleep(0.03)  # slower than the model
        assert len(drawn.made) <= (taken + 1 + 3) * SIZE
    assert sum(through) == N
    assert 2 * SIZE <= max(in_memory) <= 3 * SIZE


def test_pictures_are_decoded_while_the_model_runs(mini, folder):
    second_batch = threading.Event()
    waited = []
    drawn = Drawn(folder, before=lambda i: second_batch.set() if i >= SIZE else None)

    def tower(pixels):
        # the first batch does not end before a picture of the second is made
        waited.append(second_batch.wait(10))
        return pixels[:, 0, 0]

    list(mini._batches(tower, drawn.images, SIZE))
    assert len(waited) == N // SIZE
    assert all(waited)


def test_two_batches_are_in_the_model_at_a_time(mini, folder):
    inside = set()
    numbers = []

    def tower(pixels):
        inside.add(threading.get_ident())
        time.sleep(0.05)
        numbers.append(len(inside))
        inside.discard(threading.get_ident())
        return pixels[:, 0, 0]

    list(mini._batches(tower, Drawn(folder).images, SIZE))
    assert max(numbers) == 2
    assert len(numbers) == N // SIZE


def test_ranges_of_batches_are_stored_separately(mini, folder, truth):
    """As by several machines, of which one stops."""
    drawn = Drawn(folder)
    ranges = fresh(mini).batch_ranges(drawn.images, SIZE, batches=3)
    assert ranges == [range(0, 3), range(3, 6), range(6, 8)]
    for batch_range in ranges[1:]:
        fresh(mini).store_batch_range(drawn.images, batch_range, SIZE)
    assert sorted(drawn.made) == list(range(3 * SIZE, N))
    np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert sorted(drawn.made) == list(range(N))
    assert fresh(mini).batch_ranges(drawn.images, SIZE) == []


def test_a_small_set_is_one_range(mini, folder):
    images = mm.load_folder(folder).images[:20]
    assert fresh(mini).batch_ranges(images, SIZE) == [range(3)]
    fresh(mini).store_batch_range(images, range(3), SIZE)
    assert fresh(mini).batch_ranges(images, SIZE) == []


def test_a_killed_run_continues(mini, folder, truth, tmp_path):
    log = tmp_path / "log"
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW, folder, "0.03", log],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    batches = storage.cache_dir() / "features"
    while run.poll() is None and (not batches.exists() or len(list(batches.glob("*.npy"))) < 3):
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (tmp_path / "log.npy").exists()
    drawn = Drawn(folder)
    drawn.images = mm.Images(N, drawn.make, "logged")
    left = missing(mini, drawn.images)
    assert 0 < len(left) <= N - 3 * SIZE
    assert len(log.read_text().split()) < N
    np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert sorted(drawn.made) == left  # stored ones are not made again
    assert [path.suffix for path in files()].count(".npy") == 1


def interrupted(mini, folder, at: int) -> Drawn:
    """A run that ends with an error at this picture."""

    def fail(i):
        if i == at:
            raise RuntimeError("power failure")

    drawn = Drawn(folder, fail)
    with pytest.raises(RuntimeError, match="power failure"):
        fresh(mini).features(drawn.images, SIZE)
    assert set(missing(mini, drawn.images)).isdisjoint(range(4 * SIZE))  # what was done is stored
    drawn.made = []
    drawn.before = lambda i: None
    return drawn


def damaged(data: bytes, damage: str) -> bytes:
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return {"flipped": flipped, "cut short": data[:middle], "empty": b""}[damage]


@pytest.mark.parametrize("damage", ["flipped", "cut short", "empty"])
def test_a_damaged_batch_is_computed_again(mini, folder, truth, damage):
    drawn = interrupted(mini, folder, at=5 * SIZE)
    path = batch_file(mini, drawn.images, 1)
    path.write_bytes(damaged(path.read_bytes(), damage))
    left = sorted({*missing(mini, drawn.images), *range(SIZE, 2 * SIZE)})
    with pytest.warns(UserWarning, match=path.name):
        np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert sorted(drawn.made) == left
    assert N > len(left) >= 2 * SIZE


@pytest.mark.filterwarnings("error")
def test_a_removed_batch_is_computed_again(mini, folder, truth):
    drawn = interrupted(mini, folder, at=5 * SIZE)
    batch_file(mini, drawn.images, 1).unlink()
    left = missing(mini, drawn.images)
    np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert sorted(drawn.made) == left


def test_a_batch_that_is_damaged_before_all_are_joined(mini, folder, truth):
    """After it was stored and before it is read; the last picture does it."""
    drawn = Drawn(folder)

    def damage(i):
        if i == N - 1 and i not in drawn.made:
            files()[0].write_bytes(b"")

    drawn.before = damage
    with pytest.warns(UserWarning, match="damaged"):
        np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert len(drawn.made) == N + SIZE
    assert len(files()) == 1


@pytest.mark.parametrize("damage", ["flipped", "cut short"])
def test_damaged_features_are_computed_again(mini, folder, truth, damage):
    drawn = Drawn(folder)
    fresh(mini).features(drawn.images, SIZE)
    (path,) = files()
    path.write_bytes(damaged(path.read_bytes(), damage))
    with pytest.warns(UserWarning, match=path.name):
        np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert len(drawn.made) == 2 * N
    np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert len(drawn.made) == 2 * N


FULL = (
    HEAD
    + """
import json, subprocess, warnings
encoder, made = mm.load_encoder("mini"), []
images = mm.Images(len(data.images), lambda i: [data.images[i], made.append(i)][0], "counted")
for size in (44, 92, 400):  # kilobytes: some batches fit, all of them but not their copy, all
    disk = f"{sys.argv[2]}-{size}"
    os.makedirs(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk], check=True)
    os.environ["MMCLUST_CACHE"] = disk
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder._array_cache.clear()
        made.clear()
        features = encoder.features(images, 8)
    np.save(f"{sys.argv[3]}-{size}.npy", features)
    names = os.listdir(disk + "/features")
    print(json.dumps({
        "type": type(features).__name__, "made": len(made), "files": len(names),
        "temporary": sum(name.startswith(".") for name in names),
        "warnings": [str(w.message) for w in caught],
    }))
"""
)


def test_a_full_disk_costs_only_memory(folder, truth, tmp_path):
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not allow private mounts")
    run = [sys.executable, "-c", FULL, folder, tmp_path / "disk", tmp_path / "out"]
    done = subprocess.run(
        ["unshare", "-rm", *run],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    some, not_joined, everything = (json.loads(line) for line in done.stdout.splitlines())
    assert some["made"] == not_joined["made"] == everything["made"] == N
    assert some["type"] == not_joined["type"] == "ndarray"
    assert 2 <= some["files"] < 8
    assert (not_joined["files"], not_joined["temporary"]) == (8, 0)
    for report in (some, not_joined):
        (warning,) = report["warnings"]
        assert "No space left" in warning
    assert everything == {
        "type": "memmap", "made": N, "files": 1, "temporary": 0, "warnings": [],
    }  # fmt: skip
    for size in (44, 92, 400):
        np.testing.assert_array_equal(np.load(tmp_path / f"out-{size}.npy"), truth)


def test_damaged_pictures_are_named(mini, folder, tmp_path):
    for path in folder.iterdir():
        is_damaged = path.name in ("033.jpg", "035.jpg", "050.jpg")
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:300] if is_damaged else data)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"033\.jpg"):  # the first, whichever thread is faster
            fresh(mini).features(mm.load_folder(tmp_path).images, SIZE)
    assert threading.active_count() < 10  # all threads have ended


def test_two_processes_at_once(folder, truth, tmp_path):
    logs = [tmp_path / "log0", tmp_path / "log1"]
    done = subprocess.run(
        [sys.executable, "-c", SLOW, folder, "0.01", *logs],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "damaged" not in done.stderr
    for log in logs:
        np.testing.assert_array_equal(np.load(f"{log}.npy"), truth)
        assert len(log.read_text().split()) > 2 * SIZE  # both worked
    (left,) = files()
    storage.check_array(left)


def test_what_another_process_has_finished_is_used(mini, folder, truth):
    done = threading.Lock()

    def other(i):
        if i == 2 * SIZE and done.acquire(blocking=False):
            fresh(mini).features(Drawn(folder).images, SIZE)

    drawn = Drawn(folder, other)
    features = fresh(mini).features(drawn.images, SIZE)
    np.testing.assert_array_equal(features, truth)
    assert isinstance(features, np.memmap)
    assert len(drawn.made) <= 6 * SIZE
    assert done.locked()


@pytest.mark.filterwarnings("error")
def test_methods_learn_from_mapped_features_without_a_warning(mini, folder):
    images = mm.load_folder(folder).images[:24]
    mapped = fresh(mini)
    in_memory = fresh(mini)
    assert isinstance(mapped.features(images), np.memmap)
    in_memory.set_features(images, np.array(mapped.features(images)))
    settings = {
        "template": "photo of *",
        "words": ["red", "green", "blue"],
        "n_clusters": 3,
        "random_state": 0,
    }
    torch.set_warn_always(True)  # otherwise a process warns once only
    try:
        for method, more in (
            (mm.MultiSub, {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 2}),
            (mm.MultiMaP, {"epochs": 2}),
        ):
            one = method(mapped, **settings, **more).fit(images)
            other = method(in_memory, **settings, **more).fit(images)
            np.testing.assert_array_equal(one.labels_, other.labels_)
            np.testing.assert_array_equal(one.image_embeddings_, other.image_embeddings_)
            assert len(set(one.labels_)) > 1
    finally:
        torch.set_warn_always(False)


def test_the_benchmark_prints_its_goals(tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    monkeypatch.setattr(encoding, "BATCH", 8)
    monkeypatch.setattr(encoding, "SHIFTS", 10)
    path = tmp_path / "numbers.json"
    monkeypatch.setattr(encoding, "PHOTOGRAPH", (800, 600))
    command = ["encoding", "-n", "70", "--photographs", "4", "--json", str(path)]
    monkeypatch.setattr("sys.argv", command)
    encoding.main()
    numbers = json.loads(path.read_text())
    printed = capsys.readouterr().out
    assert numbers["n"] == 70
    assert numbers["encoding"] == pytest.approx(70 / numbers["seconds"])
    assert 0.2 < numbers["gigabytes"] < 1.5
    model = max(v for k, v in numbers.items() if k.startswith("model"))
    assert numbers["of the model"] == pytest.approx(numbers["encoding"] / model)
    assert numbers["of the slower part"] >= numbers["of the model"]
    assert 0 < numbers["contents, of the encoding"] < 1
    photographs = numbers["photographs"]
    assert photographs["times as fast"] > 1
    assert photographs["cosine, mean"] > 0.99
    for goal in (*encoding.GOALS.values(), *encoding.PHOTOGRAPH_GOALS.values()):
        assert goal in printed
