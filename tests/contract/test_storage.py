"""What every storage promises, on a folder and on S3 alike."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from mnist_core.errors import ObjectExistsError, ObjectNotFoundError, StorageError


def test_what_is_written_is_read_back_and_written_over(storage):
    storage.write_bytes("runs/a/state", b"first")
    storage.write_bytes("runs/a/state", b"")
    assert storage.read_bytes("runs/a/state") == b""
    storage.write_bytes("runs/a/state", b"third")
    assert storage.read_bytes("runs/a/state") == b"third"


def test_an_object_of_many_megabytes_comes_back_whole(storage):
    data = bytes(range(256)) * 50_000  # 12.8 MB: more than the 5 MB from which uploads go in parts
    storage.write_bytes("large", data)
    assert storage.read_bytes("large") == data


@pytest.mark.parametrize(("limit", "expected"), [(1, b"1"), (4, b"1234"), (5, b"12345"), (6, b"12345")])
def test_a_limited_read_returns_no_more_than_the_limit(storage, limit, expected):
    storage.write_bytes("object", b"12345")
    assert storage.read_bytes("object", limit) == expected


def test_reading_a_missing_object_says_where_it_was_looked_for(storage):
    with pytest.raises(ObjectNotFoundError, match=f"{storage.uri}/no/such/thing: not there"):
        storage.read_bytes("no/such/thing")


def test_a_folder_of_objects_is_no_object(storage):
    storage.write_bytes("runs/a/state", b"1")
    with pytest.raises(ObjectNotFoundError):
        storage.read_bytes("runs/a")


def test_create_refuses_an_object_that_is_there_and_leaves_it_alone(storage):
    storage.create("claims/1", b"mine")
    with pytest.raises(ObjectExistsError, match="claims/1: exists already"):
        storage.create("claims/1", b"yours")
    assert storage.read_bytes("claims/1") == b"mine"


def test_of_many_who_create_at_once_exactly_one_succeeds(storage):
    def claim(who):
        try:
            storage.create("claims/1", str(who).encode())
        except ObjectExistsError:
            return None
        return who

    with ThreadPoolExecutor(8) as pool:
        winners = [who for who in pool.map(claim, range(32)) if who is not None]
    assert len(winners) == 1
    assert storage.read_bytes("claims/1") == str(winners[0]).encode()


def test_swap_replaces_only_what_the_caller_last_read(storage):
    assert storage.swap("pointer", b"1", expected=None)
    assert not storage.swap("pointer", b"2", expected=None)
    assert not storage.swap("pointer", b"2", expected=b"0")
    assert storage.swap("pointer", b"2", expected=b"1")
    assert not storage.swap("pointer", b"3", expected=b"1")
    assert storage.read_bytes("pointer") == b"2"


def test_swap_of_a_missing_object_writes_nothing(storage):
    assert not storage.swap("some/pointer", b"2", expected=b"1")
    assert storage.list_keys() == []


def test_no_update_is_lost_when_many_swap_at_once(storage):
    storage.create("counter", b"0")

    def count(times):
        for _ in range(times):
            while not storage.swap("counter", str(int(seen := storage.read_bytes("counter")) + 1).encode(), seen):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, [10] * 4))
    assert storage.read_bytes("counter") == b"40"


def test_keys_and_folders_are_listed_below_a_folder_only_and_sorted(storage):
    keys = ["models/b/1/m", "models/a/2/m", "models/a/10/m", "models/ab/1/m", "models/a.json", "top"]
    for key in keys:
        storage.write_bytes(key, b"")
    assert storage.list_keys() == sorted(keys)
    assert storage.list_keys("models/a") == ["models/a/10/m", "models/a/2/m"]
    assert storage.list_folders("models") == ["a", "ab", "b"]
    assert storage.list_folders() == ["models"]
    assert storage.list_folders("models/a/2") == []


def test_a_storage_that_is_empty_or_not_there_yet_lists_nothing(storage):
    assert storage.list_keys() == storage.list_keys("models") == storage.list_folders("models") == []


def test_delete_removes_one_object_and_forgives_a_missing_one(storage):
    storage.write_bytes("runs/a/1", b"")
    storage.write_bytes("runs/a/2", b"")
    storage.delete("runs/a/1")
    storage.delete("runs/a/1")
    storage.delete("runs/a/2/3")
    assert storage.list_keys() == ["runs/a/2"]


def test_a_folder_whose_last_object_is_deleted_is_no_longer_listed(storage):
    storage.write_bytes("runs/a/1", b"")
    storage.delete("runs/a/1")
    assert storage.list_folders("runs") == []


def test_a_storage_survives_pickling_as_ray_does_it(storage):
    storage.write_bytes("object", b"1")
    assert pickle.loads(pickle.dumps(storage)).read_bytes("object") == b"1"


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "..", "a/../../b", "a//b", "a/", "./a", ".lock", "-rf", "a\\b", "a\n", "ä"]
)
def test_every_method_refuses_a_key_that_is_not_a_plain_path(storage, key):
    calls = [
        lambda: storage.read_bytes(key),
        lambda: storage.write_bytes(key, b""),
        lambda: storage.create(key, b""),
        lambda: storage.swap(key, b"", expected=b""),
        lambda: storage.delete(key),
    ]
    if key:
        calls += [lambda: storage.list_keys(key), lambda: storage.list_folders(key)]
    for call in calls:
        with pytest.raises(StorageError, match="expected names of letters, digits"):
            call()
    assert storage.list_keys() == []
