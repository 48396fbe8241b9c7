"""The signing keys of a running process: read anew now and then, so that a rotation needs no restart."""

import time
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread

from cdc_shared.errors import CdcError, shown
from cdc_shared.logging.structured_logger import get_logger
from control_plane.services.signing_keys import SigningKeys

REREAD_AFTER_S: Final = 30.0
REREAD_FOR_UNKNOWN_AFTER_S: Final = 2.0
"""A token of an unknown key comes from a process that read the new key first, or from a forger, many a second."""

log = get_logger(__name__)


class KeyRing:
    """Keeps the last keys that could be read: a keeper of secrets that is away signs nobody out."""

    def __init__(
        self, keys: SigningKeys, read: Callable[[], SigningKeys], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`read` may block; it runs in a thread. `clock` is monotonic."""
        self._keys = keys
        self._read = read
        self._clock = clock
        self._read_at = clock()
        self._reading = anyio.Lock()

    async def current(self) -> SigningKeys:
        """The keys, not older than `REREAD_AFTER_S`."""
        await self._reread(REREAD_AFTER_S)
        return self._keys

    async def verifying(self, key_id: str) -> SigningKeys:
        """As `current`; read anew when this key is not among them."""
        keys = await self.current()
        if key_id not in keys.public:
            await self._reread(REREAD_FOR_UNKNOWN_AFTER_S)
        return self._keys

    async def _reread(self, after_s: float) -> None:
        if self._clock() - self._read_at < after_s:
            return
        async with self._reading:
            if self._clock() - self._read_at < after_s:
                return  # somebody else did meanwhile
            try:
                keys = await anyio.to_thread.run_sync(self._read)
            except CdcError as error:
                log.warning("the signing keys cannot be read; the last ones stay in use", reason=shown(error))
            else:
                if keys.newest != self._keys.newest:
                    log.info("access tokens are signed with another key from now on", key_id=keys.newest)
                self._keys = keys
            self._read_at = self._clock()
