"""Other processes, seen from a test."""

from __future__ import annotations

import socket

import psutil


def descendants(pid: int, title: str) -> list[psutil.Process]:
    """Processes that a process has started, at any depth, whose title holds a word."""
    return [child for child in psutil.Process(pid).children(recursive=True) if title in _title(child)]


def answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
