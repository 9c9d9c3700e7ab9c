"""Keeps a claim alive: a thread of its holder renews the lease."""

from __future__ import annotations

import threading

from sqlalchemy.exc import SQLAlchemyError

from affinity_search.storage.database.patience import at_once
from affinity_search.storage.database.runtime import Background
from affinity_search.storage.errors import LostPlaceError
from affinity_search.storage.places.claims import Claim, Places

# Of the default 120 s: renewed every 20 s, so a lease outlives five failed renewals.
RENEWALS_A_LEASE = 6
FIRST_PAUSE_S = 0.5  # after a failed renewal; doubled up to the usual interval


class LeaseKeeper(Background):
    """Within its context a thread renews the claim's lease. `lost` tells that another worker has the place.

    If the storage fails, the thread goes on and tries again, in pauses that grow.
    """

    def __init__(self, places: Places, claim: Claim) -> None:
        super().__init__(f"lease-{claim.number}")
        self._places = places
        self._claim = claim
        self._renew_s = places.lease_s / RENEWALS_A_LEASE
        self._lost = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether a renewal found that the place is no longer this claim's."""
        return self._lost.is_set()

    def _run(self) -> None:
        pause = self._renew_s
        while not self._done.wait(pause):
            try:
                with at_once():  # the pauses here are this thread's own
                    self._places.renew(self._claim)
                pause = self._renew_s
            except LostPlaceError:
                # The holder has just ended the place, or another worker took it. Only the second is a loss.
                if not self._done.is_set():
                    self._lost.set()
                return
            except SQLAlchemyError:
                pause = FIRST_PAUSE_S if pause >= self._renew_s else min(2 * pause, self._renew_s)
