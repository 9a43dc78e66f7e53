"""The OpenAPI document of the REST API, made from the models that check the requests."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ..common.version import VERSION
from ..stack.rights import ADMIN_SCOPE, MANAGE_SCOPE
from .api import ApiHandler, NoQuery
from .operations import StackPatch
from .present import StackView
from .projectchoice import ProjectsPut

JSON = "application/json"


def document(prefix: str) -> dict[str, Any]:
    """The description of the API below ``prefix``."""
    return _document(prefix)


@lru_cache(maxsize=4)
def _document(prefix: str) -> dict[str, Any]:
    # The parameters' models live beside the handlers that use them.
    from . import api, memberapi

    _, schemas = models_json_schema(
        [
            (StackView, "serialization"),
            (StackPatch, "validation"),
            (ProjectsPut, "validation"),
            (memberapi.AccessView, "serialization"),
            (memberapi.ProjectsAnswer, "serialization"),
            (memberapi.MembersAnswer, "serialization"),
            (memberapi.ConnectionAnswer, "serialization"),
            (memberapi.TokenAnswer, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    definitions = schemas["$defs"]
    for field in definitions["StackPatch"]["properties"].values():
        field.pop("default", None)  # what is left out stays as it is
    definitions["StackPatch"]["minProperties"] = 1
    for field in definitions["ProjectsPut"]["properties"].values():
        field.pop("default", None)
    definitions["Stacks"] = {
        "type": "object",
        "required": ["stacks", "cursor"],
        "properties": {
            "stacks": {"type": "array", "items": _ref("StackView")},
            "cursor": {"type": "string", "description": "Where the events go on from."},
        },
    }
    definitions["Error"] = {
        "type": "object",
        "required": ["status", "message"],
        "properties": {
            "status": {"type": "integer"},
            "message": {"type": "string", "description": "One sentence: the cause and the cure."},
            "errors": {
                "type": "array",
                "description": "The fields at fault.",
                "items": {
                    "type": "object",
                    "required": ["field", "message"],
                    "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                },
            },
        },
    }
    definitions["Deletion"] = {
        "type": "object",
        "required": ["name", "keepData"],
        "properties": {"name": {"type": "string"}, "keepData": {"type": "boolean"}},
    }
    name, component = (
        _path("name", "The stack's name."),
        _path("component", "The component's name, such as core."),
    )
    events = (
        "Server-sent events: `reset` (names of all there are), `stack` (a stack), `removed` (its name), `view` "
        "(whether the cluster answers), `cursor` (where to go on after). Ends after some minutes; connect again."
    )
    paths: dict[str, Any] = {
        "/stacks": {
            "get": _operation(
                "listStacks", "Your stacks; all of them for administrators", "Stacks", api.ListQuery
            )
        },
        "/stacks/events": {
            "get": _operation("followStacks", "Changes as they happen", events, api.EventsQuery, stream=True)
        },
        "/stacks/{name}": {
            "parameters": [name],
            "get": _operation("getStack", "One stack", "StackView"),
            "patch": {
                **_operation("changeStack", "Resume, hibernate, rename or set the idle time", "StackView"),
                "requestBody": {"required": True, "content": {JSON: {"schema": _ref("StackPatch")}}},
            },
            "delete": _operation(
                "deleteStack",
                "Delete the stack, with its data or without. Again is no error while it goes; then it is not found",
                "Deletion",
                api.DeleteQuery,
                "202",
            ),
        },
        "/stacks/{name}/retry": {
            "parameters": [name],
            "post": _operation("retryStack", "Start what failed anew", "StackView", success="202"),
        },
        "/stacks/{name}/events": {
            "parameters": [name],
            "get": _operation("followStack", "Changes of one stack", events, api.EventsQuery, stream=True),
        },
        "/stacks/{name}/components/{component}/logs": {
            "parameters": [name, component],
            "get": _logs(_operation("readLog", "The log of a component", "", api.LogsQuery)),
        },
        **_people(name),
        "/openapi.json": {"get": _operation("describe", "This document", "")},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cytomine stacks",
            "version": VERSION,
            "description": "Stacks are made by starting a server at the hub; here they are looked at, hibernated, "
            "resumed, deleted and shared, and notebooks get their keys. Tokens come from the hub's token page and need the scope "
            "`access:services!service=cytomine`; all that changes or removes something, and the logs, also "
            f"`{MANAGE_SCOPE}`; other people's stacks `{ADMIN_SCOPE}`, or an administrator's `admin-ui`.",
        },
        "servers": [{"url": f"{prefix}api"}],
        "security": [{"token": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "The word `token`, a space and a token of the hub.",
                },
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _people(name: dict[str, Any]) -> dict[str, Any]:
    """The addresses for members and keys."""

    def member(kind: str, title: str) -> dict[str, Any]:
        who = _path(kind, f"The {kind}'s name at the hub.")
        add = {
            **_operation(
                f"add{title}",
                f"Let a {kind} use the stack, and choose the projects in Cytomine; again is no error",
                "MembersAnswer",
            ),
            "requestBody": {"required": False, "content": {JSON: {"schema": _ref("ProjectsPut")}}},
        }
        remove = _operation(
            f"remove{title}",
            "Let a user use the stack no longer; again is no error. Members may remove themselves"
            if kind == "user"
            else "Let a group use the stack no longer; again is no error",
            "MembersAnswer",
        )
        if kind == "user":
            remove["responses"]["204"] = {"description": "You left the stack."}
        return {
            "parameters": [name, who],
            "get": _operation(
                f"get{title}", f"Whether the {kind} was invited, and to which projects", "AccessView"
            ),
            "put": add,
            "post": {**add, "operationId": f"invite{title}"},
            "delete": remove,
        }

    def post(operation: str, summary: str, answer: str) -> dict[str, Any]:
        return {"parameters": [name], "post": _operation(operation, summary, answer)}

    return {
        "/stacks/{name}/connection": post(
            "connect", "Your keys, for owner and members; made if there are none", "ConnectionAnswer"
        ),
        "/stacks/{name}/connection/rotate": post(
            "rotateKeys", "New keys for you; the old ones end", "ConnectionAnswer"
        ),
        "/stacks/{name}/token": post("getToken", "A short-lived token of yours for Cytomine", "TokenAnswer"),
        "/stacks/{name}/members": {
            "parameters": [name],
            "get": _operation("listMembers", "Who may use the stack, for its owner", "MembersAnswer"),
        },
        "/stacks/{name}/projects": {
            "parameters": [name],
            "get": _operation(
                "listProjects", "The projects in Cytomine, for the stack's owner", "ProjectsAnswer"
            ),
        },
        "/stacks/{name}/members/users/{user}": member("user", "User"),
        "/stacks/{name}/members/groups/{group}": member("group", "Group"),
    }


def _operation(
    name: str,
    summary: str,
    answer: str,
    query: type[BaseModel] | None = None,
    success: str = "200",
    *,
    stream: bool = False,
) -> dict[str, Any]:
    content: dict[str, Any]
    if stream:
        content = {"text/event-stream": {"schema": {"type": "string", "description": answer}}}
    else:
        content = {JSON: {"schema": _ref(answer) if answer else {"type": "object"}}}
    errors = {
        "400": "The request is at fault; the answer names the field.",
        "401": "No token, or one that the hub does not know.",
        "403": "The token's scopes do not reach here.",
        "404": "There is no such stack that you may see.",
        "409": "The stack's state does not allow it now.",
        "503": "The hub or the cluster does not answer.",
    }
    return {
        "operationId": name,
        "summary": summary,
        "parameters": _parameters(query) if query else [],
        "responses": {
            success: {"description": "Done.", "content": content},
            **{
                status: {"description": text, "content": {JSON: {"schema": _ref("Error")}}}
                for status, text in errors.items()
            },
        },
    }


def _parameters(query: type[BaseModel]) -> list[dict[str, Any]]:
    schema = query.model_json_schema()
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": field.pop("description", ""),
            "schema": {key: value for key, value in field.items() if key != "title"},
        }
        for name, field in schema["properties"].items()
    ]


def _logs(operation: dict[str, Any]) -> dict[str, Any]:
    operation["responses"]["200"]["content"] = {
        "text/plain": {"schema": {"type": "string"}},
        "text/event-stream": {
            "schema": {"type": "string", "description": "With `follow`: events `line`, `fault` and `end`."}
        },
    }
    return operation


def _path(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


class Document(ApiHandler):
    """The OpenAPI document."""

    async def get(self) -> None:
        """Answer the description of this API."""
        self.query(NoQuery)
        self.answer(document(self.site.prefix))
