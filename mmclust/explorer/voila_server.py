"""Voila's server with two additions: no kernel stays without a page, and the path has a prefix.

A page that is closed or reloaded asks for the end of its kernel. It can't ask if its tab crashes,
the network is lost or the computer sleeps: then its kernel waits for it for some minutes.
"""

from __future__ import annotations

import asyncio
import re

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import Dict
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

AWAY, UNUSED = 60, 6  # checks without the page: 10 minutes; 1 minute if it never came


class PageHandler(TornadoVoilaHandler):
    """Makes one page after the other; none for a browser that has already reloaded it again."""

    _turn = asyncio.Lock()

    async def get(self, path: str | None = None) -> None:
        async with self._turn:
            if not self.request.connection.stream.closed():
                # Sets the cookie without which the page's request to end its kernel is refused.
                self.xsrf_token  # noqa: B018
                await super().get(path)


class PageKernels(AsyncMappingKernelManager):
    """Ends kernels without a page. It counts checks, which stop while this machine sleeps."""

    _checks_left = Dict()

    def notify_connect(self, kernel_id: str) -> None:
        super().notify_connect(kernel_id)
        self._checks_left[kernel_id] = AWAY

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """Called every `cull_interval` seconds, but not for the kernel of the next page."""
        left = self._checks_left.setdefault(kernel_id, UNUSED)
        busy = self.get_kernel(kernel_id).execution_state in ("starting", "busy")
        if left == 0:
            await self.shutdown_kernel(kernel_id)
        elif not busy and not self._kernel_connections.get(kernel_id):
            self._checks_left[kernel_id] -= 1


class ExplorerServer(Voila):
    """Answers with and without the prefix `base_url`: some proxies remove it, and others do not."""

    def init_handlers(self) -> list:
        *others, (any_path, _, options) = super().init_handlers()
        prefix = re.escape(self.base_url.rstrip("/"))
        groups = (others, [(any_path, PageHandler, options)])
        starts = (prefix, "")
        return [(s + path, *rest) for group in groups for s in starts for path, *rest in group]
