# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m harness``."""

from harness.cli.main import main

main()
