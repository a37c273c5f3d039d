"""The explorer as a web page: its notebook, shown by Voila until it is stopped.

Each page has its own kernel, and one more is started in advance for the next page. The page loads
nothing from other servers. It can show any folder of pictures on this machine. Therefore only this
machine can open it by default; with another `host`, or behind a proxy that other machines may
reach, the token in the address is required.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mmclust.threads import thread_environment

# Voila's template asks a public server for an icon font, which this forbids.
CONTENT_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "connect-src 'self' data: blob: ws: wss:; frame-ancestors 'self'"
)
KERNELS_AT_ONCE = 2  # one computes while that of the next page loads torch
VOILA_OPTIONS = {
    "Voila": {"port_retries": 0, "open_browser": False, "log_level": logging.ERROR},
    "VoilaConfiguration": {"preheat_kernel": True, "default_pool_size": 1,
                           "show_tracebacks": False, "strip_sources": True},
    "MappingKernelManager": {"cull_idle_timeout": 1, "cull_interval": 10},  # see `PageKernels`
}  # fmt: skip


def serve(
    notebook: Path, host: str, port: int, profile: str, device: str, browser: bool, base_url: str
) -> None:
    """Show the explorer's notebook as a web page until it is stopped; port 0 is any free one.

    `profile` and `device` are parameters of the notebook; `base_url` ("/demo/", or "/") is the path
    behind a proxy. Raises ImportError without voila, and ValueError if the port can't be used.
    """
    if find_spec("voila") is None:
        raise ImportError('the web page needs voila: pip install "mmclust[explorer]"')
    port = _free_port(host, port)
    local = host in ("127.0.0.1", "localhost", "::1") and base_url == "/"
    token = "" if local else secrets.token_urlsafe()
    address = _address(host, port, base_url, token)
    print(f"Starting the explorer at {address} (imports and a first kernel) ...", flush=True)

    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    from tornado.ioloop import IOLoop
    from tornado.web import HTTPError
    from traitlets.config import Config

    from mmclust.explorer.pictures import MAX_UPLOAD
    from mmclust.explorer.voila_server import ExplorerServer, PageConnection, PageKernels

    for name, value in thread_environment(KERNELS_AT_ONCE).items():
        os.environ.setdefault(name, value)  # for its kernels: this process only serves
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
    with tempfile.TemporaryDirectory(prefix="mmclust-explorer-") as folder:
        os.environ["TMPDIR"] = folder  # uploads are in it: a killed kernel leaves none behind
        page = Path(folder) / "explorer.ipynb"
        values = {"profile": profile, "device": device, "home": str(Path.cwd())}
        nbformat.write(parameterize_notebook(load_notebook_node(str(notebook)), values), page)
        server = {
            "headers": {"Content-Security-Policy": CONTENT_POLICY},
            "allow_remote_access": not local,
            # An upload above the limit must arrive, so that the page can name the limit.
            "websocket_max_message_size": 8 * MAX_UPLOAD,
        }
        where = {"ip": host, "port": port, "base_url": base_url, "server_url": "/"}
        config = Config(VOILA_OPTIONS)
        config.VoilaConfiguration.multi_kernel_manager_class = PageKernels
        config.Voila.kernel_websocket_connection_class = PageConnection
        app = ExplorerServer.instance(config=config, token=token, tornado_settings=server, **where)
        app.initialize([str(page)])
        app.ioloop = IOLoop.current()  # SIGTERM ends it, also before `start`
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))  # a closed terminal
        ready = f"The explorer is at {address} until you press Ctrl-C."
        app.ioloop.add_callback(print, ready, flush=True)
        if browser:
            opening = threading.Thread(target=webbrowser.open, args=(address,), daemon=True)
            app.ioloop.add_callback(opening.start)
        with suppress(HTTPError):  # of a kernel that was not ready: it ends with this process
            app.start()


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            return probe.getsockname()[1]
    except OSError as error:
        problem = f"port {port} of {host} can't be used: {error.strerror}"
        raise ValueError(f"{problem}. Give another with --port, or 0 for any free one.") from error


def _address(host: str, port: int, base_url: str, token: str) -> str:
    if host in ("0.0.0.0", "::"):  # all addresses of this machine
        host = socket.gethostname()
    elif ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}{base_url}" + (f"?token={token}" if token else "")
