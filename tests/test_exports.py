"""What the packages export is pinned, and is there."""

import pytest

import protocols
import secure_afl

PROTOCOLS = (
    "Additive Bfv Block Ckks Enrolment Fault FaultPlan Identity Layout Line Member Network "
    "Pairwise Party Plain Protocol Release Roster Session Sum Transcript enrol form_session "
    "new_nonce"
)
SECURE_AFL = (
    "AFL Additive Bfv Budget Ckks ClientData ConfigError ConvNet DataError Design FedACnnL FedAU "
    "FedAvg FedHPro FedHiP FedProto FedSGD FedStale FederatedClassifier Federation Frl Ledger "
    "Linear LinearModel Logistic Mlp Model PFedACnnL Pairwise Plain Privacy PrivateGradient "
    "PrivateLogistic Quantiser Regression Result Scaffold SecureAflError Statistics Training "
    "evaluated frame_rows read_design table_federation"
)


@pytest.mark.parametrize(("package", "names"), [(protocols, PROTOCOLS), (secure_afl, SECURE_AFL)])
def test_everything_that_is_exported_is_there(package: object, names: str) -> None:
    assert vars(package)["__all__"] == names.split()
    for name in names.split():
        assert getattr(package, name) is not None


def test_nothing_else_is_exported() -> None:
    with pytest.raises(AttributeError, match="module 'secure_afl' has no attribute 'Watched'"):
        secure_afl.Watched  # noqa: B018


def test_errors_share_a_base() -> None:
    for error in (
        protocols.errors.InvalidSession,
        protocols.errors.Malformed,
        secure_afl.DataError,
    ):
        assert issubclass(error, secure_afl.SecureAflError)
