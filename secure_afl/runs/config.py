"""The settings of a run: the struct behind the flags, the TOML file and the JSON Schema.

What a method or a protocol is set to stands in their own classes; `RunConfig.options` carries it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocols.protocol import PROTOCOLS
from protocols.registry import options_of
from secure_afl.analytic.statistics import MAX_CLIENT_ROWS
from secure_afl.methods.evaluated import MAX_SHARE
from secure_afl.methods.method import METHODS
from secure_afl.privacy.mechanism import (
    DEFAULT_DELTA,
    MAX_EPSILON,
    Placement,
)
from secure_afl.privacy.sensitivity import Neighbours, Unit

Text = Annotated[str, Meta(min_length=1)]


def _about(
    description: str, metavar: str = "", *, needs: tuple[str, ...] = (), **bounds: Any
) -> Meta:
    """Describe a setting.

    Args:
        description: for people.
        metavar: what stands for its value.
        needs: settings without any of which this one has no effect.
        bounds: of the value, as `Meta` takes them.
    """
    return Meta(description=description, extra={"metavar": metavar, "needs": needs}, **bounds)


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `secure-afl run`.

    Every setting is a flag of the same name and a key of run.toml.

    Attributes:
        options: the settings of the method and of the protocol that were given, by name, sorted.
    """

    clients: Annotated[
        Text | None,
        _about(
            "The clients' data: a quoted glob of image folders (<class>/<image>) or .npz files, "
            "one client each, or one data set to cut up with --partition. Without it, "
            "scikit-learn's handwritten digits.",
            "GLOB",
        ),
    ] = None
    test: Annotated[
        Text | None,
        _about(
            "Test data for the global model, as a folder or .npz. Without it, the test split of "
            "an .npz of --clients, if it has one.",
            "PATH",
        ),
    ] = None
    mapping: Annotated[
        Text | None,
        _about(
            "TOML file of names: [classes] maps what sites call a class to its name, [sites] a "
            "folder's name to the site's.",
            "FILE",
        ),
    ] = None
    id: Annotated[
        Text | None,
        _about(
            "Whose each example is: the name of an array of the .npz files, or a pattern of image "
            "files' names, as '{id}_*' or a regular expression with one group. Default: the array "
            "patients, where there is one.",
            "ARRAY|PATTERN",
        ),
    ] = None
    dictionary: Annotated[
        Text | None,
        _about(
            "The data dictionary of tables, a TOML file that all sites share: what columns are, "
            "their public ranges and categories. --clients are CSV or Parquet files then.",
            "FILE",
        ),
    ] = None
    target: Annotated[
        Text | None,
        _about(
            "Column of the tables that is predicted: a category, or a number with --method "
            "regression. Default: the dictionary's target.",
            "COLUMN",
            needs=("dictionary",),
        ),
    ] = None
    formula: Annotated[
        Text | None,
        _about(
            "Columns of the model, as 'age + sex + age:sex + I(bmi**2)'. Default: all columns of "
            "the dictionary but target and id.",
            "FORMULA",
            needs=("dictionary",),
        ),
    ] = None
    scale: Annotated[
        Literal["federated"] | None,
        _about(
            "federated: sites find the ranges of columns of numbers that have none in the "
            "dictionary, in one blind sum before the others: powers of two that two sites reach. "
            "It tells how many sites have which.",
            "federated",
        ),
    ] = None
    row_mode: Annotated[
        Text | None,
        _about(
            "How rows become short: normalise brings each to length 1, which forgets lengths; "
            "clip:NORM divides all by NORM, and cuts only longer rows. Default: normalise. Rows of "
            "tables are short by their columns' ranges.",
            "normalise|clip:NORM",
        ),
    ] = None
    holdout: Annotated[
        float,
        _about(
            "Share of each client's rows kept out of training to score personal models on.",
            "FRACTION",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    evaluate: Annotated[
        Annotated[float, Meta(gt=0, le=MAX_SHARE)] | None,
        _about(
            "Share of each client's rows, by a hash of each, kept out of training: after it one "
            "more blind sum counts what the model makes of these rows, over all clients.",
            "FRACTION",
        ),
    ] = None
    partition: Annotated[
        Text | None,
        _about(
            "How to cut one data set into clients: iid:10, dirichlet:10:0.1 (clients, α: small is "
            "skewed), shards:10:2 (clients, label shards each), sizes:100,200,50, embedding:10:0.1 "
            "(dirichlet over clusters of the features; a third number is how many clusters).",
            "SPEC",
        ),
    ] = None
    backbone: Annotated[
        Text | None,
        _about(
            "What makes features of examples: timm:<model>[,key=value…], projection:<dim>, "
            "identity, or two joined by '+'. Default: identity for features, projection:512 for "
            "the embedded digits, timm:resnet18 for other images.",
            "SPEC",
        ),
    ] = None
    checkpoint: Annotated[
        Text | None,
        _about("Local weights for timm:<model>; without it, timm's own are downloaded.", "FILE"),
    ] = None
    image_size: Annotated[
        Annotated[int, Meta(ge=8, le=4096)] | None,
        _about("Resize images to N × N pixels.", "N"),
    ] = None
    feature_bits: Annotated[
        Annotated[int, Meta(ge=1, le=12)] | None,
        _about(
            "Rows become integers of norm ≤ 2^N. Default: the most, from 8 to 12, that the "
            "narrowest ring holds; 12 with --epsilon.",
            "N",
        ),
    ] = None
    max_rows: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_CLIENT_ROWS)] | None,
        _about(
            "Public bound on its rows that each client declares; with --unit patient, on its "
            "patients. Default, in simulation: the next power of two of its own.",
            "N",
        ),
    ] = None
    method: Annotated[
        str,
        _about(
            "What is learned. Default: afl; with --epsilon private-gradient, unless a setting is "
            "given that it does not have.",
            "NAME",
        ),
    ] = "afl"
    protocol: Annotated[str, _about("Who sees what while the sum is formed.", "NAME")] = "additive"
    keys: Annotated[
        Text | None,
        _about(
            "Folder made by keygen: parties use these identities, and clients join no session with "
            "anybody who is not in its roster. Without it, new ones for each run.",
            "DIR",
        ),
    ] = None
    drop: Annotated[
        int, _about("Simulate N clients that vanish as their vectors should leave.", "N", ge=0)
    ] = 0
    min_cohort: Annotated[
        Annotated[int, Meta(ge=2)] | None,
        _about(
            "Release nothing below N clients. Default: a majority; with --epsilon all but a tenth, "
            "rounded down, for noise that may be missing has to be added by the others. Over "
            "pairwise two more at least than --corrupt-fraction allows the server.",
            "N",
        ),
    ] = None
    corrupt: Annotated[
        int,
        _about("Clients that may work with whoever sees the sum; cohort ≥ N + 2.", "N", ge=0),
    ] = 0
    epsilon: Annotated[
        Annotated[float, Meta(ge=1e-3, le=MAX_EPSILON)] | None,
        _about(
            "Differential privacy: the ε that the whole run promises. Every client adds its share "
            "of the noise before anybody sees anything. Without it, exact sums.",
            "ε",
        ),
    ] = None
    delta: Annotated[
        float,
        _about(
            "The δ that goes with --epsilon.", "δ", needs=("epsilon", "budget"), ge=1e-15, le=0.1
        ),
    ] = DEFAULT_DELTA
    unit: Annotated[
        Unit,
        _about(
            "What --epsilon hides: that an example, a patient with all its rows at a client "
            "(--id says whose they are), or a client with all its rows, was there.",
            needs=("epsilon", "budget"),
        ),
    ] = "example"
    neighbours: Annotated[
        Neighbours,
        _about(
            "add-remove: that it was there or not, the number of rows included (declare "
            "--max-rows); replace-one: that it was this one or another.",
            needs=("epsilon", "budget"),
        ),
    ] = "add-remove"
    noise: Annotated[
        Placement,
        _about(
            "distributed: every client adds its share. central, for comparison: whoever decodes "
            "the sum sees it exactly and is trusted to add the noise.",
            needs=("epsilon",),
        ),
    ] = "distributed"
    cross_weight: Annotated[
        Annotated[float, Meta(ge=0.05, le=20)] | None,
        _about(
            "With --epsilon: the cross term's part of the budget, beside the Gram's 1. Default: "
            "1.2 where the head is lda, else 0.8.",
            "W",
            needs=("epsilon",),
        ),
    ] = None
    dimension: Annotated[
        Annotated[int, Meta(ge=0, le=2**20)] | None,
        _about(
            "Project features to N dimensions; 0 keeps all. Default: all, or with --epsilon what "
            "the bound on rows and the noise suggest; no data are looked at.",
            "N",
        ),
    ] = None
    public: Annotated[
        Text | None,
        _about(
            "Data that are nobody's secret, a folder or .npz: features are centred on their mean "
            "and projected to their principal axes, instead of at random.",
            "GLOB",
        ),
    ] = None
    whiten: Annotated[
        float,
        _about(
            "With --public: axes are divided by this power of their variance; 0.25 helps with "
            "public data unlike the clients', 0 with data alike.",
            "POWER",
            needs=("public",),
            ge=0,
            le=0.5,
        ),
    ] = 0.0
    same_set: Annotated[
        bool | None,
        _about(
            "Hold the sums of later rounds to the clients of the first: two exact sums show "
            "whoever is in one only. One drop-out then ends the run. Default: in exact runs of "
            "many rounds below 50 clients."
        ),
    ] = None
    accept_outside: Annotated[
        bool,
        _about(
            "Make a model even of a sum with entries out of their bounds, for which a client must "
            "have lied. Its card says so."
        ),
    ] = False
    ledger: Annotated[
        Text | None,
        _about(
            "File in which the clients account for all that was released about their data; it "
            "refuses a second exact sum, and what exceeds --budget. It has to exist.",
            "FILE",
        ),
    ] = None
    new_ledger: Annotated[
        bool,
        _about(
            "Begin --ledger FILE, which must not exist: only if nothing was released about these "
            "data. It is written with the first release.",
            needs=("ledger",),
        ),
    ] = False
    budget: Annotated[
        Annotated[float, Meta(ge=1e-3, le=1000)] | None,
        _about(
            "The ε, at --delta, that a new --ledger allows in all. Without it, it records, and "
            "refuses a second exact sum.",
            "ε",
            needs=("ledger",),
        ),
    ] = None
    seed: Annotated[
        int,
        _about(
            "Governs partition, holdout, projection and simulated drop-outs; never keys, masks or "
            "noise.",
            "N",
            ge=0,
        ),
    ] = 0
    out: Annotated[Text | None, _about("Folder for the model, its card and the report.", "DIR")] = (
        None
    )
    options: tuple[tuple[str, Any], ...] = ()

    def option(self, name: str) -> Any:
        """Return a given setting of the method or the protocol.

        None where it was not given.
        """
        return dict(self.options).get(name)

    def replaced(self, **settings: Any) -> "RunConfig":
        """Copy the configuration with other settings, checked before; None takes an option out."""
        fields = {name: settings.pop(name) for name in list(settings) if name in FIELDS}
        options = {k: v for k, v in (dict(self.options) | settings).items() if v is not None}
        return msgspec.structs.replace(self, **fields, options=tuple(sorted(options.items())))

    def given_to(self, declaring: type) -> dict[str, Any]:
        """Return the given settings that a class declares, as the class takes them."""
        declared = options_of(declaring)
        return {name: declared[name].value(v) for name, v in self.options if name in declared}

    def flat(self) -> dict[str, Any]:
        """Return all settings in one table as in run.toml, options among them."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        content.pop("options")
        for thing in (METHODS[self.method], PROTOCOLS[self.protocol]):
            content |= {name: own.default for name, own in options_of(thing).items()}
        return content | dict(self.options)


FIELDS: Mapping[str, Any] = {
    field.name: field for field in msgspec.structs.fields(RunConfig) if field.name != "options"
}
