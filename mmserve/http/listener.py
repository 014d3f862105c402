"""Opens a listening socket and serves an API on it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from functools import partial
from urllib.parse import urlsplit

from aiohttp.typedefs import Handler

from mmserve.config import Settings
from mmserve.errors import StartError
from mmserve.http.connection import Connection, ConnectionServer
from mmserve.http.lane import Lane
from mmserve.http.lane_connection import LaneConnection

# Connections that may wait to be accepted: a burst of clients while the event loop is busy.
_BACKLOG = 2048
# Seconds in which what a refused client still sends is read and thrown away, so that it sees the refusal.
_LINGERING = 2.0


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `http://HOST:PORT`; raises StartError."""
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise StartError(f"Not an address: {address!r}: {error}") from error
    if parts.scheme not in ("", "http") or not host or port is None or parts.path not in ("", "/"):
        raise StartError(f"Not an address: {address!r}; it looks like http://127.0.0.1:8080.")
    return host, port


def bind(address: str) -> socket.socket:
    """A socket bound to the address, not yet listening; raises StartError in one line that says why."""
    host, port = parse_address(address)
    try:
        family, _, _, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        # The latter for what cannot be a name of a host.
        raise StartError(f"{address}: {getattr(error, 'strerror', None) or error}") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(sockaddr)
        # Found out here and not when it starts to listen: SO_REUSEADDR lets two sockets bind.
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        hint = {
            errno.EADDRINUSE: "; is mmserve already running?",
            errno.EACCES: "; ports below 1024 need a privilege",
        }
        reason = os.strerror(error.errno) + hint.get(error.errno, "") if error.errno else str(error)
        raise StartError(f"{address}: {reason}") from error
    return bound


class Listener:
    """One bound socket with an API behind it."""

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        self._server: asyncio.Server | None = None
        self._connections: ConnectionServer | None = None
        host, port = bound.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self, handler: Handler, settings: Settings, lane: Lane | None = None) -> None:
        """Serves what is plain by the lane, if there is one, and the rest by the handler."""
        self._connections = ConnectionServer(
            handler,
            Connection if lane is None else partial(LaneConnection, lane=lane),
            read_timeout=settings.read_timeout,
            keepalive_timeout=settings.keepalive_timeout,
            max_line_size=settings.max_header_size,
            max_field_size=settings.max_header_size,
            lingering_time=_LINGERING,
            access_log=None,
        )
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connections, sock=self._socket, backlog=_BACKLOG)

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        else:
            self._socket.close()

    async def stop(self, timeout: float) -> None:
        """Closes idle connections at once and the others when they have been answered, or after `timeout` seconds."""
        self.stop_accepting()
        if self._connections is not None:
            self._connections.stop_sweeping()
            self._connections.pre_shutdown()
            await self._connections.shutdown(timeout)
