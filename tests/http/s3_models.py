"""Models in S3 for tests: a few lines of code each, in an archive."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import Any

from tests.s3 import S3
from tests.servers import LIGHT, Server
from tests.supervision.coded import code

# Seconds between two looks at S3, where a test does not wait for one.
RARELY = 600.0
PREFIX = "fleet/"


def archive(answer: str, **files: str) -> bytes:
    """Of a model that answers so."""
    buffer = io.BytesIO()
    content = {"model.py": code(f"return Output().add({answer!r})"), **files}
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def key(name: str) -> str:
    return f"{PREFIX}{name}.tar.gz"


def put(s3: S3, name: str, answer: str, **files: str) -> None:
    s3.put(key(name), archive(answer, **files))


def serve_s3(serve: Callable[..., Server], s3: S3, **settings: Any) -> Server:
    usual: dict[str, Any] = {"s3_check_interval": RARELY, "preload": LIGHT}
    said = {**usual, **settings}
    return serve(environment=s3.environment, s3_endpoint_url=s3.url, model_store=f"s3://{s3.bucket}/{PREFIX}", **said)
