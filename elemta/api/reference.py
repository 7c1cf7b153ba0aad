"""The reference of the API as Markdown, made of the same document that the server gives.

``python -m elemta.api.reference`` prints it; docs/api-reference.md is what it printed last.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec

from elemta.api.app import ENDPOINTS
from elemta.api.beside import BESIDE
from elemta.api.former import FORMER
from elemta.api.openapi import document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.api.openapi import Table
    from elemta.control.plain import Value

_TOP: Final = """\
# The API: reference

Made by `python -m elemta.api.reference` from what the server itself decodes and answers.
[api.md](api.md) tells how to use it; the same for programs is `/v1/openapi.json`.
[live.md](live.md) and [metrics.md](metrics.md) say more of streams and metrics.
What goes wrong with a request is told as [a problem](api.md#what-goes-wrong).
"""
_FORMER: Final = """\
## Routes of the original program

What means the same is redirected (308, which keeps method and body).
The rest is answered 410, with a problem that names what to ask instead.

| route | is now |
| --- | --- |
"""


def reference() -> str:
    """The whole page."""
    return "\n".join(_lines(document(ENDPOINTS, BESIDE)))


def _lines(told: Table) -> Iterator[str]:
    yield _TOP
    paths, components = _table(told["paths"]), _table(told["components"])
    for each in _list(told["tags"]):
        tag = _table(each)
        yield f"## {str(tag['name']).capitalize()}\n"
        if tag["description"]:
            yield f"{tag['description']}\n"
        for path, methods in paths.items():
            for method, operation in _table(methods).items():
                if tag["name"] in _list(_table(operation)["tags"]):
                    yield from _operation(f"{method.upper()} {path}", _table(operation))
    yield "## Schemas\n"
    for name, schema in _table(components["schemas"]).items():
        yield from _schema(name, _table(schema))
    yield _FORMER + "\n".join(_former()) + "\n"


def _operation(title: str, operation: Table) -> Iterator[str]:
    yield f"### {title}\n"
    yield f"{operation['summary']}.\n"
    if operation["description"]:
        yield f"{operation['description']}\n"
    if parameters := [_table(each) for each in _list(operation["parameters"])]:
        yield "| parameter | is | about |\n| --- | --- | --- |"
        for parameter in parameters:
            needed = ", must be given" if parameter["required"] else ""
            kind = f"{_kind(_table(parameter['schema']))}, in the {parameter['in']}{needed}"
            yield f"| `{parameter['name']}` | {kind} | {_cell(parameter['description'])} |"
        yield ""
    if "requestBody" in operation:
        content = _table(_table(operation["requestBody"])["content"])
        bodies = [
            f"`{media}`: {_kind(_table(_table(each)['schema']))}" for media, each in content.items()
        ]
        yield f"Body: {' or '.join(bodies)}.\n"
        for each in content.values():
            if "example" in _table(each):
                shown = msgspec.json.format(msgspec.json.encode(_table(each)["example"]))
                yield f"```json\n{shown.decode()}\n```\n"
    for status, response in _table(operation["responses"]).items():
        if status < "4":
            found = _table(response).get("content")
            told = [
                f", `{media}`: {_kind(_table(_table(each)['schema']))}"
                for media, each in (_table(found).items() if found else ())
            ]
            yield f"Answer: {status}{''.join(told)}.\n"


def _schema(name: str, schema: Table) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"{schema.get('description') or name}\n"
    if "properties" not in schema:
        yield f"{_kind(schema)}\n"
        return
    required = _list(schema.get("required", []))
    yield "| key | is | about |\n| --- | --- | --- |"
    for key, each in _table(schema["properties"]).items():
        found = _table(each)
        optional = "" if key in required else ", may be left out"
        yield f"| `{key}` | {_kind(found)}{optional} | {_cell(found.get('description', ''))} |"
    yield ""


def _kind(schema: Table) -> str:
    """What a value is, in words."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in _list(schema["enum"]))
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(_kind(_table(each)) for each in _list(schema["anyOf"]))
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            kinds = [_kind(_table(each)) for each in _list(schema["prefixItems"])]
            return f"a list of {' and '.join(kinds)}"
        case "array":
            return f"a list of {_kind(_table(schema['items']))}"
        case "object" if "additionalProperties" in schema:
            inner = schema["additionalProperties"]
            return (
                f"a mapping to {_kind(_table(inner))}" if isinstance(inner, dict) else "an object"
            )
        case str(word):
            return _WORDS.get(word, word)
        case list(words):
            return " or ".join(_WORDS.get(str(word), str(word)) for word in words)
        case _:
            return "anything"


_WORDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "object": "an object",
}


def _former() -> Iterator[str]:
    for each in FORMER:
        methods = ", ".join(method for method in each.methods if method != "WEBSOCKET")
        if each.now is None:
            yield f"| `{methods} {each.path}` | gone: {each.why}; ask {each.instead} |"
            continue
        renamed = "".join(f"; `{old}` is `{new}`" for old, new in each.query.items())
        yield f"| `{methods} {each.path}` | `{each.now}`{renamed} |"


def _cell(value: Value) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _table(value: Value) -> Table:
    assert isinstance(value, dict)
    return value


def _list(value: Value) -> list[Value]:
    assert isinstance(value, list)
    return value


if __name__ == "__main__":
    sys.stdout.write(reference())
