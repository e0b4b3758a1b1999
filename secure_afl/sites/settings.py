"""The settings of a site, from its site.toml: who it is, what it holds, and what it insists on.

Keys that a run has too mean here what they mean there, with the site's own word: a session that
promises less is refused. What a run's convener decides (the classes, the bits) stands in run.toml.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from protocols.roster import CLIENT
from secure_afl.data.ids import parse_ids
from secure_afl.errors import ConfigError
from secure_afl.federation.rounds.history import MAX_ATTEMPTS
from secure_afl.runs.choose import make_terms
from secure_afl.runs.config import RunConfig, Text
from secure_afl.runs.settings import converted, declared_options, make_config, meant, read_toml
from secure_afl.runs.tables import check_outcome, design_of

YEAR = 31_536_000

# What every party has to agree on before it says anything.
TERMS = (
    "method",
    "protocol",
    "epsilon",
    "delta",
    "unit",
    "neighbours",
    "noise",
    "cross_weight",
    "same_set",
    "evaluate",
    "scale",
)
# What makes rows, and what guards them.
ROWS = (
    "backbone",
    "checkpoint",
    "image_size",
    "public",
    "whiten",
    "seed",
    "mapping",
    "id",
    "dictionary",
    "target",
    "formula",
)
GUARDS = ("max_rows", "min_cohort", "corrupt", "ledger", "budget")
# What a client cannot do without, and why.
WANTED = {
    "ledger": "in which a client accounts for all that was released about its data",
    "max_rows": "the public bound on its rows, or patients, that a client declares",
}
CONVENES = (
    "feature_bits",
    "min_cohort",
    "corrupt",
    "dimension",
    "accept_outside",
    "test",
    "row_mode",
)


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who a site is, and where its things lie; paths are relative to the file.

    Attributes:
        identity: the private key that keygen made.
        roster: all parties that the site has pinned.
        state: folder of seats and memory, on a local disk.
        role: that the roster gives this party; a check against the wrong file.
        data: a client's rows, a folder of images or .npz.
        classes: a client's, names of those of a run that it takes part in, in order; None takes
            the run's. With noise they are wanted: whether a site has an example of a class that the
            convener leaves out must not show in what it takes part in.
        out: folder for the model; none is kept without it.
        deadline: seconds that this party waits for a step of a session; those who are missing are
            then left out, or the session ends.
    """

    identity: Annotated[Text, Meta(description="The private key that keygen made.")]
    roster: Annotated[Text, Meta(description="The roster that this site pins.")]
    state: Annotated[Text, Meta(description="Folder for seats and memory, on a local disk.")]
    role: Annotated[Text, Meta(description="The role of this party on the roster.")]
    data: Annotated[
        Text | None, Meta(description="A client's data: a folder of images, or .npz.")
    ] = None
    classes: Annotated[
        Annotated[tuple[str, ...], Meta(min_length=1)] | None,
        Meta(description="Names of a run's classes, in order; a client needs them with epsilon."),
    ] = None
    out: Annotated[Text | None, Meta(description="Folder for the model.")] = None
    deadline: Annotated[
        float,
        Meta(ge=1, le=YEAR, description="Seconds that this party waits for a step."),
    ] = 600.0


class Convened(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the convener of a run decides beside the terms.

    Attributes:
        classes: names, in the order of the labels' numbers.
        width: features of a row, where the backbone leaves examples as they are.
        wait: seconds for all parties to enrol, and for what gives a session back.
        attempts: sessions that a round may have, where one comes to nothing.
    """

    classes: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Names of the classes, in order.")
    ]
    width: Annotated[
        Annotated[int, Meta(ge=1, le=2**20)] | None,
        Meta(description="Features of a row, for --backbone identity."),
    ] = None
    wait: Annotated[float, Meta(ge=1, le=YEAR, description="Seconds for all parties to enrol.")] = (
        3600.0
    )
    attempts: Annotated[
        int, Meta(ge=1, le=MAX_ATTEMPTS, description="Sessions that a round may have.")
    ] = 2


Settings = TypeVar("Settings")


class Site(msgspec.Struct, frozen=True):
    """A site's settings.

    Attributes:
        place: who it is, and where its things lie; paths are whole.
        run: what it insists on.
        given: the settings of `run` that the file has.
    """

    place: Place
    run: RunConfig
    given: tuple[str, ...]


def read_site(file: Path) -> Site:
    """Read a site.toml.

    Raises:
        ConfigError: unreadable, an unknown key, a value out of range, or a key without effect in
            the site's role, naming it and what it may be.
    """
    given = read_toml(file)
    own = {name: given.pop(name) for name in _names(Place) if name in given}
    for name in ("identity", "roster", "state", "role"):
        if name not in own:
            raise ConfigError(f"{file} has no '{name}'; secure-afl site init writes a whole file")
    place: Place = _of(file, lambda: converted(Place, own))
    allowed = [*TERMS]
    if place.role == CLIENT:
        allowed += [*ROWS, *GUARDS]
        if place.data is None:
            raise ConfigError(f"{file} has no 'data', which a client needs")
        for name in WANTED:
            if name not in given:
                raise ConfigError(f"{file} has no '{name}', {WANTED[name]}")
        needed = given.get("epsilon") is not None and given.get("dictionary") is None
        if place.classes is None and needed:
            raise ConfigError(
                f"{file} has 'epsilon' and no 'classes'; name those of the run, in its order, for "
                "a site that finds an example of another class must say so before it enrols: "
                'classes = ["benign", "malignant"]'
            )
    elif place.classes is not None:
        raise ConfigError(f"{file}: 'classes' has no effect for a {place.role}; leave it out")
    elif place.data is not None:
        raise ConfigError(f"{file}: 'data' has no effect for a {place.role}; leave it out")
    for name in given:
        if name not in allowed and name not in declared_options():
            known = [*_names(Place), *allowed, *declared_options()]
            raise ConfigError(
                f"{file}: '{name}' has no effect for a {place.role}; {meant(name, known)}"
            )
    # Files beside the site's file, wherever the command is given.
    for name in ("checkpoint", "public", "mapping", "ledger", "dictionary"):
        if isinstance(given.get(name), str):
            given[name] = str(file.parent / Path(given[name]).expanduser())
    run = _of(file, lambda: make_config(given))
    method = make_terms(run).method
    if place.role == CLIENT:
        design = design_of(run)
        check_outcome(method, design)
        if design is None:
            parse_ids(run.id)
        elif place.classes is None:
            place = msgspec.structs.replace(place, classes=design.classes)
    paths = {
        name: str(file.parent / Path(value).expanduser())
        for name in ("identity", "roster", "state", "data", "out")
        if (value := getattr(place, name)) is not None
    }
    return Site(msgspec.structs.replace(place, **paths), run, tuple(sorted(given)))


def _of(file: Path, make: Callable[[], Settings]) -> Settings:
    """Make settings of a file; what is wrong with them names it."""
    try:
        return make()
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def read_run(file: Path, site: Site) -> tuple[Convened, RunConfig]:
    """Read a convener's run.toml, and compare its terms with those of the convener's own site.

    Raises:
        ConfigError: unreadable, an unknown key or one without effect, a value out of range, no
            classes, or other terms than the site's.
    """
    given = read_toml(file)
    own = {name: given.pop(name) for name in _names(Convened) if name in given}
    if "classes" not in own and "dictionary" not in given:
        raise ConfigError(
            f"{file} has no 'classes'; name them, for no site shows its labels: "
            'classes = ["benign", "malignant"]'
        )
    allowed = [*TERMS, *ROWS, *CONVENES, *declared_options()]
    for name in given:
        if name not in allowed:
            known = [*_names(Convened), *allowed]
            raise ConfigError(
                f"{file}: '{name}' is no setting of a run between sites (what protects a site "
                f"stands in its site.toml); {meant(name, known)}"
            )
    for name in ("checkpoint", "public", "mapping", "test", "dictionary"):
        if isinstance(given.get(name), str):
            given[name] = str(file.parent / Path(given[name]).expanduser())
    run = _of(file, lambda: make_config(given))
    if (design := design_of(run)) is None:
        parse_ids(run.id)
    else:
        own.setdefault("classes", list(design.classes))
    check_outcome(make_terms(run).method, design)
    convened: Convened = _of(file, lambda: converted(Convened, own))
    if len(set(convened.classes)) != len(convened.classes):
        raise ConfigError(f"{file}: 'classes' has a name twice; rename one")
    if design is not None and convened.classes != design.classes:
        raise ConfigError(
            f"{file}: 'classes' are {', '.join(convened.classes)}, and the dictionary has "
            f"{', '.join(design.classes)}; leave 'classes' out"
        )
    check_terms(run, site.run, file)
    return convened, run


def check_terms(run: RunConfig, site: RunConfig, file: Path) -> None:
    """Raise ConfigError unless a run has the terms that its convener's own site insists on."""
    ours, theirs = make_terms(site), make_terms(run)
    for what in ("method", "protocol", "privacy"):
        own, other = getattr(ours, what), getattr(theirs, what)
        if own != other:
            raise ConfigError(
                f"{file} has {what} {_unlike(other, own)}, this site's site.toml "
                f"{_unlike(own, other)}; let both say one thing"
            )


def _unlike(term: Any, other: Any) -> str:
    """Say in words in what a method, protocol or promise is not like another."""
    if term is None:
        return "none"
    if type(term) is not type(other):
        return getattr(term, "name", None) or f"ε = {term.epsilon:g}"
    others = msgspec.structs.asdict(other)
    own = {name: v for name, v in msgspec.structs.asdict(term).items() if v != others[name]}
    return " and ".join(f"with {name.replace('_', '-')} {value}" for name, value in own.items())


def template(role: str, name: str) -> str:
    """Write a site.toml for a role, with every key that has an effect and what it means.

    Settings of methods and protocols are named by their flags alone.
    """
    lines = [
        f"# The site of '{name}'. All that protects it stands in this file.",
        f'identity = "{name}.identity"   # private: chmod 600',
        'roster = "roster.json"   # compare its fingerprint: secure-afl roster show',
        'state = "state"   # on a local disk; never copy it, never restore it from a backup',
        f'role = "{role}"',
        "",
        "# What this site takes part in; a session of anything else is refused.",
        'method = "afl"',
        'protocol = "additive"',
        "# epsilon = 1.0   # the promise; without it, exact sums",
        "# delta = 1e-5   # the δ of the promise, and of the budget",
        '# unit = "patient"   # what the promise hides: example (default), patient or client',
        '# neighbours = "replace-one"   # default: add-remove, which hides numbers of rows too',
        '# noise = "central"   # for comparison alone; default: distributed',
        "# cross-weight = 0.8   # the cross term's part of the budget, beside the Gram's 1",
        "# same-set = true   # later sums are of the first one's clients; default: by their number",
        "# evaluate = 0.2   # share of rows kept out, of which one more sum has counts",
        '# scale = "federated"   # ranges that the dictionary lacks, found in a sum before',
        "# Settings of the method and of the protocol, too, named like their flags (run --help):",
        '# head = "ridge"',
    ]
    if role == CLIENT:
        lines += [
            "",
            'data = "data"   # one folder a class, an .npz, or a CSV or Parquet file',
            'backbone = "timm:resnet18"   # not for tables, which have instead:',
            '# dictionary = "dictionary.toml"   # what columns are, the same at all sites',
            '# target = "diagnosis"   # the column that is predicted',
            '# formula = "age + sex + age:sex"   # default: all columns',
            '# checkpoint = "weights.safetensors"   # local weights, else they are downloaded',
            "# image-size = 224   # images are resized to so many pixels a side",
            '# public = "public"   # data that are nobody\'s secret: axes to project features to',
            "# whiten = 0.25   # with public: axes are divided by this power of their variance",
            "# seed = 0   # of all that is drawn in public, as projections; the same at all sites",
            '# mapping = "names.toml"   # what this site calls the classes: docs/data.md',
            '# classes = ["benign", "malignant"]   # of the run, in order; needed with epsilon',
            "# id = '{id}_*'   # whose each image is, by its name: docs/data.md",
            "max-rows = 1000   # the public bound on this site's rows; unit patient: its patients",
            "",
            "# No session with fewer clients, or fewer that may collude, than this.",
            "# min-cohort = 3   # default: a majority of the roster's clients",
            "# corrupt = 0",
            'ledger = "ledger.json"   # begin it with: secure-afl site prepare --new-ledger',
            "# budget = 1.0   # with epsilon: all that may ever be released about these data",
        ]
    lines += [
        "",
        '# out = "results"   # folder for the model',
        "# deadline = 600   # seconds that this party waits for a step of a session",
        "",
    ]
    return "\n".join(lines)


def _names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind))
