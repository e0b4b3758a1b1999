"""The settings of a run: one typed struct behind the flags, the TOML file and the JSON Schema."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocols.schemes.additive.protocol import MAX_AGGREGATORS
from protocols.schemes.pairwise.parameters import Server
from secure_afl.errors import ConfigError
from secure_afl.methods.afl import MAX_RIDGE
from secure_afl.methods.fedavg import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_LOCAL_EPOCHS,
    MAX_RATE,
    MAX_ROUNDS,
    MIN_RATE,
)
from secure_afl.methods.fedhip import MAX_ALPHA, Reading
from secure_afl.privacy.mechanism import (
    DEFAULT_CROSS_WEIGHT,
    DEFAULT_DELTA,
    MAX_EPSILON,
    Placement,
)
from secure_afl.privacy.sensitivity import Neighbours, Unit


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `secure-afl run` does; every field is a flag of the same name and a key of run.toml."""

    clients: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="The clients' data: a quoted glob of image folders (<class>/*.jpg|png) or "
            ".npz files, one client each, or one data set to cut up with --partition. Without it, "
            "scikit-learn's handwritten digits."
        ),
    ] = None
    test: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Test data for the global model, as a folder or .npz. Without it, the test "
            "split of an .npz of --clients, if it has one."
        ),
    ] = None
    holdout: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="Share of each client's rows kept out of training to score personal "
            "models on.",
        ),
    ] = 0.0
    partition: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="How to cut one data set into clients: iid:10, dirichlet:10:0.1 (clients, "
            "α: small is skewed), shards:10:2 (clients, label shards each), sizes:100,200,50."
        ),
    ] = None
    backbone: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="What makes features of examples: timm:<model>[,key=value…], "
            "projection:<dim>, identity, or two joined by '+'. Default: identity for features, "
            "projection:512 for the embedded digits, timm:resnet18 for other images."
        ),
    ] = None
    checkpoint: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Local weights for timm:<model>; without it, timm's own are downloaded."),
    ] = None
    image_size: Annotated[
        Annotated[int, Meta(ge=8, le=4096)] | None,
        Meta(description="Resize images to N × N pixels."),
    ] = None
    feature_bits: Annotated[
        Annotated[int, Meta(ge=1, le=12)] | None,
        Meta(
            description="Rows become integers of norm ≤ 2^N. Default: the most, from 8 to 12, that "
            "the narrowest ring holds; 12 with --epsilon.",
        ),
    ] = None
    max_rows: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Public bound on its rows that each client declares. Default, in "
            "simulation: the next power of two of its own.",
        ),
    ] = None
    method: Annotated[
        Literal["afl", "fedhip", "fedavg", "fedsgd"],
        Meta(
            description="afl: one model for all. fedhip: also a personal model for each client. "
            "fedavg, fedsgd: by gradients, in many rounds."
        ),
    ] = "afl"
    ridge: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_RIDGE)] | None,
        Meta(
            description="λ of the ridge (β of fedhip), in squared norms of the rows, which are 1. "
            "Default: 0.1, or by the noise with --epsilon; neither looks at data.",
        ),
    ] = None
    alpha: Annotated[
        float,
        Meta(ge=0, le=MAX_ALPHA, description="fedhip: weight of a client's own rows in its model."),
    ] = 1.0
    reading: Annotated[
        Reading,
        Meta(
            description="fedhip: joint gives the clients the summed statistics, proximal only the "
            "global model."
        ),
    ] = "joint"
    architecture: Annotated[
        Literal["linear", "convnet"],
        Meta(
            description="fedavg, fedsgd: train a linear model on features, or a small ConvNet on "
            "the pixels of square images (its learning rate is about 0.1)."
        ),
    ] = "linear"
    rounds: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_ROUNDS)] | None,
        Meta(description="fedavg, fedsgd: blind sums. Default: 100."),
    ] = None
    learning_rate: Annotated[
        Annotated[float, Meta(ge=MIN_RATE, le=MAX_RATE)] | None,
        Meta(
            description="fedavg: of the clients' steps; fedsgd: of the server's. Default, for "
            "linear models: 10 and 30."
        ),
    ] = None
    local_epochs: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_ROUNDS,
            description="fedavg: passes over its rows that a client makes in a round.",
        ),
    ] = DEFAULT_LOCAL_EPOCHS
    batch_size: Annotated[
        int, Meta(ge=1, le=2**31, description="fedavg: rows of a client's step.")
    ] = DEFAULT_BATCH_SIZE
    update_clip: Annotated[
        Annotated[float, Meta(ge=MIN_RATE, le=MAX_RATE)] | None,
        Meta(
            description="fedavg, fedsgd: greatest L2 norm of a client's update. Default: 30 and "
            "1.5."
        ),
    ] = None
    proximal: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_RATE,
            description="fedavg: FedProx's μ, a pull back to the global model.",
        ),
    ] = 0.0
    protocol: Annotated[
        Literal["additive", "pairwise", "ckks", "bfv", "plain"],
        Meta(
            description="Who sees what while the sum is formed. additive: no aggregator sees a "
            "client's vector, unless all of them work together. pairwise: one server, which sees "
            "no client's vector. ckks, bfv: a server adds ciphertexts, a key holder opens one sum; "
            "neither sees a client's vector, unless they work together. plain: the server sees "
            "all."
        ),
    ] = "additive"
    aggregators: Annotated[
        int, Meta(ge=2, le=MAX_AGGREGATORS, description="additive: number of aggregators.")
    ] = 2
    corrupt_fraction: Annotated[
        float, Meta(ge=0, lt=1, description="pairwise: share of clients that the server may have.")
    ] = 0.1
    dropout_fraction: Annotated[
        float, Meta(ge=0, lt=1, description="pairwise: share of clients that may vanish.")
    ] = 0.1
    server_trust: Annotated[
        Server,
        Meta(
            description="pairwise: how far the server may lie: nowhere (curious), about who has "
            "vanished (lying_in_unmasking), in every step (lying)."
        ),
    ] = "lying"
    verify: Annotated[
        bool,
        Meta(
            description="ckks, bfv: the key holder checks that the sum is that of the clients' own "
            "encryptions; without it, server and clients must be trusted to follow the protocol."
        ),
    ] = True
    keys: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Folder made by keygen: parties use these identities, and clients join no "
            "session with anybody who is not in its roster. Without it, new ones for each run."
        ),
    ] = None
    drop: Annotated[
        int, Meta(ge=0, description="Simulate N clients that vanish as their vectors should leave.")
    ] = 0
    min_cohort: Annotated[
        Annotated[int, Meta(ge=2)] | None,
        Meta(
            description="Release nothing below N clients. Default: a majority; nine tenths with "
            "--epsilon, for noise that may be missing has to be added by the others."
        ),
    ] = None
    corrupt: Annotated[
        int,
        Meta(ge=0, description="Clients that may work with whoever sees the sum; cohort ≥ N + 2."),
    ] = 0
    epsilon: Annotated[
        Annotated[float, Meta(ge=1e-3, le=MAX_EPSILON)] | None,
        Meta(
            description="Differential privacy: the ε that the whole run promises. Every client "
            "adds its share of the noise before anybody sees anything. Without it, exact sums."
        ),
    ] = None
    delta: Annotated[
        float, Meta(ge=1e-15, le=0.1, description="The δ that goes with --epsilon.")
    ] = DEFAULT_DELTA
    unit: Annotated[
        Unit,
        Meta(
            description="What --epsilon hides: that an example, or a client with all its rows, "
            "was there."
        ),
    ] = "example"
    neighbours: Annotated[
        Neighbours,
        Meta(
            description="add-remove: that it was there or not, the number of rows included "
            "(declare --max-rows); replace-one: that it was this one or another."
        ),
    ] = "add-remove"
    noise: Annotated[
        Placement,
        Meta(
            description="distributed: every client adds its share. central, for comparison: "
            "whoever decodes the sum sees it exactly and is trusted to add the noise."
        ),
    ] = "distributed"
    cross_weight: Annotated[
        float,
        Meta(
            ge=0.05,
            le=20,
            description="With --epsilon: the cross term's part of the budget, beside the Gram's 1.",
        ),
    ] = DEFAULT_CROSS_WEIGHT
    dimension: Annotated[
        Annotated[int, Meta(ge=0, le=2**20)] | None,
        Meta(
            description="Project features to N dimensions; 0 keeps all. Default: all, or with "
            "--epsilon what the bound on rows and the noise suggest; no data are looked at."
        ),
    ] = None
    public: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Data that are nobody's secret, a folder or .npz: features are centred on "
            "their mean and projected to their principal axes, instead of at random."
        ),
    ] = None
    whiten: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="With --public: axes are divided by this power of their variance; 0.25 "
            "helps with public data unlike the clients', 0 with data alike.",
        ),
    ] = 0.0
    ledger: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="File in which the clients account for all that was released about their "
            "data; it refuses a second exact sum, and what exceeds --budget."
        ),
    ] = None
    budget: Annotated[
        Annotated[float, Meta(ge=1e-3, le=1000)] | None,
        Meta(
            description="The ε, at --delta, that a new --ledger allows in all. Without it, it "
            "records, and refuses a second exact sum."
        ),
    ] = None
    seed: Annotated[
        int,
        Meta(
            ge=0,
            description="Governs partition, holdout, projection and simulated drop-outs; never "
            "keys, masks or noise.",
        ),
    ] = 0
    out: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Folder for the model, its card and the report."),
    ] = None


def make_config(settings: dict[str, Any], file: Path | None = None) -> RunConfig:
    """The configuration of a TOML file, if given, with `settings` over it.

    Raises:
        ConfigError: an unreadable file, an unknown field, or a value out of range, naming the
            field and what it may be.
    """
    merged = (_read(file) if file else {}) | settings
    try:
        return msgspec.convert(merged, RunConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), merged)) from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of run.toml."""
    return msgspec.json.schema(RunConfig)


def description(field: str) -> str:
    """A field's help text."""
    return str(_properties()[field]["description"])


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} is not readable TOML: {error}") from None
    # Flags have dashes, Python's names have not; a file may use either.
    return {name.replace("-", "_"): value for name, value in settings.items()}


def _properties() -> dict[str, dict[str, Any]]:
    schema = json_schema()
    properties: dict[str, dict[str, Any]] = schema["$defs"]["RunConfig"]["properties"]
    return properties


def _explain(problem: str, settings: dict[str, Any]) -> str:
    unknown = sorted(settings.keys() - _properties().keys())
    if unknown:
        return f"unknown field '{unknown[0]}'; allowed: {', '.join(_properties())}"
    at = re.search(r"\$\.(\w+)", problem)
    if at is None:
        return problem
    field = at[1]
    return f"field '{field}': {settings[field]!r} is not allowed; allowed: {_allowed(field)}"


def _allowed(field: str) -> str:
    schema = _properties()[field]
    branches = schema.get("anyOf", [schema])
    return " or ".join(_allowed_by(branch) for branch in branches if branch.get("type") != "null")


def _allowed_by(schema: dict[str, Any]) -> str:
    if "minLength" in schema:
        return "a non-empty string"
    if "enum" in schema:
        return ", ".join(schema["enum"])
    names = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in names.items() if key in schema]
    return " and ".join([str(schema["type"]), *bounds])
