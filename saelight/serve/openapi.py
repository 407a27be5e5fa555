"""The OpenAPI 3.1 description, from the table of routes and the models of what they take and give."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from saelight.serve.answers import Problem
from saelight.serve.guards import Handler
from saelight.version import version


class Query(NamedTuple):
    """A parameter of an address."""

    name: str
    summary: str
    required: bool = False
    repeated: bool = False


class Route(NamedTuple):
    """One thing that can be asked."""

    method: str
    path: str
    summary: str
    handler: Handler
    answer: type[BaseModel] | str
    """A model, or the media type of what is no JSON."""
    body: type[BaseModel] | None = None
    query: tuple[Query, ...] = ()
    status: int = 200


def describe(routes: Sequence[Route], token: bool) -> dict[str, Any]:
    """The description of these routes; `token`: they want one."""
    given: list[type[BaseModel]] = [Problem, *(route.body for route in routes if route.body is not None)]
    given += [route.answer for route in routes if not isinstance(route.answer, str)]
    schemas: dict[str, Any] = {}
    for model in given:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "saelight serve", "version": version(), "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if token:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
    return described


def _operation(route: Route) -> dict[str, Any]:
    words = [part.strip("{}") for part in route.path.split("/") if part]
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]).replace("-", "_").replace(".", "_"),
        "summary": route.summary,
        "responses": {
            str(route.status): {"description": "as asked", "content": _content(route.answer)},
            "default": {"description": "refused", "content": _content(Problem)},
        },
    }
    parameters = [
        {"name": part.strip("{}"), "in": "path", "required": True, "schema": {"type": "string"}}
        for part in route.path.split("/")
        if part.startswith("{")
    ]
    for query in route.query:
        text = {"type": "string"}
        schema = {"type": "array", "items": text} if query.repeated else text
        parameters.append(
            {"name": query.name, "in": "query", "required": query.required, "description": query.summary, "schema": schema}
        )
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body)}
    return operation


def _content(what: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(what, str):
        return {what: {"schema": {"type": "string"}}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{what.__name__}"}}}
