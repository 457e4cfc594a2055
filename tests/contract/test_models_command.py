"""``mnist models`` as a user types it."""

import json

import pytest
from published import flip, publish

from jobs.cli import main
from mnist_core.storage import open_storage


@pytest.fixture
def storage(tmp_path):
    """A folder with mnist/1 and mnist/2, where mnist/1 is current."""
    storage = open_storage(str(tmp_path / "storage"))
    for run in "ab":
        publish(storage, run_id=run)
    assert main(["models", "promote", "mnist/1", "--storage", storage.uri]) == 0
    return storage


@pytest.fixture
def mnist(storage, capsys):
    """Run ``mnist models ...`` on the storage; returns exit code, stdout and stderr."""

    def run(*words, where=storage.uri):
        capsys.readouterr()
        code = main(["models", *words, "--storage", where])
        return code, *capsys.readouterr()

    return run


def test_list_aligns_every_version_and_marks_the_current_one(mnist):
    code, out, err = mnist("list")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split() == ["MODEL", "CURRENT", "PUBLISHED", "DATASET", "TEST", "ACCURACY", "SIZE"]
    assert [line.split()[0] for line in lines[1:]] == ["mnist/1", "mnist/2"]
    assert [line[lines[0].index("CURRENT")] for line in lines[1:]] == ["*", " "]
    assert all(line[lines[0].index("TEST") :].split() == ["99.00%", "503", "bytes"] for line in lines[1:])


def test_list_as_json_is_one_object_on_the_last_line(mnist):
    models = json.loads(mnist("list", "mnist", "--json")[1].splitlines()[-1])["models"]
    assert [(m["name"], m["version"], m["current"], m["run_id"], m["test_accuracy"], m["bytes"]) for m in models] == [
        ("mnist", "1", True, "a", 0.99, 503),
        ("mnist", "2", False, "b", 0.99, 503),
    ]


def test_list_shows_a_broken_version_beside_the_good_ones(mnist, storage):
    storage.write_bytes("models/mnist/2/manifest.json", b"torn")
    code, out, _ = mnist("list")
    assert code == 0
    assert "mnist/1  *" in out
    assert "broken; see mnist models verify" in out.splitlines()[2]


def test_list_survives_a_broken_pointer(mnist, storage):
    storage.write_bytes("models/mnist/current.json", b"torn")
    code, out, _ = mnist("list")
    assert code == 0
    assert "*" not in out


@pytest.mark.parametrize("action", ["list", "verify"])
def test_a_storage_without_models_says_so_and_is_not_created(mnist, tmp_path, action):
    assert mnist(action, where=str(tmp_path / "nothing")) == (0, f"no models in {tmp_path}/nothing\n", "")
    assert not (tmp_path / "nothing").exists()


def test_show_tells_where_a_model_comes_from_and_what_belongs_to_it(mnist):
    _, out, _ = mnist("show", "mnist")
    assert "mnist/1 (current)" in out
    assert "config.learning_rate  0.001" in out
    shown = json.loads(mnist("show", "2", "--json")[1])
    assert shown["manifest"]["version"] == "2"
    assert shown["artifact"].endswith("/models/mnist/2")
    assert not shown["current"]


def test_promote_and_rollback_move_the_current_version(mnist):
    assert mnist("promote", "2") == (0, "the current version of mnist is 2\n", "")
    assert mnist("rollback", "mnist") == (0, "the current version of mnist is 1\n", "")
    assert json.loads(mnist("promote", "mnist/2", "--json")[1])["previous"] == "1"


def test_promote_refuses_a_broken_model(mnist, storage):
    storage.write_bytes("models/mnist/2/model.keras", b"broken")
    code, out, err = mnist("promote", "2")
    assert (code, out) == (1, "")
    assert err.startswith("error: mnist/2 is broken")
    assert "mnist/1  *" in mnist("list")[1]


@pytest.mark.parametrize("target", [(), ("mnist",), ("2",)])
def test_verify_checks_what_it_is_asked_to_check(mnist, storage, target):
    expected = "whole: mnist/2\n" if target == ("2",) else "whole: mnist/1, mnist/2\n"
    assert mnist("verify", *target) == (0, expected, "")
    for key in storage.list_keys("models/mnist/2"):
        before = storage.read_bytes(key)
        storage.write_bytes(key, flip(before, 0) if before else b"1")
        code, _, err = mnist("verify", *target)
        assert code == 1
        assert err.startswith("error: found 1 problem: ")
        assert key in err
        storage.write_bytes(key, before)
    assert mnist("verify", *target)[0] == 0


@pytest.mark.parametrize("damage", ["flipped", "dangling"])
def test_verify_finds_a_broken_pointer(mnist, storage, damage):
    if damage == "flipped":
        storage.write_bytes("models/mnist/current.json", flip(storage.read_bytes("models/mnist/current.json"), 20))
    else:
        storage.delete("models/mnist/1/manifest.json")
    assert mnist("verify")[0] == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["promote"], "received 'nothing', expected NAME/VERSION"),
        (["promote", "mnist"], "received 'mnist', expected NAME/VERSION"),
        (["rollback"], "received 'nothing', expected NAME"),
        (["rollback", "mnist/1"], "received 'mnist/1', expected NAME"),
        (["show"], "received 'nothing', expected NAME or NAME/VERSION"),
        (["list", "mnist/1"], "received 'mnist/1', expected nothing or NAME"),
        (["promote", "../1"], "received '../1', expected NAME/VERSION"),
        (["verify", "mnist/1/2"], "received 'mnist/1/2', expected nothing or NAME or NAME/VERSION"),
        (["show", "0"], "received '0', expected NAME or NAME/VERSION"),
    ],
)
def test_an_action_with_the_wrong_target_is_wrong_usage(mnist, words, expected):
    assert mnist(*words) == (2, "", f"error: models {words[0]}: {expected}\n")


@pytest.mark.parametrize("action", ["list", "show", "rollback", "verify"])
def test_an_unknown_model_is_answered_with_the_known_ones(mnist, action):
    code, out, err = mnist(action, "mnst")
    assert (code, out) == (1, "")
    assert "no model 'mnst'" in err


@pytest.mark.parametrize("action", ["show", "promote", "verify"])
def test_an_unknown_version_is_answered_with_the_known_ones(mnist, action):
    code, out, err = mnist(action, "7")
    assert (code, out, err) == (1, "", "error: model 'mnist' has no version 7, but: 1, 2\n")
