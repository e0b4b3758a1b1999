"""Settings from flags and TOML to a checked `RunConfig`, and what people are told of them.

Which settings there are follows from `RunConfig` and from the classes of the registered methods
and protocols. A setting that would have no effect is refused by its name.
"""

import difflib
import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from protocols.errors import BrokenExtension
from protocols.protocol import PROTOCOLS, Protocol
from protocols.registry import Option, Registry, option, options_of, settings_of
from secure_afl import texts
from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS, AnyMethod, Method
from secure_afl.runs.config import FIELDS, RunConfig
from secure_afl.runs.tables import WITHOUT, row_rule

PRIVATE_DEFAULT = "private-gradient"

Declaring = type[AnyMethod] | type[Protocol]


def make_config(
    settings: Mapping[str, Any],
    file: Path | None = None,
    *,
    supplied: Collection[str] = (),
    methods: Sequence[str] = (),
    protocols: Sequence[str] = (),
) -> RunConfig:
    """Make the configuration of a TOML file, if given, with `settings` over it.

    Args:
        settings: values by name, of `RunConfig` and of options of methods and protocols.
        file: keys may have dashes.
        supplied: settings that the caller adds later; what needs them has an effect.
        methods, protocols: those that the caller runs; by default the one that is set.

    Raises:
        ConfigError: an unreadable file, an unknown setting, a value out of range, or a setting
            without effect, naming the setting and what it may be.
    """
    given = (read_toml(file) if file else {}) | dict(settings)
    given = {name: _at_home(name, value) for name, value in given.items()}
    # Methods and protocols that are not chosen are read for their options alone.
    declared = declared_options() if given.keys() - FIELDS.keys() else {}
    unknown = sorted(given.keys() - FIELDS.keys() - declared.keys())
    if unknown:
        raise ConfigError(
            f"unknown field '{unknown[0]}'; {meant(unknown[0], [*FIELDS, *declared])}"
        )
    for registry in (METHODS, PROTOCOLS):
        if registry.kind in given:
            _chosen(registry, [given[registry.kind]])
    own = {name: value for name, value in given.items() if name in FIELDS}
    config: RunConfig = converted(RunConfig, own)
    if "method" not in given and not methods and (config.epsilon or "epsilon" in supplied):
        config = config.replaced(method=_private_default(config.method, given))
    learning = _chosen(METHODS, methods or [config.method])
    running = [*learning, *_chosen(PROTOCOLS, protocols or [config.protocol])]
    options = {}
    for name in [name for name in given if name not in FIELDS]:
        takers = [thing for thing in running if name in options_of(thing)]
        if not takers:
            owners = " or ".join(thing.name for thing in declared[name])
            names = " and ".join(thing.name for thing in running)
            raise ConfigError(
                f"{flag(name)} has no effect with {names}; leave it out, or choose {owners}"
            )
        if given[name] is None:
            continue
        for thing in takers:
            options[name] = getattr(converted(settings_of(thing), {name: given[name]}), name)
    _check_effect(config, given, supplied, learning)
    row_rule(config)
    return config.replaced(**options)


def check_ranges(config: RunConfig) -> None:
    """Raise ConfigError for a setting out of its range, in a configuration made by `replaced`."""
    converted(RunConfig, msgspec.to_builtins(config))
    for thing in (METHODS[config.method], PROTOCOLS[config.protocol]):
        own = {name: value for name, value in config.options if name in options_of(thing)}
        converted(settings_of(thing), own)


def flag(name: str) -> str:
    """Write a setting as its flag."""
    return "--" + name.replace("_", "-")


def declared_options() -> Mapping[str, list[Declaring]]:
    """List the options of all methods and protocols by name, with those who declare them.

    Raises:
        BrokenExtension: one name for two things, of which one must be another's extension.
    """
    return _declared((*METHODS.values(), *PROTOCOLS.values()))


@lru_cache(maxsize=4)
def _declared(things: tuple[Declaring, ...]) -> Mapping[str, list[Declaring]]:
    found: dict[str, list[Declaring]] = {}
    for thing in things:
        for name, own in options_of(thing).items():
            others = found.setdefault(name, [])
            kinds = {_kind(options_of(thing)[name].type) for thing in others}
            if name in FIELDS or kinds - {_kind(own.type)}:
                raise BrokenExtension(
                    f"{thing.__module__}.{thing.__qualname__} declares the option '{name}', which "
                    "means something else already",
                    fix="rename the option",
                )
            others.append(thing)
    return found


def setting(name: str) -> Option:
    """Describe a setting as its flag and its key do, with its default.

    Options say whose they are.

    Raises:
        KeyError: there is no such setting.
    """
    if name == "method":
        return _choice(METHODS)
    if name == "protocol":
        return _choice(PROTOCOLS)
    if name in FIELDS:
        return with_default(option(FIELDS[name]))
    described: dict[str, dict[str, Any]] = {}
    for thing in declared_options()[name]:
        own = options_of(thing)[name]
        described.setdefault(own.description, {})[thing.name] = own.default
    words = [
        f"{', '.join(defaults)}: {_with_defaults(description, defaults)}"
        for description, defaults in described.items()
    ]
    first = declared_options()[name][0]
    return options_of(first)[name]._replace(description=" ".join(words))


def with_default(described: Option) -> Option:
    """Add an option's default to its description, unless that says what is taken."""
    words = _with_defaults(described.description, {described.name: described.default})
    return described._replace(description=words)


def _with_defaults(description: str, defaults: Mapping[str, Any]) -> str:
    """Add to a description what those who share it take, first what most of them do."""
    taken: dict[str, list[str]] = {}
    for name, default in defaults.items():
        if default is not None and default is not False and default != ():
            taken.setdefault(_written(default), []).append(name)
    if not taken or "Default:" in description:
        return description
    most = max(taken, key=lambda value: len(taken[value]))
    others = [f"; {', '.join(taken[value])} {value}" for value in taken if value != most]
    return f"{description} Default: {most}{''.join(others)}."


def _written(default: Any) -> str:
    """Write a default as its flag takes it."""
    if isinstance(default, tuple):
        return ",".join(_written(one) for one in default)
    if default is True:
        return "yes"
    return f"{default:g}" if isinstance(default, float) else str(default)


def json_schema() -> dict[str, Any]:
    """Make the JSON Schema (2020-12) of run.toml."""
    schema: dict[str, Any] = msgspec.json.schema(RunConfig)
    properties = _properties(RunConfig)
    del properties["options"]
    for name, registry in (("method", METHODS), ("protocol", PROTOCOLS)):
        properties[name] |= {"enum": sorted(registry), "description": setting(name).description}
    for name, things in declared_options().items():
        found = [dict(_properties(settings_of(thing))[name]) for thing in things]
        if len({options_of(thing)[name].default for thing in things}) > 1:
            for each in found:
                each.pop("default", None)
        distinct = [each for at, each in enumerate(found) if each not in found[:at]]
        own = distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
        properties[name] = own | {"description": setting(name).description}
    # A file may write a dash where Python's names have none.
    dashed = {name.replace("_", "-"): content for name, content in properties.items()}
    schema["$defs"]["RunConfig"]["properties"] = properties | dashed
    return schema


def _kind(annotation: Any) -> Any:
    """Return what an option's values are, whatever their range: no `Annotated`, and no None."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = {_kind(part) for part in typing.get_args(annotation)} - {types.NoneType}
        return kinds.pop() if len(kinds) == 1 else frozenset(kinds)
    return annotation


def _choice(registry: Registry[Any]) -> Option:
    """Make the setting that chooses among registered things."""
    summaries: dict[str, list[str]] = {}
    for name, thing in sorted(registry.items()):
        summaries.setdefault(thing.summary, []).append(name)
    words = [f"{', '.join(names)}: {summary}." for summary, names in summaries.items()]
    own = option(FIELDS[registry.kind])
    description = " ".join([own.description, *words])
    return own._replace(description=description, metavar="|".join(sorted(registry)))


def _chosen(registry: Registry[Any], names: Iterable[Any]) -> list[Any]:
    for name in names:
        if not isinstance(name, str) or name not in registry:
            raise ConfigError(
                f"field '{registry.kind}': {name!r} is not allowed; allowed: "
                f"{', '.join(sorted(registry))}"
            )
    return [registry[name] for name in names]


def _private_default(otherwise: str, given: Mapping[str, Any]) -> str:
    """Return the method of a run with noise that names none: the best one that has all settings.

    Figures are in docs/privacy.md. The choice looks at no data and at no site's features, for all
    parties have to make it alike.
    """
    declared, method = declared_options(), METHODS[PRIVATE_DEFAULT]
    of_methods = {
        name
        for name in declared
        if any(issubclass(thing, Method) for thing in declared[name]) and name in given
    }
    fits = of_methods <= options_of(method).keys() and not set(method.ignores) & set(given)
    # Rows of norm 1 forget what a table's columns say.
    return PRIVATE_DEFAULT if fits and given.get("dictionary") is None else otherwise


def _check_effect(
    config: RunConfig,
    given: Collection[str],
    supplied: Collection[str],
    methods: Sequence[type[AnyMethod]],
) -> None:
    """Refuse given settings of the run that nothing in this run looks at."""
    for name in given:
        if name not in FIELDS or getattr(config, name) is None:
            continue
        needs = option(FIELDS[name]).needs
        if needs and not any(n in supplied or getattr(config, n) is not None for n in needs):
            wanted = " or ".join(flag(need) for need in needs)
            raise ConfigError(
                f"{flag(name)} has no effect without {wanted}; leave it out, or add it"
            )
        if config.dictionary is not None and name in WITHOUT:
            raise ConfigError(
                f"{flag(name)} has no effect with --dictionary, which says what a table's columns "
                "become; leave it out"
            )
        # A round more, and there are sums to be held to one set.
        more = name == "same_set" and (config.evaluate, config.scale) != (None, None)
        if not more and all(name in method.ignores for method in methods):
            names = " and ".join(method.name for method in methods)
            raise ConfigError(f"{flag(name)} has no effect with {names}; leave it out")


def read_toml(file: Path) -> dict[str, Any]:
    """Read settings from a TOML file, whose keys may have dashes where names have none.

    Raises:
        ConfigError: unreadable, or one key in both spellings.
    """
    # Flags have dashes, Python's names have not; a file may use either, but not both.
    found: dict[str, Any] = {}
    for name, value in texts.read_toml(file).items():
        plain = name.replace("-", "_")
        if plain in found:
            raise ConfigError(f"{file} has '{name}' twice, with a dash and without; keep one")
        found[plain] = value
    return found


def _at_home(name: str, value: Any) -> Any:
    """Return a setting with the home directory for the ~ of a path."""
    path = name in FIELDS and option(FIELDS[name]).metavar in ("GLOB", "PATH", "FILE", "DIR")
    return texts.at_home(value) if path and isinstance(value, str) else value


def meant(name: str, known: Collection[str]) -> str:
    """Say which names are written almost like one that is unknown; all of them where none is."""
    dashed = sorted(one.replace("_", "-") for one in known)
    close = difflib.get_close_matches(name.replace("_", "-"), dashed, cutoff=0.75)
    return f"did you mean {' or '.join(close)}?" if close else f"allowed: {', '.join(dashed)}"


def converted(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    """Make a struct of settings.

    Raises:
        ConfigError: a value out of range, naming it and what it may be.
    """
    try:
        return msgspec.convert(settings, kind)
    except msgspec.ValidationError as error:
        at = re.search(r"\$\.(\w+)", str(error))
        if at is None:
            raise ConfigError(str(error)) from None
        field = at[1]
        raise ConfigError(
            f"field '{field}': {settings[field]!r} is not allowed; allowed: "
            f"{_allowed(_properties(kind)[field])}"
        ) from None


def _properties(kind: type[Any]) -> dict[str, dict[str, Any]]:
    (definition,) = msgspec.json.schema(kind)["$defs"].values()
    return dict(definition["properties"])


def _allowed(schema: Mapping[str, Any]) -> str:
    branches = schema.get("anyOf", [schema])
    return " or ".join(_allowed_by(branch) for branch in branches if branch.get("type") != "null")


def _allowed_by(schema: Mapping[str, Any]) -> str:
    if "minLength" in schema:
        return "a non-empty string"
    if "enum" in schema:
        return ", ".join(schema["enum"])
    names = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in names.items() if key in schema]
    return " and ".join([str(schema["type"]), *bounds])
