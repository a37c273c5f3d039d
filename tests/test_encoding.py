"""Streaming: the same bits as a plain loop, few pictures in memory, on disk as it comes, whatever happens to the process, the files and the disk."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mmclust as mm
from mmclust import storage
from mmclust.encoders import base as encoder_module
from mmclust.encoders.open_clip import OpenCLIPEncoder

N, SIZE = 64, 8
HEAD = """
import os, sys, time
import numpy as np
import mmclust as mm
from mmclust.encoders import base as encoder_module
encoder_module.STREAM_ABOVE = 20
data = mm.load_folder(sys.argv[1])
"""
# processes that note each picture that they make: as many as there are logs
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
    room = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 256, (6, 5 + i % 3, 3), np.uint8)).resize(
            (60, 50), Image.Resampling.BICUBIC
        ).save(room / f"{i:03}.jpg")
    return room


@pytest.fixture(autouse=True)
def rooms(tmp_path, monkeypatch):
    """A store of its own for each test, two threads, and every set of more than 20 images is a large one."""
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoder_module, "STREAM_ABOVE", 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def files():
    return sorted(
        (storage.cache_dir() / "features").iterdir(), key=lambda path: path.stat().st_mtime_ns
    )


def batch(encoder, images, b: int) -> Path:
    return (
        storage.cache_dir()
        / "features"
        / f"{storage.key_of('batch', encoder._features_key(images), SIZE, b)}.npy"
    )


def missing(encoder, images) -> list[int]:
    """The images of the batches that are not stored."""
    return [
        i
        for b in range(N // SIZE)
        if not batch(encoder, images, b).exists()
        for i in range(b * SIZE, (b + 1) * SIZE)
    ]


def fresh(mini) -> OpenCLIPEncoder:
    """The same weights, nothing in memory."""
    return OpenCLIPEncoder(
        mini.model, mini.preprocess, mini.tokenizer, "mini", autocast=mini.autocast
    )


@torch.inference_mode()
def plain(encoder, images, size: int) -> np.ndarray:
    """What the features are: a loop over batches, the tower with the identity for its last projection."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other
    visual, parts, dtype = encoder.model.visual, [], next(encoder.model.parameters()).dtype
    identity = torch.eye(visual.proj.shape[0], dtype=dtype)
    for i in range(0, len(images), size):
        pixels = torch.stack([encoder.preprocess(image) for image in images[i : i + size]])
        with torch.autocast("cpu", torch.bfloat16, enabled=encoder.autocast):
            out = torch.func.functional_call(visual, {"proj": identity}, pixels.to(dtype))
        parts.append(out.float() if out.dtype == torch.bfloat16 else out)
    torch.set_num_threads(threads)
    return torch.cat(parts).numpy()


@pytest.fixture(scope="module")
def truth(mini, folder):
    return plain(mini, mm.load_folder(folder).images, SIZE)


class Drawn:
    """Images of a folder that count which pictures are made; `at` is called before each."""

    def __init__(self, folder, at=lambda i: None):
        self.real, self.made, self.at = mm.load_folder(folder).images, [], at
        self.images = mm.Images(len(self.real), self.make, "drawn")

    def make(self, i):
        self.at(i)
        self.made.append(i)
        return self.real[i]


def test_the_same_bits_as_a_plain_loop_over_whole_batches(mini, folder):
    some = mm.load_folder(folder).images
    images = mm.Images(150, lambda i: some[i % N].rotate(i), "turned")
    found = fresh(mini).features(images, 130)  # two pieces, and a batch of 20
    assert isinstance(found, np.memmap) and not found.flags.writeable
    with ThreadPoolExecutor(1) as pool:
        assert (
            pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
        )  # as it was, also for threads to come
    np.testing.assert_array_equal(found, plain(mini, images, 130))
    v = fresh(mini).encode_images(images)  # normalised by chunks
    whole = torch.nn.functional.normalize(
        torch.from_numpy(np.array(found)) @ mini.image_projection, dim=-1
    )
    np.testing.assert_allclose(v, whole, atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["as it is", "small", "another preprocessing", "float64", "autocast", "one thread"]
)
def test_the_same_bits_in_every_way(mini, folder, kind, monkeypatch):
    import copy

    images, encoder = mm.load_folder(folder).images[:36], fresh(mini)
    if kind == "small":
        monkeypatch.setattr(encoder_module, "STREAM_ABOVE", 4096)
    if kind == "another preprocessing":  # nothing is known of a function: it runs for each picture
        encoder = OpenCLIPEncoder(
            mini.model, lambda image: mini.preprocess(image.rotate(90)), mini.tokenizer, "turned"
        )
    if kind == "float64":
        encoder = OpenCLIPEncoder(
            copy.deepcopy(mini.model).double(), mini.preprocess, mini.tokenizer, "double"
        )
    if kind == "autocast":
        encoder.autocast = True
    if kind == "one thread":
        torch.set_num_threads(1)
    found = encoder.features(images, SIZE)
    np.testing.assert_array_equal(found, plain(encoder, images, SIZE))
    assert found.dtype == (np.float64 if kind == "float64" else np.float32) and isinstance(
        found, np.memmap
    ) == (kind != "small")
    assert len(files()) == 1


def test_few_pictures_are_in_memory(mini, folder):
    drawn, through, most = Drawn(folder), [], []

    def tower(pixels):
        most.append(len(drawn.made) - sum(through))
        time.sleep(0.005)
        through.append(len(pixels))
        return pixels[:, 0, 0]

    for taken, _ in enumerate(mini._batches(tower, drawn.images, SIZE)):
        time.sleep(0.03)  # whoever takes the rows is slow
        assert len(drawn.made) <= (taken + 1 + 3) * SIZE
    assert sum(through) == N and 2 * SIZE <= max(most) <= 3 * SIZE


def test_pictures_are_decoded_while_the_model_runs(mini, folder):
    second, waited = threading.Event(), []
    drawn = Drawn(folder, at=lambda i: second.set() if i >= SIZE else None)

    def tower(pixels):
        waited.append(
            second.wait(10)
        )  # the first batch does not end before a picture of the second is made
        return pixels[:, 0, 0]

    list(mini._batches(tower, drawn.images, SIZE))
    assert len(waited) == N // SIZE and all(waited)


def test_two_batches_are_in_the_model_at_a_time(mini, folder):
    inside, seen = set(), []

    def tower(pixels):
        inside.add(threading.get_ident())
        time.sleep(0.05)
        seen.append(len(inside))
        inside.discard(threading.get_ident())
        return pixels[:, 0, 0]

    list(mini._batches(tower, Drawn(folder).images, SIZE))
    assert max(seen) == 2 and len(seen) == N // SIZE


def test_a_killed_run_goes_on(mini, folder, truth, tmp_path):
    log, out = tmp_path / "log", tmp_path / "log.npy"
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW, folder, "0.03", log],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    parts = storage.cache_dir() / "features"
    while run.poll() is None and (not parts.exists() or len(list(parts.glob("*.npy"))) < 3):
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL and not out.exists()
    drawn = Drawn(folder)
    drawn.images = mm.Images(N, drawn.make, "logged")
    left = missing(mini, drawn.images)
    assert 0 < len(left) <= N - 3 * SIZE and len(log.read_text().split()) < N
    np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert sorted(drawn.made) == left  # what was stored is not made again
    assert [path.suffix for path in files()].count(".npy") == 1


def interrupted(mini, folder, at: int) -> Drawn:
    """A run that ends with an error at this picture."""

    def fail(i):
        if i == at:
            raise RuntimeError("the power is cut")

    drawn = Drawn(folder, fail)
    with pytest.raises(RuntimeError, match="the power is cut"):
        fresh(mini).features(drawn.images, SIZE)
    assert {*range(4 * SIZE)} & {
        *missing(mini, drawn.images)
    } == set()  # what was done before is stored
    drawn.made, drawn.at = [], lambda i: None
    return drawn


@pytest.mark.parametrize("damage", ["flipped", "cut short", "empty", "gone"])
def test_a_damaged_batch_is_computed_again(mini, folder, truth, damage):
    drawn = interrupted(mini, folder, at=5 * SIZE)
    path = batch(mini, drawn.images, 1)
    whole = path.read_bytes()
    damaged = {
        "flipped": whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:],
        "cut short": whole[:3000],
        "empty": b"",
    }
    path.unlink() if damage == "gone" else path.write_bytes(damaged[damage])
    left = sorted({*missing(mini, drawn.images), *range(SIZE, 2 * SIZE)})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert sorted(drawn.made) == left and N > len(left) >= 2 * SIZE
    assert [f"{path.name} is damaged" in str(w.message) for w in told] == [True] * (
        damage != "gone"
    )


def test_a_batch_that_is_damaged_before_all_are_put_together(mini, folder, truth, monkeypatch):
    """Between its being stored and its being read; once it is the last picture that does it."""
    drawn = Drawn(folder)

    def cut(i):
        if i == N - 1 and i not in drawn.made:
            files()[0].write_bytes(b"")

    drawn.at = cut
    with pytest.warns(UserWarning, match="is damaged"):
        np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert len(drawn.made) == N + SIZE and len(files()) == 1


@pytest.mark.parametrize("damage", ["flipped", "cut short"])
def test_damaged_features_are_computed_again(mini, folder, truth, damage):
    drawn = Drawn(folder)
    fresh(mini).features(drawn.images, SIZE)
    (path,) = files()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "flipped": whole[:9000] + bytes([whole[9000] ^ 64]) + whole[9001:],
            "cut short": whole[:20000],
        }[damage]
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert len(drawn.made) == 2 * N and len(told) == 1
    np.testing.assert_array_equal(fresh(mini).features(drawn.images, SIZE), truth)
    assert len(drawn.made) == 2 * N


FULL = (
    HEAD
    + """
import subprocess, warnings
from mmclust import storage
encoder, made = mm.load_encoder("mini"), []
images = mm.Images(len(data.images), lambda i: [data.images[i], made.append(i)][0], "counted")
for size in (44, 92, 400):  # kilobytes: some batches fit, all of them but not their copy, everything
    disk = f"{sys.argv[2]}-{size}"
    os.makedirs(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk], check=True)
    os.environ["MMCLUST_CACHE"] = disk
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        encoder._kept.clear()
        made.clear()
        found = encoder.features(images, 8)
    np.save(f"{sys.argv[3]}-{size}.npy", found)
    assert len(made) == len(images), len(made)
    names = os.listdir(disk + "/features")
    print(type(found).__name__, len(names), sum(n.startswith(".") for n in names), *(str(w.message).split(": ")[0] for w in told), sep="|")
"""
)


def test_a_full_disk_costs_only_memory(folder, truth, tmp_path):
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    )
    if tried.returncode:
        pytest.skip("no mounts of one's own here")
    run = [
        "unshare",
        "-rm",
        sys.executable,
        "-c",
        FULL,
        folder,
        tmp_path / "disk",
        tmp_path / "out",
    ]
    done = subprocess.run(
        run, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "2"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    some, uncopied, all_of_it = (line.split("|") for line in done.stdout.splitlines())
    assert (
        some[0] == "ndarray"
        and 2 <= int(some[1]) < 8
        and "No space left" in some[3]
        and len(some) == 4
    )
    assert (
        uncopied[:3] == ["ndarray", "8", "0"]
        and "No space left" in uncopied[3]
        and len(uncopied) == 4
    )
    assert all_of_it == ["memmap", "1", "0"]
    for size in (44, 92, 400):
        np.testing.assert_array_equal(np.load(tmp_path / f"out-{size}.npy"), truth)


def test_damaged_pictures_are_named(mini, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(
            path.read_bytes()[: 300 if path.name in ("033.jpg", "035.jpg", "050.jpg") else None]
        )
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"033\.jpg can't be decoded"
        ):  # the first of them, whichever thread was faster
            fresh(mini).features(mm.load_folder(tmp_path).images, SIZE)
    assert threading.active_count() < 10  # no thread is left behind


def test_two_processes_at_once(folder, truth, tmp_path):
    logs = [tmp_path / "log0", tmp_path / "log1"]
    run = [sys.executable, "-c", SLOW, folder, "0.01", *logs]
    done = subprocess.run(
        run, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0 and "damaged" not in done.stderr, done.stderr[-2000:]
    for log in logs:
        np.testing.assert_array_equal(np.load(f"{log}.npy"), truth)
        assert len(log.read_text().split()) > 2 * SIZE  # both worked
    (left,) = files()
    storage.check_array(left)


def test_what_another_process_has_finished_is_taken(mini, folder, truth):
    done = threading.Lock()

    def other(i):
        if i == 2 * SIZE and done.acquire(blocking=False):
            fresh(mini).features(Drawn(folder).images, SIZE)

    drawn = Drawn(folder, other)
    found = fresh(mini).features(drawn.images, SIZE)
    np.testing.assert_array_equal(found, truth)
    assert isinstance(found, np.memmap) and len(drawn.made) <= 6 * SIZE and done.locked()


@pytest.mark.filterwarnings("error")
def test_methods_learn_from_mapped_features_without_a_warning(mini, folder):
    images, mapped, whole, again = (
        mm.load_folder(folder).images[:24],
        fresh(mini),
        fresh(mini),
        fresh(mini),
    )
    whole.set_features(images, np.array(mapped.features(images, SIZE)))
    assert isinstance(again.features(images), np.memmap) and not isinstance(
        whole.features(images), np.memmap
    )
    settings = {
        "template": "photo of *",
        "words": ["red", "green", "blue"],
        "n_clusters": 3,
        "random_state": 0,
    }
    torch.set_warn_always(True)  # else only the first of a process
    try:
        for kind, more in (
            (mm.MultiSub, {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 2}),
            (mm.MultiMaP, {"epochs": 2}),
        ):
            one, other = (
                kind(encoder, **settings, **more).fit(images) for encoder in (again, whole)
            )
            np.testing.assert_array_equal(one.labels_, other.labels_)
            np.testing.assert_array_equal(one.image_embeddings_, other.image_embeddings_)
            assert len(set(one.labels_)) > 1
    finally:
        torch.set_warn_always(False)


def test_the_benchmark_prints_its_goals(tmp_path, monkeypatch, capsys):
    from benchmarks import encoding

    torch.set_num_threads(1)
    monkeypatch.setattr(encoding, "BATCH", 8)
    monkeypatch.setattr(encoding, "SHIFTS", 10)
    monkeypatch.setattr(
        "sys.argv", ["encoding", "-n", "70", "--json", str(tmp_path / "found.json")]
    )
    encoding.main()
    found, said = json.loads((tmp_path / "found.json").read_text()), capsys.readouterr().out
    assert (
        found["n"] == 70
        and found["encoding"] == pytest.approx(70 / found["seconds"])
        and 0.2 < found["gigabytes"] < 1.5
    )
    model = max(v for k, v in found.items() if k.startswith("model"))
    assert (
        found["of the model"] == pytest.approx(found["encoding"] / model)
        and found["of the slower part"] >= found["of the model"]
    )
    assert all(goal in said for goal in ("at least 0.9", "at least 0.65", "at most 1.5"))
