from __future__ import annotations

import json

import numpy as np
import pytest

from jobs import evaluate
from jobs.cli import main
from mnist_core.artifact import publish_artifact
from mnist_core.config import EvaluateConfig
from mnist_core.datasets import Split, load_dataset
from mnist_core.errors import ArtifactError, ConfigError, ModelNotFoundError, ResourcesError, StorageError
from mnist_core.evaluation import evaluate_model
from mnist_core.predictor import load_predictor
from mnist_core.registry import promote
from mnist_core.storage import open_storage

MEASURED = ("seconds", "images_per_second")
PLOTS = {"confusion-matrix.png", "mistakes.png", "reliability.png", "samples.png"}
FILES = {"evaluation.json", "report.html", "plots", *PLOTS}


@pytest.fixture(scope="module")
def model():
    from mnist_core.export import export_calibrated
    from mnist_core.model import build_training_network

    network = build_training_network("convnet", dropout=0.5, precision="float32", seed=1)
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
    noise = Split(images, np.arange(50, dtype=np.uint8) % 10)
    return export_calibrated(network, noise, noise, seed=0)[0]["model.tflite"]


@pytest.fixture(scope="module")
def storage(model, tmp_path_factory):
    storage = open_storage(str(tmp_path_factory.mktemp("storage")))
    facts = {"config": {"epochs": 1}, "dataset": {"name": "uci-digits"}, "metrics": {}, "libraries": {"keras": "3"}}
    for name, files in {
        "digits": {"model.tflite": model},
        "broken": {"model.tflite": b"no model"},
        "bare": {"model.keras": b"whatever"},
    }.items():
        manifest = publish_artifact(storage, name, files, run_id="run", **facts)
        promote(storage, name, manifest.version)
    return storage


@pytest.fixture
def configure(storage):
    return lambda **fields: EvaluateConfig(
        **{"storage": storage.uri, "model": "digits", "dataset": "uci-digits", **fields}
    )


def exact(result):
    return {name: value for name, value in result.items() if name not in MEASURED}


@pytest.mark.parametrize(("split", "count"), [("test", 360), ("train", 1437), ("all", 1797)])
def test_every_image_of_the_split_is_counted(configure, model, split, count):
    dataset = load_dataset("uci-digits")
    result = evaluate.run(configure(split=split))
    assert result["count"] == sum(map(sum, result["confusion"])) == count
    assert result["dataset"] == {"name": "uci-digits", "split": split, "sha256": dataset.sha256}
    assert (result["model"], result["version"], result["output"]) == ("digits", "1", None)
    if split != "all":
        part = getattr(dataset, split)
        predictor = load_predictor({"model.tflite": model}, device="cpu")
        evaluation, predictions = evaluate_model(predictor, part.images, part.labels)
        assert result["accuracy"] == evaluation.accuracy
        num_rejected = int(predictions.rejected.sum())
        assert num_rejected > count / 2, "to a model that knows noise, digits are strange"
        assert result["rejected"] == {"count": num_rejected, "fraction": num_rejected / count}


def test_an_output_that_cannot_be_looked_at_is_one_line(configure, tmp_path):
    with pytest.raises(StorageError, match=r"cannot be looked at \(File name too long\); name another folder"):
        evaluate.run(configure(output=tmp_path / ("a" * 300)))


def test_a_dataset_with_one_split_is_used_whole(configure, tmp_path):
    images = np.zeros((30, 28, 28), np.uint8)
    for digit in range(3):
        (tmp_path / str(digit)).mkdir()
        for index in range(10):
            save_png(tmp_path / str(digit) / f"{index}.png", images[index])
    result = evaluate.run(configure(dataset=str(tmp_path), split="test"))
    assert (result["count"], result["dataset"]["split"]) == (30, "all")


def save_png(path, image):
    from PIL import Image

    Image.fromarray(image).save(path)


def test_output_holds_json_report_and_plots(configure, tmp_path):
    output = tmp_path / "new" / "report"
    result = evaluate.run(configure(output=output))
    assert {path.name for path in output.rglob("*")} == FILES
    record = json.loads((output / "evaluation.json").read_text())
    assert record["confusion"] == result["confusion"]
    assert record["dataset"] == result["dataset"]
    page = (output / "report.html").read_text()
    assert "mnist evaluate digits" in page
    assert "digits/1 on uci-digits (test)" in page
    assert [path.name for path in output.parent.iterdir()] == ["report"]
    assert (output.stat().st_mode & 0o777) == (output.parent.stat().st_mode & 0o777)


def test_an_empty_output_folder_is_filled(configure, tmp_path):
    output = tmp_path / "report"
    output.mkdir()
    before = output.stat().st_ino
    evaluate.run(configure(output=output))
    assert {path.name for path in output.rglob("*")} == FILES
    assert output.stat().st_ino == before, "it may be a mount, which nothing can take the place of"


@pytest.mark.parametrize("used", ["folder", "file"])
def test_an_output_that_is_in_use_is_refused_before_any_work(configure, tmp_path, used):
    output = tmp_path / "report"
    if used == "folder":
        output.mkdir()
        (output / "mine.txt").write_text("mine")
    else:
        output.write_text("mine")
    with pytest.raises(ConfigError, match="is not an empty folder; name a new one"):
        evaluate.run(configure(output=output, model="nonexistent"))
    assert (output / "mine.txt" if used == "folder" else output).read_text() == "mine"


def test_an_output_that_cannot_be_written_is_one_line_and_leaves_nothing(configure, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written \(Not a directory\)"):
        evaluate.run(configure(output=tmp_path / "file" / "report"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_output_taken_meanwhile_is_not_overwritten(tmp_path):
    output = tmp_path / "report"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        evaluate._write_folder(output, {"plots/a.png": b"a"})
    assert [path.name for path in tmp_path.rglob("*")] == ["report", "mine.txt"]


@pytest.mark.parametrize(
    ("reference", "error"),
    [("broken", ArtifactError), ("bare", ArtifactError), ("digits/9", ModelNotFoundError), ("no", ModelNotFoundError)],
)
def test_a_model_that_is_no_good_is_refused(configure, reference, error):
    with pytest.raises(error):
        evaluate.run(configure(model=reference))


def test_a_copied_out_artifact_gives_the_same_result(configure, storage):
    folder = storage.path("models/digits/1")
    assert exact(evaluate.run(configure(model=folder))) == exact(evaluate.run(configure()))


def test_the_command_prints_one_json_object(storage, capfd):
    assert main(["evaluate", "digits", "--storage", storage.uri, "--dataset", "uci-digits", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["count"] == 360
    assert out.count("\n") == 1
    assert err == ""  # the engine's own line is kept quiet too


def test_the_summary_says_what_people_ask_for(configure, tmp_path):
    result = evaluate.run(configure(output=tmp_path / "report"))
    summary = evaluate.render(result)
    assert f"{result['accuracy']:.2%} ({result['correct']:,} of 360 right)" in summary
    assert str(tmp_path / "report" / "report.html") in summary
    assert f"rejected as no digit: {result['rejected']['count']:,} (" in summary
    assert all(f"{row['f1']:.2%}" in summary for row in result["per_class"])


def test_real_mnist_is_counted_to_the_last_image(configure, mnist_data_dir):
    result = evaluate.run(configure(dataset="mnist", data_dir=mnist_data_dir))
    assert result["count"] == sum(map(sum, result["confusion"])) == 10_000
    assert [row["support"] for row in result["per_class"]] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture(scope="module")
def shared_ray():
    """One Ray for several commands, started as a command starts its own; each uses the one that it finds."""
    from jobs.cluster import ray_session

    with ray_session(verbose=False) as session:
        assert session.alone
        yield


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_workers_change_nothing_but_the_time(configure, tmp_path):
    alone = evaluate.run(configure(output=tmp_path / "1"))
    spread = evaluate.run(configure(workers=3, output=tmp_path / "3"))
    assert {**exact(spread), "output": None} == {**exact(alone), "output": None}
    for name in ("evaluation.json", "report.html", "plots/samples.png"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_errors_of_workers_are_one_line(configure):
    with pytest.raises(ArtifactError) as caught:
        evaluate.run(configure(model="broken", workers=2))
    assert "\n" not in str(caught.value)
    with pytest.raises(ResourcesError, match="--threads 4096: the largest machine"):
        evaluate.run(configure(workers=2, threads=4096))
    more_workers_than_images = evaluate.run(configure(workers=400))
    assert more_workers_than_images["count"] == 360


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_cluster_that_is_taken_is_not_waited_for_without_end(configure, monkeypatch):
    import ray

    monkeypatch.setattr("jobs.cluster.RESERVE_S", 1.0)
    taken = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
    assert taken.wait(30)
    try:
        with pytest.raises(ResourcesError, match="a task of 1 CPUs; the cluster has 0 that are free"):
            evaluate.run(configure(workers=2))
    finally:
        ray.util.remove_placement_group(taken)
