"""The endpoint on real Ray Serve: answers, model changes, load, overload, and processes that are killed."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pytest
from serving import poll, serving
from untrained import publish_untrained

from mnist_core.predictor import load_predictor
from mnist_core.registry import open_model, promote, rollback
from mnist_core.storage import open_storage
from serve.welcome import describe

pytestmark = pytest.mark.ray

PIXELS = np.random.default_rng(3).integers(0, 256, (400, 28, 28)).astype(np.uint8)
PIXELS[:, 0] = 0  # white on black
POINTER = "models/mnist/current.json"
DIRECT_PORTS = {*range(30_000, 30_020), *range(40_000, 40_020)}


@pytest.fixture(scope="module")
def storage(model_storage, tmp_path_factory):
    """A storage of our own, since we publish to it."""
    return str(shutil.copytree(model_storage, tmp_path_factory.mktemp("own") / "storage"))


@pytest.fixture(scope="module")
def endpoint(storage, tmp_path_factory):
    with serving(
        storage,
        tmp_path_factory.mktemp("serve"),
        *("--min-replicas", "2", "--max-replicas", "2", "--cpus-per-replica", "0.5"),
        *("--max-queue-images", "3000", "--max-request-images", "4000"),
    ) as running:
        yield running


class Load:
    """Clients that ask one after the other, each on a connection that it keeps, and count what they get."""

    def __init__(self, endpoint, clients, bodies=1, **headers):
        self.statuses = Counter()
        self.versions = Counter()
        self.seconds = defaultdict(list)
        self.failures = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(endpoint, np.resize(PIXELS, (bodies, 28, 28)).tobytes(), headers))
            for _ in range(clients)
        ]

    def _ask(self, endpoint, body, headers):
        connection = None
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                connection = connection or HTTPConnection(*endpoint.address, timeout=60)
                connection.request("POST", "/predict", body, {"content-type": "application/octet-stream", **headers})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, HTTPException) as err:
                self.failures.append(repr(err))
                connection.close()
                connection = None
            else:
                self.statuses[answer.status] += 1
                self.seconds[answer.status].append(time.monotonic() - started)
                if answer.status == 200:
                    self.versions[json.loads(content)["model_version"]] += 1
                    continue
                self.failures.append(content.decode())
            self._stop.wait(0.02)  # a client that hammers a dead endpoint keeps it from coming back
        if connection:
            connection.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self):
        return self.statuses[200]

    def more(self, count=50):
        """Wait until so many more requests have succeeded."""
        before = self.answered
        poll(lambda: self.answered >= before + count)


def probabilities(answer):
    return np.array([each["probabilities"] for each in answer["predictions"]], np.float32)


def test_endpoint_and_predictor_agree_bit_for_bit(endpoint, storage):
    files = open_model(open_storage(storage), "mnist").files
    expected = load_predictor(files, device="cpu").predict(PIXELS).probabilities
    together = endpoint.predict(PIXELS.tobytes())
    alone = endpoint.predict(PIXELS[5].tobytes())
    assert probabilities(together).tobytes() == expected.tobytes()
    assert probabilities(alone).tobytes() == expected[5].tobytes()


def test_the_decoded_pixels_are_those_that_were_sent(endpoint):
    answer = endpoint.ask("POST", "/predict?pixels=1", PIXELS[0].tobytes())
    assert base64.b64decode(json.loads(answer[2])["predictions"][0]["pixels"]) == PIXELS[0].tobytes()


def test_the_lines_that_are_printed_work_as_they_are(endpoint):
    lines = [line for line in describe(endpoint.ready).splitlines() if "curl" in line]
    answers = [subprocess.run(line, shell=True, capture_output=True, check=True).stdout for line in lines]
    image, instances, model = map(json.loads, answers)
    assert image["predictions"][0]["digit"] == instances["predictions"][0]["digit"]
    assert model["name"] == "mnist"


def test_nothing_is_said_but_where_it_is(endpoint):
    assert endpoint.errors.read_text() == ""


def test_one_bad_image_is_one_error_among_good_answers(endpoint):
    blank = np.zeros((28, 28), np.uint8)
    answer = endpoint.predict(np.stack([PIXELS[0], blank, PIXELS[1]]).tobytes())["predictions"]
    assert [("digit" in each) for each in answer] == [True, False, True]
    assert answer[1]["error"]["code"] == "image_blank"


def listening(process):
    try:
        return [each.laddr for each in process.net_connections("tcp") if each.status == "LISTEN"]
    except psutil.NoSuchProcess:  # HAProxy's configuration has changed, and another one takes over
        return []


def test_nothing_that_serves_listens_beyond_loopback(endpoint):
    def front():
        found = [address for process in endpoint.actors("haproxy") for address in listening(process)]
        return found if len(found) == 4 else None  # HTTP, gRPC, metrics, statistics; others while one takes over

    assert {address.ip for address in poll(front, 20)} == {"127.0.0.1"}
    for process in endpoint.actors("ServeReplica"):
        addresses = listening(process)
        doors = [address.ip for address in addresses if address.port in DIRECT_PORTS]
        assert sorted(doors) == ["127.0.0.1", "::ffff:127.0.0.1"]  # HTTP from port 30000 on, gRPC from 40000
        # The one other is that of every Ray worker, which asks for a token. Ray Serve's own, which unpickles what
        # anybody sends, must not be there.
        assert len(addresses) == len(doors) + 1


def test_a_promoted_model_is_served_in_seconds_under_load_without_a_failed_request(endpoint, storage):
    storage = open_storage(storage)
    version = publish_untrained(storage, 2)
    with Load(endpoint, 4) as load:
        load.more()
        promote(storage, "mnist", version)
        started = time.monotonic()
        poll(lambda: load.versions[f"mnist/{version}"] > 50, 20)
        assert time.monotonic() - started < 10
        rollback(storage, "mnist")
        poll(lambda: endpoint.predict(PIXELS[0].tobytes())["model_version"] == "mnist/1", 20)
    assert not load.failures
    assert set(load.versions) == {"mnist/1", f"mnist/{version}"}


def both_have_said(endpoint, text):
    """Whether it is in the logs of both replicas, which Ray keeps in files of theirs."""
    files = [file.path for replica in endpoint.actors("ServeReplica") for file in replica.open_files()]
    logs = [Path(path).read_text() for path in files if "/logs/serve/replica_" in path]
    return len(logs) == 2 and all(text in log for log in logs)


def test_a_broken_model_is_refused_and_the_old_one_goes_on(endpoint, storage, tmp_path):
    uri, storage = storage, open_storage(storage)
    version, broken = publish_untrained(storage, 3), publish_untrained(storage, 4)
    # Promotion refuses what is broken, and a replica keeps what it has once loaded. So the pointer is made in a copy,
    # where the version is whole and nobody serves it.
    aside = open_storage(str(shutil.copytree(uri, tmp_path / "aside")))
    promote(aside, "mnist", broken)
    damaged = Path(storage.path(f"models/mnist/{broken}/model.tflite"))
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 2)  # among the weights, where nothing but the checksum tells
        file.write(b"\xff\x00\xff")
    promote(storage, "mnist", version)
    poll(lambda: both_have_said(endpoint, f"serves mnist/{version}, "), 20)
    with Load(endpoint, 2) as load:
        load.more()
        pointer, before = (each.read_bytes(POINTER, 10_000) for each in (aside, storage))
        assert storage.swap(POINTER, pointer, expected=before)
        poll(lambda: both_have_said(endpoint, f"goes on serving mnist/{version}: "), 20)
        load.more(200)
    assert not load.failures
    assert set(load.versions) == {f"mnist/{version}"}
    promote(storage, "mnist", "1")
    poll(lambda: endpoint.predict(PIXELS[0].tobytes())["model_version"] == "mnist/1", 20)


def test_overload_is_told_at_once_and_who_was_let_in_is_answered(endpoint):
    # A second request of so many finds no room in a replica, as long as 1000 of the first still wait.
    with Load(endpoint, 8, bodies=2000) as load:
        poll(lambda: load.answered >= 20 and load.statuses[503] >= 20)
    assert set(load.statuses) == {200, 503}
    assert median(load.seconds[503]) < median(load.seconds[200]) / 2
    assert {json.loads(each)["error"]["code"] for each in load.failures} == {"overloaded"}
    status, headers, _ = endpoint.ask("POST", "/predict", PIXELS[:1].tobytes())
    assert status == 200, headers


def test_a_request_whose_time_is_over_is_told_so(endpoint):
    status, _, content = endpoint.ask("POST", "/predict", PIXELS.tobytes(), x_request_timeout_seconds="0.000001")
    assert (status, json.loads(content)["error"]["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("title", ["ServeReplica", "ServeController", "haproxy"])
def test_a_killed_process_is_back_within_seconds(endpoint, title):
    with Load(endpoint, 8) as load:
        load.more(200)
        victim = endpoint.actors(title)[0]
        victim.send_signal(signal.SIGKILL)
        psutil.wait_procs([victim], 10)
        started = time.monotonic()
        load.more(200)
        back_s, failed_until_back = time.monotonic() - started, len(load.failures)
        poll(lambda: len(endpoint.actors("ServeReplica")) == 2 and endpoint.actors("haproxy"), 60)
        load.more(200)
    found = f"{load.answered} answered, {len(load.failures)} failed, {failed_until_back} of them before it was back "
    found += f"after {back_s:.1f} s: {load.failures[:9]}"
    assert back_s < 15, found
    # HAProxy repeats what was not answered. Not repeated: an answer that had begun, and a client whose idle connection
    # is closed while HAProxy changes its configuration. At most one for each client. Nobody repeats anything while
    # HAProxy itself is started again, which takes about 10 s; when it is back, the same holds again.
    most = {"ServeReplica": 8, "ServeController": 0, "haproxy": failed_until_back + 8}
    assert len(load.failures) <= most[title], found
    assert set(load.statuses) <= ({200, 503} if title == "haproxy" else {200}), found
