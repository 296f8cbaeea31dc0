# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments as data: spec -> plan -> cells -> run directories -> index."""
