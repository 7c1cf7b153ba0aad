"""The OpenAPI 3.1 document: made of the declarations of endpoints, so that it says what is so.

Descriptions are the docstrings: the first line of a function is the summary of its operation, and
what stands under ``Attributes`` of a Struct describes its properties.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import trio
from msgspec import Struct

from elemta import __version__
from elemta.api.access import COOKIE
from elemta.api.endpoint import JSON, Asked, Content, Endpoint, Nothing, endpoint
from elemta.api.problem import MEDIA_TYPE, Document
from elemta.api.visit import Scope
from elemta.api.writing import in_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from elemta.api.beside import Beside, Gives
    from elemta.control.plain import Value

Table: TypeAlias = "dict[str, Value]"

_REFERENCE: Final = "#/components/schemas/{name}"
_ABOUT: Final = """\
The queue that you can watch: look at it, steer it, hand in mail.

Times are seconds since the epoch. Whatever goes wrong is told as `application/problem+json`
(RFC 9457), whose `faults` name each field that is wrong, and why.
"""
_TAGS: Final = {
    "queue": "All mail that waits: how much, which, and what to do with it.",
    "messages": "One message; and handing one in.",
    "destinations": "Where mail goes, and what of that is stopped.",
    "server": "How the server is, what it did, and what it would do.",
    "logs": "What happened, in the words of the log.",
    "configuration": "How the server is set up.",
    "plugins": "What judges mail.",
    "access": "Who may come in, and who did what.",
    "inbox": "What the sandbox caught, instead of sending it.",
    "live": "What happens, as it happens.",
}
_SCOPES: Final = {
    Scope.READ: "look at everything but the content of messages",
    Scope.CONTENT: "read the content of messages",
    Scope.OPERATE: "change what waits",
    Scope.SUBMIT: "hand in mail",
    Scope.ADMIN: "everything",
}
_SCHEMES: Final[Table] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token that `elemta token create` made.",
    },
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same token.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "A browser's session. What changes something needs `X-CSRF-Token` too.",
    },
}
_PROBLEMS: Final = {
    400: "The query or the body cannot be read",
    401: "Nobody that we know",
    403: "They may not",
    404: "There is no such thing",
    406: "It is not told in a form that you accept",
    409: "There is such a thing already",
    413: "The body is too large",
    415: "The body is of another type",
    422: "Something makes no sense; `faults` says where",
    429: "Too many wrong guesses",
    503: "Not just now; `Retry-After` says when to ask again",
}
_UNSAID: Final[tuple[Value, ...]] = (None, "", False, [], {})
#: What stands for a name in a path, by the segment before it.
_NAMES: Final = {
    "messages": "The id of a message.",
    "inbox": "The id of a message that was caught, as the list has it.",
    "plugins": "The name of a plugin.",
    "tokens": "The id of a token, which is not its text.",
}
#: Characters of a header that is asked for.
_LONGEST_HEADER: Final = 200


def document(endpoints: Iterable[Endpoint], beside: Iterable[Beside] = ()) -> Table:
    """The document.

    Args:
        endpoints: in the order in which they are to be listed.
        beside: what there is beside them; comes after them.
    """
    listed, others = list(endpoints), list(beside)
    schemas = _schemas(
        schema
        for part in (
            ((each.query, each.body, each.answer) for each in listed),
            ((each.query, *_contents(each)) for each in others),
        )
        for found in part
        for schema in found
    )
    paths: dict[str, Table] = {}
    for each in listed:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas)
    for other in others:
        paths.setdefault(other.path, {})["get"] = _other(other, schemas)
    tags = dict.fromkeys([*(each.tag for each in listed), *(other.tag for other in others)])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Elemta",
            "version": __version__,
            "summary": "A mail transfer agent that is watched live.",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": _TAGS[tag]} for tag in tags],
        "paths": {**paths},
        "components": {
            "securitySchemes": _SCHEMES,
            "schemas": {**schemas},
            "responses": {
                f"Problem{status}": _problem(status, told) for status, told in _PROBLEMS.items()
            },
        },
    }


def described(endpoints: Iterable[Endpoint], beside: Iterable[Beside] = ()) -> Endpoint:
    """The endpoint that gives the document of these, and of itself."""
    others = tuple(beside)
    made: list[bytes] = []

    @endpoint(
        "GET",
        "/v1/openapi.json",
        scope=Scope.READ,
        query=Nothing,
        body=Nothing,
        answer=Content,
        tag="server",
    )
    async def openapi(asked: Asked[Nothing, Nothing]) -> Content:
        """What can be asked, as an OpenAPI 3.1 document."""
        if not made:
            table = await trio.to_thread.run_sync(document, listed, others)
            made.append(msgspec.json.encode(table))
        return Content(in_pieces(made[0]), len(made[0]))

    listed = (*endpoints, openapi)
    return openapi


def _operation(of: Endpoint, schemas: dict[str, Table]) -> Table:
    operation: Table = {
        "operationId": of.name,
        "tags": [of.tag],
        "summary": of.summary,
        "description": _described(of),
        "parameters": [*_names(of), *_parameters(of.query, schemas), *_headers(of.headers)],
        "responses": _responses(of),
        "security": _security(of),
    }
    if body := _body(of):
        operation["requestBody"] = body
    return operation


def _other(of: Beside, schemas: dict[str, Table]) -> Table:
    responses: Table = {
        str(status): _given(answer) for status, answer in sorted(of.answers.items())
    }
    for problem in of.problems:
        responses[str(problem)] = {"$ref": f"#/components/responses/Problem{problem}"}
    return {
        "operationId": f"get_{of.path.strip('/').replace('/', '_')}",
        "tags": [of.tag],
        "summary": of.summary,
        "description": _described(of),
        "parameters": [*_parameters(of.query, schemas), *_headers(of.headers)],
        "responses": responses,
        "security": _security(of),
    }


def _given(answer: Gives) -> Table:
    given: Table = {"description": answer.about}
    if answer.media_type:
        text: Table = {"type": "string"}
        schema = text if answer.schema is None else _reference(answer.schema)
        given["content"] = {answer.media_type: {"schema": schema}}
    return given


def _contents(of: Beside) -> Iterator[type[Struct]]:
    return (each.schema for each in of.answers.values() if each.schema is not None)


def _described(of: Endpoint | Beside) -> str:
    about = _plain(of.about)
    scope = of.scope
    if scope is None:
        return about
    return f"{about}\n\nNeeds the scope `{scope.value}`: {_SCOPES[scope]}.".strip()


def _security(of: Endpoint | Beside) -> list[Value]:
    if of.open:
        return []
    scopes: list[Value] = [] if of.scope is None else [of.scope.value]
    return [{scheme: scopes} for scheme in _SCHEMES]


def _names(of: Endpoint) -> list[Value]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _NAMES[before],
            "schema": {"type": "string", "minLength": 1},
        }
        for before, name in re.findall(r"(\w+)/{(\w+)}", of.path)
    ]


def _headers(told: Mapping[str, str]) -> list[Value]:
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": about,
            "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST_HEADER},
        }
        for name, about in told.items()
    ]


def _parameters(query: type[Struct], schemas: dict[str, Table]) -> list[Value]:
    """The fields of the query, each a parameter."""
    if query is Nothing:
        return []
    schema = schemas[query.__name__]
    properties, required = schema["properties"], schema.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    parameters: list[Value] = []
    for name, found in properties.items():
        assert isinstance(found, dict)
        told = _without_null({key: value for key, value in found.items() if key != "description"})
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": name in required,
                "description": found.get("description", ""),
                "schema": told,
            }
        )
    return parameters


def _without_null(schema: Table) -> Table:
    """What a parameter can be: one that is null is left out."""
    kinds = schema.get("anyOf")
    if not isinstance(kinds, list):
        return schema
    rest: list[Value] = [each for each in kinds if each != {"type": "null"}]
    if len(rest) == 1 and isinstance(rest[0], dict):
        return rest[0]
    return {**schema, "anyOf": rest}


def _body(of: Endpoint) -> Table | None:
    content: Table = {}
    if of.body is not Nothing:
        told: Table = {"schema": _reference(of.body)}
        if of.example is not None:
            told["example"] = _shown(msgspec.to_builtins(of.example))
        content[JSON] = told
    for media_type in of.takes:
        content[media_type] = {"schema": {"type": "string", "contentMediaType": media_type}}
    if not content:
        return None
    fields = msgspec.structs.fields(of.body)
    return {"required": any(field.required for field in fields), "content": content}


def _shown(value: Value) -> Value:
    """An example without what need not be said."""
    match value:
        case dict():
            return {name: _shown(each) for name, each in value.items() if each not in _UNSAID}
        case list():
            return [_shown(each) for each in value]
        case _:
            return value


def _responses(of: Endpoint) -> Table:
    done: Table = {"description": "Done"}
    status = of.status
    if of.answer is Nothing:
        status = 204
    elif of.answer is Content:
        text: Table = {"type": "string"}
        done["content"] = {of.gives: {"schema": {} if of.gives == JSON else text}}
    else:
        done["content"] = {of.gives: {"schema": _reference(of.answer)}}
    responses: Table = {str(status): done}
    for problem in sorted(_problems(of)):
        responses[str(problem)] = {"$ref": f"#/components/responses/Problem{problem}"}
    return responses


def _problems(of: Endpoint) -> set[int]:
    """The statuses of what can go wrong."""
    found = {400, 422, 503, *of.problems}
    if of.open:
        found |= {401, 429}
    else:
        found |= {401, 403, 429}
    if "{" in of.path:
        found.add(404)
    if of.method != "GET":
        found |= {413, 415}
    return found


def _problem(status: int, told: str) -> Table:
    response: Table = {
        "description": told,
        "content": {MEDIA_TYPE: {"schema": _reference(Document)}},
    }
    if status in (401, 503):
        name = "WWW-Authenticate" if status == 401 else "Retry-After"
        response["headers"] = {name: {"schema": {"type": "string"}}}
    return response


def _reference(schema: type[Struct]) -> Table:
    return {"$ref": _REFERENCE.format(name=schema.__name__)}


def _schemas(structs: Iterable[type[Struct]]) -> dict[str, Table]:
    """The schemas of all that is asked and answered, by their names."""
    wanted = dict.fromkeys(each for each in structs if each is not Content and each is not Nothing)
    found: dict[str, Table]
    _, found = msgspec.json.schema_components(
        (*wanted, Document), schema_hook=_anything, ref_template=_REFERENCE
    )
    for struct in _structs((*wanted, Document)):
        _describe(found[struct.__name__], struct)
    return dict(sorted(found.items()))


def _anything(kind: type) -> Table:
    if kind is object:
        return {"description": "Anything."}
    raise NotImplementedError(f"no answer has the type {kind}")


def _structs(schemas: Iterable[type[Struct]]) -> set[type[Struct]]:
    """These, and all that they are made of."""
    found: set[type[Struct]] = set()

    def look(kind: msgspec.inspect.Type) -> None:
        match kind:
            case msgspec.inspect.StructType(cls=struct, fields=fields):
                if struct not in found:
                    found.add(struct)
                    for field in fields:
                        look(field.type)
            case msgspec.inspect.UnionType(types=types):
                for each in types:
                    look(each)
            case (
                msgspec.inspect.ListType(item_type=inner)
                | msgspec.inspect.VarTupleType(item_type=inner)
            ):
                look(inner)
            case msgspec.inspect.DictType(value_type=inner) | msgspec.inspect.Metadata(type=inner):
                look(inner)
            case _:
                pass

    for kind in msgspec.inspect.multi_type_info(schemas):
        look(kind)
    return found


def _describe(schema: Table, struct: type[Struct]) -> None:
    """Say of a schema and its properties what docstrings say: its own, and of what it extends."""
    properties = schema.get("properties")
    assert isinstance(properties, dict)
    for kind in reversed(struct.__mro__):
        about, _, section = (inspect.getdoc(kind) or "").partition("\n\nAttributes:\n")
        schema["description"] = _plain(about)
        for name, told in _attributes(section).items():
            found = properties.get(name)
            if isinstance(found, dict):
                if isinstance(found.get("default"), dict):  # each of its fields says its own
                    del found["default"]
                # A reference may have a description beside it (OpenAPI 3.1.0, Reference Object).
                found["description"] = told


def _attributes(section: str) -> dict[str, str]:
    """What a docstring says of each attribute; several may share a line."""
    told: dict[str, str] = {}
    # One that goes on in the next line is indented deeper.
    for entry in re.split(r"\n(?= {4}\S)", section):
        names, _, text = " ".join(entry.split()).partition(": ")
        for name in names.split(", "):
            told[name.strip()] = _plain(text[:1].upper() + text[1:])
    return told


def _plain(text: str) -> str:
    """Markdown, where docstrings mark code with two backticks."""
    return text.replace("``", "`")
