"""Handlers written for Multi Model Server and TorchServe run here unmodified."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmserve_worker.handlers.contracts import ManifestError
from mmserve_worker.handlers.errors import LoadError
from tests.worker.coded import Coded, answer, mms_handler, mms_loaded, said

# In the shape of the servers' own examples.
SERVICE = """
    import os

    class ModelHandler(object):
        def __init__(self):
            self.initialized = False

        def initialize(self, context):
            self.initialized = True
            properties = context.system_properties
            with open(os.path.join(properties.get("model_dir"), "weight.txt")) as file:
                self.weight = float(file.read())

        def handle(self, data, context):
            return [self.weight * row.get("body")[0] for row in data]

    _service = ModelHandler()

    def handle(data, context):
        if not _service.initialized:
            _service.initialize(context)
        if data is None:
            return None
        return _service.handle(data, context)
"""
JSON = {"content_type": "application/json"}


def manifest(handler: str, **said: Any) -> str:
    return json.dumps({"model": {"modelName": "m", "handler": handler}, "runtime": "python", **said})


@pytest.mark.parametrize(
    "named", ["service:handle", "service.py:handle", "service", "service.py", "/home/builder/service.py:handle"]
)
def test_the_manifest_names_the_handler(coded: Coded, named: str) -> None:
    files = {"service.py": SERVICE, "weight.txt": "2.5", "MAR-INF/MANIFEST.json": manifest(named)}
    assert said(answer(coded.load(files), b"[4]", **JSON)) == 10.0


@pytest.mark.parametrize("named", ["service:handle", "service.py", "service"])
def test_an_option_names_the_handler_of_a_bare_directory(coded: Coded, named: str) -> None:
    handler = coded.load({"service.py": SERVICE, "weight.txt": "2"}, {"option.handler": named})
    assert said(answer(handler, b"[4]", **JSON)) == 8.0


@pytest.mark.parametrize("file", ["model.py", "inference.py", "code/inference.py"])
def test_handle_of_two_parameters_is_no_djl_handler(coded: Coded, file: str) -> None:
    assert said(answer(coded.load({file: SERVICE, "weight.txt": "2"}), b"[4]", **JSON)) == 8.0


def test_a_manifest_goes_before_everything_else_of_an_archive(coded: Coded) -> None:
    files = {
        "service.py": mms_handler("return ['the manifest']"),
        "model.py": mms_handler("return ['model.py']"),
        "inference.py": "def predict_fn(d, m): return ['inference.py']\ndef model_fn(d): pass",
        "MAR-INF/MANIFEST.json": manifest("service:handle"),
    }
    assert answer(coded.load(files)).body == b"the manifest"
    (coded.directory / "MAR-INF/MANIFEST.json").write_text("{}")
    assert answer(coded.load({})).body == b"model.py"
    (coded.directory / "model.py").unlink()
    assert answer(coded.load({})).body == b'["inference.py"]'


@pytest.mark.parametrize("named", ["service", "service:Second"])
def test_a_class_is_made_and_initialized(coded: Coded, named: str) -> None:
    source = """
        from ts.torch_handler.base_handler import BaseHandler
        class First: pass
        class Second(BaseHandler):
            def initialize(self, context):
                super().initialize(context)
                self.model = 3
            def preprocess(self, data):
                return [row["body"] for row in data]
            def inference(self, numbers):
                return [self.model * number for number in numbers]
    """
    handler = coded.load({"service.py": source}, {"option.handler": named + (".py" if named == "service" else "")})
    assert said(answer(handler, b"4", **JSON)) == 12


@pytest.mark.parametrize(
    ("files", "handler", "message"),
    [
        ({"service.py": "x = 1"}, "service:handle", "the handler has no handle"),
        ({"service.py": "x = 1"}, "service.py", "no function or class with a method handle"),
        ({}, "service.py:handle", "there is no service.py"),
        ({"service.py": "class A:\n  def handle(self): 1\nclass B(A): pass"}, "service.py", r"several.*\(A, B\)"),
        ({"service.py": SERVICE, "MAR-INF/MANIFEST.json": '{"runtime": "LSP"}'}, "service:handle", "only python"),
    ],
)
def test_what_cannot_be_served_does_not_load(coded: Coded, files: dict[str, str], handler: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        coded.load(files, {"option.handler": handler})


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model": []}', '{"model": {"handler": 3}}', "{}" + " " * (1 << 20)], ids=range(5)
)
def test_a_manifest_that_is_none_is_refused(coded: Coded, text: str) -> None:
    with pytest.raises(ManifestError, match=r"^MAR-INF"):
        coded.load({"MAR-INF/MANIFEST.json": text})


def test_what_is_raised_at_load_is_raised(coded: Coded) -> None:
    with pytest.raises(FileNotFoundError):
        coded.load({"service.py": SERVICE}, {"option.handler": "service:handle"})
    source = "class S:\n    def initialize(self, c): 1 / 0\n    def handle(self, d, c): pass"
    with pytest.raises(ZeroDivisionError):
        coded.load({"service.py": source}, {"option.handler": "service.py"})


# --- what a handler gets

BODY = mms_handler("body = data[0]['body']; return [[type(body).__name__, str(body)]]")


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b'{"a": 1}', "application/json", ["dict", "{'a': 1}"]),
        (b"[1]", "application/json; charset=utf-8", ["list", "[1]"]),
        (b"caf\xc3\xa9", "text/plain", ["str", "café"]),
        (b"x", "application/octet-stream", ["bytearray", "bytearray(b'x')"]),
        (b"x", "", ["bytearray", "bytearray(b'x')"]),
        (b"{", "application/json", ["bytearray", "bytearray(b'{')"]),
        (b"\xff", "text/csv", ["bytearray", "bytearray(b'\\xff')"]),
    ],
)
def test_a_body_is_decoded_by_its_type(coded: Coded, body: bytes, content_type: str, expected: list[str]) -> None:
    assert said(answer(mms_loaded(coded, BODY), body, content_type=content_type)) == expected


def test_decoding_can_be_switched_off(coded: Coded) -> None:
    handler = mms_loaded(coded, BODY, {"option.decode_input_request": "false"})
    assert said(answer(handler, b"[1]", **JSON)) == ["bytearray", "bytearray(b'[1]')"]


def test_the_fields_of_a_form_come_by_their_names(coded: Coded) -> None:
    handler = mms_loaded(coded, mms_handler("return [{name: str(value) for name, value in data[0].items()}]"))
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: application/json\r\n\r\n{"b": 1}\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\nraw\r\n--XX--\r\n'
    )
    reply = answer(handler, body, content_type="multipart/form-data; boundary=XX")
    assert said(reply) == {"a": "{'b': 1}", "f": "bytearray(b'raw')"}
    assert answer(handler, body, content_type="multipart/form-data").status == 400
    reply = answer(handler, b"a=1", content_type="application/x-www-form-urlencoded")
    assert said(reply) == {"a": "bytearray(b'1')"}


def test_the_parameters_of_the_query_come_by_their_names(coded: Coded) -> None:
    source = mms_handler("return [{name: [type(value).__name__, value.decode()] for name, value in data[0].items()}]")
    handler = mms_loaded(coded, source)
    query = (("shop", "é"), ("top", "1"), ("top", "2"), ("body", "not this"))
    expected = {"shop": ["bytearray", "é"], "top": ["bytearray", "2"], "body": ["bytearray", "x"]}
    assert said(answer(handler, b"x", query=query)) == expected
    form = {"content_type": "application/x-www-form-urlencoded"}
    assert said(answer(handler, b"top=3", query=query[:3], **form)) == {
        "shop": ["bytearray", "é"],
        "top": ["bytearray", "3"],
    }


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("context.model_name", "the-model"),
        ("context.manifest", {}),
        ("context.system_properties['model_dir'] == __import__('os').getcwd()", True),
        ("[context.system_properties[key] for key in ('gpu_id', 'batch_size', 'server_name')]", [None, 1, "MMS"]),
        ("context.system_properties.get('server_version').split('.')[0]", "1"),
        ("[context.request_ids, context.get_request_id(0), context.get_request_id()]", [{"0": "7"}, "7", "7"]),
        ("[context.get_request_header(0, name) for name in ('X-TENANT', 'accept', 'x')]", ["a", "*/*", None]),
        ("sorted(context.get_all_request_header(0))", ["Accept", "Content-Type", "X-Request-Id", "X-Tenant"]),
        ("context.request_processor[0].get_request_property('x-tenant')", "a"),
        ("context.request_processor[0].get_request_properties()['ACCEPT']", "*/*"),
        ("'x-TENANT' in context.get_all_request_header(0)", True),
        ("context.get_response_status(0)[0]", 200),
        ("context.get_response_content_type(0)", None),
        ("context.get_response_headers(0)", {}),
    ],
)  # fmt: skip
def test_the_context_of_a_request(coded: Coded, expression: str, expected: Any) -> None:
    handler = mms_loaded(coded, mms_handler(f"return [{{'value': {expression}}}]"))
    headers = {"X-Tenant": "a", "X-Request-Id": "id-7", "Content-Type": "text/csv"}
    call = {"content_type": "text/csv", "accept": "*/*", "headers": headers, "request_id": "7"}
    assert said(answer(handler, b"1", **call)) == {"value": expected}


def test_metrics_go_into_the_log(coded: Coded, caplog: pytest.LogCaptureFixture) -> None:
    metrics = (
        "m = context.metrics; m.add_counter('Rows', 3); m.add_time('Took', 1.5, 0); m.add_size('Held', 2, unit='kB'); "
        "m.add_percent('Share', 50); m.add_error('Bad', 1); m.add_metric('Other', 4, unit='things'); return ['x']"
    )
    with caplog.at_level("INFO", "mmserve.model"):
        assert answer(mms_loaded(coded, mms_handler(metrics))).body == b"x"
    logged = [message.removeprefix("model the-model: metric ") for message in caplog.messages]
    assert logged == ["Rows is 3 count", "Took is 1.5 ms", "Held is 2 kB", "Share is 50 percent", "Bad is 1",
                      "Other is 4 things"]  # fmt: skip
