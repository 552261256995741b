"""Whatever is asked, as the API describes itself: an answer or a problem, never a fault of the program."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studio_process import StudioProcess

# these begin workers
LEFT_OUT = ("/actions", "/predict", "/data/", "/doctor", "/device", "/backbones", "/parts", "/exports")
WORDS = st.one_of(
    st.sampled_from(["", "latest", "first", "v1", "2", "produksi", "..", "%", "a" * 300, "\x00", "\u202e", "-1", "1e999"]),
    st.text(max_size=20),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def values_of(schema: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what a schema allows, now and then something else."""
    if "$ref" in schema:
        return values_of(parts[schema["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in schema:
        return st.one_of(*(values_of(each, parts) for each in schema["anyOf"]), JSON)
    if "enum" in schema:
        return st.one_of(st.sampled_from(schema["enum"]), JSON)
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        fields = {name: values_of(each, parts) for name, each in schema["properties"].items()}
        needed = {name: fields.pop(name) for name in schema.get("required", ())}
        return st.one_of(st.fixed_dictionaries(needed, optional=fields), JSON)
    if kind == "array":
        return st.one_of(st.lists(values_of(schema["items"], parts), max_size=3), JSON)
    plain: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(-2, 300), "number": st.floats(-1, 30, allow_subnormal=False), "string": WORDS,
        "boolean": st.booleans(), "null": st.none(), "object": st.dictionaries(st.text(max_size=8), JSON, max_size=3),
    }  # fmt: skip
    return st.one_of(plain.get(str(kind), JSON), JSON)


@pytest.fixture(scope="module")
def operations(client: httpx.Client) -> tuple[list[tuple[str, str, dict[str, Any]]], dict[str, Any]]:
    """(method, path, description) of everything that is asked here, and the parts of the schemas."""
    described = client.get("openapi.json").json()
    found = [
        (method.upper(), path.removeprefix("/api/v1/"), facts)
        for path, methods in described["paths"].items()
        for method, facts in methods.items()
        if not any(path.removeprefix("/api/v1").startswith(part) or path.endswith(part) for part in LEFT_OUT)
    ]
    assert len(found) > 40
    return found, described["components"]["schemas"]


@settings(
    max_examples=400, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_no_request_is_answered_with_a_fault(
    data: st.DataObject, server: StudioProcess, client: httpx.Client, operations: Any
) -> None:
    """Every path, query and body that the description lets one think of, and some that it does not."""
    every, parts = operations
    method, path, facts = data.draw(st.sampled_from(every))
    query: dict[str, str] = {}
    for each in facts.get("parameters", ()):
        value = data.draw(values_of(each["schema"], parts)) if each["in"] == "query" else data.draw(WORDS)
        written = str(value).encode("utf-8", "replace").decode()
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote(written, safe=""))
        elif each["in"] == "query" and (each["required"] or data.draw(st.booleans())):
            query[each["name"]] = written
    if path == "events":
        query |= {"mode": "poll", "wait": "0"}
    body = facts.get("requestBody", {}).get("content", {}).get("application/json")
    sent = {} if body is None else {"content": json.dumps(data.draw(values_of(body["schema"], parts)))}
    answer = client.request(method, path, params=query, headers={"content-type": "application/json"}, **sent)
    assert answer.status_code < 500, (method, path, query, sent, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json" and answer.json()["detail"]
