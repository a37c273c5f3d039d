"""Voila's server with two additions: no kernel stays without a page, and the path has a prefix.

A page that is closed or reloaded asks for the end of its kernel, or, if it can't, says goodbye to
the connection. If the network is lost or the computer sleeps, the kernel waits for some minutes.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import Dict
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

AWAY, UNUSED = 60, 6  # checks without the page: 10 minutes; 1 minute if it won't come (back)
GOING_AWAY = 1001  # the code with which a browser closes the connection of a page that is left


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
        if self._kernel_connections.get(kernel_id, 0) > 0:  # else the page left while connecting
            self._checks_left[kernel_id] = AWAY

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """Called every `cull_interval` seconds, but not for the kernel of the next page."""
        left = self._checks_left.setdefault(kernel_id, UNUSED)
        kernel: Any = self.get_kernel(kernel_id)
        busy = kernel.execution_state in ("starting", "busy")
        if left == 0:
            await self.shutdown_kernel(kernel_id)
        elif not busy and self._kernel_connections.get(kernel_id, 0) < 1:
            self._checks_left[kernel_id] -= 1


class PageConnection(ZMQChannelsWebsocketConnection):
    """Distinguishes a page that was left from one whose connection was lost."""

    def disconnect(self) -> Any:
        if self.websocket_handler.close_code == GOING_AWAY:
            self.multi_kernel_manager._checks_left[self.kernel_id] = UNUSED
        return super().disconnect()


class ExplorerServer(Voila):
    """Answers with and without the prefix `base_url`: some proxies remove it, and others do not."""

    def init_handlers(self) -> list:
        *others, (any_path, _, options) = super().init_handlers()
        prefix = re.escape(self.base_url.rstrip("/"))
        groups = (others, [(any_path, PageHandler, options)])
        starts = (prefix, "")
        return [(s + path, *rest) for group in groups for s in starts for path, *rest in group]
