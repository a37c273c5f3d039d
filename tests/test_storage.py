"""What is stored is complete or computed again; and the command that shows and removes it.

Damage, full and read-only disks, killed writers.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from helpers.processes import mount_namespace
from hypothesis import given, settings
from hypothesis import strategies as st

import mmclust as mm
from mmclust import storage

VALUES = np.arange(40, dtype=np.float32).reshape(5, 8) / 7
KEY = storage.key_of("a test")
OTHER_KEY = storage.key_of("another test")
ROW = {"dataset": "x", "seed": 3, "NMI": 1 / 3, "ARI": float("-inf"), "n": 24, "key": KEY}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCLUST_CACHE", str(tmp_path_factory.mktemp("store")))
        yield storage.cache_dir()


def small(seeds=1):
    """Experiments that take a moment."""
    return mm.grid(
        dataset="demo-fruit",
        criterion="color",
        method="KMeans",
        n=12,
        kmeans_seeds=1,
        seed=range(seeds),
    )


def with_warnings(act):
    """What a call returns, and its warnings."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        return act(), [str(w.message) for w in messages]


def load(key=KEY, again=VALUES):
    """The array of a key, whether it was computed, and the warnings."""
    computed = []
    values, messages = with_warnings(
        lambda: storage.load_or_compute(key, lambda: computed.append(1) or again)
    )
    return values, bool(computed), messages


DAMAGE = {
    "zero bytes": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "only its beginning": lambda data: data[:3],
    "zeros at its end": lambda data: data[:-20] + bytes(20),
    "a hole in the middle": lambda data: data[:200] + bytes(8) + data[208:],
    "something after it": lambda data: data + b"...",
    "another file": lambda data: os.urandom(len(data)),
    "other JSON": lambda data: b"[1]",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_features_are_reported_and_computed_again(folder, damage):
    path = folder / "features" / f"{KEY}.npy"
    assert load()[1:] == (True, [])  # a missing file is no damage
    assert load(again=VALUES + 1)[1:] == (False, [])
    complete = path.read_bytes()
    path.write_bytes(DAMAGE[damage](complete))
    values, computed, messages = load()
    assert computed and np.array_equal(values, VALUES)
    assert path.read_bytes() == complete
    (message,) = messages
    assert f"{path} is damaged" in message and "computed again" in message
    assert load()[1:] == (False, [])


def test_features_of_another_key_are_not_used(folder):
    load()
    shutil.copy(folder / "features" / f"{KEY}.npy", folder / "features" / f"{OTHER_KEY}.npy")
    values, computed, messages = load(OTHER_KEY, VALUES * 2)
    assert computed and "is damaged" in messages[0] and np.array_equal(values, VALUES * 2)


ARRAYS = [
    VALUES, VALUES.T, VALUES[::2, 1:], np.float64(3), np.zeros((0, 4)), np.array([True, False]),
]  # fmt: skip


@pytest.mark.parametrize("values", ARRAYS)
def test_every_array_is_restored_and_can_be_mapped(folder, values):
    storage.load_or_compute(KEY, lambda: values)
    restored, computed, messages = load()
    assert not computed and not messages
    assert restored.dtype == np.asarray(values).dtype and np.array_equal(restored, values)
    if np.size(values):
        mapped = np.load(folder / "features" / f"{KEY}.npy", mmap_mode="r")
        assert np.array_equal(mapped, values)


def test_a_damaged_row_is_reported_and_computed_again(folder):
    rows = mm.run(small(2), progress=False)
    paths = [folder / "rows" / f"{key}.json" for key in rows["key"]]
    complete = [path.read_bytes() for path in paths]
    paths[0].write_bytes(complete[0].replace(json.dumps(rows["NMI"][0]).encode(), b"0.99"))
    again, messages = with_warnings(lambda: mm.run(small(2), progress=False))
    assert again.equals(rows) and [path.read_bytes() for path in paths] == complete
    assert messages and all(f"{paths[0]} is damaged" in message for message in messages)
    assert with_warnings(lambda: mm.run(small(2), progress=False))[1] == []


@pytest.mark.parametrize("damage", [*DAMAGE, "another row", "without a checksum"])
def test_every_damage_of_a_row_is_reported(folder, damage):
    storage.write_row(KEY, ROW)
    assert storage.read_row(KEY) == ROW
    path = folder / "rows" / f"{KEY}.json"
    if damage == "another row":
        path.write_bytes(storage.seal_row(ROW | {"key": OTHER_KEY}))
    elif damage == "without a checksum":
        path.write_text(json.dumps(ROW))
    else:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    row, messages = with_warnings(lambda: storage.read_row(KEY))
    assert row is None and len(messages) == 1 and f"{path} is damaged" in messages[0]


@settings(max_examples=200)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_of_an_array_file_is_noticed(shared_folder, position, bit):
    path = shared_folder / "features" / f"{KEY}.npy"
    storage.load_or_compute(KEY, lambda: VALUES)
    complete = path.read_bytes()
    damaged = bytearray(complete)
    damaged[position % len(damaged)] ^= 1 << bit
    path.write_bytes(damaged)
    values, computed, messages = load()
    assert computed and messages and np.array_equal(values, VALUES)
    assert path.read_bytes() == complete


@settings(max_examples=200)
@given(position=st.integers(0, 10**6), byte=st.integers(1, 255))
def test_a_changed_byte_of_a_row_file_gives_the_same_row_or_none(shared_folder, position, byte):
    storage.write_row(KEY, ROW)
    path = shared_folder / "rows" / f"{KEY}.json"
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= byte
    path.write_bytes(data)
    row, messages = with_warnings(lambda: storage.read_row(KEY))
    assert (row == ROW and not messages) or (row is None and messages)


SCRIPT = """
import os, shutil, subprocess, sys
from pathlib import Path
import sklearn.cluster
import mmclust as mm

# every run below is a process of its own; what is slow is imported once, for all of them
mm.load_encoder("mini").encode_texts(["a red apple"])
mm.KMeans
disk = mm.cache_dir()
out = Path(sys.argv[1])
ballast = disk / "ballast"

def run(name, seeds):
    child = os.fork()
    if not child:
        os.dup2(os.open(out / f"{name}-messages", os.O_CREAT | os.O_WRONLY), 2)
        rows = mm.run(
            mm.grid(dataset="demo-fruit", criterion=["color", "species"], method="KMeans", n=24,
                    kmeans_seeds=1, seed=seeds),
            progress=False,
        )
        columns = rows[["seed", "NMI", "key"]]
        columns.to_json(out / f"{name}-rows", orient="records", double_precision=15)
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (out / f"{name}-code").write_text(f"{code}")
    (out / f"{name}-free").write_text(f"{shutil.disk_usage(disk).free}")
    for folder in ("rows", "features"):
        shutil.copytree(disk / folder, out / name / folder)

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k", "none", disk], check=True)
ballast.write_bytes(bytes(576 * 1024))
run("full", range(4))
ballast.unlink()
run("freed", range(4))
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
run("read-only", range(5))
"""


def test_a_full_disk_loses_no_result_and_the_next_run_goes_on(tmp_path):
    disk = tmp_path / "disk"
    out = tmp_path / "out"
    disk.mkdir(), out.mkdir()
    environment = os.environ | {"MMCLUST_CACHE": str(disk), "OMP_NUM_THREADS": "1"}
    command = [*mount_namespace(), sys.executable, "-c", SCRIPT, out]
    subprocess.run(command, env=environment, check=True)
    assert not any(disk.iterdir())  # it was a mount of the script alone
    messages, rows, files = {}, {}, {}
    for name in ("full", "freed", "read-only"):
        messages[name] = (out / f"{name}-messages").read_text()
        assert (out / f"{name}-code").read_text() == "0", messages[name]
        rows[name] = json.loads((out / f"{name}-rows").read_text())
        files[name] = {path.name: path for path in (out / name).glob("*/*")}
        for path in files[name].values():  # neither incomplete nor temporary
            if path.suffix == ".json":
                storage.open_row(path.read_bytes(), path.stem)
            else:
                storage.check_array(path)
    wanted = {f"{row['key']}.json" for row in rows["full"]}
    stored = wanted & files["full"].keys()
    assert len(wanted) == 8 and 2 <= len(stored) < 8  # the disk was not full from the beginning
    assert (out / "full-free").read_text() == "0"
    assert rows["freed"] == rows["full"] == rows["read-only"][:8] and len(rows["read-only"]) == 10
    assert wanted <= files["freed"].keys() == files["read-only"].keys()
    for name in stored:  # not written again
        times = [files[run][name].stat().st_mtime_ns for run in ("full", "freed")]
        assert times[0] == times[1]
    for name, reason in (("full", "No space left on device"), ("read-only", "Read-only file")):
        assert messages[name].count(f"{disk} can't be written ({reason}") == 1
        assert "Traceback" not in messages[name]
    assert "can't be written" not in messages["freed"]
    assert "damaged" not in "".join(messages.values())


def test_a_store_that_cant_be_written_is_reported_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "file"))
    rows, messages = with_warnings(lambda: mm.run(small(2), progress=False))
    assert len(rows) == 2 and (tmp_path / "file").read_text() == "mine"
    (message,) = messages
    assert f"{tmp_path / 'file'} can't be written" in message and "MMCLUST_CACHE" in message


WRITE = """
import numpy as np
from mmclust import storage
key = storage.key_of("big")
while True:
    storage.load_or_compute(key, lambda: np.ones(8 * 2**20))
    (storage.cache_dir() / "features" / f"{key}.npy").unlink()
"""


def test_the_cache_folder_may_be_written_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    monkeypatch.setenv("MMCLUST_CACHE", "~/results")
    assert storage.cache_dir() == tmp_path / "results"


def test_a_killed_writer_leaves_nothing_that_is_read(folder):
    path = folder / "features" / f"{storage.key_of('big')}.npy"
    for _ in range(20):  # until one is killed in the middle
        process = subprocess.Popen([sys.executable, "-c", WRITE])
        while process.poll() is None and not any(
            p.stat().st_size for p in folder.glob("features/*") if p.exists()
        ):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        if any(0 < p.stat().st_size < 2**26 for p in folder.glob("features/*")):
            break
        shutil.rmtree(folder)
    else:
        pytest.fail("none was killed in the middle of writing")
    values, computed, messages = load(storage.key_of("big"))
    assert computed and not messages and np.array_equal(values, VALUES)
    assert [p.name for p in folder.glob("features/*") if p.suffix != ".tmp"] == [path.name]


# the command

DAY = 86400


@pytest.fixture
def filled(folder):
    """Three rows and two arrays, last used one to five days ago in that order, two temporary
    files, and files of others; name -> path."""
    keys = [storage.key_of(i) for i in range(5)]
    for key in keys[:3]:
        storage.write_row(key, ROW | {"key": key})
    for key in keys[3:]:
        storage.load_or_compute(key, lambda: np.zeros(1000))
    paths = {f"row{i}": folder / "rows" / f"{key}.json" for i, key in enumerate(keys[:3])}
    paths |= {f"array{i}": folder / "features" / f"{key}.npy" for i, key in enumerate(keys[3:])}
    for days, path in enumerate(paths.values(), 1):
        used_before(path, days)
    others = ("runs.csv", "rows/mine.json", "features/table.npy", "datasets/.abcdefgh.tmp")
    for name in ("rows/.abcdefgh.tmp", "features/.abcdefgh.tmp", *others):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("...")
        paths[name] = folder / name
    for name in ("features/.abcdefgh.tmp", *others):
        used_before(folder / name, 400)
    return paths


def used_before(path, days):
    os.utime(path, (time.time() - days * DAY - 60,) * 2)


def prune(paths, capsys, *arguments):
    """The names of the files that a command has removed, and what it has printed."""
    present = {name for name, path in paths.items() if path.exists()}
    assert storage.main(list(arguments)) == 0
    removed = {name for name in present if not paths[name].exists()}
    return removed, capsys.readouterr().out


def test_the_command_shows_what_is_stored(filled, folder, capsys):
    removed, out = prune(filled, capsys)
    assert removed == set() and out.startswith(f"{folder}\n")
    size = sum(filled[f"row{i}"].stat().st_size for i in range(3)) / 1e6
    first, last = (
        time.strftime("%Y-%m-%d", time.localtime(time.time() - days * DAY - 60)) for days in (3, 1)
    )
    assert f"rows: 3 files, {size:.3f} MB, last used from {first} to {last}" in out
    assert "features: 2 files" in out and "temporary: 2 files" in out


def test_the_command_as_a_process_with_an_empty_store(folder):
    command = [sys.executable, "-m", "mmclust.storage", "--prune", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{folder}\n") and "rows: 0 files" in done.stdout
    assert not folder.exists()


def test_the_command_removes_what_was_not_used(filled, capsys):
    old = {"row2", "array0", "array1", "features/.abcdefgh.tmp"}
    removed, out = prune(filled, capsys, "--prune", "2.9")
    assert removed == old
    assert [line.split()[1] for line in out.splitlines() if "removed" in line] == list("1201")


def test_reading_counts_as_use(filled, capsys):
    row = filled["row2"]
    array = filled["array1"]
    for path in (row, array):  # mounts with relatime do not touch an access time in the future
        os.utime(path, ns=(time.time_ns() + 3600 * 10**9, path.stat().st_mtime_ns))
    assert storage.read_row(row.stem)
    assert storage.load_or_compute(array.stem, lambda: pytest.fail("computed")).size
    assert all(abs(path.stat().st_atime - time.time()) < 60 for path in (row, array))
    removed, _ = prune(filled, capsys, "--prune", "0.5")
    assert removed == {"row0", "row1", "array0", "features/.abcdefgh.tmp"}
