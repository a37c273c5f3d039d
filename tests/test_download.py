"""Downloads over a bad line, and archives that nobody should trust: a real server, real archives, real signals, a really full disk."""

import hashlib
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest
from helpers.local_servers import serve

from mmclust.data import download

BODY = random.Random(0).randbytes(300_000)
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
CHUNK = download.CHUNK


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(download, "TRIES", 3)
    monkeypatch.setattr(download, "WAIT", 0.001)


@pytest.fixture
def web():
    with serve() as web:
        web.files["some.zip"] = BODY
        yield web


def fetch(web, folder, known=None):
    return download.fetch(f"{web.url}/some.zip", folder, known)


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_downloaded_once(web, tmp_path):
    file = fetch(web, tmp_path, MD5)
    assert (
        file == tmp_path / "some.zip"
        and file.read_bytes() == BODY
        and left(tmp_path) == ["some.zip"]
    )
    assert fetch(web, tmp_path, MD5) == fetch(web, tmp_path) == file and len(web.asked) == 1


def test_a_broken_download_goes_on_where_it_broke(web, tmp_path):
    web.faults = [100_000, 250_000]
    assert fetch(web, tmp_path, MD5).read_bytes() == BODY and left(tmp_path) == ["some.zip"]
    (_, first), (_, second), (_, third) = web.asked
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in (second, third)]
    assert (
        first is None
        and 100_000 - CHUNK <= starts[0] <= 100_000
        and 250_000 - CHUNK <= starts[1] <= 250_000
    )


def test_without_content_length_an_end_is_an_end_and_the_hash_decides(web, tmp_path):
    web.headers = {"ETag"}
    assert fetch(web, tmp_path, MD5).read_bytes() == BODY
    (tmp_path / "some.zip").unlink()
    web.faults = [100_000]
    with pytest.raises(
        ValueError, match=r"some\.zip has not the hash md5:\w+, and was not kept: try again"
    ):
        fetch(web, tmp_path, MD5)
    assert left(tmp_path) == [] and fetch(web, tmp_path, MD5).read_bytes() == BODY


@pytest.mark.parametrize("case", ["another version", "nothing vouches", "a wrong range"])
def test_two_versions_are_never_mixed(web, tmp_path, case):
    new = BODY[::-1] + b"longer"
    web.headers = {"Content-Length"} if case == "nothing vouches" else web.headers
    web.faults = [100_000, "404"]
    with pytest.raises(ConnectionError):
        fetch(web, tmp_path)
    assert left(tmp_path) and not (tmp_path / "some.zip").exists()
    web.faults = ["shifted"] if case == "a wrong range" else []
    if case == "another version":
        web.files["some.zip"] = new
    assert fetch(web, tmp_path).read_bytes() == web.files["some.zip"]
    assert (web.asked[2][1] is None) == (case == "nothing vouches")


def test_it_was_killed_after_its_last_byte(web, tmp_path):
    part = tmp_path / ".incoming" / "some.zip.part"
    part.parent.mkdir()
    part.write_bytes(BODY)
    part.with_name("some.zip.part.tag").write_text(f'"{hashlib.md5(BODY).hexdigest()}"')
    assert (
        fetch(web, tmp_path, MD5).read_bytes() == BODY
        and len(web.asked) == 1
        and web.asked[0][1] == "bytes=300000-"
    )
    assert left(tmp_path) == ["some.zip"]


def test_a_server_that_gives_less_than_the_rest_is_asked_for_more(web, tmp_path):
    web.faults = [100_000, "short"]
    assert fetch(web, tmp_path).read_bytes() == BODY and len(web.asked) == 3


def test_a_server_that_stumbles_is_asked_again_one_that_refuses_is_not(web, tmp_path):
    web.faults = ["503", "503"]
    assert fetch(web, tmp_path).read_bytes() == BODY and len(web.asked) == 3
    (tmp_path / "some.zip").unlink()
    web.faults = ["404"]
    with pytest.raises(
        ConnectionError,
        match=r"some\.zip can't be downloaded \(404 Not Found\): .* get some\.zip in another way and place it in ",
    ):
        fetch(web, tmp_path)
    assert len(web.asked) == 4
    web.faults = ["503"] * 9
    with pytest.raises(ConnectionError, match="503 Service Unavailable"):
        fetch(web, tmp_path)
    assert len(web.asked) == 7


def test_tries_count_only_where_nothing_comes(web, tmp_path):
    web.faults = [70_000, 140_000, 210_000, 280_000]
    assert fetch(web, tmp_path, MD5).read_bytes() == BODY and len(web.asked) == 5


def test_nobody_is_there(tmp_path):
    with pytest.raises(ConnectionError, match="can't be downloaded"):
        download.fetch("http://127.0.0.1:9/some.zip", tmp_path)


def test_a_wrong_hash_is_refused(web, tmp_path):
    with pytest.raises(ValueError, match="another version may be served there"):
        fetch(web, tmp_path, "md5:" + "0" * 32)
    assert left(tmp_path) == []


def test_a_hash_is_noted_and_checked_from_then_on(web, tmp_path):
    file = fetch(web, tmp_path)
    download.record(file, "https://where.it/was")
    noted = json.loads((tmp_path / "some.zip.json").read_text())
    assert (
        noted["sha256"] == hashlib.sha256(BODY).hexdigest()
        and noted["bytes"] == len(BODY)
        and noted["url"] == "https://where.it/was"
    )
    file.write_bytes(BODY[:-1])
    with pytest.warns(UserWarning, match="downloaded again"):
        assert fetch(web, tmp_path).read_bytes() == BODY
    file.unlink()
    web.files["some.zip"] = b"renewed"
    with pytest.raises(
        ValueError, match=r"if it was renewed there, and you trust it, remove .*some\.zip\.json"
    ):
        fetch(web, tmp_path)
    (tmp_path / "some.zip.json").write_text("{")
    with pytest.raises(ValueError, match=r"some\.zip\.json is damaged: remove it"):
        fetch(web, tmp_path)
    (tmp_path / "some.zip.json").unlink()
    assert fetch(web, tmp_path).read_bytes() == b"renewed"


def test_a_mirror_serves_every_file_under_its_name(web, tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_MIRROR", f"{web.url}/")
    web.files["a+b.zip"] = BODY
    assert download.fetch(
        "https://nowhere.invalid/deep/a+b.zip", tmp_path
    ).name == "a+b.zip" and web.asked == [("/a+b.zip", None)]


def test_a_killed_download_goes_on(web, tmp_path):
    web.slow = 0.2
    script = f"from pathlib import Path; from mmclust.data.download import fetch; fetch({web.url + '/some.zip'!r}, Path({str(tmp_path)!r}))"
    process, part = (
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL),
        tmp_path / ".incoming" / "some.zip.part",
    )
    while process.poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "some.zip").exists()
    web.slow, came = 0, part.stat().st_size
    assert 0 < came < len(BODY)
    assert (
        fetch(web, tmp_path, MD5).read_bytes() == BODY
        and web.asked[1][1] == f"bytes={came}-"
        and left(tmp_path) == ["some.zip"]
    )


# archives


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path, members):
    """Members: name -> bytes, or a TarInfo as it is."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name) if isinstance(data, bytes) else data
            info.size = len(data) if isinstance(data, bytes) else 0
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


MAKE = {"zip": zipped, "tar.gz": tarred}


@pytest.mark.parametrize("kind", MAKE)
def test_archives_are_unpacked_as_they_are(tmp_path, kind):
    archive = MAKE[kind](
        tmp_path / f"a.{kind}",
        {"x/y/1.jpg": b"one", "x/2.jpg": b"", "./3..jpg": b"three", "__MACOSX/x/._2.jpg": b"?"},
    )
    download.unpack(archive, tmp_path / "out")
    assert (
        left(tmp_path / "out") == ["3..jpg", "x", "x/2.jpg", "x/y", "x/y/1.jpg"]
        and (tmp_path / "out/x/y/1.jpg").read_bytes() == b"one"
    )
    assert left(tmp_path)[0] == f"a.{kind}"  # no temporary folder is left


def test_an_archive_in_an_archive(tmp_path):
    inner = tarred(tmp_path / "in.tar.gz", {"faces/a.pgm": b"a"}).read_bytes()
    download.unpack(
        zipped(tmp_path / "a.zip", {"deep/in.tar.gz": inner, "other.tar.gz": inner}),
        tmp_path / "out",
        "in.tar.gz",
    )
    assert left(tmp_path / "out") == ["deep", "deep/faces", "deep/faces/a.pgm", "other.tar.gz"]


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "a/../../evil.jpg",
        "{}/evil.jpg",
        "..\\evil.jpg",
        "C:\\evil.jpg",
        "\\\\server\\evil.jpg",
    ],
)
def test_paths_out_of_the_folder_are_refused(tmp_path, kind, name):
    archive = MAKE[kind](
        tmp_path / f"a.{kind}", {"good.jpg": b"good", name.format(tmp_path): b"evil"}
    )
    with pytest.raises(ValueError, match="a path that leads out of its folder: it is refused"):
        download.unpack(archive, tmp_path / "deep" / "out")
    assert left(tmp_path) == [f"a.{kind}", "deep"]


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


LINKS = {
    "symlink out": (tarfile.SYMTYPE, "../.."), "symlink in": (tarfile.SYMTYPE, "good.jpg"), "absolute": (tarfile.SYMTYPE, "/etc"),
    "hard link": (tarfile.LNKTYPE, "../secret"), "fifo": (tarfile.FIFOTYPE, ""), "device": (tarfile.CHRTYPE, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", LINKS)
def test_links_and_devices_are_refused_in_tars(tmp_path, case):
    (tmp_path / "secret").write_text("secret")
    archive = tarred(
        tmp_path / "a.tar.gz",
        {"good.jpg": b"good", "bad": special("bad", *LINKS[case]), "bad/evil.jpg": b"evil"},
    )
    with pytest.raises(ValueError, match="'bad', a link or device: it is refused"):
        download.unpack(archive, tmp_path / "out")
    assert left(tmp_path) == ["a.tar.gz", "secret"]


def test_links_are_refused_in_zips(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("bad")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "..")
        archive.writestr("bad/evil.jpg", b"evil")
    with pytest.raises(ValueError, match="'bad', a link or device"):
        download.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert left(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("kind", MAKE)
def test_a_bomb_by_ratio_is_refused(tmp_path, kind):
    archive = MAKE[kind](
        tmp_path / f"a.{kind}", {f"{i}.jpg": bytes(download.FLOOR // 2 + 1) for i in range(2)}
    )
    assert archive.stat().st_size * download.RATIO < download.FLOOR
    with pytest.raises(ValueError, match="refused as a bomb"):
        download.unpack(archive, tmp_path / "out")
    assert left(tmp_path) == [f"a.{kind}"]


@pytest.mark.parametrize("kind", MAKE)
def test_a_bomb_by_size_or_number_is_refused(tmp_path, kind, monkeypatch):
    archive = MAKE[kind](tmp_path / f"a.{kind}", {f"{i}.jpg": BODY[:1000] for i in range(5)})
    monkeypatch.setattr(download, "MOST", 4999)
    with pytest.raises(ValueError, match="grows beyond 4,999 bytes"):
        download.unpack(archive, tmp_path / "out")
    monkeypatch.setattr(download, "MOST", 5000)
    download.unpack(archive, tmp_path / "out")
    monkeypatch.setattr(download, "MEMBERS", 4)
    with pytest.raises(ValueError, match="more than 4 files"):
        download.unpack(archive, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path):
    data = zipped(tmp_path / "a.zip", {"x.jpg": bytes(10**6)}).read_bytes()
    (tmp_path / "a.zip").write_bytes(
        data.replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    )
    with pytest.raises(ValueError, match="no whole archive"):
        download.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert left(tmp_path) == ["a.zip"]


def test_a_bomb_in_tars_own_headers_is_refused(tmp_path):
    name = special("x", tarfile.GNUTYPE_LONGNAME)
    name.size = 4 * download.FLOOR
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(name, io.BytesIO(b"x" * name.size))
    with pytest.raises(ValueError, match="refused as a bomb"):
        download.unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_a_name_twice_is_refused(tmp_path):
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(tmp_path / "a.zip", "w") as archive,
    ):
        archive.writestr("x.jpg", b"1"), archive.writestr("x.jpg", b"2")
    with pytest.raises(ValueError, match=r"'x\.jpg' twice"):
        download.unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", MAKE)
def test_damaged_archives_are_named(tmp_path, kind):
    whole = MAKE[kind](
        tmp_path / f"a.{kind}", {f"{i}.jpg": BODY[i * 10_000 :][:10_000] for i in range(8)}
    ).read_bytes()
    cases = {
        "page": b"<html>moved</html>",
        "empty": b"",
        "flipped": whole[:40_000] + bytes([whole[40_000] ^ 1]) + whole[40_001:],
    }
    cases |= {f"cut at {k}": whole[: int(len(whole) * k)] for k in (0.01, 0.5, 0.9)} | {
        "cut in its end": whole[:-4]
    }
    for case, data in cases.items():
        (tmp_path / f"a.{kind}").write_bytes(data)
        with pytest.raises(
            ValueError,
            match=rf"a\.{kind} is no whole archive \(.*\): remove it, and it is downloaded again",
        ):
            download.unpack(tmp_path / f"a.{kind}", tmp_path / "out")
        assert left(tmp_path) == [f"a.{kind}"], case


def test_an_encrypted_archive_is_named(tmp_path):
    data = bytearray(zipped(tmp_path / "a.zip", {"x.jpg": b"x"}).read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"no whole archive .*encrypted"):
        download.unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_killed_unpacking_leaves_nothing_that_is_taken_for_the_data(tmp_path):
    archive = zipped(tmp_path / "a.zip", {f"{i}.jpg": BODY for i in range(300)}, zipfile.ZIP_STORED)
    script = f"from pathlib import Path; from mmclust.data.download import unpack; unpack(Path({str(archive)!r}), Path({str(tmp_path / 'out')!r}))"
    for _ in range(20):  # until one is killed in the middle
        process = subprocess.Popen([sys.executable, "-c", script])
        while process.poll() is None and not (tmp_path / ".out.part" / "20.jpg").exists():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (tmp_path / "out").exists():
            break
        subprocess.run(["rm", "-r", tmp_path / "out"], check=True)
    assert 20 <= len(left(tmp_path)) < 302 and (tmp_path / ".out.part").is_dir()
    download.unpack(archive, tmp_path / "out")
    assert len(left(tmp_path / "out")) == 300 and not (tmp_path / ".out.part").exists()


FULL = """
import errno, os, subprocess, sys
from pathlib import Path
from mmclust.data import download
disk, url = Path(sys.argv[1]), sys.argv[2]
mount = lambda size, more="": subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k{more}", "none", disk], check=True)
def says(act):
    try:
        act()
    except OSError as error:
        assert type(error) is OSError and error.errno == errno.ENOSPC, repr(error)
        print(error)
mount(200)
says(lambda: download.fetch(url, disk))
print(sorted(str(p.relative_to(disk)) for p in disk.rglob("*")))
mount(600, ",remount")
file = download.fetch(url, disk)
print(file.stat().st_size)
says(lambda: download.unpack(file, disk / "out"))
print(sorted(os.listdir(disk)))
mount(1000, ",remount")
download.unpack(file, disk / "out")
print(sorted(os.listdir(disk)), len(os.listdir(disk / "out")))
"""


def test_a_full_disk_is_told_and_what_has_come_is_kept(web, tmp_path):
    if subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    ).returncode:
        pytest.skip("no mounts of one's own here")
    web.files["some.zip"] = zipped(
        tmp_path / "a.zip", {f"{i}.jpg": BODY[:100_000] for i in range(4)}, zipfile.ZIP_STORED
    ).read_bytes()
    (tmp_path / "disk").mkdir()
    run = [
        "unshare",
        "-rm",
        sys.executable,
        "-c",
        FULL,
        str(tmp_path / "disk"),
        f"{web.url}/some.zip",
    ]
    done = subprocess.run(
        run, capture_output=True, text=True, env=os.environ | {"TQDM_DISABLE": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    fetching, kept, size, unpacking, after, at_last = done.stdout.splitlines()
    assert (
        "some.zip can't be stored (No space left on device): free space in" in fetching
        and "what has come is kept" in fetching
    )
    assert (
        ".incoming/some.zip.part" in kept
        and "'some.zip'" not in kept
        and int(size) == len(web.files["some.zip"])
    )
    starts = [r for _, r in web.asked]
    assert starts[0] is None and int(starts[1].removeprefix("bytes=").removesuffix("-")) > 100_000
    assert (
        "can't be unpacked to" in unpacking
        and "(No space left on device): free space or set MMCLUST_DATA" in unpacking
    )
    assert after == "['some.zip']" and at_last == "['out', 'some.zip'] 4"
