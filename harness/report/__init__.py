# SPDX-License-Identifier: GPL-2.0-or-later
"""From the store to a table, a figure and a page."""
