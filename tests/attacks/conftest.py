"""As for the protocols' own tests, whose worlds the attacks take place in."""

import pytest

pytest.register_assert_rewrite("tests.protocols.suite", "tests.protocols.worlds")
