"""Hosts on one machine: each a network, process and mount namespace with an address, an ssh server and a home folder.

They share the machine's files, among them this checkout and a folder for storage, as hosts with NFS do. Needs root, and
``ip``, ``sshd`` and ``rsync``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import answers
from serving import poll

NETWORK = "10.77.0"
BRIDGE = "mnist-lan"
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")

SSHD_CONFIG = """
ListenAddress {address}
HostKey {folder}/hostkey
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""

# Its own process ids, so that `ray stop` on one host ends nothing on another; its own /tmp/ray and home.
BOOT = """
set -e
mount --make-rprivate /
mkdir -p {folder}/tmp-ray /tmp/ray
mount --bind {folder}/tmp-ray /tmp/ray
mount --bind {folder}/passwd /etc/passwd
hostname {name}
mkdir -p /run/sshd
exec {sshd} -D -e -f {folder}/sshd_config
"""


@dataclass
class Host:
    """One host."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def ssh(self, command: str, check: bool = True) -> str:
        """Run a command there, as a login of its user; returns what it printed."""
        done = subprocess.run(
            [*ssh_words(self.folder), f"root@{self.address}", command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def power_on(self) -> None:
        """Boot it, and wait until it lets in."""
        boot = BOOT.format(folder=self.folder, name=self.name, sshd=SSHD)
        inside = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", boot]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", self.name, *inside], stderr=log)
        poll(lambda: answers(self.address, 22))

    def power_off(self) -> None:
        """End all its processes at once, with SIGKILL, as a power cut does."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def unplug(self) -> None:
        """Take the cable out."""
        _ip("link", "set", f"v-{self.name}", "down")

    def plug_in(self) -> None:
        """Put the cable back."""
        _ip("link", "set", f"v-{self.name}", "up")


def missing() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in ("ip", "rsync", "ssh", "unshare") if not shutil.which(name)] + ["sshd"] * (not SSHD)
    if absent:
        return f"needs {', '.join(absent)}"
    probe = subprocess.run(["unshare", "--net", "--pid", "--mount", "--fork", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else f"no namespaces here: {probe.stderr.decode().strip()}"


def ssh_words(folder: Path) -> list[str]:
    """The ssh client with the key of these hosts."""
    trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    return ["ssh", "-i", str(folder / "key"), *trust]


@contextmanager
def hosts(folder: Path, names: list[str]) -> Iterator[list[Host]]:
    """Boot hosts on one network; all is gone at the end of the block.

    Args:
        folder: For their files; each host's home is ``NAME/home``.
        names: Theirs, at most 12 characters each.
    """
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    with ExitStack() as stack:
        _ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(_ip, "link", "del", BRIDGE)
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield [stack.enter_context(_host(folder, name, 10 + index)) for index, name in enumerate(names)]


@contextmanager
def _host(shared: Path, name: str, number: int) -> Iterator[Host]:
    folder, address = shared / name, f"{NETWORK}.{number}"
    (folder / "home").mkdir(parents=True)
    for key in ("key", "key.pub"):
        shutil.copy(shared / key, folder / key)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "hostkey")], check=True)
    (folder / "passwd").write_text(f"root:x:0:0:root:{folder / 'home'}:/bin/bash\nsshd:x:74:74::/run/sshd:/bin/false\n")
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(address=address, folder=folder))
    with ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        stack.callback(_ip, "link", "del", f"v-{name}")
        _ip("link", "set", f"v-{name}", "master", BRIDGE, "up")
        for words in (["addr", "add", f"{address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            _ip("-n", name, *words)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "route", "add", "default", "via", f"{NETWORK}.1")
        host = Host(name, address, folder)
        stack.callback(host.power_off)
        host.power_on()
        yield host


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
