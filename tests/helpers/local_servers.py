"""Local servers: one for downloads, with the faults of real ones, and programs that serve pages."""

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

CHUNK = 2**16  # bytes


class Web:
    """A web server with files, and a record of its requests.

    Attributes:
        files: name -> bytes.
        faults: of the next requests, in turn. A number cuts the answer after so many bytes, "503"
            and "404" fail, "shifted" answers with another range than the requested one, "short"
            with its first 1,000 bytes. None is no fault.
        asked: (path, Range header) of each request.
        slow: seconds per 64 kB.
        headers: the headers that are sent; without "ETag" nothing identifies the version of a
            file, without "Content-Length" a file ends with the connection.
    """

    def __init__(self):
        self.files = {}
        self.faults = []
        self.asked = []
        self.slow = 0.0
        self.headers = {"ETag", "Content-Length"}
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with suppress(ConnectionError):  # the client was killed, or its disk is full
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
        first = 0
        if wanted and request.headers.get("If-Range", tag) == tag:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(body) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(body)}")
            return request.end_headers()
        if fault == "shifted":
            first += 7
        last = first + 1000 if fault == "short" else len(body)
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(body)}")
        values = {"ETag": tag, "Content-Length": str(last - first)}
        for name in self.headers:
            request.send_header(name, values[name])
        request.end_headers()
        end = fault if isinstance(fault, int) else last
        for start in range(first, end, CHUNK):
            request.wfile.write(body[start : min(start + CHUNK, end)])
            time.sleep(self.slow)


@contextmanager
def serve():
    web = Web()
    options = {"poll_interval": 0.02}
    threading.Thread(target=web.server.serve_forever, kwargs=options, daemon=True).start()
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
