# SPDX-License-Identifier: GPL-2.0-or-later
"""The Linux 6.2 that tests use: as pinned, or what ``PARAKSM_LINUX_6_2`` names.

A directory, an archive or REPOSITORY@REVISION; for where kernel.org cannot be reached.
"""

from __future__ import annotations

import os

import pytest

from harness import sources
from harness.errors import SourceError
from harness.sources import SourceTree

GIVEN = os.environ.get("PARAKSM_LINUX_6_2")


def tree() -> SourceTree:
    """The tree; without one the test is skipped."""
    try:
        return sources.obtain("linux", source=GIVEN) if GIVEN else sources.obtain("linux", "6.2")
    except SourceError as error:
        pytest.skip(f"no Linux 6.2 to be had, and PARAKSM_LINUX_6_2 names none: {error.message}")
