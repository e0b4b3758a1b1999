"""`secure-afl run` and `secure-afl demo`."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_afl.cli.console import errors, people, progress
from secure_afl.cli.options import JsonFile, run_settings, with_flags

if TYPE_CHECKING:
    from secure_afl.runs.prepare import Accounts

DEMO = (
    ("afl", "plain"),
    ("afl", "additive"),
    ("afl", "pairwise"),
    ("afl", "ckks"),
    ("afl", "bfv"),
    ("fedhip", "additive"),
)


@with_flags(run_settings)
def run(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Settings as TOML, keys named like the flags; flags override it."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Finish a run that was stopped, with its own settings; DIR is its --out, or "
            "without one LEDGER.unfinished-run, beside its ledger.",
        ),
    ] = None,
    json_file: JsonFile = None,
    **settings: Any,
) -> None:
    """Run one federation, all parties in this process, and report on it.

    Four sites with image folders, a hold-out for personal models:

      secure-afl run --clients 'sites/*' --method fedhip --holdout 0.2 --out results

    One data set cut up into ten skewed clients, two of which vanish:

      secure-afl run --clients data.npz --partition dirichlet:10:0.1 --drop 2

    With a promise about every example, and a ledger of what was released:

      secure-afl run --clients 'sites/*' --max-rows 128 --epsilon 1 --ledger l.json --new-ledger

    With --out or --ledger, a run that is killed or finds the disk full can be finished:

      secure-afl run --resume results
    """
    from secure_afl.cli.accounts import show_accounts, show_findings
    from secure_afl.cli.description import show_description
    from secure_afl.cli.tables import check_writable, show_report, write_json
    from secure_afl.errors import ConfigError
    from secure_afl.federation.result import Result
    from secure_afl.runs import run as runs
    from secure_afl.runs.advice import NO_LEDGER, needs_ledger
    from secure_afl.runs.settings import flag, make_config

    shown = ExitStack()
    read: list[Accounts] = []

    def tell(accounts: "Accounts") -> None:
        # What is doubtful comes first, before the features, which take long.
        show_findings(errors(), accounts.findings)
        read.append(accounts)

    def deliver(result: Result) -> None:
        shown.close()
        for accounts in read:
            show_accounts(people(json_file), accounts)
        show_report(result.report, json_file)
        show_description(people(json_file), result)
        if needs_ledger(result.report.settings):
            people(json_file).print(NO_LEDGER, style="dim")
        write_json(json_file, result.report)

    check_writable(json_file)
    if resume is not None:
        given = [*settings, *(["config"] if config is not None else [])]
        if given:
            raise ConfigError(
                f"{flag(given[0])} has no effect with --resume, which goes on with the settings of "
                "the run; leave it out"
            )
        with shown:
            runs.resume(resume, shown.enter_context(progress()), deliver, tell)
        return
    made = make_config(settings, config)
    with shown:
        runs.run(made, shown.enter_context(progress()), deliver, tell)


def demo(json_file: JsonFile = None) -> None:
    """Federate scikit-learn's handwritten digits among ten clients, two of which vanish.

    No download, no backbone, a few seconds.
    """
    from secure_afl.cli.tables import check_writable, compare_reports, write_json
    from secure_afl.runs import run as runs
    from secure_afl.runs.settings import make_config

    check_writable(json_file)
    reports = []
    for method, protocol in DEMO:
        settings = {"method": method, "protocol": protocol, "drop": 2, "holdout": 0.2}
        reports.append(runs.run(make_config(settings)).report)
    compare_reports(reports, json_file)
    write_json(json_file, {"runs": reports})
