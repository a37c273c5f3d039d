"""Downloads over a bad connection, and archives that are not trusted: real servers and archives."""

import hashlib
import io
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
from helpers.processes import mount_namespace

from mmclust.data import download

BODY = random.Random(0).randbytes(300_000)
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"


@pytest.fixture(autouse=True)
def few_retries(monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 1)
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def web():
    with serve() as web:
        web.files["some.zip"] = BODY
        yield web


def fetch(web, folder, known_hash=None):
    return download.fetch(f"{web.url}/some.zip", folder, known_hash)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_downloaded_once(web, tmp_path):
    file = fetch(web, tmp_path, MD5)
    assert file == tmp_path / "some.zip"
    assert file.read_bytes() == BODY
    assert contents(tmp_path) == ["some.zip"]
    assert fetch(web, tmp_path, MD5) == fetch(web, tmp_path) == file
    assert len(web.requests) == 1


@pytest.mark.parametrize("known_hash", [MD5, None])
def test_a_truncated_download_is_fetched_again(web, tmp_path, known_hash):
    web.faults = [100_000]
    assert fetch(web, tmp_path, known_hash).read_bytes() == BODY
    assert contents(tmp_path) == ["some.zip"]
    assert len(web.requests) == 2


def test_without_content_length_the_hash_decides(web, tmp_path):
    web.content_length = False
    web.faults = [100_000]
    assert fetch(web, tmp_path, MD5).read_bytes() == BODY
    assert len(web.requests) == 2


def test_a_server_with_an_error_is_asked_again(web, tmp_path):
    web.faults = ["503"]
    assert fetch(web, tmp_path).read_bytes() == BODY
    (tmp_path / "some.zip").unlink()
    web.faults = ["503", "404"]
    with pytest.raises(ConnectionError, match=r"some\.zip.*404 Not Found.*place it in"):
        fetch(web, tmp_path)
    assert contents(tmp_path) == []


def test_no_server(tmp_path):
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9/some\.zip.*try again later"):
        download.fetch("http://127.0.0.1:9/some.zip", tmp_path)


def test_a_wrong_hash_is_refused(web, tmp_path):
    with pytest.raises(ValueError, match=r"md5:000.*another version may be served"):
        fetch(web, tmp_path, "md5:" + "0" * 32)
    assert contents(tmp_path) == []


def test_a_damaged_file_is_downloaded_again(web, tmp_path):
    file = fetch(web, tmp_path)
    file.write_bytes(BODY[:-1])
    with pytest.warns(UserWarning, match="downloaded again"):
        assert fetch(web, tmp_path, MD5).read_bytes() == BODY


def test_a_mirror_serves_every_file_under_its_name(web, tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_MIRROR", f"{web.url}/")
    web.files["a+b.zip"] = BODY
    assert download.fetch("https://nowhere.invalid/deep/a+b.zip", tmp_path).name == "a+b.zip"
    assert web.requests == ["/a+b.zip"]


def test_a_killed_download_leaves_nothing_that_is_used(web, tmp_path):
    web.delay = 0.2
    script = (
        "from pathlib import Path; from mmclust.data.download import fetch; "
        f"fetch({web.url + '/some.zip'!r}, Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(
        path.is_file() and path.stat().st_size for path in tmp_path.glob(".incoming/*")
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "some.zip").exists()
    web.delay = 0
    assert fetch(web, tmp_path, MD5).read_bytes() == BODY
    assert contents(tmp_path) == ["some.zip"]


# archives


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path, members):
    """Members: name -> bytes, or a TarInfo."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            if isinstance(data, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                archive.addfile(data)
    return path


MAKE = {"zip": zipped, "tar.gz": tarred}


@pytest.mark.parametrize("suffix", MAKE)
def test_archives_are_unpacked(tmp_path, suffix):
    members = {"x/y/1.jpg": b"1", "x/2.jpg": b"", "./3..jpg": b"3", "__MACOSX/x/._2.jpg": b"?"}
    archive = MAKE[suffix](tmp_path / f"a.{suffix}", members)
    download.unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == ["3..jpg", "x", "x/2.jpg", "x/y", "x/y/1.jpg"]
    assert (tmp_path / "out/x/y/1.jpg").read_bytes() == b"1"
    assert sorted(os.listdir(tmp_path)) == [f"a.{suffix}", "out"]


def test_an_archive_in_an_archive(tmp_path):
    inner = tarred(tmp_path / "in.tar.gz", {"faces/a.pgm": b"a"}).read_bytes()
    outer = zipped(tmp_path / "a.zip", {"deep/in.tar.gz": inner, "other.tar.gz": inner})
    download.unpack(outer, tmp_path / "out", "in.tar.gz")
    expected = ["deep", "deep/faces", "deep/faces/a.pgm", "other.tar.gz"]
    assert contents(tmp_path / "out") == expected


PATHS = [
    "../evil.jpg", "a/../../evil.jpg", "{}/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg",
    "\\\\server\\evil.jpg",
]  # fmt: skip


@pytest.mark.parametrize("suffix", MAKE)
@pytest.mark.parametrize("name", PATHS)
def test_paths_out_of_the_folder_are_refused(tmp_path, suffix, name):
    members = {"good.jpg": b"good", name.format(tmp_path): b"evil"}
    archive = MAKE[suffix](tmp_path / f"a.{suffix}", members)
    with pytest.raises(ValueError, match=r"evil\.jpg.*out of its folder.*refused"):
        download.unpack(archive, tmp_path / "deep" / "out")
    assert contents(tmp_path) == [f"a.{suffix}", "deep"]


LINKS = {
    "symlink out": (tarfile.SYMTYPE, "../.."), "symlink in": (tarfile.SYMTYPE, "good.jpg"),
    "absolute": (tarfile.SYMTYPE, "/etc"), "hard link": (tarfile.LNKTYPE, "../secret"),
    "fifo": (tarfile.FIFOTYPE, ""), "device": (tarfile.CHRTYPE, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", LINKS)
def test_links_and_devices_are_refused_in_tars(tmp_path, case):
    (tmp_path / "secret").write_text("secret")
    link = tarfile.TarInfo("bad")
    link.type, link.linkname = LINKS[case]
    members = {"good.jpg": b"good", "bad": link, "bad/evil.jpg": b"evil"}
    with pytest.raises(ValueError, match=r"'bad', a link or device.*refused"):
        download.unpack(tarred(tmp_path / "a.tar.gz", members), tmp_path / "out")
    assert contents(tmp_path) == ["a.tar.gz", "secret"]


def test_links_are_refused_in_zips(tmp_path):
    link = zipfile.ZipInfo("bad")
    link.create_system = 3  # Unix
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "..")
        archive.writestr("bad/evil.jpg", b"evil")
    with pytest.raises(ValueError, match=r"'bad', a link or device.*refused"):
        download.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert contents(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("suffix", MAKE)
def test_what_grows_too_much_is_refused(tmp_path, suffix):
    members = {f"{i}.jpg": bytes(download.FLOOR // 2 + 1) for i in range(2)}
    archive = MAKE[suffix](tmp_path / f"a.{suffix}", members)
    assert archive.stat().st_size * download.RATIO < download.FLOOR
    with pytest.raises(ValueError, match=f"grows beyond {download.FLOOR:,} bytes.*refused"):
        download.unpack(archive, tmp_path / "out")
    assert contents(tmp_path) == [f"a.{suffix}"]
    archive = MAKE[suffix](archive, {f"{i}.jpg": BODY[:1000] for i in range(5)})
    with pytest.raises(ValueError, match="grows beyond 4,999 bytes"):
        download.unpack(archive, tmp_path / "out", most=4999)
    download.unpack(archive, tmp_path / "out", most=5000)
    assert len(contents(tmp_path / "out")) == 5


def test_a_zip_with_a_wrong_size_in_its_list_is_refused(tmp_path):
    data = zipped(tmp_path / "a.zip", {"x.jpg": bytes(10**6)}).read_bytes()
    true_size = (10**6).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data.replace(true_size, (10).to_bytes(4, "little")))
    with pytest.raises(ValueError, match=r"a\.zip is damaged"):
        download.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert contents(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("suffix", MAKE)
def test_damaged_archives_are_named(tmp_path, suffix):
    archive = tmp_path / f"a.{suffix}"
    members = {f"{i}.jpg": BODY[i * 10_000 :][:10_000] for i in range(8)}
    data = MAKE[suffix](archive, members).read_bytes()
    cases = {
        "a page": b"<html>moved</html>",
        "empty": b"",
        "a flipped bit": data[:40_000] + bytes([data[40_000] ^ 1]) + data[40_001:],
        "without its end": data[:-4],
    }
    cases |= {f"{share:.0%}": data[: int(len(data) * share)] for share in (0.01, 0.5, 0.9)}
    for case, damaged in cases.items():
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"a\.{suffix} is damaged.*remove it"):
            download.unpack(archive, tmp_path / "out")
        assert contents(tmp_path) == [f"a.{suffix}"], case


def test_an_encrypted_archive_is_named(tmp_path):
    data = bytearray(zipped(tmp_path / "a.zip", {"x.jpg": b"x"}).read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(header) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.zip is damaged.*encrypted"):
        download.unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_killed_unpacking_leaves_nothing_that_is_used(tmp_path):
    members = {f"{i}.jpg": BODY for i in range(300)}
    archive = zipped(tmp_path / "a.zip", members, zipfile.ZIP_STORED)
    script = (
        "from pathlib import Path; from mmclust.data.download import unpack; "
        f"unpack(Path({str(archive)!r}), Path({str(tmp_path / 'out')!r}))"
    )
    for _ in range(20):  # until one is killed in the middle
        process = subprocess.Popen([sys.executable, "-c", script])
        while process.poll() is None and not (tmp_path / ".out.part" / "20.jpg").exists():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (tmp_path / "out").exists():
            break
        subprocess.run(["rm", "-r", tmp_path / "out"], check=True)
    assert (tmp_path / ".out.part").is_dir()
    download.unpack(archive, tmp_path / "out")
    assert len(contents(tmp_path / "out")) == 300
    assert not (tmp_path / ".out.part").exists()


FULL = """
import errno, os, subprocess, sys
from pathlib import Path
from mmclust.data import download
disk, url = Path(sys.argv[1]), sys.argv[2]

def mount(kilobytes, more=""):
    options = f"size={kilobytes}k{more}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)

def message_of(act):
    try:
        act()
    except OSError as error:
        assert type(error) is OSError and error.errno == errno.ENOSPC, repr(error)
        print(error)

mount(200)
message_of(lambda: download.fetch(url, disk))
print(os.listdir(disk))
mount(600, ",remount")
file = download.fetch(url, disk)
message_of(lambda: download.unpack(file, disk / "out"))
print(os.listdir(disk))
mount(1000, ",remount")
download.unpack(file, disk / "out")
print(len(os.listdir(disk / "out")))
"""


def test_a_full_disk_is_reported_and_nothing_incomplete_stays(web, tmp_path):
    members = {f"{i}.jpg": BODY[:100_000] for i in range(4)}
    archive = zipped(tmp_path / "a.zip", members, zipfile.ZIP_STORED)
    web.files["some.zip"] = archive.read_bytes()
    (tmp_path / "disk").mkdir()
    arguments = [sys.executable, "-c", FULL, str(tmp_path / "disk"), f"{web.url}/some.zip"]
    done = subprocess.run([*mount_namespace(), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    fetching, after_fetching, unpacking, after_unpacking, at_last = done.stdout.splitlines()
    for message, remedy in ((fetching, "free space in"), (unpacking, "MMCLUST_DATA")):
        assert "some.zip" in message and "No space left on device" in message and remedy in message
    assert (after_fetching, after_unpacking, at_last) == ("[]", "['some.zip']", "4")
