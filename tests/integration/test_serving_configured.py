"""The endpoint with other settings: replicas that come and go, keys, limits, TLS, other origins, taken ports."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request

import pytest
from serving import poll, serving
from test_serving_on_ray import PIXELS, Load

from jobs.cli import main

pytestmark = pytest.mark.ray

BODY = PIXELS[:1].tobytes()


def test_replicas_follow_the_load_up_and_down_without_a_failed_request(model_storage, tmp_path):
    flags = ["--min-replicas", "1", "--max-replicas", "3", "--cpus-per-replica", "0.5", "--target-requests", "4"]
    flags += ["--upscale-delay-s", "1", "--downscale-delay-s", "2"]
    # SIGTERM is to end it as Ctrl-C ends the others: with exit code 0 and no process left, both of which this sees to.
    with serving(model_storage, tmp_path, *flags, stop=signal.SIGTERM) as endpoint:
        assert len(endpoint.actors("ServeReplica")) == 1
        with Load(endpoint, 1) as trickle:
            with Load(endpoint, 16, bodies=200) as load:  # more than one replica can compute, so that requests wait
                poll(lambda: len(endpoint.actors("ServeReplica")) == 3, 90)
                load.more(100)
            poll(lambda: len(endpoint.actors("ServeReplica")) == 1, 90)
            trickle.more(100)
    assert not load.failures
    assert not trickle.failures
    assert set(load.statuses) == set(trickle.statuses) == {200}
    ready, stopped = map(json.loads, (tmp_path / "serve.out").read_text().splitlines())
    assert stopped["seconds"] > ready["startup_seconds"]


@pytest.fixture(scope="module")
def guarded(model_storage, tmp_path_factory):
    """An endpoint with keys, TLS, an access log, another origin, and narrow limits."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate = folder / "front.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    certificate.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    keys = folder / "keys"
    keys.write_text("# who may ask\nfirst-key\n\nsecond-key\n")
    flags = ["--api-key-file", keys, "--tls-cert-file", certificate, "--access-log", folder / "access.jsonl"]
    flags += ["--cors-origins", '["https://digits.example"]', "--max-body-bytes", "20000", "--max-request-images", "20"]
    flags += ["--max-image-pixels", "10000", "--body-timeout-s", "1"]
    with serving(model_storage, folder, *map(str, flags)) as running:
        yield running, folder


def ask(guarded, path="/predict", body=BODY, key="first-key", method="POST", **headers):
    running, folder = guarded
    sent = {"content-type": "application/octet-stream"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        sent["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(running.http + path, body, sent, method=method)
    try:
        context = ssl.create_default_context(cafile=folder / "cert.pem")
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, dict(err.headers), err.read()


def code_of(answer):
    return answer[0], json.loads(answer[2])["error"]["code"]


def test_tls_and_either_key_open_the_endpoint(guarded):
    assert ask(guarded)[0] == 200
    assert ask(guarded, key=None, x_api_key="second-key")[0] == 200


@pytest.mark.parametrize("key", [None, "", "first-ke", "first-key2", "# who may ask", "k\xe9y"])
def test_without_a_key_nobody_is_answered(guarded, key):
    answer = ask(guarded, key=key)
    assert code_of(answer) == (401, "unauthorized")
    assert answer[1]["www-authenticate"] == "Bearer"


def test_a_new_key_opens_and_an_old_one_does_not_once_the_file_has_changed(guarded):
    (guarded[1] / "keys").write_text("first-key\nthird-key\n")
    poll(lambda: ask(guarded, key="third-key")[0] == 200, 10)
    assert code_of(ask(guarded, key="second-key")) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (bytes(20_001), {}, (413, "request_too_large")),
        (PIXELS[:21].tobytes(), {}, (413, "request_too_large")),
        (b"no image", {"content_type": "image/png"}, (400, "not_an_image")),
        (b"", {"content_type": "image/png"}, (400, "image_empty")),
        (bytes(784), {}, (400, "image_blank")),
        (b"{", {"content_type": "application/json"}, (400, "bad_request")),
        (b"x", {"content_type": "text/html"}, (415, "unsupported_media")),
        (BODY, {"x_request_timeout_seconds": "soon"}, (400, "bad_request")),
    ],
)
def test_each_limit_has_its_own_answer(guarded, body, headers, expected):
    assert code_of(ask(guarded, body=body, **headers)) == expected


@pytest.mark.parametrize(
    "path", ["/predict/../..", "/v2/models/mnist/versions/..%2f..%2f/infer", "/page/../app.py", "/%2e%2e/"]
)
def test_no_path_leaves_the_registry_or_the_page(guarded, path):
    assert ask(guarded, path, b"", method="GET")[0] in (400, 404, 405)


def test_a_client_that_does_not_send_its_body_is_let_go(guarded):
    running, folder = guarded
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    with context.wrap_socket(socket.create_connection(running.address), server_hostname="127.0.0.1") as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer first-key\r\n"
            b"content-type: application/octet-stream\r\ncontent-length: 784\r\n\r\nabc"
        )
        client.settimeout(20)
        assert b" 504 " in client.recv(10_000).splitlines()[0]


def test_only_a_named_origin_is_told_that_it_may_read_the_answer(guarded):
    assert ask(guarded, origin="https://digits.example")[1]["access-control-allow-origin"] == "https://digits.example"
    assert "access-control-allow-origin" not in ask(guarded, origin="https://other.example")[1]


def test_the_access_log_has_one_object_a_request_and_no_secret(guarded):
    ask(guarded, x_request_id="find-me", x_forwarded_for="192.0.2.66")
    path = guarded[1] / "access.jsonl"
    poll(lambda: path.exists() and "find-me" in path.read_text())
    text = path.read_text()
    entry = next(each for each in map(json.loads, text.splitlines()) if each["request_id"] == "find-me")
    assert (entry["method"], entry["path"], entry["status"], entry["code"]) == ("POST", "/predict", 200, None)
    assert entry["client"] == "127.0.0.1"  # not what the client says of itself
    assert 0 < entry["seconds"] < 30
    assert "first-key" not in text


def test_a_request_id_goes_in_and_out_if_it_is_harmless(guarded):
    assert ask(guarded, x_request_id="abc-1")[1]["x-request-id"] == "abc-1"
    assert re.fullmatch("[0-9a-f]{16}", ask(guarded, x_request_id="x" * 200)[1]["x-request-id"])


def refused(*flags, **options):
    """What a ``mnist serve`` says that does not start."""
    command = [sys.executable, "-m", "jobs.cli", "serve", "--port", "0", "--grpc-port", "0", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr


def test_what_does_not_fit_this_machine_is_said_and_not_waited_for(model_storage):
    assert re.fullmatch(
        r"error: the endpoint does not fit: --min-replicas 2 with --cpus-per-replica 640 \(1280 CPUs in all\), "
        r"and Ray has \d+ CPUs \(.*\n",
        refused("--storage", model_storage, "--min-replicas", "2", "--cpus-per-replica", "640"),
    )


def test_why_no_replica_starts_is_one_line(model_storage, tmp_path):
    (tmp_path / "keys").write_text("key\n")
    with (tmp_path / "keys").open() as keys:  # as --api-key-file <(...) does: no other process has this file
        os.dup2(keys.fileno(), 200)
        try:
            said = refused("--storage", model_storage, "--api-key-file", "/proc/self/fd/200", pass_fds=[200])
        finally:
            os.close(200)
    assert re.fullmatch(
        r"error: the application did not start: .*--api-key-file /proc/self/fd/200: cannot be .*\n", said
    )


def test_a_port_that_is_taken_is_said_at_once(model_storage, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--storage", model_storage, "--port", port]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: --port {port} on 127.0.0.1: Address already in use; choose another, or 0\n"


def test_a_model_that_is_not_there_is_said_at_once(tmp_path, capsys):
    assert main(["serve", "--storage", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.startswith("error: no model 'mnist' in")) == ("", True)
