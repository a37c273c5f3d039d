"""Servers on this machine for tests: one for downloads, with the faults of real ones on request;
and programs that serve."""

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
    """A file server.

    Attributes:
        files: name -> bytes.
        faults: what happens to the next requests, in turn: a number cuts the answer off after so
            many bytes, "503" and "404" are sent as errors.
        requests: the path of each request.
        delay: seconds per 64 kB.
        content_length: whether the answer says how long it is; else it ends with the connection.
    """

    def __init__(self):
        self.files = {}
        self.faults = []
        self.requests = []
        self.delay = 0.0
        self.content_length = True
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with suppress(ConnectionError):  # the client was killed, or has a full disk
                    web.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request):
        self.requests.append(request.path)
        fault = self.faults.pop(0) if self.faults else None
        body = self.files.get(request.path.lstrip("/"))
        if fault in ("503", "404") or body is None:
            request.send_error(int(fault or 404))
            return
        request.send_response(200)
        if self.content_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        end = len(body) if fault is None else fault
        for start in range(0, end, 2**16):
            request.wfile.write(body[start : min(start + 2**16, end)])
            time.sleep(self.delay)


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


def answers(url):
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
        while not answers(url):
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
