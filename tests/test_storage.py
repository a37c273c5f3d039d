"""What is stored is whole or recomputed: damage, full and read-only disks, killed writers; and the command that prunes it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmclust as mm
from mmclust import storage
from mmclust.experiments import cache_admin as command
from mmclust.experiments import workbench
from mmclust.experiments.run import COLUMNS

VALUES = np.arange(40, dtype=np.float32).reshape(5, 8) / 7
KEY = storage.key_of("a test")
ROW = {
    "dataset": "x",
    "seed": 3,
    "NMI": 1 / 3,
    "RI": 0.5,
    "ARI": float("-inf"),
    "words": 12,
    "n": 24,
    "key": KEY,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCLUST_CACHE", str(tmp_path_factory.mktemp("store")))
        yield storage.cache_dir()


def small(seeds=1, method="KMeans"):
    return mm.grid(
        dataset="demo-fruit",
        criterion="color",
        method=method,
        n=12,
        kmeans_seeds=1,
        seed=range(seeds),
    )


def looked_up(read):
    """What a reading gives, and the warnings that it gave."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return read(), [str(w.message) for w in told]


def stored(key=KEY, again=VALUES):
    """The stored array, whether it was computed, and what was told."""
    computed = []
    values, told = looked_up(
        lambda: storage.load_or_compute(key, lambda: computed.append(1) or again)
    )
    return values, bool(computed), told


def flipped(data, position, bit):
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


DAMAGE = {
    "zero bytes": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "only its beginning": lambda data: data[:3],
    "zeros where there was content": lambda data: data[:-20] + bytes(20),
    "a hole in the middle": lambda data: data[:200] + bytes(8) + data[208:],
    "something behind it": lambda data: data + b"...",
    "another file": lambda data: os.urandom(len(data)),
    "other JSON": lambda data: b"[1]",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_features_are_told_and_computed_again(folder, kind):
    path = folder / "features" / f"{KEY}.npy"
    assert stored()[1:] == (True, []) and stored(again=VALUES + 1)[1:] == (
        False,
        [],
    )  # a missing file is nothing to tell
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[kind](whole))
    values, computed, told = stored()
    assert computed and np.array_equal(values, VALUES) and path.read_bytes() == whole
    assert (
        len(told) == 1
        and f"{path} is damaged (" in told[0]
        and told[0].endswith("): computed again")
    )
    assert stored()[1:] == (False, [])


def test_features_of_another_key_are_not_taken(folder):
    other = storage.key_of("another test")
    storage.load_or_compute(KEY, lambda: VALUES)
    shutil.copy(folder / "features" / f"{KEY}.npy", folder / "features" / f"{other}.npy")
    values, computed, told = stored(other, VALUES * 2)
    assert computed and "is damaged" in told[0] and np.array_equal(values, VALUES * 2)


def test_features_without_a_checksum_are_computed_again_in_silence(folder):
    path = folder / "features" / f"{KEY}.npy"
    path.parent.mkdir(parents=True)
    np.save(path, VALUES + 1)
    assert stored()[1:] == (True, []) and stored()[1:] == (False, [])
    np.save(path, VALUES)
    path.write_bytes(path.read_bytes()[:-1])
    assert "is damaged" in stored()[2][0]


@pytest.mark.parametrize(
    "values",
    [VALUES, VALUES.T, VALUES[::2, 1:], np.float64(3), np.zeros((0, 4)), np.array([True, False])],
)
def test_every_array_comes_back_and_can_be_mapped(folder, values):
    storage.load_or_compute(KEY, lambda: values)
    back, computed, told = stored()
    assert (
        not computed
        and not told
        and back.dtype == np.asarray(values).dtype
        and np.array_equal(back, values)
    )
    if np.size(values):
        assert np.array_equal(np.load(folder / "features" / f"{KEY}.npy", mmap_mode="r"), values)


def test_a_damaged_row_is_told_and_computed_again(folder):
    rows = mm.run(small(2), progress=False)
    paths = [folder / "rows" / f"{key}.json" for key in rows["key"]]
    whole = [path.read_bytes() for path in paths]
    paths[0].write_bytes(whole[0].replace(json.dumps(rows["NMI"][0]).encode(), b"0.99"))
    again, told = looked_up(lambda: mm.run(small(2), progress=False))
    assert again.equals(rows) and [path.read_bytes() for path in paths] == whole
    assert told and all(
        f"{paths[0]} is damaged (" in t and t.endswith("): computed again") for t in told
    )
    assert looked_up(lambda: mm.run(small(2), progress=False))[1] == []


@pytest.mark.parametrize("kind", [*DAMAGE, "another row"])
def test_every_damage_of_a_row_is_told(folder, kind):
    other = storage.key_of("another test")
    workbench.write_row(KEY, ROW)
    workbench.write_row(other, ROW | {"key": other})
    path = folder / "rows" / f"{KEY}.json"
    path.write_bytes(
        (path.parent / f"{other}.json").read_bytes()
        if kind == "another row"
        else DAMAGE[kind](path.read_bytes())
    )
    row, told = looked_up(lambda: workbench.read_row(KEY))
    assert row is None and len(told) == 1 and f"{path} is damaged (" in told[0]


def test_rows_without_a_checksum_are_computed_again_in_silence(folder):
    row = mm.run(small(), progress=False).iloc[0]
    path = folder / "rows" / f"{row['key']}.json"
    path.write_text(
        json.dumps(
            {
                name: value
                for name, value in json.loads(path.read_text()).items()
                if name not in ("sha256", "code")
            }
            | {"NMI": 0.5}
        )
    )
    again, told = looked_up(lambda: mm.run(small(), progress=False))
    assert again["NMI"][0] == row["NMI"] and told == [] and "sha256" in path.read_text()


def test_a_row_keeps_its_columns_and_its_file_names_the_code(folder):
    workbench.write_row(KEY, ROW)
    assert workbench.read_row(KEY) == ROW
    assert (
        json.loads((folder / "rows" / f"{KEY}.json").read_text())["code"]
        == experiments.code_fingerprint()
    )
    assert list(mm.run(small(), progress=False)) == COLUMNS


@settings(max_examples=200)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_of_an_array_file_is_noticed(room, position, bit):
    path = room / "features" / f"{KEY}.npy"
    storage.load_or_compute(KEY, lambda: VALUES)
    whole = path.read_bytes()
    path.write_bytes(flipped(whole, position % len(whole), bit))
    values, computed, told = stored()
    assert computed and told and np.array_equal(values, VALUES) and path.read_bytes() == whole


@settings(max_examples=200)
@given(position=st.integers(0, 10**6), byte=st.integers(1, 255))
def test_a_flipped_byte_of_a_row_file_gives_the_same_row_or_none(room, position, byte):
    workbench.write_row(KEY, ROW)
    path = room / "rows" / f"{KEY}.json"
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= byte
    path.write_bytes(data)
    row, told = looked_up(lambda: workbench.read_row(KEY))
    assert (row == ROW and not told) or (row is None and told)


def namespace():
    """The command that gives a script mounts of its own, or why there is none."""
    for way in (["unshare", "-rm"], ["unshare", "-m"]):
        try:
            tried = subprocess.run(
                [*way, "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"],
                capture_output=True,
                text=True,
            )
        except OSError as error:
            pytest.skip(f"no namespaces here: {error}")
        if tried.returncode == 0:
            return way
    return pytest.skip(f"no mount namespaces here: {tried.stderr.strip()}")


SCRIPT = """
import os, shutil, subprocess, sys
from pathlib import Path
import sklearn.cluster
import mmclust as mm
from mmclust.experiments.workbench import code_fingerprint

# every run below is a process of its own; what is slow is imported once, for all of them
mm.load_encoder("mini").encode_texts(["a red apple"]), mm.KMeans, code_fingerprint()
disk, out, ballast = mm.cache_dir(), Path(sys.argv[1]), mm.cache_dir() / "ballast"

def run(name, seeds):
    child = os.fork()
    if not child:
        os.dup2(os.open(out / f"{name}-said", os.O_CREAT | os.O_WRONLY), 2)
        rows = mm.run(mm.grid(dataset="demo-fruit", criterion=["color", "species"], method="KMeans", n=24, kmeans_seeds=1, seed=seeds), progress=False)
        rows[["seed", "NMI", "key"]].to_json(out / f"{name}-rows", orient="records", double_precision=15)
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


def test_a_full_disk_costs_no_result_and_the_next_run_goes_on(tmp_path):
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir(), out.mkdir()
    subprocess.run(
        [*namespace(), sys.executable, "-c", SCRIPT, out],
        env=os.environ | {"MMCLUST_CACHE": str(disk), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert not any(disk.iterdir())  # it was a mount of the script alone
    said, rows, files = {}, {}, {}
    for name in ("full", "freed", "read-only"):
        said[name] = (out / f"{name}-said").read_text()
        assert (out / f"{name}-code").read_text() == "0", said[name]
        rows[name] = json.loads((out / f"{name}-rows").read_text())
        files[name] = {path.name: path for path in (out / name).glob("*/*")}
        for path in files[name].values():  # neither half-written nor temporary
            assert path.suffix in (".json", ".npy")
            assert (
                storage.open_row(path.read_bytes(), path.stem)
                if path.suffix == ".json"
                else storage.check_array(path)
            )
    wanted = {f"{row['key']}.json" for row in rows["full"]}
    kept = wanted & files["full"].keys()
    assert (
        len(wanted) == 8 and 2 <= len(kept) < 8 and (out / "full-free").read_text() == "0"
    )  # it was full, and not from the beginning
    assert rows["freed"] == rows["full"] == rows["read-only"][:8] and len(rows["read-only"]) == 10
    assert (
        wanted <= files["freed"].keys() == files["read-only"].keys()
    )  # after the space was freed, the rest was stored
    assert all(
        files["freed"][name].stat().st_mtime_ns == files["full"][name].stat().st_mtime_ns
        for name in kept
    )  # and what was there was kept
    for name, why in {
        "full": "No space left on device",
        "read-only": "Read-only file system",
    }.items():
        message = f"the store at {disk} can't be written ({why}): results of this run are kept in memory only; free space or set MMCLUST_CACHE"
        assert (
            message in said[name]
            and said[name].count("can't be written") == 1
            and "Traceback" not in said[name]
        )
    assert "can't be written" not in said["freed"] and "damaged" not in "".join(said.values())


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES"])
def test_a_store_that_cant_be_written_is_told_once(folder, monkeypatch, code):
    import errno

    def fail(*args, **kwargs):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(os, "replace", fail)
    _, told = looked_up(
        lambda: [workbench.write_row(KEY, ROW), storage.load_or_compute(KEY, lambda: VALUES)]
    )
    assert (
        len(told) == 1
        and f"{folder} can't be written ({os.strerror(getattr(errno, code))})" in told[0]
    )
    assert [path for path in folder.rglob("*") if path.is_file()] == []  # nothing of it is left
    assert workbench.read_row(KEY) is None


def test_a_folder_that_is_a_file_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "file"))
    rows, told = looked_up(lambda: mm.run(small(), progress=False))
    assert (
        len(rows) == 1
        and len(told) == 1
        and "can't be written" in told[0]
        and (tmp_path / "file").read_text() == "mine"
    )


def test_a_killed_writer_leaves_nothing_that_is_read(folder, tmp_path):
    script = tmp_path / "write.py"
    script.write_text("import numpy as np\nfrom mmclust import store\nwhile True:\n    storage.load_or_compute(storage.key_of('big'), lambda: np.ones(8 * 2**20))\n"
                      "    (storage.cache_dir() / 'features' / (storage.key_of('big') + '.npy')).unlink()\n")  # fmt: skip
    path = folder / "features" / f"{storage.key_of('big')}.npy"
    for _ in range(20):  # until one is killed in the middle
        process = subprocess.Popen([sys.executable, script])
        while process.poll() is None and not any(
            p.stat().st_size for p in folder.glob("features/*") if p.exists()
        ):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if any(0 < p.stat().st_size < 2**26 for p in folder.glob("features/*")):
            break
        shutil.rmtree(folder)
    else:
        pytest.fail("none was killed in the middle of writing")
    values, computed, told = stored(storage.key_of("big"))
    assert computed and not told and np.array_equal(values, VALUES), (
        "what is read is computed, and nothing looks damaged"
    )
    assert [p.name for p in folder.glob("features/*") if not p.name.endswith(".tmp")] == [path.name]


# the command


@pytest.fixture
def filled(folder):
    """A store of three rows and two arrays, used one to five days ago in that order, and two temporary files; its paths by name."""
    keys = [storage.key_of(i) for i in range(5)]
    for key in keys[:3]:
        workbench.write_row(key, ROW | {"key": key})
    for key in keys[3:]:
        storage.load_or_compute(key, lambda: np.zeros(1000))
    paths = {f"row{i}": folder / "rows" / f"{key}.json" for i, key in enumerate(keys[:3])}
    paths |= {f"array{i}": folder / "features" / f"{key}.npy" for i, key in enumerate(keys[3:])}
    paths |= {"new": folder / "rows" / ".abc.tmp", "left": folder / "features" / ".def.tmp"}
    for name in ("new", "left"):
        paths[name].write_bytes(b"half")
    for days, name in enumerate(["row0", "row1", "row2", "array0", "array1"], 1):
        aged(paths[name], days)
    aged(paths["left"], 2)
    return paths


def aged(path, days):
    os.utime(path, (time.time() - days * 86400 - 60,) * 2)


def there(paths):
    return {name for name, path in paths.items() if path.exists()}


def prune(capsys, *arguments):
    code = command.main(list(arguments))
    return code, capsys.readouterr().out


ALL = {"row0", "row1", "row2", "array0", "array1", "new", "left"}


def test_the_command_shows_what_there_is(filled, folder, capsys):
    code, out = prune(capsys)
    sizes = {
        kind: sum(path.stat().st_size for name, path in filled.items() if name.startswith(kind))
        / 1e6
        for kind in ("row", "array")
    }
    assert code == 0 and out.startswith(f"{folder}\n") and there(filled) == ALL
    days = {
        n: time.strftime("%Y-%m-%d", time.localtime(time.time() - n * 86400 - 60))
        for n in range(1, 6)
    }
    assert (
        f"rows: 3 files, {sizes['row']:.3f} MB, last used from {days[3]}" in out
        and f"to {days[1]}" in out
    )
    assert (
        f"features: 2 files, {sizes['array']:.3f} MB, last used from {days[5]}" in out
        and "temporary: 2 files" in out
    )
    assert "0 rows are of other code" in out


def test_the_command_runs_on_its_own_and_an_empty_store_is_no_error(folder):
    shown = subprocess.run(
        [sys.executable, "-m", "mmclust.experiments.cache_admin"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (
        shown.startswith(f"{folder}\n")
        and "rows: 0 files, 0.000 MB" in shown
        and not folder.exists()
    )


def test_prune_by_age(filled, capsys):
    code, out = prune(capsys, "--prune", "70h", "--dry-run")
    assert (
        code == 0
        and there(filled) == ALL
        and out.count("would remove ") == 5
        and str(filled["array1"]) in out
    )
    code, out = prune(capsys, "--prune", "70h")
    assert code == 0 and there(filled) == {"row0", "row1", "new"} and "removed 4 files" in out


def test_what_is_read_counts_as_used_and_a_look_does_not(filled, capsys):
    prune(capsys, "--verify")
    row, array = filled["row2"], filled["array1"]
    written = [path.stat().st_mtime_ns for path in (row, array)]
    for path, ns in zip((row, array), written):
        os.utime(
            path, ns=(time.time_ns() + 3600 * 10**9, ns)
        )  # what lies ahead, a mount with relatime leaves alone
    assert (
        workbench.read_row(row.stem)
        and storage.load_or_compute(array.stem, lambda: pytest.fail("computed")).size
    )
    assert all(abs(path.stat().st_atime - time.time()) < 60 for path in (row, array))
    assert [path.stat().st_mtime_ns for path in (row, array)] == written
    prune(capsys, "--prune", "12h")
    assert there(filled) == {"row2", "array1", "new"}


def test_prune_by_size_takes_the_least_recently_used_first(filled, capsys):
    rows = sum(filled[f"row{i}"].stat().st_size for i in range(3))
    array = filled["array0"].stat().st_size
    prune(capsys, "--max-size", f"{rows + 2 * array}B")
    assert there(filled) == ALL - {"left"}
    prune(capsys, "--max-size", f"{rows + 2 * array - 1}")
    assert there(filled) == ALL - {"left", "array1"}
    prune(capsys, "--max-size", f"{(rows - 1) / 1e3}kB")
    assert there(filled) == {"row0", "row1", "new"}
    prune(capsys, "--max-size", "0")
    assert there(filled) == {"new"}


def test_prune_by_code(filled, capsys, monkeypatch):
    filled["row1"].write_text(
        json.dumps(ROW | {"key": filled["row1"].stem})
    )  # as older versions wrote it
    assert "1 rows are of other code" in prune(capsys)[1]
    prune(capsys, "--prune", "100d", "--max-size", "1GB")
    assert there(filled) == ALL - {"left"}
    prune(capsys, "--prune-stale")
    assert there(filled) == ALL - {"row1", "left"}
    monkeypatch.setattr(command, "code_fingerprint", lambda: "other")
    assert "2 rows are of other code" in prune(capsys)[1] and there(filled) == ALL - {
        "row1",
        "left",
    }
    prune(capsys, "--prune-stale")
    assert there(filled) == {"array0", "array1", "new"}


def test_verify_finds_damage_and_removes_it_with_a_prune_alone(filled, capsys):
    assert prune(capsys, "--verify")[0] == 0
    for name in ("row0", "array0"):
        filled[name].write_bytes(flipped(filled[name].read_bytes(), 130, 1))
    code, out = prune(capsys, "--verify")
    assert (
        code == 1 and there(filled) == ALL and out.count("is damaged: its checksum is wrong") == 2
    )
    assert all(f"{filled[name]} is damaged" in out for name in ("row0", "array0"))
    assert (
        prune(capsys, "--verify", "--prune", "100d", "--dry-run")[0] == 1 and there(filled) == ALL
    )
    assert prune(capsys, "--verify", "--prune", "100d")[0] == 0 and there(filled) == ALL - {
        "row0",
        "array0",
        "left",
    }


def test_a_file_that_vanishes_meanwhile_is_skipped(filled, folder, capsys, monkeypatch):
    files = command.entries(folder)
    filled["row0"].unlink()
    monkeypatch.setattr(command, "entries", lambda folder: files)
    code, out = prune(capsys, "--verify", "--max-size", "0")
    assert code == 0 and "damaged" not in out and there(filled) == {"new"}
    real = Path.iterdir
    monkeypatch.undo()
    monkeypatch.setattr(Path, "iterdir", lambda path: [*real(path), path / f"{KEY}.json"])
    assert command.entries(folder) == [e for e in files if e.path == filled["new"]]


@pytest.mark.parametrize("name", ["rows/mine.json", "features/table.npy", "features/README"])
def test_it_refuses_a_folder_of_somebody_else(filled, folder, capsys, name):
    (folder / name).write_text("mine")
    with pytest.raises(SystemExit):
        prune(capsys, "--max-size", "0")
    assert (
        f"{folder / name} was not written by mmclust" in capsys.readouterr().err
        and there(filled) == ALL
        and (folder / name).exists()
    )


def test_it_refuses_a_folder_without_a_store_and_links(
    filled, folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "rows").symlink_to(folder / "rows")
    for place, said in (
        (tmp_path, "this is no store of mmclust"),
        (tmp_path / "linked", "is a link"),
        (filled["row0"], "Not a directory"),
    ):
        monkeypatch.setenv("MMCLUST_CACHE", str(place))
        with pytest.raises(SystemExit):
            prune(capsys, "--max-size", "0")
        assert said in capsys.readouterr().err and there(filled) == ALL


def test_nothing_else_in_the_folder_is_touched(filled, folder, capsys):
    others = [
        folder / "runs.csv",
        folder / "features" / f"{KEY}.part",
        folder / "other" / f"{KEY}.json",
        folder / "rows" / ".hidden",
    ]
    others[2].parent.mkdir()
    for path in others:
        path.write_text("mine")
        aged(path, 400)
    others.append(folder / "rows" / f"{storage.key_of('a link')}.json")
    others[-1].symlink_to(others[0])
    prune(capsys, "--max-size", "0", "--prune", "1m", "--prune-stale", "--verify")
    assert there(filled) == {"new"} and all(path.exists() for path in others)


BAD = [
    ("--prune", ["30", "d", "-3d", "3y", "nan d", ""], "is no age"),
    ("--max-size", ["5XB", "GB", "-1", "5GBs", ""], "is no size"),
]


@pytest.mark.parametrize("option, bad, said", BAD)
def test_a_bad_age_or_size_is_an_error(filled, capsys, option, bad, said):
    for text in bad:
        with pytest.raises(SystemExit) as stopped:
            command.main([f"{option}={text}"])
        assert stopped.value.code == 2 and f"{text!r} {said}" in capsys.readouterr().err
    assert there(filled) == ALL


def test_ages_and_sizes():
    assert [command.age(t) for t in ("90m", "12h", "30d", "1.5w")] == [
        5400,
        43200,
        30 * 86400,
        1.5 * 604800,
    ]
    assert [command.size(t) for t in ("0", "1000", "5GB", "2.5 MB", "3k", "7B", "1tb")] == [
        0,
        1000,
        5e9,
        2.5e6,
        3000,
        7,
        1e12,
    ]
