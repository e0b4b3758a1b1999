"""Assertions in the shared modules explain themselves as those of tests do."""

import pytest

pytest.register_assert_rewrite("tests.kit.protocols", "tests.kit.worlds")
