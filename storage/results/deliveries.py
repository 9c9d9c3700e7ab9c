"""What was sent elsewhere: a row for every item and target, so that nothing is sent twice, whoever sends it.

A collector claims an item before it sends it. The claim is a lease, as a place's is: when its holder dies, another
collector takes the item over, and has to look first what the dead one left at the target.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from affinity_search.storage import SENDING_LEASE_S
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend


@dataclass(frozen=True)
class Delivery:
    """An item that this process may send now."""

    token: str
    item: str
    lease: str
    is_fresh: bool  # nobody has begun to send it before


def target_hash(kind: str, address: str) -> str:
    """What a target is called in the database. From an address with a password or key in it nobody gets back to it."""
    return f"{kind}-{hashlib.sha256(address.encode()).hexdigest()[:32]}"


class Deliveries:
    """What was sent to one target. Every method is one transaction and may be called from any process at any time."""

    def __init__(self, backend: Backend, target: str, lease_s: float = SENDING_LEASE_S) -> None:
        """`target` is as `target_hash` gives it."""
        self._backend = backend
        self._target = target
        self._lease_s = lease_s

    def sent(self, token: str) -> set[str]:
        """The items of a study, or a comparison, that are there."""
        table = tables.deliveries
        query = select(table.c.item).where(table.c.token == token, table.c.target == self._target, table.c.sent == 1)
        return set(self._backend.transaction(lambda connection: connection.execute(query).scalars().all()))

    def claim(self, token: str, item: str) -> Delivery | None:
        """The right to send an item. None if it was sent, or if another process sends it now."""
        lease, table = secrets.token_hex(16), tables.deliveries
        held = {"lease": lease, "lease_until": self._backend.now() + self._lease_s, "at": self._backend.now()}
        row = {"token": token, "target": self._target, "item": item, "sent": 0}

        def take_over(connection: Connection) -> bool:
            over = (table.c.sent == 0, table.c.lease_until < self._backend.now())
            taken = update(table).where(*self._row(token, item), *over).values(**held)
            return bool(connection.execute(taken).rowcount)

        if self._backend.transaction(take_over):
            return Delivery(token, item, lease, is_fresh=False)
        there = select(table.c.item).where(*self._row(token, item))
        if self._backend.transaction(lambda connection: connection.execute(there).first()):
            return None
        try:
            self._backend.transaction(lambda connection: connection.execute(insert(table).values(**row, **held)))
        except IntegrityError:  # another process was faster
            return None
        return Delivery(token, item, lease, is_fresh=True)

    def renew(self, delivery: Delivery) -> bool:
        """Whether the item is still this process's; if so, its lease begins anew."""
        return self._write(delivery, lease_until=self._backend.now() + self._lease_s)

    def settle(self, delivery: Delivery) -> bool:
        """Mark it as sent. False if another process has taken it over."""
        return self._write(delivery, sent=1, at=self._backend.now())

    def give_back(self, delivery: Delivery) -> None:
        """It could not be sent: anybody may try again at once."""
        self._write(delivery, lease_until=0.0)

    def skip(self, token: str, items: Collection[str]) -> None:
        """Mark items as sent that need not be sent any more."""
        for item in items:
            if delivery := self.claim(token, item):
                self.settle(delivery)

    def forget(self, tokens: Collection[str]) -> None:
        """Forget what was sent, as the target has lost it."""
        table = tables.deliveries
        there = delete(table).where(table.c.target == self._target, table.c.token.in_(list(tokens)))
        self._backend.transaction(lambda connection: connection.execute(there))

    def _row(self, token: str, item: str) -> tuple[ColumnElement[bool], ...]:
        table = tables.deliveries
        return table.c.token == token, table.c.target == self._target, table.c.item == item

    def _write(self, delivery: Delivery, **values: Any) -> bool:
        table = tables.deliveries
        mine = (*self._row(delivery.token, delivery.item), table.c.lease == delivery.lease, table.c.sent == 0)
        change = update(table).where(*mine).values(**values)
        return self._backend.transaction(lambda connection: connection.execute(change).rowcount == 1)
