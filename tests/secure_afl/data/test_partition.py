import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_afl.data.dataset import Dataset
from secure_afl.data.partition import (
    Dirichlet,
    Embedding,
    Iid,
    Partition,
    Shards,
    Sizes,
    parse,
)
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


def blobs(rows: int = 240) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Rows of three looks that say nothing of their class: the site, features, and looks."""
    rng = np.random.default_rng(3)
    looks = rng.integers(0, 3, rows)
    features = 10 * np.eye(3, 8)[looks] + rng.standard_normal((rows, 8))
    return dataset(rng.integers(0, 4, rows).tolist()), features, looks


def test_embedding_deals_clusters_of_features_as_dirichlet_deals_classes() -> None:
    site, features, looks = blobs()
    seen: list[Dataset] = []

    def embed(data: Dataset) -> np.ndarray:
        seen.append(data)
        return features

    partition = Embedding(4, 0.1, 3)
    parts = partition.split(site, np.random.default_rng(0), embed)
    assert seen == [site]
    assert sorted(row for part in parts for row in rows_of(part)) == list(range(len(site)))
    # Clusters are the looks, whatever their numbers, and the draw is that of Dirichlet.
    groups = partition.groups(site, np.random.default_rng(0), embed)
    assert len({(int(a), int(b)) for a, b in zip(groups, looks, strict=True)}) == 3
    rng = np.random.default_rng(0)
    rng.integers(2**31)
    for part, rows in zip(parts, Dirichlet(4, 0.1).assign(groups, rng), strict=True):
        assert rows_of(part) == rows.tolist()
    # Looks are skewed over clients, classes are not.
    of_looks = np.array([np.bincount(looks[rows_of(part)], minlength=3) for part in parts])
    assert (of_looks.max(axis=0) / of_looks.sum(axis=0)).mean() > 0.8


def test_embedding_has_equal_clients_for_equal_seeds_and_others_for_others() -> None:
    site, features, _ = blobs()

    def clients(seed: int) -> list[list[int]]:
        parts = parse("embedding:3:0.5:5").split(
            site, np.random.default_rng(seed), lambda data: features
        )
        return [rows_of(part) for part in parts]

    assert clients(0) == clients(0)
    assert clients(0) != clients(1)


def test_embedding_has_as_many_clusters_as_classes_and_no_more_than_different_rows() -> None:
    site, features, _ = blobs()
    rng = np.random.default_rng(0)
    groups = Embedding(3, 1.0).groups(site, rng, lambda data: features)
    assert len(np.unique(groups)) == 4
    copies = np.ones((len(site), 2))
    copies[::2, 1] = -1
    assert len(np.unique(Embedding(3, 1.0, 9).groups(site, rng, lambda data: copies))) == 2


def test_embedding_wants_features_and_no_more_clusters_than_rows() -> None:
    site = dataset([0, 1] * 10)
    with pytest.raises(ConfigError, match="Embedding deals rows by their features"):
        parse("embedding:2:0.5").split(site, np.random.default_rng(0))
    with pytest.raises(DataError, match="20 rows cannot be cut into 21 clusters"):
        parse("embedding:2:0.5:21").split(
            site, np.random.default_rng(0), lambda data: np.eye(20, 4)
        )


def test_only_partitions_by_features_ask_for_them() -> None:
    def never(data: Dataset) -> np.ndarray:
        raise AssertionError("no features are needed")

    site = dataset([number % 10 for number in range(ROWS)])
    for spec in ("iid:4", "dirichlet:4:1", "shards:4:2", "sizes:9,9"):
        assert not parse(spec).needs_features
        parse(spec).split(site, np.random.default_rng(0), never)
    assert parse("embedding:4:1").needs_features


def test_specs_are_parsed() -> None:
    assert parse("embedding:10:0.5") == Embedding(10, 0.5)
    assert parse("embedding:10:0.5:20") == Embedding(10, 0.5, 20)
    assert Embedding(10, 0.5, 20).spec == "embedding:10:0.5:20"
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
        "embedding:10",
        "embedding:10:0",
        "embedding:10:0.5:1",
        "embedding:10:0.5:20000",
        "embedding:10:0.5:2:3",
        "random:10",
    ],
)
def test_other_specs_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"is not (one of iid:<clients>|a)"):
        parse(spec)
