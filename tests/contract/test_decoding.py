"""How encoded images wait for a decoder: for how long, how many, and what else they wait for."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import orjson
import pytest
from fuzz_images import valid_files
from fuzz_requests import Client, multipart
from PIL import Image

from mnist_core.config_serve import ServeConfig
from mnist_core.engines import usable_cpus
from mnist_core.errors import DeadlineError
from mnist_core.images import ImageLimits
from serve.service import Service, decode_files
from serve.web import build_app

FILE = valid_files()[0]
MULTIPART = "multipart/form-data; boundary=cut"


def bodies(count: int) -> dict[str, tuple[str, bytes]]:
    """A request of so many files in every protocol: path to content type and body."""
    encoded = [base64.b64encode(FILE).decode()] * count
    tensor = {"name": "images", "datatype": "BYTES", "shape": [count], "data": encoded}
    return {
        "/predict": (MULTIPART, multipart(*[FILE] * count)),
        "/predict?split=true": (MULTIPART, multipart(*[FILE] * count)),
        "/v1/models/mnist:predict": ("", orjson.dumps({"instances": [{"b64": each} for each in encoded]})),
        "/v2/models/mnist/infer": ("", orjson.dumps({"inputs": [tensor]})),
    }


class Endpoint:
    """The endpoint in this process."""

    def __init__(self, service: Service) -> None:
        self.service, self._client = service, Client(build_app(service))

    async def ask(self, path: str, count: int = 1, **headers: str) -> tuple[int, str, dict[bytes, bytes]]:
        """Status, error and headers of the answer to so many files."""
        kind, body = bodies(count)[path]
        sent = {"content-type": kind, **headers}
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()]
        status, content, received = await self._client.ask("POST", path, body, named)
        return status, json.dumps(json.loads(content).get("error")), received

    async def version(self, version: str) -> int:
        """The status that a version has."""
        return (await self._client.ask("GET", f"/v1/models/mnist/versions/{version}"))[0]

    @contextmanager
    def busy_decoders(self) -> Iterator[None]:
        """Keep all decoders busy for as long as the block lasts."""
        release = threading.Event()
        for _ in range(max(1, usable_cpus())):
            self.service._decoders.submit(release.wait)
        try:
            yield
        finally:
            release.set()

    async def undecoded(self, count: int) -> None:
        """Until so many images wait."""
        while self.service._undecoded != count:
            await asyncio.sleep(0)


def run(scenario: Callable[[Endpoint], Awaitable[None]], storage: str, **config) -> None:
    async def main() -> None:
        service = Service(ServeConfig(storage=storage, device="cpu", **config))
        try:
            await scenario(Endpoint(service))
        finally:
            await service.close()

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("path", bodies(1))
def test_a_request_whose_time_is_over_is_not_decoded(path: str, model_storage: str):
    async def scenario(endpoint: Endpoint) -> None:
        status, error, _ = await endpoint.ask(path, 3, x_request_timeout_seconds="1e-9")
        assert status == 504
        assert "when 0 of 3 " in error
        assert endpoint.service._undecoded == 0

    run(scenario, model_storage)


def test_the_time_is_looked_at_between_images():
    """A few kilobytes, and a tenth of a second for each."""
    large = io.BytesIO()
    Image.new("1", (6320, 6320), 1).save(large, "PNG")
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=r"when \d of 200 images had been decoded"):
        decode_files([large.getvalue()] * 200, ImageLimits(), started + 0.05)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("path", bodies(1))
def test_more_images_than_may_wait_for_a_decoder_are_refused_at_once(path: str, model_storage: str):
    async def scenario(endpoint: Endpoint) -> None:
        with endpoint.busy_decoders():
            first = asyncio.create_task(endpoint.ask(path, 5))  # more than may wait, but nothing does
            await endpoint.undecoded(5)
            status, error, headers = await asyncio.wait_for(endpoint.ask(path), 20)
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert "5 images wait to be decoded, at most 4 may" in error
        assert (await first)[0] == 200
        assert (await endpoint.ask(path))[0] == 200

    run(scenario, model_storage, max_queue_images=4)


def test_as_many_as_may_wait_do(model_storage: str):
    async def scenario(endpoint: Endpoint) -> None:
        with endpoint.busy_decoders():
            waiting = [asyncio.create_task(endpoint.ask("/predict", 2)) for _ in range(2)]
            await endpoint.undecoded(4)
            waiting[0].cancel()
            await endpoint.undecoded(2)
            waiting.append(asyncio.create_task(endpoint.ask("/predict", 2)))
            await endpoint.undecoded(4)
        assert [(await each)[0] for each in waiting[1:]] == [200, 200]

    run(scenario, model_storage, max_queue_images=4)


def test_who_waits_for_a_version_keeps_no_decoder_waiting(model_storage: str):
    async def scenario(endpoint: Endpoint) -> None:
        with endpoint.service.models._loading:  # as if one were loaded, for as long as this takes
            missing = [asyncio.create_task(endpoint.version("77")) for _ in range(usable_cpus() + 1)]
            await asyncio.sleep(0)  # their turn on the loop: all of them wait in a thread now, or for one
            assert (await asyncio.wait_for(endpoint.ask("/predict"), 20))[0] == 200
            assert not any(each.done() for each in missing)
        assert [await each for each in missing] == [404] * len(missing)

    run(scenario, model_storage)
