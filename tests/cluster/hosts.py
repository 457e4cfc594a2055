"""Hosts on one machine: each a network, process and mount namespace with an address, an ssh server and a home folder.

They share the machine's files, among them this checkout and a folder for storage, as hosts with NFS do. Needs root, and
``ip``, ``sshd`` and ``rsync``. Nothing is left of them once this process has ended, however it did: their network is
its own, and they end with it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import answers
from serving import poll

NETWORK = "10.77.0"
BRIDGE = "mnist-lan"
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # sched.h
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
        command = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name, *inside]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
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
    programs = ("ip", "rsync", "setpriv", "ssh", "unshare")
    absent = [name for name in programs if not shutil.which(name)] + ["sshd"] * (not SSHD)
    if absent:
        return f"needs {', '.join(absent)}"
    probe = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--fork", "ip", "link", "add", BRIDGE, "type", "bridge"],
        capture_output=True,
        check=False,
    )
    return None if probe.returncode == 0 else f"no networks of our own here: {probe.stderr.decode().strip()}"


def ssh_words(folder: Path) -> list[str]:
    """The ssh client with the key of these hosts."""
    trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    return ["ssh", "-i", str(folder / "key"), *trust]


@contextmanager
def hosts(folder: Path, names: list[str]) -> Iterator[list[Host]]:
    """Boot hosts on one network, on which the calling thread and all that it starts in the block are too.

    Args:
        folder: For their files; each host's home is ``NAME/home``.
        names: Theirs, at most 12 characters each.
    """
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    with ExitStack() as stack:
        stack.enter_context(_network_of_our_own())
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield [stack.enter_context(_host(folder, name, 10 + index)) for index, name in enumerate(names)]


@contextmanager
def _network_of_our_own() -> Iterator[None]:
    """Take the calling thread to a network with nothing on it but loopback, where names of links and hosts are free."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare and os.setns: from Python 3.12
    with Path("/proc/thread-self/ns/net").open() as before:
        _call(libc.unshare, CLONE_NEWNET | CLONE_NEWNS)
        try:
            for command in ("mount --make-rprivate /", "mkdir -p /run/netns", "mount -t tmpfs netns /run/netns"):
                subprocess.run(command.split(), check=True)
            _ip("link", "set", "lo", "up")
            yield
        finally:  # of mounts there is no way back once the thread has started others; only names of hosts differ
            _call(libc.setns, before.fileno(), CLONE_NEWNET)


def _call(function: Any, *values: int) -> None:
    if function(*values) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


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
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
