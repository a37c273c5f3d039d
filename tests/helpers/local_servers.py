"""Servers on this machine for tests: one for downloads, with ranges, entity tags and the faults of real ones on request; and programs that serve."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil


class Web:
    """What is served and what was asked for.

    `files`: name -> bytes. `faults`: what to do with the next requests, in turn: an int cuts the answer there, "503" and "404" fail, "shifted"
    answers with another range than was asked for, "short" with its first 1,000 bytes. `asked`: (path, Range header) of each request. `slow`:
    seconds per 64 kB. `headers`: without "ETag" nothing vouches for a file's identity, without "Content-Length" it ends with the connection.
    """

    def __init__(self):
        self.files, self.faults, self.asked, self.slow, self.headers = (
            {},
            [],
            [],
            0.0,
            {"ETag", "Content-Length"},
        )
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with suppress(ConnectionError):  # whoever asked was killed, or has a full disk
                    web.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request):
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        fault = self.faults.pop(0) if self.faults else None
        body = self.files.get(request.path.lstrip("/"))
        if fault in ("503", "404") or body is None:
            return request.send_error(int(fault or 404))
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        at = (
            int(wanted.removeprefix("bytes=").removesuffix("-"))
            if wanted and request.headers.get("If-Range", tag) == tag
            else 0
        )
        if at >= len(body) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(body)}")
            return request.end_headers()
        at += 7 if fault == "shifted" else 0
        last = at + 1000 if fault == "short" else len(body)
        request.send_response(206 if at else 200)
        if at:
            request.send_header("Content-Range", f"bytes {at}-{last - 1}/{len(body)}")
        sent = {"ETag": tag, "Content-Length": str(last - at)}
        for name in self.headers:
            request.send_header(name, sent[name])
        request.end_headers()
        end = fault if isinstance(fault, int) else last
        for i in range(at, end, 2**16):
            request.wfile.write(body[i : min(i + 2**16, end)])
            time.sleep(self.slow)


@contextmanager
def serve():
    web = Web()
    thread = threading.Thread(
        target=web.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        web.server.server_close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url):
    try:
        urllib.request.urlopen(url, timeout=5)
    except urllib.error.HTTPError:
        return True  # a status such as 404 is an answer, too
    except OSError:
        return False
    return True


@contextmanager
def running(command, url, folder, **environment):
    """A Python program that serves at `url`, started in `folder`, with its settings there.

    The context starts when the program answers. At its end the program and its kernels must end.
    """
    settings = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    environment = {
        **os.environ,
        **{name: str(folder / subfolder) for name, subfolder in settings.items()},
        "JUPYTER_PREFER_ENV_PATH": "1",
        **environment,
    }
    environment.pop("MPLBACKEND", None)  # of the tests; a notebook shows its figures
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        end = time.time() + 60
        while not _answers(url):
            alive = server.poll() is None and time.time() < end
            assert alive, f"no answer from {url}: {(folder / 'log').read_text()}"
            time.sleep(0.1)
        yield
    finally:
        family = []
        if server.poll() is None:
            family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()  # it ends its kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        left = psutil.wait_procs(family, timeout=20)[1]
        for process in left:
            process.kill()
    assert not left, "kernels outlived the server"
