"""Publishing and loading a model, on a folder and on S3 alike."""

import contextlib

import pytest
from published import FILES, flip, publish

from mnist_core.artifact import load_artifact, published_versions, read_manifest, verify_artifact
from mnist_core.errors import ArtifactError, ModelNotFoundError
from mnist_core.sealed import seal, sha256, unseal
from mnist_core.storage import open_storage


def test_a_published_model_is_loaded_as_it_was(storage):
    manifest = publish(storage)
    artifact = load_artifact(storage, "mnist", "1")
    assert artifact.files == FILES
    assert artifact.manifest == manifest
    assert manifest.version == "1"
    assert manifest.config == {"learning_rate": 1e-3, "epochs": 10, "run": None}
    assert manifest.files["model.keras"].model_dump() == {"sha256": sha256(FILES["model.keras"]), "bytes": 500}
    assert verify_artifact(storage, "mnist", "1") == []


def test_versions_count_up_and_are_listed_by_number(storage):
    for run in range(11):
        publish(storage, run_id=f"run-{run}", files={"model.keras": b"1"})
    assert published_versions(storage, "mnist") == [str(number) for number in range(1, 12)]
    assert published_versions(storage, "other") == []


def test_publishing_a_run_again_writes_nothing_and_returns_its_version(storage):
    first = publish(storage, run_id="a")
    publish(storage, run_id="b")
    before = storage.list_keys()
    assert publish(storage, run_id="a", files={"model.keras": b"of another day"}) == first
    assert storage.list_keys() == before


def test_a_run_whose_version_broke_is_published_anew(storage):
    publish(storage)
    storage.write_bytes("models/mnist/1/model.tflite", b"other")
    assert publish(storage).version == "2"
    assert publish(storage).version == "2"


@pytest.mark.parametrize("claim", [None, b"torn", b"{}"], ids=["none", "torn", "empty"])
def test_a_run_is_found_by_its_manifest_where_its_claim_is_missing_or_torn(storage, claim):
    """Storages of earlier releases have no claims of runs."""
    first = publish(storage)
    storage.delete("models/mnist/claims/runs/run")
    if claim:
        storage.write_bytes("models/mnist/claims/runs/run", claim)
    assert publish(storage, files={"model.keras": b"of another day"}) == first


def test_a_torn_claim_keeps_no_run_from_being_published(storage, caplog):
    storage.write_bytes("models/mnist/claims/runs/run", b"torn")
    assert publish(storage).version == "1"
    assert "claims/runs/run: not what was written there" in caplog.text
    caplog.clear()
    assert publish(storage).version == "1"
    assert not caplog.records


def test_a_deleted_version_of_a_run_is_published_anew_under_another_number(storage):
    publish(storage)
    for key in storage.list_keys("models/mnist/1"):
        storage.delete(key)
    assert publish(storage).version == "2"
    assert published_versions(storage, "mnist") == ["2"]


def test_a_claim_copied_with_its_model_to_another_name_counts_for_nothing(storage, caplog):
    publish(storage)
    for key in storage.list_keys("models/mnist"):
        storage.write_bytes(key.replace("mnist", "other"), storage.read_bytes(key))
    assert publish(storage, name="other").reference == "other/2"
    assert "belongs to mnist/1" in caplog.text


def test_a_version_without_a_manifest_does_not_exist_and_its_number_is_not_used_again(storage):
    publish(storage, run_id="whole")
    storage.delete("models/mnist/1/manifest.json")
    assert published_versions(storage, "mnist") == []
    for look in (load_artifact, read_manifest, verify_artifact):
        with pytest.raises(ModelNotFoundError, match="no model is published here"):
            look(storage, "mnist", "1")
    assert publish(storage, run_id="another").version == "2"
    assert publish(storage, run_id="whole").version == "1", "the same files, so the number means the same model"


def test_a_deleted_version_never_comes_back_as_another_model(storage):
    publish(storage, run_id="a")
    for key in storage.list_keys("models/mnist/1"):
        storage.delete(key)
    assert publish(storage, run_id="b").version == "2"


def test_versions_copied_in_without_their_claims_are_not_written_over(storage):
    publish(storage, run_id="a")
    storage.delete("models/mnist/claims/1")
    assert publish(storage, run_id="b").version == "2"


@contextlib.contextmanager
def changed(storage, key, data):
    before = storage.read_bytes(key)
    if data is None:
        storage.delete(key)
    else:
        storage.write_bytes(key, data)
    yield
    storage.write_bytes(key, before)


def assert_broken(storage, *parts):
    problems = verify_artifact(storage, "mnist", "1")
    with pytest.raises(ArtifactError) as caught:
        load_artifact(storage, "mnist", "1")
    for part in parts:
        assert any(part in problem for problem in problems)
        assert part in str(caught.value)


def test_one_flipped_byte_in_any_file_is_found_and_refused(storage):
    publish(storage, files={"model.keras": b"keras", "model.tflite": b"lite", "plots/curves.png": b"png"})
    keys = storage.list_keys("models/mnist/1")
    assert len(keys) == 4
    for key in keys:
        data = storage.read_bytes(key)
        for position in {0, len(data) // 2, len(data) - 1}:
            with changed(storage, key, flip(data, position)):
                assert_broken(storage, key)
    assert verify_artifact(storage, "mnist", "1") == []


@pytest.mark.parametrize("data", [None, b"", b"ker", b"keras and more"], ids=["missing", "empty", "shorter", "longer"])
def test_a_file_that_is_missing_or_of_another_length_is_found_and_refused(storage, data):
    publish(storage, files={"model.keras": b"keras"})
    with changed(storage, "models/mnist/1/model.keras", data):
        assert_broken(storage, "models/mnist/1/model.keras")


def test_a_file_that_the_manifest_does_not_list_is_found_and_refused(storage):
    publish(storage)
    storage.write_bytes("models/mnist/1/plots/extra.png", b"")
    assert_broken(storage, "models/mnist/1/plots/extra.png: not in the manifest")


def test_verify_names_every_problem_and_load_says_how_many(storage):
    publish(storage)
    storage.delete("models/mnist/1/model.keras")
    storage.write_bytes("models/mnist/1/model.tflite", b"other")
    assert len(verify_artifact(storage, "mnist", "1")) == 2
    with pytest.raises(ArtifactError, match=r"model.keras: missing.*\(and 1 more\); restore it or publish again"):
        load_artifact(storage, "mnist", "1")


def test_a_version_put_in_the_place_of_another_is_refused(storage):
    publish(storage, run_id="a")
    publish(storage, run_id="b")
    for key in storage.list_keys("models/mnist/2"):
        storage.write_bytes(key.replace("/2/", "/1/"), storage.read_bytes(key))
    assert_broken(storage, "belongs to mnist/2, expected mnist/1")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "plots/../../secret", "", "a//b", ".hidden", "manifest.json"]
)
def test_a_file_name_that_leads_out_of_the_artifact_is_never_published(storage, name):
    with pytest.raises(ArtifactError, match="not a file name an artifact can hold"):
        publish(storage, files={"model.keras": b"1", name: b"2"})
    assert storage.list_keys() == []


@pytest.mark.parametrize("name", ["../2/secret", "/etc/passwd", "plots/../../2/secret"])
def test_a_forged_manifest_that_names_a_file_outside_is_refused_unread(storage, name):
    publish(storage)
    storage.write_bytes("models/mnist/2/secret", b"secret")
    fields = unseal(storage.read_bytes("models/mnist/1/manifest.json"), "manifest")
    fields["files"][name] = {"sha256": sha256(b"secret"), "bytes": 6}
    storage.write_bytes("models/mnist/1/manifest.json", seal(fields))
    assert_broken(storage, f"{name!r} is not a file name an artifact can hold")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("version", "../1"),
        ("version", "01"),
        ("files", {}),
        ("files", {"model.keras": {"sha256": "0" * 64, "bytes": 1 << 40}}),
        ("files", {"model.keras": {"sha256": "0" * 63, "bytes": 1}}),
        ("unknown", 1),
    ],
)
def test_a_forged_manifest_of_another_shape_is_refused_with_the_field_named(storage, field, value):
    publish(storage)
    fields = unseal(storage.read_bytes("models/mnist/1/manifest.json"), "manifest")
    storage.write_bytes("models/mnist/1/manifest.json", seal({**fields, field: value}))
    assert_broken(storage, f"models/mnist/1/manifest.json: {field}")


def test_a_manifest_larger_than_any_is_refused(storage):
    publish(storage)
    storage.write_bytes("models/mnist/1/manifest.json", b" " * (5 << 20))
    assert_broken(storage, "manifest.json")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metrics": {"test": {"loss": float("nan")}}}, "expected finite numbers only"),
        ({"config": {"path": object()}}, "config.path"),
        ({"run_id": 3}, "run_id"),
        ({"files": {}}, "files"),
    ],
)
def test_what_cannot_stand_in_a_manifest_is_refused_before_anything_is_written(storage, changed, message):
    with pytest.raises(ArtifactError, match=message):
        publish(storage, **changed)
    assert storage.list_keys() == []


def test_a_broken_version_of_another_run_does_not_keep_a_run_from_being_published(storage, caplog):
    publish(storage, run_id="a")
    storage.write_bytes("models/mnist/1/manifest.json", b"torn")
    assert publish(storage, run_id="b").version == "2"
    assert "models/mnist/1/manifest.json" in caplog.text


def test_readers_of_another_account_may_read_what_is_published(tmp_path):
    publish(open_storage(str(tmp_path)))
    assert (tmp_path / "models/mnist/1/model.keras").stat().st_mode & 0o044 == 0o044
