"""Several digits in a picture, through the command and through the endpoint: what is answered, and what is refused.

The model is one that knows the digits of these pictures by heart, so that it is clear what is to come out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from fuzz_requests import PIXELS, Client, in_process, multipart
from jsonschema import Draft202012Validator
from lines import ByHeart, encode, write
from PIL import Image

from jobs import predict
from jobs.cli import main
from mnist_core.config import PredictConfig
from mnist_core.config_serve import ServeConfig
from mnist_core.predictor import Predictor
from serve import web
from serve.openapi import EXAMPLE_LINE, build_openapi

LINE, BOXES = write("90210")
PICTURE = encode(LINE)
TORN = PICTURE[: len(PICTURE) // 2]
BLANK = encode(np.full((90, 300), 255, np.uint8))


@pytest.fixture(scope="module", autouse=True)
def _by_heart() -> Iterator[None]:
    model = ByHeart()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "predict", lambda _, images: model.predict(images))
        yield


class Endpoint:
    """Asks for ``/predict``."""

    def __init__(self, runner: Any, client: Client) -> None:
        self._runner, self._client = runner, client

    def ask(self, body: bytes, kind: str = "image/png", query: str = "split=true", **headers: str) -> tuple[int, Any]:
        sent = [(b"content-type", kind.encode())]
        sent += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        status, content, _ = self._runner.run(self._client.ask("POST", f"/predict?{query}", body, sent))
        return status, json.loads(content)

    def refused(self, body: bytes, kind: str = "image/png", **headers: str) -> tuple[int, str, str]:
        status, answer = self.ask(body, kind, **headers)
        assert len(answer["error"]["message"].splitlines()) == 1
        return status, answer["error"]["code"], answer["error"]["message"]


@pytest.fixture(scope="module")
def endpoint(model_storage: str) -> Iterator[Endpoint]:
    with in_process(model_storage) as (runner, client):
        yield Endpoint(runner, client)


@pytest.fixture
def bounded(model_storage: str) -> Iterator[Endpoint]:
    """One that allows six digits in a picture and nine in a request."""
    with in_process(model_storage, max_digits=6, max_request_images=9) as (runner, client):
        yield Endpoint(runner, client)


def test_a_picture_is_answered_with_its_text_and_with_each_digit_and_its_box(endpoint: Endpoint):
    status, answer = endpoint.ask(PICTURE)
    assert (status, answer["model_version"]) == (200, "mnist/1")
    (line,) = answer["predictions"]
    assert line["text"] == "90210"
    assert [each["digit"] for each in line["digits"]] == [9, 0, 2, 1, 0]
    for each, box in zip(line["digits"], BOXES, strict=True):
        assert set(each) == {"digit", "confidence", "probabilities", "rejected", "line", "box"}
        np.testing.assert_allclose([each["box"][side] for side in "xywh"], box, atol=4)
        assert each["confidence"] == max(each["probabilities"])
        assert (each["rejected"], each["line"]) == (False, 0)


@pytest.mark.parametrize("query", ["split=1", "split=YES", "pixels=1&split=true"])
def test_pixels_that_the_model_saw_are_given_if_asked_for(endpoint: Endpoint, query: str):
    digits = endpoint.ask(PICTURE, query=query)[1]["predictions"][0]["digits"]
    assert all(("pixels" in each) == ("pixels" in query) for each in digits)
    assert all(len(base64.b64decode(each["pixels"])) == 784 for each in digits if "pixels" in each)


@pytest.mark.parametrize("query", ["", "split=false", "split=0", "split", "spilt=true"])
def test_without_split_a_picture_is_one_digit(endpoint: Endpoint, query: str):
    (prediction,) = endpoint.ask(PICTURE, query=query)[1]["predictions"]
    assert "digit" in prediction


def test_every_form_of_body_gives_the_same(endpoint: Endpoint):
    expected = endpoint.ask(PICTURE)[1]["predictions"]
    encoded = base64.b64encode(PICTURE).decode()
    for body, kind in (
        (PICTURE, "application/octet-stream"),
        (multipart(PICTURE), "multipart/form-data; boundary=cut"),
        (orjson.dumps({"images": [encoded]}), "application/json"),
    ):
        assert endpoint.ask(body, kind)[1]["predictions"] == expected
    padded = PICTURE + bytes(-len(PICTURE) % 784)  # as long as images of 784 bytes
    assert endpoint.ask(padded, "application/octet-stream")[1]["predictions"] == expected


def test_a_bad_picture_among_several_is_one_error(endpoint: Endpoint):
    status, answer = endpoint.ask(multipart(TORN, PICTURE, BLANK), "multipart/form-data; boundary=cut")
    torn, line, blank = answer["predictions"]
    assert (status, torn["error"]["code"], blank["error"]["code"]) == (200, "image_truncated", "image_blank")
    assert line["text"] == "90210"
    status, answer = endpoint.ask(multipart(TORN, BLANK), "multipart/form-data; boundary=cut")
    assert status == 200
    assert all("error" in each for each in answer["predictions"])


def test_what_is_wrong_with_the_only_picture_is_wrong_with_the_request(endpoint: Endpoint):
    assert endpoint.refused(TORN)[:2] == (400, "image_truncated")
    assert endpoint.refused(BLANK)[:2] == (400, "image_blank")
    assert endpoint.refused(b"", "image/png")[:2] == (400, "image_empty")
    assert endpoint.refused(PICTURE, "text/plain")[:2] == (415, "unsupported_media")


@pytest.mark.parametrize("count", [1, 3])
def test_raw_pixels_are_refused_since_they_are_single_digits(endpoint: Endpoint, count: int):
    status, code, message = endpoint.refused(PIXELS.tobytes() * count, "application/octet-stream")
    assert (status, code) == (400, "bad_request")
    assert f"received {784 * count} bytes" in message
    assert "without split" in message


def test_digits_count_as_images_of_the_request(bounded: Endpoint):
    kind = "multipart/form-data; boundary=cut"
    assert bounded.ask(multipart(PICTURE, encode(write("417")[0])), kind)[0] == 200
    status, code, message = bounded.refused(multipart(PICTURE, PICTURE), kind)
    assert (status, code) == (413, "request_too_large")
    assert "found 10 digits" in message
    assert bounded.refused(multipart(*[PICTURE] * 10), kind)[:2] == (413, "request_too_large")


def test_cut_digits_count_too(model_storage: str):
    touching = encode(write("6073", gaps=-3)[0])
    with in_process(model_storage, max_request_images=3) as asked:
        assert Endpoint(*asked).refused(touching)[:2] == (413, "request_too_large")


def test_a_picture_has_a_limit_of_its_own(bounded: Endpoint):
    status, code, message = bounded.refused(encode(write("1234567")[0]))
    assert (status, code) == (413, "image_too_many_digits")
    assert "expected at most 6" in message


def test_candidates_of_all_pictures_have_a_limit_together(model_storage: str):
    strokes = np.full((140, 464), 255, np.uint8)
    for left in range(40, 424, 6):
        strokes[50:90, left : left + 2] = 0
    kind = "multipart/form-data; boundary=cut"
    with in_process(model_storage, max_request_images=20) as asked:
        endpoint = Endpoint(*asked)
        assert endpoint.ask(encode(strokes))[0] == 200
        status, code, message = endpoint.refused(multipart(*[encode(strokes)] * 2), kind)
    assert (status, code) == (413, "request_too_large")
    assert message.endswith(
        "places where a digit may be or more, expected at most 500 in a request of 20 digits; send several"
    )


def test_a_sign_is_a_question_mark_in_the_text_of_endpoint_and_command(endpoint: Endpoint, model_storage, tmp_path):
    pixels, boxes = write("4717", gaps=30)
    left, top, width, height = boxes[1]
    pixels[top : top + height, left : left + width] = 255
    for place in (top + 14, top + 36):  # an equals sign
        pixels[place : place + 10, left : left + width] = 0
    (line,) = endpoint.ask(encode(pixels))[1]["predictions"]
    assert (line["text"], [each["rejected"] for each in line["digits"]]) == ("4?17", [False, True, False, False])
    file = tmp_path / "sum.png"
    file.write_bytes(encode(pixels))
    result = predict.run(PredictConfig(storage=model_storage, images=[str(file)], split_digits=True))
    assert result["images"][0]["text"] == "4?17"
    assert [each["digit"] for each in result["images"][0]["digits"]] == [each["digit"] for each in line["digits"]]


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
@pytest.mark.parametrize("query", ["split=true", ""])
def test_the_endpoint_remarks_on_further_frames_as_the_command_does(
    endpoint: Endpoint, model_storage, tmp_path, kind: str, query: str
):
    more = encode(LINE, kind, save_all=True, append_images=[Image.fromarray(255 - LINE)])
    status, answer = endpoint.ask(multipart(more, TORN, PICTURE), "multipart/form-data; boundary=cut", query=query)
    remarked, torn, plain = answer["predictions"]
    assert (status, set(torn)) == (200, {"error"})
    assert "remark" not in plain
    file = tmp_path / "more"
    file.write_bytes(more)
    config = PredictConfig(storage=model_storage, images=[str(file)], split_digits=bool(query))
    (image,) = predict.run(config)["images"]
    assert remarked["remark"] == {"code": image["error_code"], "message": image["error"]}
    assert remarked["remark"]["message"] == "found 2 frames, expected one: the first was taken"
    document = orjson.loads(orjson.dumps(build_openapi(web.ROUTES, ServeConfig(), "mnist")))
    schemas = document["components"]["schemas"]
    schema = {**schemas["Line" if query else "Prediction"], "additionalProperties": False}
    for prediction in (remarked, plain):
        Draft202012Validator({**schema, "components": document["components"]}).validate(prediction)


def test_a_request_whose_time_is_over_is_not_cut(endpoint: Endpoint):
    assert endpoint.refused(PICTURE, x_request_timeout_seconds="1e-9")[:2] == (504, "deadline_exceeded")


def test_the_document_describes_answers_and_has_an_example_that_works(endpoint: Endpoint):
    document = orjson.loads(orjson.dumps(build_openapi(web.ROUTES, ServeConfig(), "mnist")))
    operation = document["paths"]["/predict"]["post"]
    assert "split" in {each["name"] for each in operation["parameters"]}
    example = operation["requestBody"]["content"]["application/json"]["examples"]["a line to split"]["value"]
    assert base64.b64decode(example["images"][0]) == EXAMPLE_LINE
    schema = {**document["components"]["schemas"]["SplitPredictions"], "components": document["components"]}
    for body, kind in ((orjson.dumps(example), "application/json"), (PICTURE, "image/png")):
        status, answer = endpoint.ask(body, kind, query="split=true&pixels=true")
        assert status == 200
        Draft202012Validator(schema).validate(answer)
    answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**answered, "components": document["components"]})
    for query in ("", "split=true"):
        validator.validate(endpoint.ask(PICTURE, query=query)[1])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    contents = {"line.png": PICTURE, "torn.png": TORN, "sum.png": encode(write("417")[0])}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in contents]


def test_the_command_has_a_row_a_digit_and_says_what_each_file_says(files, model_storage, capsys):
    assert main(["predict", "--split", *files, "--storage", model_storage]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"error: 1 of 3 images have no digit: {files[1]}\n"
    header, *lines = [line.split() for line in captured.out.splitlines()]
    assert header == ["file", "number", "digit", "confidence", "rejected", "x", "y", "w", "h"]
    rows = [line for line in lines if line and line[0] == files[0]][:5]
    assert [row[1] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row[2] for row in rows] == list("90210")
    np.testing.assert_allclose([list(map(int, row[5:])) for row in rows], BOXES, atol=4)
    assert [files[0], "90210"] in lines
    assert [files[2], "417"] in lines
    assert any(line[:5] == [files[1], "-", "-", "-", "image_truncated:"] for line in lines)
    assert main(["predict", "--split", files[0], "--storage", model_storage]) == 0


def test_the_command_gives_json_with_boxes(files, model_storage, capsys):
    assert main(["predict", "--split", files[0], "--storage", model_storage, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    (image,) = result["images"]
    assert (image["file"], image["text"], image["status"], image["error_code"]) == (files[0], "90210", "ok", None)
    assert [each["digit"] for each in image["digits"]] == [9, 0, 2, 1, 0]
    assert set(image["digits"][0]) == {"line", "digit", "confidence", "probabilities", "rejected", "box"}
    assert set(image["digits"][0]["box"]) == set("xywh")


def test_the_command_keeps_its_limit_and_remarks_on_animations(files, model_storage, tmp_path):
    result = predict.run(PredictConfig(storage=model_storage, images=files[:1], split_digits=True, max_digits=4))
    assert result["images"][0]["error_code"] == "image_too_many_digits"
    assert result["images"][0]["text"] is None
    animation = tmp_path / "line.gif"
    frame = Image.fromarray(LINE)
    frame.save(animation, save_all=True, append_images=[Image.fromarray(255 - LINE)])
    config = PredictConfig(storage=model_storage, images=[str(animation)], split_digits=True)
    result = predict.run(config)
    assert (result["images"][0]["text"], result["images"][0]["error_code"]) == ("90210", "first_frame_only")
    assert "90210  first_frame_only" in predict.render(result)
