import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_afl.data.dataset import Dataset
from secure_afl.data.partition import Dirichlet, Iid, Partition, Shards, Sizes, parse
from secure_afl.errors import ConfigError, DataError

ROWS = 60


def dataset(labels: list[int]) -> Dataset:
    """The one feature of a row is its number."""
    rows = np.arange(len(labels), dtype=np.float32)[:, None]
    classes = tuple(str(label) for label in range(10))
    return Dataset("site", rows, np.array(labels, dtype=np.int64), classes)


def rows_of(client: Dataset) -> list[int]:
    return [int(row) for row in np.asarray(client.examples)[:, 0]]


labelled = st.lists(st.integers(0, 9), min_size=ROWS, max_size=ROWS).map(dataset)
partitions: st.SearchStrategy[Partition] = st.one_of(
    st.builds(Iid, st.integers(1, ROWS)),
    st.builds(Dirichlet, st.integers(1, 5), st.floats(0.5, 100)),
    st.builds(Shards, st.integers(1, 12), st.integers(1, 5)),
    st.lists(st.integers(1, 12), min_size=1, max_size=5).map(lambda rows: Sizes(tuple(rows))),
)


@given(site=labelled, partition=partitions, seed=st.integers(0, 2**32))
def test_every_row_goes_to_one_client(site: Dataset, partition: Partition, seed: int) -> None:
    clients = partition.split(site, np.random.default_rng(seed))
    used = [row for client in clients for row in rows_of(client)]
    assert len(used) == len(set(used))
    assert len(used) == (sum(partition.rows) if isinstance(partition, Sizes) else ROWS)
    for client in clients:
        np.testing.assert_array_equal(client.labels, site.labels[rows_of(client)])
    again = partition.split(site, np.random.default_rng(seed))
    assert [rows_of(client) for client in again] == [rows_of(client) for client in clients]
    assert [client.name for client in clients[:2]] == ["client_00", "client_01"][: len(clients)]


def test_another_seed_is_another_partition() -> None:
    site = dataset([number % 10 for number in range(ROWS)])
    for spec in ("iid:4", "dirichlet:4:1", "shards:4:2", "sizes:9,9"):
        first, other = (
            [rows_of(part) for part in parse(spec).split(site, np.random.default_rng(seed))]
            for seed in (0, 1)
        )
        assert first != other


@given(st.integers(1, ROWS))
def test_iid_clients_are_of_one_size(clients: int) -> None:
    parts = Iid(clients).split(dataset([0] * ROWS), np.random.default_rng(0))
    sizes = [len(part) for part in parts]
    assert len(sizes) == clients
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_sizes_are_those_asked_for(sizes: list[int]) -> None:
    parts = Sizes(tuple(sizes)).split(dataset([0] * ROWS), np.random.default_rng(0))
    assert [len(part) for part in parts] == sizes


def test_a_shard_is_of_one_class() -> None:
    site = dataset([number % 10 for number in range(ROWS)])
    for client in parse("shards:5:2").split(site, np.random.default_rng(0)):
        assert len(client) == 12
        assert len(set(client.labels.tolist())) <= 2


def test_alpha_sets_how_skewed_the_classes_are() -> None:
    site = dataset([number % 10 for number in range(2000)])

    def largest_share(alpha: str) -> float:
        parts = parse(f"dirichlet:4:{alpha}").split(site, np.random.default_rng(0))
        counts = np.array([np.bincount(part.labels, minlength=10) for part in parts])
        return float((counts.max(axis=0) / counts.sum(axis=0)).mean())

    assert largest_share("1000") < 0.3
    assert largest_share("0.05") > 0.8


def test_dirichlet_gives_up_where_a_client_stays_empty() -> None:
    with pytest.raises(DataError, match=r"dirichlet:50:0\.001 .*fewer clients or a larger alpha"):
        parse("dirichlet:50:0.001").split(dataset([0] * ROWS), np.random.default_rng(0))


@pytest.mark.parametrize("spec", ["iid:61", "dirichlet:61:1", "shards:31:2", "sizes:30,31"])
def test_more_than_there_are_rows_is_refused(spec: str) -> None:
    with pytest.raises(DataError, match=r"60 rows cannot be cut into 6[12]"):
        parse(spec).split(dataset([0] * ROWS), np.random.default_rng(0))


def test_many_clients_have_names_of_one_length() -> None:
    names = [part.name for part in Iid(101).split(dataset([0] * 101), np.random.default_rng(0))]
    assert (names[0], names[-1]) == ("client_000", "client_100")


def test_specs_are_parsed() -> None:
    assert parse("iid:10") == Iid(10)
    assert parse("dirichlet:10:0.1") == Dirichlet(10, 0.1)
    assert parse("shards:10:2") == Shards(10, 2)
    assert parse("sizes:100,200,50") == Sizes((100, 200, 50))


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "iid",
        "iid:",
        "iid:0",
        "iid:-1",
        "iid:1.5",
        "iid:²",
        "iid:1:2",
        "iid:9999999999",
        "dirichlet:10",
        "dirichlet:10:0",
        "dirichlet:10:nan",
        "dirichlet:10:inf",
        "dirichlet:10:x",
        "shards:10",
        "sizes:",
        "sizes:1,,2",
        "random:10",
    ],
)
def test_other_specs_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"is not (one of iid:<clients>|a)"):
        parse(spec)
