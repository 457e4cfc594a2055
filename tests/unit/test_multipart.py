"""The files in a body of several, and what is refused."""

from __future__ import annotations

import time

import pytest

from mnist_core.errors import RequestError, RequestTooLargeError
from serve.multipart import read_files

HEAD = b'content-disposition: form-data; name="images"; filename="digit.png"\r\n\r\n'
ODD = b"\r\n\r\n--cu\r\n-\0\xff--cut--"
GOOD = b"--cut\r\n\r\nA\r\n--cut--"


def files(body: bytes, parameters: bytes = b" boundary=cut", most: int = 3) -> list[bytes]:
    return read_files(body, parameters, most)


def refusal(body: bytes, parameters: bytes = b" boundary=cut") -> str:
    with pytest.raises(RequestError) as caught:
        files(body, parameters)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (GOOD, [b"A"]),
        (b"--cut\r\n" + HEAD + b"A\r\n--cut\r\n" + HEAD + b"B\r\n--cut--\r\n", [b"A", b"B"]),
        (b"--cut\r\n" + HEAD + ODD + b"\r\n--cut\r\n" + HEAD + b"\r\n--cut--\r\n", [ODD, b""]),
        (b"--cut \t\r\n" + HEAD + b"A\r\n--cut\t\r\n\r\nB\r\n--cut-- \r\n", [b"A", b"B"]),
        (b"\r\n" + GOOD, [b"A"]),
        (b"before\r\n" + GOOD + b"\r\nafter\r\n--cut\r\n", [b"A"]),
    ],
    ids=["bare", "two", "odd contents", "padded", "empty line before", "with prologue and epilogue"],
)
def test_contents_come_out_as_they_went_in(body: bytes, expected: list[bytes]):
    assert files(body) == expected


@pytest.mark.parametrize(
    "parameters",
    [b"boundary=cut", b' charset=utf-8; boundary="cut"', b"BOUNDARY=cut ;x", b" boundary=cut" + b" " * 900],
)
def test_a_boundary_is_read_from_among_the_parameters(parameters: bytes):
    assert files(GOOD, parameters) == [b"A"]


@pytest.mark.parametrize(
    "parameters",
    [b"", b"boundary", b"boundary=", b'boundary=""', b"boundary=" + b"x" * 71, b"boundary=cut;" + b"x" * 1000],
)
def test_without_a_boundary_nothing_is_read(parameters: bytes):
    assert "boundary of 1 to 70 characters" in refusal(GOOD, parameters)


def test_a_boundary_of_other_letters_is_one_that_is_not_there():
    assert "cut off" in refusal(GOOD, b"boundary*=utf-8''%E2%82%AC")


@pytest.mark.parametrize("body", [b"", b"--cut", GOOD[:-1], b"--other\r\n\r\nA\r\n--other--", b"--cut\n\nA\n--cut--"])
def test_a_body_without_its_end_is_cut_off(body: bytes):
    assert "cut off, expected its closing boundary" in refusal(body)


def test_a_body_without_parts_is_refused():
    assert "without a part" in refusal(b"--cut--\r\n")


def test_parts_that_are_none_are_refused():
    assert "expected the end of the line" in refusal(b"--cutter\r\n\r\nA\r\n--cut--")
    assert "expected the end of the line" in refusal(b"--cut\r\n--cut--")
    assert "without an empty line" in refusal(b"--cut\r\nA: b\r\nc\r\n--cut--")


def test_more_parts_than_may_be_are_refused_whether_or_not_the_end_is_there():
    part = b"--cut\r\n\r\nA\r\n"
    assert files(part * 3 + b"--cut--") == [b"A"] * 3
    for end in (b"--cut--", b""):
        with pytest.raises(RequestTooLargeError, match="received more than 3 images"):
            files(part * 4 + end)


@pytest.mark.parametrize("unit", [b"\r\n--bx", b"\r\n--b", b"\r\n--b\r", b"\r\n", b"--b\r\n", b"-", b"\r\n--b\r\n\r\n"])
def test_no_body_takes_long(unit: bytes):
    """Seconds that a parser in Python took, byte by byte, for a body that nearly has boundaries; these are 0.1."""
    body = unit * (32 * 2**20 // len(unit))
    started = time.process_time()
    with pytest.raises(RequestError):
        read_files(body, b"boundary=b", 2048)
    assert time.process_time() - started < 1


def test_no_content_type_takes_long():
    started = time.process_time()
    refusal(GOOD, b' "' + b";" * 60_000)
    assert time.process_time() - started < 1
