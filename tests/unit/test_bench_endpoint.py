"""``mnist bench-endpoint``: the requests of every protocol, what the command tells, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from pydantic import ValidationError

from mnist_core.config_bench import BenchEndpointConfig
from mnist_core.errors import ConfigError, ServingFailedError
from serve import bench_endpoint
from serve.load_requests import draw_digits, make_requests
from serve.protos import inference_pb2

DIGITS = draw_digits()


def split(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ") for line in lines)}
    assert int(headers["content-length"]) == len(body)
    return first, headers, body


def first_request(protocol: str, num_images: int = 2, key: str | None = None) -> bytes:
    return next(make_requests(protocol, "mnist", "host:80", num_images, key, DIGITS))


def test_a_request_to_predict_is_the_pixels():
    first, headers, body = split(first_request("predict", key="secret"))
    assert first == "POST /predict HTTP/1.1"
    assert headers["host"] == "host:80"
    assert headers["authorization"] == "Bearer secret"
    assert body == DIGITS[:2].tobytes()


def test_a_request_in_json_holds_the_pixels_as_numbers():
    first, _, body = split(first_request("v2"))
    (tensor,) = json.loads(body)["inputs"]
    assert first == "POST /v2/models/mnist/infer HTTP/1.1"
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("images", "UINT8", [2, 28, 28])
    assert np.array_equal(tensor["data"], DIGITS[:2].reshape(-1))
    first, _, body = split(first_request("tfs"))
    assert first == "POST /v1/models/mnist:predict HTTP/1.1"
    assert np.array_equal(json.loads(body)["instances"], DIGITS[:2])


def test_a_binary_request_says_where_its_pixels_begin():
    _, headers, body = split(first_request("v2-binary"))
    length = int(headers["inference-header-content-length"])
    (tensor,) = json.loads(body[:length])["inputs"]
    assert tensor["parameters"]["binary_data_size"] == len(body) - length == 2 * 784
    assert body[length:] == DIGITS[:2].tobytes()


def test_a_grpc_request_holds_the_pixels_raw():
    request = inference_pb2.ModelInferRequest.FromString(first_request("grpc"))
    assert request.model_name == "mnist"
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("images", "UINT8", [2, 28, 28])
    assert list(request.raw_input_contents) == [DIGITS[:2].tobytes()]


def test_requests_differ_and_come_again():
    requests = make_requests("predict", "mnist", "host", 1000, None, DIGITS)
    made = [next(requests) for _ in range(9)]
    assert made[:4] == made[4:8]
    assert len(set(made[:4])) == 3  # 300 digits, from the beginning again at the end


@contextlib.contextmanager
def serving(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def measure(url: str, **values) -> dict:
    return bench_endpoint.run(BenchEndpointConfig(url=url, **{"seconds": 0.1, "warmup_s": 0, **values}))


def test_the_command_tells_rates_latencies_and_statuses():
    with serving(200) as url:
        result = measure(url, connections=1, images=3)
    assert json.loads(json.dumps(result)) == result
    assert list(result["latency_ms"]) == ["p50", "p90", "p99", "p99.9", "max"]
    assert list(result["latency_ms"].values()) == sorted(result["latency_ms"].values())
    assert result["statuses"] == {"200": result["requests"]}
    assert result["images_per_s"] == pytest.approx(3 * result["requests_per_s"], abs=0.05)
    assert "problem" not in result
    text = bench_endpoint.render(result)
    assert "3 images a request, 1 connection, closed loop" in text
    assert "p99.9" in text


def test_a_run_in_which_nothing_succeeded_is_a_failure():
    with serving(404) as url:
        result = measure(url, rate=100, connections=2)
    assert result["problem"] == "no request of 10 succeeded: http_404"
    assert "http_404: 10" in bench_endpoint.render(result)


@pytest.mark.parametrize("protocol", ["predict", "grpc"])
def test_an_endpoint_that_is_not_there_is_one_line(protocol):
    with serving(200) as url:
        pass
    reason = "nobody listens there" if protocol == "predict" else "no connection within 0.3 s"
    with pytest.raises(ServingFailedError, match=f"^{url}: {reason}; mnist serve starts an endpoint$"):
        measure(url, protocol=protocol, timeout_s=0.3)


def test_a_file_without_a_key_is_refused(tmp_path):
    path = tmp_path / "keys"
    with pytest.raises(ConfigError, match="cannot be read"):
        measure("http://127.0.0.1:1", api_key_file=path)
    path.write_text("# none\n\n")
    with pytest.raises(ConfigError, match="no key"):
        measure("http://127.0.0.1:1", api_key_file=path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://host", "http://[::1]:80/"])
def test_an_address_is_taken(url):
    assert BenchEndpointConfig(url=url).address.hostname in ("127.0.0.1", "host", "::1")
    assert BenchEndpointConfig(url="host:9000", protocol="grpc").address.port == 9000


@pytest.mark.parametrize(
    "url", ["host:8000", "http://", "ftp://host", "http://host:0", "http://host:99999", "http://host/predict", ""]
)
def test_what_is_no_address_is_refused_with_what_was_received(url):
    with pytest.raises(ValidationError, match=r"URL: received '.*', expected http://HOST:PORT"):
        BenchEndpointConfig(url=url)
