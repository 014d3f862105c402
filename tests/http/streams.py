"""Models whose answers come in pieces, as the request's words say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.http.gates import Gate
from tests.models_for_tests import write_model
from tests.servers import LIGHT, Server

# `hold-NAME` waits for the gate to let NAME go, as in gates.py; any word that is no command is a piece.
_CODE = """
import asyncio, os, time
from djl_python import Output

GATE = {gate!r}

def note(name):
    with open(GATE + "/" + name, "a") as file:
        file.write("x")

def pieces(words, together):
    try:
        for word in words:
            command, _, argument = word.partition("-")
            if command == "hold":
                note("held-" + argument)
                while not os.path.exists(GATE + "/let-" + argument):
                    time.sleep(0.002)
            elif command == "raise":
                raise RuntimeError(argument)
            elif command == "cancel":
                raise asyncio.CancelledError
            elif command == "die":
                os.kill(os.getpid(), 9)
            elif command == "sleep":
                time.sleep(float(argument))
            elif command == "large":
                yield b"x" * int(argument)
            elif command == "many":
                for number in range(int(argument)):
                    note("made")
                    yield b"x" * 65536
            elif command == "together":
                yield str(together)
            else:
                yield word
    finally:
        note("closed-" + words[0])

def handle(inputs):
    if inputs.is_empty():
        return None
    together = inputs.get_batch_size()
    words = inputs.get_batches()[0].get_as_string().split()
    note("asked-" + words[0])
    output = Output().add_stream_content(pieces(words, together), None)
    return output.finalize(note, "finalized-" + words[0])
"""


def write_streaming(directory: Path, gate: Gate, properties: str = "") -> Path:
    code = _CODE.format(gate=str(gate.directory))
    return write_model(directory, files={"model.py": code, "serving.properties": properties})


def serve_streaming(
    serve: Callable[..., Server], store: Path, gate: Gate, properties: Mapping[str, str], **settings: Any
) -> Server:
    """A server with a model of each name, which has these properties."""
    for name, said in properties.items():
        write_streaming(store / name, gate, said)
    return serve(model_store=store, preload=LIGHT, **settings)


def ask(server: Server, words: str, model: str = "words") -> httpx.Response:
    return server.client.post(f"/predictions/{model}", content=words)
