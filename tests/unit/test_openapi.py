"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

import asyncio
import base64
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from mnist_core.config_serve import ServeConfig
from mnist_core.images import decode_image
from serve import docs_page, web
from serve.calls import Call
from serve.openapi import EXAMPLE_BASE64, EXAMPLE_PIXELS, build_openapi
from serve.routing import Route

JSON = "application/json"


def document(**config: Any) -> dict[str, Any]:
    """The document as it goes out."""
    return orjson.loads(orjson.dumps(build_openapi(web.ROUTES, ServeConfig(**config), "digits", "3")))


DOCUMENT = document()


def operations(whole: dict[str, Any] = DOCUMENT) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, each) for path, item in whole["paths"].items() for method, each in item.items()]


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def examples(kind: str = JSON) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Path, schema and value of every example of a body."""
    for _, path, operation in operations():
        content = operation.get("requestBody", {}).get("content", {}).get(kind, {})
        yield from ((path, content["schema"], each["value"]) for each in content.get("examples", {}).values())


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


def get(path: str, **config: Any) -> Any:
    """The reply of a page."""
    route = next(route for route in web.ROUTES if route.path == path)
    model = types.SimpleNamespace(name="digits", version="3")
    service: Any = types.SimpleNamespace(
        config=ServeConfig(**config), models=types.SimpleNamespace(name="digits", current=model)
    )
    return asyncio.run(route.handler(Call(b"", {}), service))


def test_the_document_is_openapi_3_1_and_every_reference_leads_somewhere():
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert DOCUMENT["openapi"].startswith("3.1.")
    found = set(references(DOCUMENT))
    assert found
    assert found <= {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}


def test_every_operation_of_the_protocols_is_described():
    described = {(method.upper(), path) for method, path, _ in operations()}
    assert described == {
        (route.method, route.path.replace("{model}", "digits")) for route in web.ROUTES if route.protocol != "web"
    }


def test_operations_have_names_of_their_own_and_answers_with_schemas():
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    for method, path, operation in operations():
        assert operation["summary"]
        assert operation["responses"]["200"]["content"][JSON]["schema"], path
        assert method == "get" or {"400", "413", "503", "504"} <= operation["responses"].keys()
        assert ("404" in operation["responses"]) == ("{version}" in path)
        assert all(JSON in answer["content"] for answer in operation["responses"].values())


def test_the_example_is_a_picture_of_a_digit():
    assert np.asarray(EXAMPLE_PIXELS).shape == (28, 28)
    assert (decode_image(base64.b64decode(EXAMPLE_BASE64)).pixels == EXAMPLE_PIXELS).all()


def test_every_route_that_takes_json_has_examples_that_fit_its_schema():
    assert {path for path, _, _ in examples()} == {path for method, path, _ in operations() if method == "post"}
    for _, schema, value in examples():
        validator(schema).validate(value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/predict", {"images": []}),
        ("/predict", {"images": [7]}),
        ("/v1/models/digits:predict", {"instances": [[[7] * 28] * 27]}),
        ("/v1/models/digits:predict", {"instances": [[256] * 784]}),
        ("/v1/models/digits:predict", {"instances": [{"b64": "", "x": 1}]}),
        ("/v1/models/digits:predict", {"instances": [EXAMPLE_PIXELS], "inputs": [EXAMPLE_PIXELS]}),
        ("/v1/models/digits:predict", {"instances": [EXAMPLE_PIXELS], "signature_name": "x"}),
        ("/v2/models/digits/infer", {"inputs": []}),
        (
            "/v2/models/digits/infer",
            {"inputs": [{"name": "images", "datatype": "FP64", "shape": [1, 784], "data": []}]},
        ),
        ("/v2/models/digits/infer", {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1, 784]}]}),
    ],
)
def test_a_schema_refuses_what_the_endpoint_refuses(path: str, value: Any):
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"][JSON]["schema"]
    assert not validator(schema).is_valid(value)


def test_keys_are_told_of_only_where_they_are_asked_for(tmp_path: Path):
    assert "security" not in str(DOCUMENT).lower()
    keyed = document(api_key_file=tmp_path / "keys")
    OpenAPIV31SpecValidator(keyed).validate()
    schemes = keyed["components"]["securitySchemes"]
    assert {(each["type"], each.get("scheme"), each.get("name")) for each in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-API-Key"),
    }
    guarded = {(route.method, route.path.replace("{model}", "digits")) for route in web.ROUTES if route.guarded}
    for method, path, operation in operations(keyed):
        asked = (method.upper(), path) in guarded
        assert ("401" in operation["responses"]) == asked
        assert operation.get("security", []) == ([{name: []} for name in schemes] if asked else [])


def test_limits_are_those_of_the_configuration():
    text = document(max_request_images=17, max_body_bytes=12345)["info"]["description"]
    assert "17 images" in text
    assert "12345 bytes" in text


def test_a_version_that_is_there_is_the_example():
    parameters = DOCUMENT["paths"]["/v1/models/digits/versions/{version}"]["get"]["parameters"]
    version = next(each for each in parameters if each["name"] == "version")
    assert (version["in"], version["example"]) == ("path", "3")
    validator(version["schema"]).validate(version["example"])


def test_the_document_follows_the_configuration_it_is_asked_under(tmp_path: Path):
    assert orjson.loads(get("/openapi.json").body) == DOCUMENT
    assert b"securitySchemes" in get("/openapi.json", api_key_file=tmp_path / "keys").body
    assert b"securitySchemes" not in get("/openapi.json").body


def test_the_page_and_all_that_it_loads_are_ours_to_give():
    page = get("/docs")
    assert page.content_type.startswith(b"text/html")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert "docs/swagger-ui-bundle.js" in loaded
    for address in loaded:
        assert not re.match(r"\w+:|//|/", address)
        reply = get(f"/{address}")
        assert reply.status == 200
        assert reply.body
        assert address == "openapi.json" or dict(reply.headers)[b"content-security-policy"].startswith(
            b"default-src 'self'"
        )
    assert b"<script>" not in page.body
    assert b"http" not in get("/docs/docs.js").body


def test_documentation_asks_for_no_key_and_describes_only_what_says_something():
    routes = docs_page.make_routes([])
    assert {route.path for route in routes} >= {"/docs", "/openapi.json"}
    assert not any(route.guarded for route in routes)
    silent = Route("GET", "/silent", routes[0].handler, "web", "Nothing")
    assert build_openapi([silent], ServeConfig(), "digits")["paths"] == {}
