"""The messages between the front and a template: small JSON objects, some with file descriptors.

They go over a SOCK_SEQPACKET pair, which keeps the bounds of messages and whose end-of-file tells of a death. The
multiprocessing module's Connection would send pickles and needs a second socket to pass descriptors.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

_MAX_MESSAGE = 256 * 1024
_MAX_DESCRIPTORS = 4

Message = dict[str, Any]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(control: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(control, [json.dumps(message).encode()], list(descriptors))


def receive(control: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and the descriptors that came with it, or None at the end."""
    try:
        data, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE, _MAX_DESCRIPTORS)
    except ConnectionResetError:
        return None
    if not data:
        return None
    message: Message = json.loads(data)
    return message, descriptors
