"""The OpenAPI description: it is one, it says all that there is, and answers are as it says."""

import re

import openapi_pydantic
from pydantic import BaseModel

from saelight.serve.event_stream import Streams
from saelight.serve.served_folders import Roots
from saelight.serve.server_app import Server
from saelight.serve.watching import Folders
from tests.report.invented import invent
from tests.serve.client import answer, in_loop, served


def refs(value):
    """All `$ref`s in some JSON."""
    if isinstance(value, dict):
        yield from (inner for key, inner in value.items() if key == "$ref")
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from refs(inner)


@in_loop
async def test_the_description_is_valid_and_complete(tmp_path):
    server = Server(Folders(Roots([tmp_path])), Streams(1), None, None)
    async with served(tmp_path, token=True) as (serving, client):
        headers = {"Authorization": f"Bearer {serving.token}"}
        status, described = await answer(client, "/api/openapi.json", headers=headers)
    assert status == 200
    parsed = openapi_pydantic.OpenAPI.model_validate(described)
    assert parsed.security == [{"token": []}]
    operations = {(method.upper(), path) for path, item in described["paths"].items() for method in item}
    assert operations == {(route.method, route.path) for route in server.routes}
    names = [operation["operationId"] for item in described["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)
    schemas = described["components"]["schemas"]
    assert {ref.removeprefix("#/components/schemas/") for ref in refs(described)} == schemas.keys()
    for path, item in described["paths"].items():
        for operation in item.values():
            inside = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert inside == set(re.findall(r"{(\w+)}", path))
    fields = schemas["TrainRequest"]["properties"]
    assert {
        "layer_idx",
        "activation_data_path",
        "latent_dim",
        "batch_size",
        "num_workers",
        "max_samples",
        "max_epochs",
    } <= set(fields)
    assert schemas["TrainRequest"]["required"] == ["activation_data_path"]
    assert all(field.get("description") for field in fields.values())


@in_loop
async def test_answers_are_as_described(tmp_path):
    invent(tmp_path / "runs" / "tiny", 3)
    async with served(tmp_path / "runs", train=True, data=[str(tmp_path)]) as (serving, client):
        routes = [one for one in serving.server.routes if one.method == "GET" and isinstance(one.answer, type)]
        asked = {"of": "tiny", "id": "0", "text": "x", "group": "group-000"}
        told = {}
        for route in routes:
            assert isinstance(route.answer, type)
            assert issubclass(route.answer, BaseModel)
            given = [f"{query.name}={asked[query.name]}" for query in route.query if query.required]
            if route.status == 200 and "{" not in route.path:
                told[route.path], content = await answer(client, f"{route.path}?{'&'.join(given)}")
                if told[route.path] == 200:
                    assert set(content) == set(route.answer.model_validate(content).model_dump())
    # Of a run there is no group's log, and nothing is known of latents.
    assert {path for path, status in told.items() if status != 200} == {"/api/log", "/api/latents"}


@in_loop
async def test_caches_count_what_they_are_asked(tmp_path):
    invent(tmp_path / "runs" / "tiny", 3)
    async with served(tmp_path / "runs") as (_, client):
        stats = (await answer(client, "/api/cache/stats"))[1]
        assert [stats[f"{kind}_cache_hit_rate"] for kind in ("feature", "provenance", "inference")] == [None] * 3
        for _ in range(4):
            await answer(client, "/api/curves?of=tiny&id=0&id=1")
        stats = (await answer(client, "/api/cache/stats"))[1]
        assert stats["caches"]["folders"] == {"entries": 1, "most": 64, "hits": 3, "misses": 1}
        assert stats["caches"]["curves"] == {"entries": 2, "most": 2000, "hits": 6, "misses": 2}
        assert stats["provenance_cache_hit_rate"] == 0.75
