"""How a configuration file is read: text, values, tables; and what is said of a mistake."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import inspect

from elemta.config.addresses import Network, Service
from elemta.config.checks import mistakes
from elemta.config.schema import (
    Api,
    Certificate,
    Config,
    Listener,
    Log,
    PluginEntry,
    Relay,
    Route,
    Tls,
)
from elemta.config.source import ConfigError, Mistake, Source, Steps, place, steps
from elemta.units import Frequency, Octets, Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from elemta.config.maps import Map

#: Where `sandbox` listens. Not a privileged port, and nobody else can reach it.
SANDBOX_ADDRESS: Final = "127.0.0.1:2525"
#: Where people's programs log in, likewise.
SANDBOX_SUBMISSION: Final = "127.0.0.1:2587"
#: Where its API is, if nobody else is there.
SANDBOX_API: Final = "127.0.0.1:8025"

_COMPLAINT: Final = re.compile(
    r"(?P<problem>.*?)(?: - at (?P<key>`key` in )?`\$(?P<place>.*)`)?", re.DOTALL
)
#: What msgspec calls things, and what people do.
_WORDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "nothing",
    "object": "a mapping of keys to values",
    "str": "text",
}
_EXAMPLES: Final = {Seconds: "90 s, 5 min, 4 h or 5 d", Octets: "512 B, 64 KiB, 50 MiB or 2 GiB"}

T = TypeVar("T")


def read(path: Path) -> Config:
    """Read a configuration file. Its relative paths start at its own directory.

    Raises:
        ConfigError: it cannot be read, or `load` refuses it.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise ConfigError(Mistake("", problem), where=str(path)) from None
    except UnicodeDecodeError as error:
        problem = f"is no UTF-8 at octet {error.start}"
        raise ConfigError(Mistake("", problem), where=str(path)) from None
    return load(text, str(path), path.parent)


def load(
    text: str, where: str = "", base: Path | None = None, *, plugins: Sequence[PluginEntry] = ()
) -> Config:
    """Read a configuration.

    Args:
        text: YAML.
        where: what messages call it, e.g. the name of its file.
        base: the directory that relative paths in it start at. None: they stay as they are.
        plugins: that there are beside those of the text, asked after them.

    Raises:
        ConfigError: no YAML, a key unknown or told twice, a value that its key does not allow, or
            two values that contradict each other.
    """
    source = Source(text, where)
    if source.value is None:
        raise source.error(Mistake("", "is empty; at least hostname and listeners are needed"))
    try:
        config = check(source.value, Config)
    except ConfigError as error:
        raise source.error(*error.mistakes) from None
    if plugins:
        config = msgspec.structs.replace(config, plugins=[*config.plugins, *plugins])
    if found := list(mistakes(config)):
        raise source.error(*found)
    if base is not None:
        data_dir, control = (base / config.data_dir).resolve(), config.control
        if control.socket is not None:
            socket = (base / control.socket).resolve()
            control = msgspec.structs.replace(control, socket=socket)
        forwarding = config.forwarding
        if forwarding.secret_file is not None:
            secret_file = (base / forwarding.secret_file).resolve()
            forwarding = msgspec.structs.replace(forwarding, secret_file=secret_file)
        maps = {name: _rebased(table, base) for name, table in config.maps.items()}
        config = msgspec.structs.replace(
            config,
            data_dir=data_dir,
            control=control,
            maps=maps,
            forwarding=forwarding,
            tls=config.tls.within(base),
        )
        if (api := config.api) is not None:
            certificate = api.certificate and (base / api.certificate).resolve()
            key = api.key and (base / api.key).resolve()
            api = msgspec.structs.replace(api, certificate=certificate, key=key)
            config = msgspec.structs.replace(config, api=api)
        routes = [_rooted(route, base) for route in config.routes]
        config = msgspec.structs.replace(config, routes=routes)
    return config


def _rooted(route: Route, base: Path) -> Route:
    """A route whose paths begin at the root."""
    keys = ("authorities", "certificate", "key")
    found = {key: (base / path).resolve() for key in keys if (path := getattr(route, key))}
    login = route.login
    if login is not None and login.password_file is not None:
        file = (base / login.password_file).resolve()
        login = msgspec.structs.replace(login, password_file=file)
    if login is not None and login.token_file is not None:
        file = (base / login.token_file).resolve()
        login = msgspec.structs.replace(login, token_file=file)
    return msgspec.structs.replace(route, login=login, **found)


def _rebased(table: Map, base: Path) -> Map:
    """A map whose paths start at a directory."""
    file, database = table.file and (base / table.file).resolve(), table.database
    if database is not None and database.startswith("sqlite:"):
        database = f"sqlite:{(base / database.removeprefix('sqlite:')).resolve()}"
    return msgspec.structs.replace(table, file=file, database=database)


def sandbox(
    data_dir: Path,
    address: str = SANDBOX_ADDRESS,
    api: str = SANDBOX_API,
    submission: str = SANDBOX_SUBMISSION,
) -> Config:
    """What runs where there is no configuration.

    It takes all mail from this machine, keeps it in Maildirs, and sends none of it anywhere. Who
    runs it makes the certificate that it names, and the file of users.

    Args:
        data_dir: where its queue and the Maildirs lie.
        address: where it takes mail.
        api: where its API is.
        submission: where people's programs log in.
    """
    tls = data_dir / "tls"
    return Config(
        hostname="localhost",
        data_dir=data_dir,
        tls=Tls(
            certificates=[
                Certificate(certificate=tls / "certificate.pem", key=tls / "certificate.key")
            ]
        ),
        listeners=[
            Listener(name="sandbox", address=address),
            Listener(name="submission", address=submission, kind="submission", tls="required"),
        ],
        plugins=[
            PluginEntry(
                name="users-file",
                listeners=["submission"],
                settings={"file": str(data_dir / "users.yaml")},
            )
        ],
        relay=Relay(networks=[Network.parse("127.0.0.0/8"), Network.parse("::1/128")]),
        routes=[Route(match="*", via=["maildir"])],
        api=Api(address=api),
        log=Log(),
    )


def locate(error: ConfigError, path: Path) -> ConfigError:
    """Give mistakes that were found later, e.g. by a plugin, the lines where they stand."""
    return Source(path.read_text("utf-8"), str(path)).error(*error.mistakes)


def load_table(
    text: str, where: str, schema: type[T], also: Callable[[T], Iterable[Mistake]] | None = None
) -> T:
    """Read a file beside the configuration, such as that of users, with the same care.

    Args:
        text: YAML; nothing is an empty mapping.
        where: what messages call it.
        schema: a `Table`.
        also: what else is wrong with it.

    Raises:
        ConfigError: as `load`.
    """
    source = Source(text, where)
    try:
        found = check({} if source.value is None else source.value, schema)
    except ConfigError as error:
        raise source.error(*error.mistakes) from None
    if also is not None and (told := list(also(found))):
        raise source.error(*told)
    return found


def check(value: object, schema: type[T], where: str = "") -> T:
    """Hold a part of the file against its schema.

    Args:
        value: plain values, as YAML gives them.
        schema: a `Table`.
        where: the place of `value` in the file.

    Raises:
        ConfigError: it does not fit.
    """
    try:
        return msgspec.convert(value, schema, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(_mistake(str(error), value, schema, steps(where))) from None


def _decode(kind: type, value: object) -> object:
    if kind is object:  # a plugin's settings: not ours to judge
        return value
    if kind is Path:
        if isinstance(value, str) and value:
            return Path(value)
        raise ValueError(f"expected a path, not {_shown(value)}")
    if kind is Network:
        if isinstance(value, str):
            return Network.parse(value)
        raise ValueError(f"expected a network such as 192.0.2.0/24, not {_shown(value)}")
    if kind is Service:
        if isinstance(value, str):
            return Service.parse(value)
        raise ValueError(f"expected HOST:PORT or the path of a socket, not {_shown(value)}")
    if kind is Frequency:
        if isinstance(value, str):
            return Frequency.parse(value)
        raise ValueError(f"expected a number in a time, as in 100/1 h, not {_shown(value)}")
    if kind is Seconds or kind is Octets:
        if not isinstance(value, str):
            raise ValueError(
                f"expected a number with a unit, as in {_EXAMPLES[kind]}, not {_shown(value)}"
            )
        return Seconds.parse(value) if kind is Seconds else Octets.parse(value)
    raise NotImplementedError(f"no key has the type {kind}")


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)


def _mistake(complaint: str, value: object, schema: type[T], where: Steps) -> Mistake:
    """What msgspec complains of, in words for people."""
    found = _COMPLAINT.fullmatch(complaint)
    assert found is not None, "the expression matches any text"
    way = _named(found["place"] or "", complaint, value, schema)
    problem: str = found["problem"]
    kind = _type_at(schema, way)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem):
        told = _unknown_key(unknown[1], kind)
        return Mistake(place((*where, *way, unknown[1])), told, of_key=True)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return Mistake(place((*where, *way)), f"the key `{missing[1]}` is missing")
    if found["key"]:
        return Mistake(place((*where, *way)), "expected keys that are text; put them in quotes")
    if problem.startswith("Invalid enum value"):
        kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        values = [v for each in kinds if isinstance(each, inspect.LiteralType) for v in each.values]
        problem = f"expected {' or '.join(map(str, values))}, not{problem[18:]}"
    elif problem.startswith("Expected `str`, got `float`") and isinstance(
        kind, inspect.LiteralType
    ):  # a version, without the quotes
        problem = "expected " + " or ".join(f'"{each}"' for each in kind.values) + ", in quotes"
    return Mistake(place((*where, *way)), _in_words(problem))


def _in_words(problem: str) -> str:
    """Types as people call them, and what was expected in small letters."""
    if problem.startswith("Expected `str` matching regex"):
        return "expected a name of letters, digits, dots, dashes and underscores"
    if length := re.fullmatch(r"Expected `array` of length >= (\d+)", problem):
        return f"expected a list of at least {length[1]}"
    if bound := re.fullmatch(r"Expected `int` ([<>]=) (\S+)", problem):
        return (
            f"expected a whole number, {'at least' if bound[1] == '>=' else 'at most'} {bound[2]}"
        )
    words = re.sub(
        r"`([^`]*)`",
        lambda found: " or ".join(_WORDS.get(word, word) for word in found[1].split(" | ")),
        problem,
    )
    return words.replace(", got ", ", not ")[:1].lower() + words.replace(", got ", ", not ")[1:]


def _container(kind: inspect.Type | None) -> inspect.Type | None:
    """What has something in it, of several that a value may be."""
    if isinstance(kind, inspect.UnionType):
        holders = (inspect.ListType, inspect.VarTupleType, inspect.StructType)
        return next((each for each in kind.types if isinstance(each, holders)), None)
    return kind


def _unknown_key(key: str, kind: inspect.Type | None) -> str:
    kind = _container(kind)
    if not isinstance(kind, inspect.StructType):
        return "there is no such key"
    known = [field.encode_name for field in kind.fields]
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, 1)
    if near:
        return f"there is no such key; did you mean `{near[0]}`?"
    return f"there is no such key here; there are {', '.join(known)}"


def _named(path: str, complaint: str, value: object, schema: type[T]) -> Steps:
    """The way of msgspec's path, with the keys that it hides (it writes ``[...]`` for them).

    A hidden key is found by trying: with that key alone, the complaint stays the same.
    """
    way: Steps = ()
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path):
        if index != "...":
            way = (*way, name or int(index))
            continue
        for key, inner in _mapping(_at(value, way)).items():
            try:
                msgspec.convert(_with(value, way, {key: inner}), schema, dec_hook=_decode)
            except msgspec.ValidationError as error:
                if str(error) == complaint:
                    way = (*way, key)
                    break
    return way


def _mapping(value: object) -> dict[str, object]:
    return msgspec.convert(value, dict[str, object], dec_hook=_decode)


def _sequence(value: object) -> list[object]:
    return msgspec.convert(value, list[object], dec_hook=_decode)


def _at(value: object, way: Steps) -> object:
    for step in way:
        value = _sequence(value)[step] if isinstance(step, int) else _mapping(value)[step]
    return value


def _with(value: object, way: Steps, new: object) -> object:
    """A copy with another value in one place."""
    if not way:
        return new
    step, *rest = way
    if isinstance(step, int):
        items = _sequence(value)
        return [*items[:step], _with(items[step], tuple(rest), new), *items[step + 1 :]]
    table = _mapping(value)
    return {**table, step: _with(table[step], tuple(rest), new)}


def _type_at(schema: type[T], way: Steps) -> inspect.Type | None:
    kind: inspect.Type | None = inspect.type_info(schema)
    for step in way:
        kind = _container(kind)
        if isinstance(kind, inspect.StructType):
            kind = next((f.type for f in kind.fields if f.encode_name == step), None)
        elif isinstance(kind, (inspect.ListType, inspect.VarTupleType)):
            kind = kind.item_type
        elif isinstance(kind, inspect.DictType):
            kind = kind.value_type
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
    return kind
