"""Which version is current, and what a reference means, on a folder and on S3 alike."""

import shutil

import pytest
from published import FILES, flip, publish

from mnist_core.errors import ArtifactError, ModelNotFoundError
from mnist_core.registry import (
    current_version,
    list_models,
    open_model,
    promote,
    promote_once,
    resolve,
    rollback,
)
from mnist_core.sealed import unseal
from mnist_core.storage import open_storage


@pytest.fixture
def three(storage):
    """A storage with mnist/1, mnist/2 and mnist/3."""
    for run in "abc":
        publish(storage, run_id=run)
    return storage


def break_version(storage, version):
    storage.write_bytes(f"models/mnist/{version}/model.keras", b"broken")


def test_a_model_has_no_current_version_until_one_is_promoted(three):
    assert current_version(three, "mnist") is None
    assert promote(three, "mnist", "2") is None
    assert current_version(three, "mnist") == "2"
    assert promote(three, "mnist", "3") == "2"
    assert current_version(three, "mnist") == "3"


def test_rollback_goes_back_step_by_step_through_what_was_current(three):
    for version in ("2", "1", "3", "3"):
        promote(three, "mnist", version)
    assert rollback(three, "mnist") == "1"
    assert rollback(three, "mnist") == "2"
    with pytest.raises(ModelNotFoundError, match="no earlier current version"):
        rollback(three, "mnist")
    assert current_version(three, "mnist") == "2"


def test_a_broken_version_is_not_promoted_and_the_pointer_stays(three):
    promote(three, "mnist", "1")
    break_version(three, "2")
    with pytest.raises(ArtifactError, match=r"mnist/2 is broken and was not made current: .*model.keras"):
        promote(three, "mnist", "2")
    assert current_version(three, "mnist") == "1"


def test_rollback_to_a_version_that_broke_is_refused_and_the_pointer_stays(three):
    promote(three, "mnist", "1")
    promote(three, "mnist", "2")
    break_version(three, "1")
    with pytest.raises(ArtifactError, match=r"mnist/1 is broken .*; none was current .* models promote NAME/VERSION"):
        rollback(three, "mnist")
    assert current_version(three, "mnist") == "2"


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "deleted"])
def test_a_rollback_that_leads_to_no_good_version_names_those_before_it(three, broken):
    for version in ("1", "2", "1", "3", "2", "3"):
        promote(three, "mnist", version)
    if broken:
        break_version(three, "2")
    else:
        three.delete("models/mnist/2/manifest.json")
    way_out = "; current before it: 1; make one current: mnist models promote mnist/1"
    with pytest.raises(ArtifactError if broken else ModelNotFoundError, match=f"mnist/2.*{way_out}$") as caught:
        rollback(three, "mnist")
    assert "\n" not in str(caught.value)
    assert current_version(three, "mnist") == "3"


def test_what_was_never_current_is_promoted_once(three):
    assert promote_once(three, "mnist", "1")
    assert promote_once(three, "mnist", "2")
    assert promote_once(three, "mnist", "2"), "asked for again, it is current still"
    assert current_version(three, "mnist") == "2"
    assert rollback(three, "mnist") == "1"


@pytest.mark.parametrize("replace", [rollback, lambda *model: promote(*model, "3")], ids=["rolled back", "promoted"])
def test_what_was_current_once_is_not_promoted_again_unasked(three, caplog, replace):
    promote(three, "mnist", "1")
    promote_once(three, "mnist", "2")
    replace(three, "mnist")
    current = current_version(three, "mnist")
    assert not promote_once(three, "mnist", "2")
    assert current_version(three, "mnist") == current != "2"
    assert f"mnist/2 was current before and is not made current again, {current} stays" in caplog.text
    promote(three, "mnist", "3")
    assert not promote_once(three, "mnist", "2"), "whatever was current in between"
    promote(three, "mnist", "2")
    assert current_version(three, "mnist") == "2"


def test_a_pointer_that_was_never_rolled_back_is_what_earlier_releases_wrote(three):
    for version in ("1", "2"):
        promote(three, "mnist", version)
    pointer = unseal(three.read_bytes("models/mnist/current.json"), "pointer")
    assert pointer == {"format": 1, "version": "2", "history": ["1"]}


def test_any_flipped_byte_of_the_pointer_is_found_and_promotion_repairs_it(three, caplog):
    promote(three, "mnist", "1")
    promote(three, "mnist", "2")
    good = three.read_bytes("models/mnist/current.json")
    for position in (0, good.index(b'"2"') + 1, len(good) - 1):
        three.write_bytes("models/mnist/current.json", flip(good, position))
        for look in (current_version, rollback, resolve):
            with pytest.raises(ArtifactError, match=r"current\.json: .*promote again"):
                look(three, "mnist")
    assert promote(three, "mnist", "3") is None
    assert current_version(three, "mnist") == "3"
    assert "its history is lost" in caplog.text


def test_a_reference_is_a_name_or_a_name_with_a_version(three):
    promote(three, "mnist", "2")
    assert resolve(three, "mnist") == ("mnist", "2")
    assert resolve(three, "mnist/3") == ("mnist", "3")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mnst", "no model 'mnst' in .*, which has: mnist"),
        ("mnist", "model 'mnist' has no current version .mnist models promote makes one., but: 1, 2, 3"),
        ("mnist/4", "model 'mnist' has no version 4, but: 1, 2, 3"),
        ("mnist/../mnist", "no version"),
        ("mnist/01", "no version"),
        ("../mnist", "no model"),
        ("", "no model"),
    ],
)
def test_a_reference_to_nothing_is_answered_with_what_there_is(three, reference, message):
    with pytest.raises(ModelNotFoundError, match=message):
        resolve(three, reference)


def test_an_empty_storage_says_so(storage):
    with pytest.raises(ModelNotFoundError, match="which has: no model at all"):
        resolve(storage, "mnist")


def test_a_pointer_to_a_version_that_is_gone_resolves_to_nothing(three):
    promote(three, "mnist", "2")
    three.delete("models/mnist/2/manifest.json")
    with pytest.raises(ModelNotFoundError, match="no version 2, but: 1, 3"):
        resolve(three, "mnist")


def test_promoting_a_version_that_is_not_published_is_refused(three):
    with pytest.raises(ModelNotFoundError, match="no version 4"):
        promote(three, "mnist", "4")


def test_models_are_listed_once_they_have_a_published_version(three):
    three.create("models/halfway/claims/1", b"")
    three.write_bytes("models/halfway/1/model.keras", b"")
    assert list_models(three) == ["mnist"]


def test_a_model_is_opened_by_name_by_version_and_by_folder(three, tmp_path):
    promote(three, "mnist", "2")
    assert open_model(three, "mnist").manifest.run_id == "b"
    assert open_model(three, "mnist/3").manifest.run_id == "c"
    assert open_model(three, f"{three.uri}/models/mnist/1").manifest.run_id == "a"
    copy = open_storage(str(tmp_path / "copy"))
    for name in (*FILES, "manifest.json"):
        copy.write_bytes(name, three.read_bytes(f"models/mnist/1/{name}"))
    assert open_model(three, str(tmp_path / "copy")).files == FILES


def test_a_copied_folder_is_verified_like_any_model(tmp_path):
    publish(open_storage(str(tmp_path)))
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "models/mnist/1", copy)
    (copy / "model.keras").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"copy/model\.keras"):
        open_model(open_storage(str(tmp_path)), str(copy))
    (copy / "manifest.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"copy/manifest\.json: not there"):
        open_model(open_storage(str(tmp_path)), str(copy))
