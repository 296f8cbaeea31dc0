# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's monitor (QMP) over a socket that is open already."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping

from harness.errors import MachineError

_SECONDS = 5.0


class Monitor:
    """A QMP conversation; commands one after another."""

    def __init__(self, wire: socket.socket) -> None:
        from qemu.qmp import QMPClient

        self._wire = wire
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("paraksm")
        self._connected = False

    def execute(self, name: str, arguments: Mapping[str, object] | None = None, timeout: float = _SECONDS) -> object:
        """Run one command and return what it returns.

        Raises:
            MachineError: QEMU refused it, or is gone, or did not answer within ``timeout`` seconds.

        """
        from qemu.qmp import QMPError

        async def conversation() -> object:
            await self._connect()
            return await self._client.execute(name, dict(arguments or {}))

        try:
            return self._loop.run_until_complete(asyncio.wait_for(conversation(), timeout))
        except TimeoutError as error:
            raise MachineError(f"QEMU did not answer {name} within {timeout:g} s") from error
        except (QMPError, OSError) as error:
            raise MachineError(f"QEMU's monitor, {name}: {error}") from error

    def heard(self, event: str, timeout: float) -> bool:
        """Whether QEMU has reported an event since the first command, or does so within ``timeout`` seconds.

        Raises:
            MachineError: QEMU is not to be spoken to.

        """
        from qemu.qmp import QMPError

        async def listening() -> None:
            while (await self._client.events.get())["event"] != event:
                pass

        try:
            self._loop.run_until_complete(asyncio.wait_for(listening(), timeout))
        except TimeoutError:
            return False
        except (QMPError, OSError) as error:
            raise MachineError(f"QEMU's monitor: {error}") from error
        return True

    async def _connect(self) -> None:
        if not self._connected:
            await self._client.connect(self._wire)
            self._connected = True

    def close(self) -> None:
        """End the conversation; errors of an end that is gone are no news. A second time does nothing."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 1.0))
        self._loop.close()
