"""Every way a storage can fail ends in one StorageError of one line that says where, what and how to fix it."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mnist_core import storage as storage_module
from mnist_core.errors import StorageError
from mnist_core.storage import open_storage

CALLS = {
    "read": lambda storage: storage.read_bytes("runs/a"),
    "write": lambda storage: storage.write_bytes("runs/a", b"1"),
    "create": lambda storage: storage.create("runs/b", b"1"),
    "swap": lambda storage: storage.swap("runs/a", b"2", expected=b"1"),
    "list": lambda storage: storage.list_keys("runs"),
    "delete": lambda storage: storage.delete("runs/a"),
}


def failure_of(call, storage):
    with pytest.raises(StorageError) as caught:
        CALLS[call](storage)
    assert type(caught.value) is StorageError
    assert "\n" not in str(caught.value)
    assert storage.uri in str(caught.value)
    return str(caught.value)


@contextlib.contextmanager
def without_root_rights():
    """Be somebody whom file permissions bind; does nothing for a user who is that already."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("call", CALLS)
def test_a_folder_that_may_not_be_entered_is_named(tmp_path, call):
    storage = open_storage(str(tmp_path / "storage"))
    storage.write_bytes("runs/a", b"1")
    (tmp_path / "storage" / "runs").chmod(0)
    with without_root_rights():
        message = failure_of(call, storage)
    (tmp_path / "storage" / "runs").chmod(0o700)
    assert "permission denied; check permissions" in message


def test_a_file_where_a_folder_must_be_is_named(tmp_path):
    (tmp_path / "storage").write_bytes(b"")
    assert "not a directory" in failure_of("write", open_storage(str(tmp_path / "storage" / "below")))


def test_a_write_that_finds_no_room_leaves_the_old_object_and_nothing_else(tmp_path):
    storage = open_storage(str(tmp_path))
    storage.write_bytes("runs/a", b"old")
    script = f"""
import resource
from mnist_core.storage import open_storage
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
open_storage({str(tmp_path)!r}).write_bytes("runs/a", bytes(100_001))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"mnist_core.errors.StorageError: cannot write {tmp_path}/runs/a: file too large; "
        "check permissions, free space and --storage"
    )
    assert storage.read_bytes("runs/a") == b"old"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]


@pytest.mark.usefixtures("s3_bucket")
@pytest.mark.parametrize("call", ["read", "write", "create", "list"])
def test_a_bucket_that_does_not_exist_is_named(call):
    message = failure_of(call, open_storage("s3://no-such-bucket/x"))
    assert message.endswith("the bucket does not exist; create it or correct --storage")


@pytest.fixture
def answering(monkeypatch):
    """Start an S3 server that gives every request the same answer; returns how to start it."""
    servers = []

    def start(status, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_POST = do_GET  # noqa: N815

            def log_message(self, *args):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,)).start()
        use_endpoint(monkeypatch, servers[-1].server_port)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def use_endpoint(monkeypatch, port):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def closed_port():
    """A port that refuses connections: bound, so that nobody else gets it, and never listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def one_retry(monkeypatch):
    """For what ends in the same line after one retry as after all of them, seconds later."""
    monkeypatch.setitem(storage_module.RETRY, "max_retries", 1)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_named(answering, status, call):
    answering(status, b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>")
    assert "access refused; check the credentials" in failure_of(call, open_storage("s3://digits/x"))


@pytest.mark.usefixtures("one_retry")
def test_a_failing_server_is_given_up_with_its_status(answering):
    answering(500, b"<?xml version='1.0'?>\n<Error><Code>InternalError</Code></Error>")
    message = failure_of("write", open_storage("s3://digits/x"))
    assert "500 Internal Server Error; check endpoint and region (AWS_ENDPOINT_URL, AWS_REGION)" in message


def test_a_refused_connection_is_given_up_within_the_retry_time(monkeypatch, closed_port):
    use_endpoint(monkeypatch, closed_port)
    start = time.monotonic()
    assert "check endpoint and region" in failure_of("read", open_storage("s3://digits/x"))
    assert time.monotonic() - start < 60


@pytest.mark.usefixtures("one_retry")
def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setitem(storage_module.CLIENT, "read_timeout", "200ms")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_endpoint(monkeypatch, silent.getsockname()[1])
        start = time.monotonic()
        assert "check endpoint and region" in failure_of("read", open_storage("s3://digits/x"))
    assert time.monotonic() - start < 60


@pytest.mark.usefixtures("one_retry")
@pytest.mark.parametrize("uri", ["s3://digits/x", "gs://digits/x"])
def test_missing_credentials_are_named(monkeypatch, closed_port, uri):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    # Both clouds have machines ask this server for credentials; no test asks the real one.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{closed_port}")
    monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{closed_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert "no credentials in the environment" in failure_of("read", open_storage(uri))


@pytest.mark.parametrize(
    "uri", ["http://host/x", "file:///tmp/x", "s3://", "s3:///x", "s3://bucket/../x", "gs://a b/x", "://"]
)
def test_an_address_that_is_no_storage_is_refused_when_opened(uri):
    with pytest.raises(StorageError, match="expected"):
        open_storage(uri)


@pytest.mark.parametrize(
    ("uri", "variable", "value", "problem"),
    [
        ("gs://bucket/x", "GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json", "/nonexistent.json: No such file"),
        ("gs://bucket", "GOOGLE_SERVICE_ACCOUNT_KEY", "no json", "Unable to decode service account file"),
        ("s3://bucket/x", "AWS_CHECKSUM_ALGORITHM", "md99", '"md99" is not a valid checksum algorithm'),
        ("s3://bucket", "AWS_SERVER_SIDE_ENCRYPTION", "maybe", "Invalid encryption type: maybe"),
    ],
)
def test_an_environment_that_is_wrong_is_named_when_a_bucket_is_opened(monkeypatch, uri, variable, value, problem):
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError) as caught:
        open_storage(uri)
    message = str(caught.value)
    assert message.startswith(f"cannot open {uri.removesuffix('/x')}: ")
    assert problem in message
    assert message.endswith(f"; correct the {variable.partition('_')[0]}_... variables of the environment")
    assert "\n" not in message


def test_a_folder_below_the_home_of_nobody_is_refused_when_opened():
    with pytest.raises(StorageError, match=r"storage '~no-such-user/x': expected a folder's full path"):
        open_storage("~no-such-user/x")
