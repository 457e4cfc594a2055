"""A certificate authority of a test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


def tls_variables(folder: Path, addresses: Sequence[str]) -> dict[str, str]:
    """Make an authority and a certificate for these addresses.

    Returns:
        The variables with which a process of Ray speaks TLS and trusts nobody else.
    """

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"]
    openssl(*new, "/CN=our own", "-x509", "-days", "1", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(*new, "/CN=node", "-keyout", "node.key", "-out", "node.csr")
    (folder / "names").write_text(f"subjectAltName={','.join(f'IP:{address}' for address in addresses)}\n")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "names"]
    openssl("x509", "-req", "-in", "node.csr", *signed, "-out", "node.crt")
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


def speaks_tls(address: str, variables: dict[str, str]) -> bool:
    """Whether whoever listens there, ``host:port``, shows a certificate of the authority and takes ours."""
    shown = ["-cert", variables["RAY_TLS_SERVER_CERT"], "-key", variables["RAY_TLS_SERVER_KEY"]]
    command = ["openssl", "s_client", "-connect", address, "-CAfile", variables["RAY_TLS_CA_CERT"], "-brief", *shown]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return "Verification: OK" in said.stderr
