"""What our server is compared with: a bare low-level aiohttp server on uvloop, in one process.

`python -m benchmarks.reference ANSWER` reads each body and answers ANSWER, or to POST /echo the body. It says its port
in a line of its own and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop
from aiohttp import web

_JSON = {"Content-Type": "application/json"}


async def serve(constant: bytes) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/echo":
            # Not request.read(), which takes no more than 1 MiB.
            body = await request.content.read()
            return web.Response(body=body, headers={"Content-Type": "application/x-npy"})
        await request.read()
        return web.Response(body=constant, headers=_JSON)

    loop = asyncio.get_running_loop()
    listener = await loop.create_server(web.Server(answer, access_log=None), "127.0.0.1", 0)
    sys.stdout.write(f"{listener.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1].encode()))
