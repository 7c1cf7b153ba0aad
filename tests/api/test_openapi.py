from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from elemta.api.app import ENDPOINTS, create_app
from elemta.api.beside import BESIDE, Beside
from elemta.api.exposition import add_metrics
from elemta.api.health import add_health
from elemta.api.openapi import document
from elemta.api.reference import reference
from elemta.api.selection import Search
from tests.api.fakes import ALL, site_of
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from elemta.api.endpoint import Endpoint

DOCUMENT = document(ENDPOINTS, BESIDE)
ROOT = Path(__file__).parents[2]


def test_the_document_is_openapi() -> None:
    OPENAPI_31_VALIDATOR.validate(DOCUMENT)


def test_each_schema_is_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate(
            {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"}
        )


def test_each_reference_leads_somewhere() -> None:
    text = msgspec.json.encode(DOCUMENT).decode()
    references = set(re.findall(r'"\$ref":"#/components/(\w+)/(\w+)"', text))
    assert references
    for kind, name in references:
        assert name in DOCUMENT["components"][kind]
    assert '"$ref"' not in re.sub(r'"\$ref":"#/components/\w+/\w+"', "", text)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.name)
def test_each_endpoint_is_described(endpoint: Endpoint) -> None:
    operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
    assert operation["summary"]
    assert operation["operationId"] == endpoint.name
    assert (not operation["security"]) == endpoint.open
    named = re.findall(r"{(\w+)}", endpoint.path)
    found = {(each["in"], each["name"]): each for each in operation["parameters"]}
    assert [name for place, name in found if place == "path"] == named
    assert all(each["description"] for each in found.values())
    asked = [field.encode_name for field in msgspec.structs.fields(endpoint.query)]
    assert [name for place, name in found if place == "query"] == asked
    assert [name for place, name in found if place == "header"] == list(endpoint.headers)


@pytest.mark.parametrize("other", BESIDE, ids=lambda each: each.path)
def test_what_is_no_endpoint_is_described_too(other: Beside) -> None:
    operation = DOCUMENT["paths"][other.path]["get"]
    assert operation["summary"]
    assert (not operation["security"]) == other.open
    assert all(each["description"] for each in operation["parameters"])
    assert {int(each) for each in operation["responses"]} == {*other.answers, *other.problems}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/messages/{id}/raw", "The id of a message."),
        ("/v1/inbox/{id}", "The id of a message that was caught, as the list has it."),
        ("/v1/tokens/{id}", "The id of a token, which is not its text."),
        ("/v1/plugins/{name}", "The name of a plugin."),
    ],
)
def test_a_name_in_a_path_is_told_by_what_it_is_of(path: str, told: str) -> None:
    for operation in DOCUMENT["paths"][path].values():
        assert operation["parameters"][0]["description"] == told


def test_each_tag_is_described() -> None:
    assert all(each["description"] for each in DOCUMENT["tags"])


async def test_all_that_is_described_beside_endpoints_is_there() -> None:
    site = site_of(FakeControl())
    app = create_app(site)
    add_health(app, site)
    add_metrics(app, site)
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    assert {each.path for each in BESIDE} <= rules
    told = {path for path in DOCUMENT["paths"] if path.startswith("/v1")}
    served = {re.sub(r"<(\w+)>", r"{\1}", rule) for rule in rules if rule.startswith("/v1")}
    assert served - {"/v1/openapi.json"} == told


def test_each_operation_has_a_name_of_its_own() -> None:
    names = [each.name for each in ENDPOINTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if each.example is not None], ids=lambda each: each.name
)
def test_each_example_is_a_body(endpoint: Endpoint) -> None:
    told = msgspec.json.encode(endpoint.example)
    assert msgspec.json.decode(told, type=endpoint.body) == endpoint.example


async def test_the_document_is_served() -> None:
    client = create_app(site_of(FakeControl())).test_client()
    for _ in range(2):
        response = await client.get("/v1/openapi.json", headers=ALL)
        assert response.content_type == "application/json"
        told = msgspec.json.decode(await response.get_data(as_text=False))
        assert told["paths"].keys() == {*DOCUMENT["paths"], "/v1/openapi.json"}


def test_the_reference_is_made_of_what_is_so() -> None:
    told = (ROOT / "docs" / "api-reference.md").read_text()
    assert told == reference(), "run python -m elemta.api.reference > docs/api-reference.md"


def test_the_manual_knows_every_condition_and_action() -> None:
    told = (ROOT / "docs" / "api.md").read_text()
    for field in msgspec.structs.fields(Search):
        assert f"`{field.name}" in told or f"{field.name}=" in told, field.name
    for each in ENDPOINTS:
        if each.path.startswith("/v1/messages/{id}/") and each.method == "POST":
            assert f"`{each.path.rpartition('/')[2]}`" in told
    for path in re.findall(r"127\.0\.0\.1:8025(/v1/[\w/$.]+)", told):
        assert path.replace("$ID", "{id}") in DOCUMENT["paths"] or path == "/v1/openapi.json"
