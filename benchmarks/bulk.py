"""A client that costs as little as one can: sends one npy over and over and takes it back, on a raw socket.

`python -m benchmarks.bulk HOST PORT PATH BYTES SECONDS` says as JSON how often that went.
"""

from __future__ import annotations

import io
import json
import socket
import sys
import time

import numpy as np

_HEADER_ROOM = 64 * 1024


def main(host: str, port: str, path: str, size: str, seconds: str) -> None:
    array = np.arange(int(size) // 8, dtype=float).reshape(-1, 8)
    written = io.BytesIO()
    np.save(written, array)
    body = written.getvalue()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-npy\r\nAccept: application/x-npy\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    answer = memoryview(bytearray(len(body) + _HEADER_ROOM))
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        # The first one is checked in full; it also makes the pages of the buffer real.
        start, end = _exchange(connection, request, answer)
        if not np.array_equal(np.load(io.BytesIO(answer[start:end])), array):
            sys.exit("the answer is not what was sent")
        round_trips = 0
        started = time.perf_counter()
        while time.perf_counter() - started < float(seconds):
            _exchange(connection, request, answer)
            round_trips += 1
        taken = time.perf_counter() - started
    sys.stdout.write(json.dumps({"round_trips": round_trips, "seconds": taken}))


def _exchange(connection: socket.socket, request: bytes, answer: memoryview) -> tuple[int, int]:
    """Where in `answer` the body of the response begins and ends."""
    connection.sendall(request)
    received = 0
    start = end = 0
    while not end or received < end:
        count = connection.recv_into(answer[received:])
        if not count:
            sys.exit("the connection was closed")
        received += count
        if not end:
            head, found, _ = bytes(answer[: min(received, _HEADER_ROOM)]).partition(b"\r\n\r\n")
            if found:
                if not head.startswith(b"HTTP/1.1 200"):
                    sys.exit(head.decode(errors="replace"))
                start = len(head) + 4
                end = start + int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return start, end


if __name__ == "__main__":
    main(*sys.argv[1:])
