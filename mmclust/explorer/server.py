"""The explorer as a web page: its notebook, shown by Voila until it is stopped.

Each page has its own kernel, and one more is started in advance for the next page. The page loads
nothing from other servers. It can show any folder of pictures on this machine. Therefore only this
machine can open it by default; with another `host`, the token in the address is required.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
import threading
import webbrowser
from pathlib import Path

from mmclust.explorer.pictures import MAX_UPLOAD
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
    "MappingKernelManager": {"cull_idle_timeout": 3600, "cull_interval": 60},  # seconds
}  # fmt: skip


def serve(notebook: Path, host: str, port: int, profile: str, device: str, browser: bool) -> None:
    """Show the explorer's notebook as a web page until it is stopped; port 0 is any free one.

    `profile` and `device` are parameters of the notebook. Raises ImportError without voila, and
    ValueError if the port can't be used.
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise ImportError('the web page needs voila: pip install "mmclust[explorer]"') from error
    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    from tornado.ioloop import IOLoop
    from traitlets.config import Config

    port = _free_port(host, port)
    local = host in ("127.0.0.1", "localhost", "::1")
    token = "" if local else secrets.token_urlsafe()
    for name, value in thread_environment(KERNELS_AT_ONCE).items():
        os.environ.setdefault(name, value)  # for its kernels: this process only serves
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
    with tempfile.TemporaryDirectory(prefix="mmclust-explorer-") as folder:
        page = Path(folder) / "explorer.ipynb"
        values = {"profile": profile, "device": device, "home": str(Path.cwd())}
        nbformat.write(parameterize_notebook(load_notebook_node(str(notebook)), values), page)
        server = {
            "headers": {"Content-Security-Policy": CONTENT_POLICY},
            "allow_remote_access": not local,
            # An upload above the limit must arrive, so that the page can name the limit.
            "websocket_max_message_size": 8 * MAX_UPLOAD,
        }
        config = Config(VOILA_OPTIONS)
        app = Voila.instance(
            config=config, ip=host, port=port, token=token, tornado_settings=server
        )
        app.initialize([str(page)])
        IOLoop.current().add_callback(_announce, host, port, token, browser)
        app.start()


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            return probe.getsockname()[1]
    except OSError as error:
        problem = f"port {port} of {host} can't be used: {error.strerror}"
        raise ValueError(f"{problem}. Give another with --port, or 0 for any free one.") from error


def _announce(host: str, port: int, token: str, browser: bool) -> None:
    if host in ("0.0.0.0", "::"):  # all addresses of this machine
        host = socket.gethostname()
    elif ":" in host:
        host = f"[{host}]"
    address = f"http://{host}:{port}/" + (f"?token={token}" if token else "")
    print(f"The explorer is at {address} until you press Ctrl-C.", flush=True)
    if browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
