"""The main job on real data, and what personalisation gains on label-skewed clients.

SECURE_AFL_DATA=… python -m benchmarks.federation
"""

from typing import Any

import msgspec

from benchmarks.record import data_folder, write
from secure_afl.runs.run import run
from secure_afl.runs.settings import make_config

ALPHAS = (0.0, 0.1, 1.0, 10.0, 100.0)


def main() -> None:
    """Run every federation and write the reports down."""
    folder = data_folder()
    mobilenet: dict[str, Any] = {
        "backbone": "timm:mobilenetv1_100,pad_type=same",
        "checkpoint": str(folder / "backbones" / "mobilenetv1_100.safetensors"),
    }
    # The fixed λ that the paper's head has; `benchmarks.heads` compares heads.
    ridge = {"ridge": 0.1}
    signs: dict[str, Any] = {
        "clients": str(folder / "sign_digits" / "train" / "site_*"),
        "test": str(folder / "sign_digits" / "test"),
        "image_size": 128,
        **mobilenet,
        **ridge,
    }
    pneumonia: dict[str, Any] = {
        "clients": str(folder / "pneumoniamnist.npz"),
        "partition": "dirichlet:10:0.1",
        "image_size": 96,
        **mobilenet,
        **ridge,
    }
    digits: dict[str, Any] = {"partition": "dirichlet:10:0.1", **ridge}
    data = {"signs": signs, "pneumonia": pneumonia, "digits": digits}
    write(
        "federation",
        {
            "runs": {name: _figures(settings) for name, settings in data.items()},
            "personal": {
                name: {
                    reading: [_personal(data[name], reading, alpha) for alpha in ALPHAS]
                    for reading in ("joint", "proximal")
                }
                for name in ("pneumonia", "digits")
            },
        },
    )


def _figures(settings: dict[str, Any]) -> dict[str, Any]:
    report: dict[str, Any] = msgspec.to_builtins(run(make_config(settings)).report)
    # Where the data lie is this machine's own business.
    del report["settings"], report["session"]
    return report


def _personal(settings: dict[str, Any], reading: str, alpha: float) -> dict[str, Any]:
    personal = {"method": "fedhip", "holdout": 0.2, "personal": reading, "alpha": alpha}
    report = run(make_config(settings | personal)).report
    assert report.exact
    return {
        "alpha": alpha,
        "personal": report.accuracy.personal_mean,
        "federated": report.accuracy.holdout_federated_mean,
        "alone": report.accuracy.holdout_local_mean,
    }


if __name__ == "__main__":
    main()
