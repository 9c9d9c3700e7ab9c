"""The ledger of what was sent elsewhere, on SQLite and PostgreSQL alike."""

import time

from conftest import Together
from making import make

from affinity_search.storage.database.backend import Backend
from affinity_search.storage.results.deliveries import Deliveries, target_hash

TARGET = target_hash("notify", "https://host/secret")


def test_eight_processes_want_one_item_and_one_gets_it(backend: Backend, database_url: str, together: Together) -> None:
    token = make(backend).token
    assert sorted(map(str, together("claim_delivery", database_url, [token] * 8))) == ["None"] * 7 + ["fresh"]


def test_nobody_gets_what_another_sends(backend: Backend) -> None:
    one, other = Deliveries(backend, TARGET), Deliveries(backend, TARGET)
    mine = one.claim("t", "place/1")
    assert mine is not None
    assert mine.is_fresh
    assert other.claim("t", "place/1") is None
    assert other.claim("t", "place/2") is not None
    assert one.renew(mine)
    assert one.settle(mine)
    assert other.claim("t", "place/1") is None
    assert (one.sent("t"), one.sent("other")) == ({"place/1"}, set())


def test_what_a_silent_collector_held_is_taken_over_and_its_late_word_does_not_count(backend: Backend) -> None:
    silent, next_one = Deliveries(backend, TARGET, lease_s=0.01), Deliveries(backend, TARGET)
    late = silent.claim("t", "place/1")
    assert late is not None
    time.sleep(0.02)
    taken = next_one.claim("t", "place/1")
    assert taken is not None
    assert not taken.is_fresh, "it has to look what the other one left"
    assert not silent.renew(late)
    assert not silent.settle(late)
    assert next_one.sent("t") == set()


def test_what_is_given_back_may_be_sent_at_once(backend: Backend) -> None:
    ledger = Deliveries(backend, TARGET)
    mine = ledger.claim("t", "end/4")
    assert mine is not None
    ledger.give_back(mine)
    again = ledger.claim("t", "end/4")
    assert again is not None
    assert not again.is_fresh


def test_targets_are_apart_and_their_addresses_are_not_stored(backend: Backend) -> None:
    assert Deliveries(backend, TARGET).claim("t", "place/1") is not None
    assert Deliveries(backend, target_hash("notify", "https://host/other")).claim("t", "place/1") is not None
    assert "secret" not in TARGET
    assert len(TARGET) <= 64
