# SPDX-License-Identifier: GPL-2.0-or-later
"""Toolkit that patches, builds, boots, measures and plots Kernel Samepage Merging with an accelerator."""

__version__ = "0.1.0"
