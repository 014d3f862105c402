"""The S3 of the tests does what tests of the S3 store rely on."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, ResponseStreamingError

from tests.credentials import NOBODY
from tests.s3 import S3


@pytest.fixture
def client(s3: S3) -> Iterator[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=s3.url,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=1),
        **NOBODY,
    )
    s3.put("eu/shop-1.tar.gz", b"abcd" * 25_000)
    s3.forget()
    yield client
    client.close()


def read(client: Any, key: str = "eu/shop-1.tar.gz") -> bytes:
    content: bytes = client.get_object(Bucket="models", Key=key)["Body"].read()
    return content


def test_objects_are_read_replaced_and_deleted(s3: S3, client: Any) -> None:
    assert read(client) == b"abcd" * 25_000
    s3.put("eu/shop-1.tar.gz", b"newer")
    assert read(client) == b"newer"
    s3.delete("eu/shop-1.tar.gz")
    with pytest.raises(ClientError, match="NoSuchKey"):
        read(client)
    assert s3.count("GET") == s3.count("GET", "eu/shop-1.tar.gz") == 3


def test_a_listing_is_a_request_without_a_key(s3: S3, client: Any) -> None:
    s3.put_all({f"many/é+%2F{number}": b"" for number in range(1_500)})
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="models", Prefix="many/")
    assert sum(page["KeyCount"] for page in pages) == 1_500
    assert s3.count("GET", "") == 2


def test_faults_are_met_for_as_long_as_they_last(s3: S3, client: Any) -> None:
    with s3.fault(status=403, key="eu/shop-1.tar.gz", times=1), pytest.raises(ClientError, match="AccessDenied"):
        read(client)
    with s3.fault(status=503, key="other"):
        read(client)
    with s3.fault(cut=True), pytest.raises(ResponseStreamingError):
        read(client)
    with s3.fault(delay=30), pytest.raises(Exception, match="timeout"):
        read(client)
    with s3.away(), pytest.raises(EndpointConnectionError):
        read(client)
    assert read(client)


def test_a_client_that_hangs_up_leaves_nothing(s3: S3) -> None:
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", urlsplit(s3.url).port or 0))
        # It is reset, not closed.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"GET /models HTTP/1.1\r\nHost: s3\r\n\r\n")
        assert client.recv(1)
        client.close()
