"""S3 for tests: moto's over real HTTP, with every request counted and faults on demand."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Those of nobody.
_SECRETS = {"AWS_ACCESS_KEY_ID": "for-tests", "AWS_SECRET_ACCESS_KEY": "for-tests-too"}


class Request(NamedTuple):
    """What S3 was asked; the key is empty for a listing."""

    method: str
    key: str


@dataclass(eq=False, slots=True)
class Fault:
    """What goes wrong with requests: of one method, for one key, so many times; with all of them where it is None.

    They wait for `delay` seconds, then get `status`, or the first half of their answer (`cut`), or the answer.
    """

    method: str | None
    key: str | None
    times: int | None
    delay: float
    status: int | None
    cut: bool

    def meets(self, request: Request) -> bool:
        return self.times != 0 and self.method in (None, request.method) and self.key in (None, request.key)


class S3:
    """One bucket. `url` is the endpoint, `environment` what a server needs to be let in."""

    def __init__(self, bucket: str = "models") -> None:
        self.bucket = bucket
        self.requests: Counter[Request] = Counter()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self._backend.create_bucket(bucket, "us-east-1")
        self._listen(0)

    def __enter__(self) -> S3:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        self._hang_up()
        s3_backends.reset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        # What the host has configured for its own AWS is out of the way.
        files = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        return {**_SECRETS, **files, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

    def put(self, key: str, content: bytes) -> None:
        """Puts or replaces an object, whatever the faults are, and is not counted."""
        self._backend.put_object(self.bucket, key, content)

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        for key, content in objects.items():
            self.put(key, content)

    def delete(self, key: str) -> None:
        self._backend.delete_object(self.bucket, key)

    def count(self, method: str, key: str | None = None) -> int:
        """Requests of a method since `forget`, for one key or for all."""
        with self._lock:
            found = [number for asked, number in self.requests.items() if asked.method == method]
            return sum(found) if key is None else self.requests[Request(method, key)]

    def forget(self) -> None:
        """Counts from zero again."""
        with self._lock:
            self.requests.clear()

    @contextmanager
    def fault(
        self,
        method: str | None = None,
        key: str | None = None,
        *,
        times: int | None = None,
        delay: float = 0.0,
        status: int | None = None,
        cut: bool = False,
    ) -> Iterator[Fault]:
        """Requests meet this fault for as long as the block runs. The first of several counts."""
        fault = Fault(method, key, times, delay, status, cut)
        with self._lock:
            self._faults.append(fault)
        try:
            yield fault
        finally:
            with self._lock:
                self._faults.remove(fault)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuses connections for as long as the block runs, and lets nobody else have the port."""
        self._hang_up()
        with socket.socket() as placeholder:
            placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            placeholder.bind(("127.0.0.1", self._port))
            try:
                yield
            finally:
                self._listen(self._port)

    def _listen(self, port: int) -> None:
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", port, self._respond, threaded=True, request_handler=_Quiet
        )
        self._port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def _hang_up(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        fault = self._note(environ)
        if fault is None:
            return self._pass_on(environ, start_response)
        self._ended.wait(fault.delay)
        if fault.status is not None:
            code, reason = _REASONS.get(fault.status, ("InternalError", "Injected"))
            start_response(f"{fault.status} {reason}", [("Content-Type", "application/xml")])
            error = f"<Error><Code>{code}</Code><Message>{reason}</Message></Error>".encode()
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [error]
        body = b"".join(self._pass_on(environ, start_response))
        # The headers promise all of it.
        return [body[: len(body) // 2]] if fault.cut else [body]

    def _note(self, environ: WSGIEnvironment) -> Fault | None:
        # WSGI's strings are bytes in disguise.
        path = environ["PATH_INFO"].encode("latin-1").decode()
        request = Request(environ["REQUEST_METHOD"], path.lstrip("/").partition("/")[2])
        with self._lock:
            self.requests[request] += 1
            fault = next((fault for fault in self._faults if fault.meets(request)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
            return fault

    def _pass_on(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer


# What S3 itself says with these.
_REASONS = {
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "Not Found"),
    500: ("InternalError", "Internal Server Error"),
    503: ("SlowDown", "Slow Down"),
}


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """A line for each request is for people."""
