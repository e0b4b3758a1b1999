"""Registries: what protocols, methods and attacks declare, and where those who ask find them.

A thing is added by adding a file. The file defines a class, the class declares what others need to
know about it, and a registry holds it: because it lies in a package that the registry reads,
because an entry point of another distribution names it, or because it registers itself.
"""

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import msgspec

from protocols.errors import BrokenExtension, NotRegistered

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Thing = TypeVar("Thing")
Registered = TypeVar("Registered", bound=type)


class Option(NamedTuple):
    """A setting that a class declares: a field of it that has a description.

    Attributes:
        name: the field, and the key in TOML; the flag has dashes for underscores.
        type: the field's annotation, with the allowed range; for a choice among structs a `Literal`
            of their tags.
        default: the value of a setting that is not given, as `type` has it.
        description: for people, one sentence or two.
        metavar: what stands for the value in help texts; empty where the type says enough.
        needs: other settings, without any of which this one has no effect.
        choices: struct by tag, for a choice among structs.
    """

    name: str
    type: Any
    default: Any
    description: str
    metavar: str
    needs: tuple[str, ...]
    choices: Mapping[str, type[msgspec.Struct]]

    @property
    def field(self) -> tuple[str, Any, Any]:
        """The option as a field of a struct made by `msgspec.defstruct`."""
        return self.name, self.type, self.default

    def value(self, given: Any) -> Any:
        """Turn a checked setting into what the class takes."""
        return self.choices[given]() if self.choices else given


def option(field: msgspec.structs.FieldInfo) -> Option:
    """Read the option that a struct's field is; the field has a description."""
    meta, kind, default = _described(field.type), field.type, field.default
    assert meta is not None, "an option has a description"
    assert meta.description is not None, "an option has a description"
    extra = meta.extra or {}
    choices = _tagged(kind)
    if choices:
        kind = typing.Annotated[typing.Literal[tuple(choices)], meta]
        default = default.__struct_config__.tag
    return Option(
        field.name,
        kind,
        default,
        meta.description,
        extra.get("metavar", ""),
        tuple(extra.get("needs", ())),
        choices,
    )


@cache
def options_of(declaring: type) -> Mapping[str, Option]:
    """Read the options that a struct class declares.

    Options are by name, in the order of the fields.
    """
    if not issubclass(declaring, msgspec.Struct):
        return {}
    fields = msgspec.structs.fields(declaring)
    return {field.name: option(field) for field in fields if _described(field.type) is not None}


@cache
def settings_of(declaring: type) -> type[msgspec.Struct]:
    """Make the struct of a class's settings alone, which checks names, types and ranges."""
    fields = [option.field for option in options_of(declaring).values()]
    return msgspec.defstruct(
        f"{declaring.__name__}Settings",
        fields,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )


class Registry(Generic[Thing]):
    """Classes of one kind by name: the project's own, and those of other distributions.

    The packages are read when something is first asked for, and not when they are imported. Whoever
    asks for one name of the project's own causes only the modules that write this name to be read;
    a class of another distribution that has the same name is refused when all are read.

    Args:
        kind: in words, for errors: "protocol".
        base: of all classes that are held.
        packages: their modules and sub-packages are imported for the classes that they define.
        group: of the entry points by which other distributions add theirs; each names a class.
    """

    def __init__(self, kind: str, base: type, packages: Sequence[str], group: str) -> None:
        self.kind = kind
        self.group = group
        self._base: type = base
        self._packages = packages
        self._things: dict[str, type[Thing]] = {}
        self._read = False

    def register(self, thing: Registered) -> Registered:
        """Hold a class by its `name`; used as a decorator.

        Raises:
            BrokenExtension: a class of another kind, without a name, or of a name that is taken;
                or one that does not declare all that its bases say it has.
        """
        name = getattr(thing, "name", None)
        if not issubclass(thing, self._base) or not isinstance(name, str) or not name:
            raise BrokenExtension(
                f"{thing.__qualname__} is no {self.kind}: it needs the base class "
                f"{self._base.__name__} and a name"
            )
        missing = sorted(n for n in dir(thing) if _is_abstract(getattr(thing, n, None)))
        fields = msgspec.structs.fields(thing) if issubclass(thing, msgspec.Struct) else ()
        missing += [f"a default of {field.name}" for field in fields if field.required]
        missing += [n for n in _class_variables(thing) if not hasattr(thing, n)]
        if missing:
            raise BrokenExtension(f"{thing.__qualname__} lacks {', '.join(missing)}")
        held = self._things.get(name)
        if held is not None and _origin(held) != _origin(thing):
            raise BrokenExtension(
                f"two classes are {self.kind} '{name}': {_origin(held)} and {_origin(thing)}",
                fix="rename one, or uninstall the distribution that brings it",
            )
        found: Any = thing
        self._things[name] = found
        return thing

    def forget(self, name: str) -> None:
        """Hold a class no longer; for tests that register one."""
        self._things.pop(name, None)

    def __getitem__(self, name: str) -> type[Thing]:
        """Look a class up by its name.

        Raises:
            NotRegistered: there is none of this name; the message lists those that there are.
        """
        self._seek(name)
        try:
            return self._things[name]
        except KeyError:
            raise NotRegistered(
                f"{self.kind} {name!r}", fix=f"allowed: {', '.join(self)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order in which the classes were found."""
        self._read_once()
        return iter(tuple(self._things))

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            self._seek(name)
        return name in self._things

    def values(self) -> tuple[type[Thing], ...]:
        """Return the classes, in the order in which they were found."""
        self._read_once()
        return tuple(self._things.values())

    def items(self) -> tuple[tuple[str, type[Thing]], ...]:
        """Return names with classes, in the order in which they were found."""
        self._read_once()
        return tuple(self._things.items())

    def __repr__(self) -> str:
        return f"<Registry of {self.kind}s>"

    def _seek(self, name: str) -> None:
        """Read the modules that write this name out; all modules where none defines it."""
        if name in self._things or self._read:
            return
        # A command line may hold bytes that are no Unicode.
        written = f'"{name}"'.encode(errors="surrogatepass")
        for module, files in self._modules():
            if any(written in file.read_bytes() for file in files):
                importlib.import_module(module)
        if name not in self._things:
            self._read_once()

    def _modules(self) -> Iterator[tuple[str, list[Path]]]:
        """Yield the packages' modules in order, by name, with their source files."""
        for package in self._packages:
            path = importlib.import_module(package).__path__
            for module in sorted(info.name for info in pkgutil.iter_modules(path)):
                folders = [Path(folder) for folder in path]
                files = [folder / f"{module}.py" for folder in folders]
                inner = [file for folder in folders for file in (folder / module).glob("*.py")]
                yield f"{package}.{module}", [file for file in files if file.is_file()] + inner

    def _read_once(self) -> None:
        if self._read:
            return
        self._read = True  # a module that is read may ask in its turn
        try:
            # A fiftieth of a second: nobody pays who asks for no registered thing.
            from importlib.metadata import entry_points

            modules = [module for module, _ in self._modules()]
            for module in modules:
                importlib.import_module(module)
            # In the order of the modules, whichever of them was imported before.
            places = {module: place for place, module in enumerate(modules)}
            self._things = dict(
                sorted(
                    self._things.items(),
                    key=lambda held: _place(held[1].__module__, places),
                )
            )
            for entry in entry_points(group=self.group):
                self._load(entry)
        except BaseException:
            # Whoever asks again is told again, and is not shown a part.
            self._read = False
            raise

    def _load(self, entry: "EntryPoint") -> None:
        distribution = entry.dist.name if entry.dist is not None else "a distribution"
        try:
            self.register(entry.load())
        except Exception as error:
            raise BrokenExtension(
                f"{distribution} announces the {self.kind} '{entry.name}', which cannot be "
                f"loaded: {type(error).__name__}: {error}",
                fix=f"update or uninstall {distribution}",
            ) from error


def _place(module: str, places: Mapping[str, int]) -> int:
    """Return the place of a module, or of the package that it is in; others come last."""
    while module and module not in places:
        module = module.rpartition(".")[0]
    return places.get(module, len(places))


def _is_abstract(attribute: Any) -> bool:
    return bool(getattr(attribute, "__isabstractmethod__", False))


def _class_variables(thing: type) -> list[str]:
    """List the class variables that a class and its bases announce, with or without a value."""
    kind: object = typing.ClassVar
    return sorted(
        name
        for base in thing.__mro__
        for name, annotation in inspect.get_annotations(base).items()
        if typing.get_origin(annotation) is kind
    )


def _origin(thing: type) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _described(annotation: Any) -> msgspec.Meta | None:
    """Find the Meta with the description of a field, if its annotation has one."""
    for meta in getattr(annotation, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.description is not None:
            return meta
    return None


def _tagged(annotation: Any) -> dict[str, type[msgspec.Struct]]:
    """Return the structs of a union of tagged structs, by tag.

    There are none for any other annotation.
    """
    inner = typing.get_args(annotation)[0]
    union = typing.get_args(inner) if isinstance(inner, types.UnionType) else ()
    if not union or not all(isinstance(k, type) and issubclass(k, msgspec.Struct) for k in union):
        return {}
    return {str(kind.__struct_config__.tag): kind for kind in union}
