"""Tables of five hospitals' CSV files beside scikit-learn and statsmodels."""

from collections.abc import Mapping

from benchmarks.rendering import markdown_table, read_results

_PEERS = {
    "ridge": "`RidgeClassifier`",
    "lda": "`LinearDiscriminantAnalysis`",
    "logistic, λ = 0.03": "`LogisticRegression`",
}


def hospitals_classes() -> str:
    """Render accuracy by way, and the paired difference from scikit-learn's."""
    results = read_results("hospitals")["classes"]
    head = ["rows × columns", "default", *_PEERS, "default behind the best of all"]
    rows = []
    for name, own in results.items():
        cells = [f"{name}, {own['rows']:,} × {own['columns']}", _percent(own["ours"]["default"])]
        cells += [
            f"{_percent(own['ours'][way])}, {_signed(own['difference'][way])}" for way in _PEERS
        ]
        rows.append([*cells, f"{100 * own['default_behind_best']:.1f}"])
    return markdown_table(head, rows)


def hospitals_numbers() -> str:
    """Render how far coefficients are off statsmodels', and R² on test rows."""
    results = read_results("hospitals")["numbers"]
    head = [
        "rows × columns",
        "estimates off, standard errors, at most",
        "errors off, at most",
        "within the bound",
        "R², all rows: here, statsmodels",
        "R² on test rows",
        "less scikit-learn's",
    ]
    rows = []
    for name, own in results.items():
        found = own["coefficients"]
        bounded = sum(abs(one["ours"] - one["theirs"]) <= one["rounding"] for one in found)
        rows.append(
            [
                f"{name}, {own['rows']:,} × {own['columns']}",
                f"{max(one['apart'] for one in found):.4f}",
                f"{max(abs(one['our_error'] / one['their_error'] - 1) for one in found):.2%}",
                f"{bounded} of {len(found)}",
                f"{own['figures']['r_squared']:.5f}, {own['their_r_squared']:.5f}",
                f"{own['test_r_squared']['mean']:.3f} ± {own['test_r_squared']['error']:.3f}",
                f"{own['test_difference']['mean']:+.5f} ± {own['test_difference']['error']:.5f}",
            ]
        )
    return markdown_table(head, rows)


def hospitals_coefficients() -> str:
    """Render the diabetes coefficients beside statsmodels'."""
    found = read_results("hospitals")["numbers"]["diabetes"]["coefficients"]
    head = ["", "estimate", "statsmodels", "error", "statsmodels", "bound of rounding"]
    rows = [
        [
            one["name"],
            f"{one['ours']:.4g}",
            f"{one['theirs']:.4g}",
            f"{one['our_error']:.4g}",
            f"{one['their_error']:.4g}",
            f"{one['rounding']:.2g}",
        ]
        for one in found
    ]
    return markdown_table(head, rows)


def _percent(own: Mapping[str, float]) -> str:
    return f"{100 * own['mean']:.1f} ± {100 * own['error']:.1f}"


def _signed(own: Mapping[str, float]) -> str:
    return f"{100 * own['mean']:+.1f} ± {100 * own['error']:.1f}"
