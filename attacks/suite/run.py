"""Attacks × methods × protocols × adversaries × ε over a data set: who learns what, measured.

Every cell is the claim of one attack from the view of one adversary on one recorded run, judged
against the truth. Runs are shared by the adversaries and attacks on them, and one at a time is in
a process's memory; finished cells are on disk, and are not done again.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from attacks.measures.metrics import simultaneous
from attacks.suite.cells import CELLS, RESULTS, Cell, is_done
from attacks.suite.config import AttackConfig
from attacks.suite.plan import Attacks, Plan, make_plan
from attacks.suite.pool import Pool, load_pool
from attacks.suite.results import Results, make_results
from attacks.suite.stage import Stage
from attacks.suite.work import Given, Wanted, Work, make_cells
from protocols.files import write_durably
from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError
from secure_afl.journal import Journal
from secure_afl.progress import Progress
from secure_afl.runs.choose import make_method
from secure_afl.runs.prepare import check_parties, choose_backbone, load
from secure_afl.runs.saving import check_folder

log = logging.getLogger("secure_afl")

_MOST_PROCESSES = 64


class Interrupted(Exception):
    """The run was stopped; what is done is on disk, and in `results`."""

    def __init__(self, results: Results) -> None:
        super().__init__("stopped")
        self.results = results


def run(
    config: AttackConfig,
    registry: Attacks,
    out: Path,
    progress: Progress | None = None,
    command: str = "",
    processes: int = 1,
) -> Results:
    """Fill the matrix, going on where an earlier run into the same folder stopped.

    Args:
        registry: the attacks by name.
        out: folder of the cells, made if need be; `results.json` is written there at the end, and
            when the run is interrupted.
        progress: called with what is under way, how much is done, and of how much.
        command: as reports quote it.
        processes: that make cells side by side, 1 to 64, at most one a run. What they find does not
            turn on it. Memory grows with it: each has all rows, and a run with its sums. With more
            than one a script's own code has to stand under `if __name__ == "__main__"`.

    Raises:
        SecureAflError: settings or data that cannot be used, before anything is run. What goes
            wrong in a single run or attack is written into its cells.
        Interrupted: in place of KeyboardInterrupt.
    """
    if not 1 <= processes <= _MOST_PROCESSES:
        raise ConfigError(f"processes is {processes}, allowed: 1..{_MOST_PROCESSES}")
    check_folder(out)
    datasets, _ = load(config.run)
    check_parties(datasets)
    plan = make_plan(config, registry, datasets)
    journal = Journal(out / CELLS, Cell)
    pools = _load_pools(config, datasets, progress)
    confidence = simultaneous(config.confidence, plan.cells)
    works = _works(config, plan, pools)
    keys = [wanted.key for work in works for wanted in work.wanted]
    cells = {key: cell for key in keys if is_done(cell := journal.find(key), confidence) and cell}
    missing = _left(works, cells)

    def finish() -> Results:
        made = [cells[key] for key in keys if key in cells]
        results = make_results(config, plan, pools, made, command)
        write_durably(out / RESULTS, msgspec.json.format(msgspec.json.encode(results)) + b"\n")
        return results

    if progress is not None:
        progress("cells", len(cells), plan.cells)
    made = make_cells(Given(config, pools, confidence), missing, processes)
    try:
        # Closed at once, whatever happens: nobody waits for processes that are at work.
        with closing(made):
            for cell in made:
                journal.add(cell.key, cell)
                log.info("%s: %s", cell.attack, cell.error or cell.measures[:1])
                cells[cell.key] = cell
                if progress is not None:
                    progress("cells", len(cells), plan.cells)
    except KeyboardInterrupt:
        raise Interrupted(finish()) from None
    return finish()


def _works(config: AttackConfig, plan: Plan, pools: Mapping[str, Pool]) -> list[Work]:
    """List all cells, run by run."""
    works = []
    for setting, adversaries in plan.settings.items():
        stage = Stage(config, setting, pools[setting.method])
        wanted = tuple(
            Wanted(stage.key(adversary, attack), adversary.name, attack)
            for adversary in adversaries
            for attack in plan.of(adversary)
        )
        works.append(Work(setting, wanted))
    return works


def _left(works: Sequence[Work], done: Mapping[str, Cell]) -> list[Work]:
    """List the runs of which cells are missing, with these cells alone."""
    left = (
        work._replace(wanted=tuple(w for w in work.wanted if w.key not in done)) for work in works
    )
    return [work for work in left if work.wanted]


def _load_pools(
    config: AttackConfig, datasets: Sequence[Dataset], progress: Progress | None
) -> dict[str, Pool]:
    """Load the pool of each method.

    Methods share it, unless one of them learns from pixels.
    """
    pools: dict[str, Pool] = {}
    by_backbone: dict[bytes, Pool] = {}
    for name in config.methods:
        run_config = config.run.replaced(method=name)
        method = make_method(run_config)  # refuses what it cannot use, before features are made
        digest = choose_backbone(run_config, method, datasets[0]).digest
        if digest not in by_backbone:
            by_backbone[digest] = load_pool(run_config, method, datasets, progress)
        pools[name] = by_backbone[digest]
    return pools
