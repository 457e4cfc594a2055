"""A sealed document is either exactly what was sealed, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_core.errors import ArtifactError
from mnist_core.sealed import seal, unseal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda name: name != "sha256"), JSON, max_size=4))
def test_what_is_sealed_is_unsealed_as_it_was(fields):
    assert unseal(seal(fields), "document") == fields


def test_every_changed_byte_is_found():
    sealed = seal({"version": "3", "history": ["1", "2"], "accuracy": 0.991})
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises(ArtifactError, match="document: not what was written there"):
                unseal(bytes(changed), "document")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"[]", b"3", b"{}", b'{"sha256": 1}', b"\xff", b"[" * 100_000, b"9" * 10_000]
)
def test_what_was_never_sealed_is_refused(data):
    with pytest.raises(ArtifactError, match="document"):
        unseal(data, "document")


def test_a_sealed_document_is_cut_short_nowhere():
    sealed = seal({"version": "3"})
    for length in range(len(sealed)):
        with pytest.raises(ArtifactError):
            unseal(sealed[:length], "document")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_has_not_is_refused(value):
    with pytest.raises(ArtifactError, match="expected finite numbers only"):
        seal({"loss": value})
