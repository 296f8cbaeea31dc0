# SPDX-License-Identifier: GPL-2.0-or-later
"""A person at the console of a guest."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import termios
import tty
from collections.abc import Callable, Iterator

LEAVE = b"\x1d"
"""Ctrl-]: leaves the console, as in telnet and virsh."""


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C too; the terminal is put back whatever happens."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def relay(console: socket.socket, alive: Callable[[], bool], keyboard: int | None = 0, screen: int = 1) -> None:
    """Connect keyboard and screen to a console until Ctrl-], or until the machine ends.

    Args:
        console: our end of the console.
        alive: asked a few times a second.
        keyboard: descriptor of the input, ``None`` for none; at its end we go on watching.
        screen: descriptor of the output.

    """
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(console, selectors.EVENT_READ)
        if keyboard is not None:
            stack.enter_context(_raw(keyboard))
            with contextlib.suppress(OSError, ValueError):  # closed, or a regular file
                selector.register(keyboard, selectors.EVENT_READ)
        while True:
            ready = selector.select(0.2)
            for key, _ in ready:
                if key.fileobj is console:
                    data = console.recv(1 << 16)
                    if not data:
                        return
                    _write(screen, data)
                elif not _type(os.read(key.fd, 1 << 12), console, selector, key.fd):
                    return
            if not ready and not alive():
                return


def _type(data: bytes, console: socket.socket, selector: selectors.BaseSelector, keyboard: int) -> bool:
    """Pass keys on; ``False`` once the person leaves."""
    if not data:
        selector.unregister(keyboard)
    before, leave, _ = data.partition(LEAVE)
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        console.sendall(before)
    return not leave


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
