"""Downloads against real HTTP servers on the loopback interface."""

import gzip
import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs import cli
from mnist_core import download
from mnist_core.datasets import PUBLISHED, fetch_dataset, load_dataset
from mnist_core.download import Published, download_file
from mnist_core.errors import DatasetError, DatasetNotFoundError

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BODY = gzip.compress(CONTENT)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        body = self.server.bodies.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_off_at])

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Serves ``bodies`` by path; cuts every answer off at ``cut_off_at`` bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.asked, self.cut_off_at, self.says_length = {}, [], None, True
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def start_server():
    started = []

    def start(body=BODY):
        server = Server()
        server.bodies["/file.gz"] = body
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(start_server):
    return start_server()


@pytest.fixture
def dead_url():
    with socket.socket() as bound:  # bound, so that nobody else gets the port, but not listening
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def silent_url():
    with socket.create_server(("127.0.0.1", 0)) as listening:  # connects, and never answers
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def fetch(folder, *urls, progress=None):
    download_file([f"{url}/file.gz" for url in urls], folder / "file.gz", SHA256, progress)


def refusal_of(folder, *urls):
    with pytest.raises(DatasetNotFoundError) as refusal:
        fetch(folder, *urls)
    assert not folder.exists() or list(folder.iterdir()) == []
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_file_is_fetched_as_it_was_sent(tmp_path, server):
    fetch(tmp_path / "new" / "folder", server.url)
    assert (tmp_path / "new" / "folder" / "file.gz").read_bytes() == BODY
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["file.gz"]


def test_another_gzip_wrapper_of_the_same_bytes_is_accepted(tmp_path, start_server):
    fetch(tmp_path, start_server(gzip.compress(CONTENT, compresslevel=1, mtime=7)).url)
    assert gzip.decompress((tmp_path / "file.gz").read_bytes()) == CONTENT


def test_progress_goes_from_nothing_to_everything(tmp_path, server):
    seen = []
    fetch(tmp_path, server.url, progress=lambda *args: seen.append(args))
    assert seen[0] == (f"{server.url}/file.gz", 0, len(BODY))
    assert seen[-1] == (f"{server.url}/file.gz", len(BODY), len(BODY))
    assert [received for _, received, _ in seen] == sorted(received for _, received, _ in seen)


def test_a_server_that_says_no_length_will_do(tmp_path, server):
    server.says_length = False
    seen = []
    fetch(tmp_path, server.url, progress=lambda *args: seen.append(args))
    assert (tmp_path / "file.gz").read_bytes() == BODY
    assert {expected for _, _, expected in seen} == {None}


def test_a_wrong_checksum_is_refused(tmp_path, start_server):
    message = refusal_of(tmp_path, start_server(gzip.compress(b"something else")).url)
    assert (
        f"expected the uncompressed SHA-256 {SHA256}, found {hashlib.sha256(b'something else').hexdigest()}" in message
    )


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("cut_off_at", [0, 100, -1])
def test_a_body_that_is_cut_off_is_refused(tmp_path, server, says_length, cut_off_at):
    server.cut_off_at, server.says_length = cut_off_at, says_length
    message = refusal_of(tmp_path, server.url)
    assert message.startswith(f"{server.url}/file.gz: ")


def test_a_body_beyond_the_limit_is_refused(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download, "MAX_DOWNLOAD_BYTES", len(BODY) - 1)
    assert f"expected at most {len(BODY) - 1} bytes, found more" in refusal_of(tmp_path, server.url)


def test_an_error_page_is_refused(tmp_path, server):
    server.bodies.clear()
    assert "HTTP Error 404" in refusal_of(tmp_path, server.url)


def test_a_mirror_that_is_dead_silent_or_wrong_hands_over_to_the_next(
    tmp_path, start_server, dead_url, silent_url, monkeypatch
):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    fetch(tmp_path, dead_url, silent_url, start_server(b"wrong").url, start_server().url)
    assert (tmp_path / "file.gz").read_bytes() == BODY


@pytest.mark.timeout(10)
def test_a_silent_mirror_is_given_up(tmp_path, silent_url, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    assert "timed out" in refusal_of(tmp_path, silent_url)


def test_when_all_mirrors_fail_the_error_names_each(tmp_path, start_server, dead_url):
    wrong = start_server(b"wrong")
    message = refusal_of(tmp_path, dead_url, wrong.url)
    assert f"{dead_url}/file.gz: <urlopen error [Errno 111] Connection refused>" in message
    assert f"{wrong.url}/file.gz: expected the uncompressed SHA-256" in message


def test_an_interrupt_in_the_middle_leaves_nothing(tmp_path, server):
    def interrupt(*url_received_expected):
        if url_received_expected[1] > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, server.url, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


# A whole dataset


@pytest.fixture
def published(tmp_path, monkeypatch, server, dead_url):
    """A tiny MNIST whose first mirror is dead, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checksums = {}
    for name, count in (("train", 6), ("t10k", 3)):
        images = bytes([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(count * 784)
        labels = bytes([0, 0, 8, 1, 0, 0, 0, count]) + bytes(range(count))
        for file_name, data in ((f"{name}-images-idx3-ubyte", images), (f"{name}-labels-idx1-ubyte", labels)):
            server.bodies[f"/{file_name}.gz"] = gzip.compress(data)
            checksums[file_name] = hashlib.sha256(data).hexdigest()
    tiny = Published("tiny", "MNIST/raw", (f"{dead_url}/", f"{server.url}/"), checksums)
    monkeypatch.setitem(PUBLISHED, "mnist", tiny)
    return tiny


def test_a_dataset_that_is_nowhere_is_downloaded_once(tmp_path, published, server):
    first = load_dataset("mnist")
    assert (len(first.train), len(first.test)) == (6, 3)
    assert first.source == str(tmp_path / "cache" / "mnist-on-ray" / "mnist")
    assert load_dataset("mnist").sha256 == load_dataset("mnist", download=False).sha256 == first.sha256
    assert sorted(server.asked) == sorted(f"/{file_name}.gz" for file_name in published.sha256)


@pytest.mark.usefixtures("published")
def test_only_what_is_missing_or_torn_is_fetched_again(server):
    folder = fetch_dataset("mnist")
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    torn = folder / "t10k-images-idx3-ubyte.gz"
    torn.write_bytes(torn.read_bytes()[:20])
    server.asked.clear()
    assert len(load_dataset("mnist").test) == 3
    assert server.asked == ["/train-labels-idx1-ubyte.gz", "/t10k-images-idx3-ubyte.gz"]


@pytest.mark.usefixtures("published")
def test_a_download_that_stops_half_way_does_not_count(server):
    labels = server.bodies.pop("/t10k-labels-idx1-ubyte.gz")
    with pytest.raises(DatasetNotFoundError, match="mnist cannot be downloaded"):
        load_dataset("mnist")
    with pytest.raises(DatasetNotFoundError, match="mnist is not on this machine"):
        load_dataset("mnist", download=False)
    server.bodies["/t10k-labels-idx1-ubyte.gz"] = labels
    assert load_dataset("mnist").test.labels.tolist() == [0, 1, 2]


@pytest.mark.usefixtures("published")
def test_no_network_says_the_three_ways_out(server):
    server.bodies.clear()
    with pytest.raises(DatasetNotFoundError) as refusal:
        load_dataset("mnist")
    for way_out in ("--data-dir or MNIST_DATA_DIR", "mnist data fetch mnist", "--dataset uci-digits"):
        assert way_out in str(refusal.value)
    assert str(refusal.value).count("train-images-idx3-ubyte.gz: ") == 2  # once a mirror


@pytest.mark.usefixtures("published")
def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(DatasetError, match=r"cache/mnist-on-ray/mnist/.*: cannot be written"):
        load_dataset("mnist")


def test_the_fetch_command_says_what_it_fetches_and_where_it_is(tmp_path, published, server, capsys):
    assert cli.main(["data", "fetch", "mnist"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"mnist is whole in {tmp_path / 'cache' / 'mnist-on-ray' / 'mnist'}\n"
    assert [line.split()[1] for line in captured.err.splitlines()] == [
        f"{server.url}/{file_name}.gz" for file_name in published.sha256
    ]
