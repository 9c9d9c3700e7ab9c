"""News of a search as JSON, posted to a web address: its end, a failed trial, a new best."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPException
from typing import Any

from affinity_search.search.launch.tracking.targets import (
    ANSWER_S,
    AwayError,
    Finished,
    Guard,
    Item,
    Look,
    why,
)
from affinity_search.storage.database.tables import PlaceState
from affinity_search.studies.metrics import score_of

NEW_BEST, FAILURE, END = "new_best", "failure", "end"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent on becomes a GET: the message would be lost."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class Webhook:
    """A target of a collector. All of its URL is a secret."""

    url: str
    kind: str = "notify"

    @property
    def name(self) -> str:
        return "the address of --notify"

    @property
    def identity(self) -> str:
        return self.url

    @property
    def noun(self) -> str:
        return "message"

    def due(self, look: Look) -> list[Item]:
        return [self._item(one) for one in messages(look)]

    def superseded(self, look: Look, waiting: Sequence[Item]) -> list[Item]:
        """New bests that another one has beaten since."""
        bests: dict[str, list[Item]] = {}
        for item in waiting:
            if item.name.startswith(NEW_BEST):
                bests.setdefault(item.token, []).append(item)
        return [item for each in bests.values() for item in each[:-1]]

    def _item(self, message: Message) -> Item:
        return Item.of(message.token, message.name, partial(self._send, message))

    def _send(self, message: Message, guard: Guard) -> None:
        guard()
        self.post(message.body)

    def post(self, body: Mapping[str, Any]) -> None:
        """Raises AwayError, without the address, unless the receiver took it."""
        content = json.dumps(body, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "affinity-search"}
        request = urllib.request.Request(self.url, content, headers, method="POST")
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=ANSWER_S) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            raise AwayError(f"it answered with HTTP {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise AwayError(why(error) or type(error).__name__) from None


@dataclass(frozen=True)
class Message:
    """One piece of news, and its key in the ledger."""

    token: str
    name: str
    body: Mapping[str, Any]


def messages(look: Look) -> Iterator[Message]:
    """All news of the search so far, in their order."""
    for one in look.finished:
        token, number = one.study.token, one.place.number
        if one.place.state == PlaceState.SPENT:
            yield _of_trial(FAILURE, one, token, f"{FAILURE}/{number}")
        elif (token, number) in look.new_bests:
            yield _of_trial(NEW_BEST, one, token, f"{NEW_BEST}/{number}")
    if look.is_over:
        yield _end(look)


def _of_trial(event: str, one: Finished, token: str, name: str) -> Message:
    study, place = one.study, one.place
    score = None if place.value is None else score_of(place.value)
    told = f"{study.spec.score.label} {score:.4f}" if score is not None else f"failed: {place.reason or 'unknown why'}"
    trial = f"trial {place.trial}" if place.trial is not None else f"place {place.number}"
    text = f"{study.name}: {'new best ' if event == NEW_BEST else ''}{told} ({trial})"
    more = {"reason": place.reason} if event == FAILURE else {}
    body = _body(event, study.name, place.trial, study.spec.metric, score, place.params, place.finished_at, text)
    return Message(token, name, body | more | {"id": f"{token}/{name}"})


def _end(look: Look) -> Message:
    """With the best trial of a study. A comparison has a verdict, not one best trial."""
    agenda, counts, ended = look.agenda, look.counts, look.finished
    (study, *others) = look.studies
    scored = [one for one in ended if one.place.value is not None]
    best = min(scored, key=lambda one: (one.place.value, one.place.number)) if scored and not others else None
    score = score_of(best.place.value) if best and best.place.value is not None else None
    best = best if study.search is None else None
    reached = f"; best {study.spec.score.label} {score:.4f}" if best and score is not None else ""
    text = f"{agenda.name}: the search has ended, {counts.used} trials ({counts.failed} failed){reached}"
    at = max((one.place.finished_at or 0.0 for one in ended), default=0.0)
    trial, params = (best.place.trial, best.place.params) if best else (None, None)
    body = _body(END, agenda.name, trial, study.spec.metric, score if best else None, params, at, text)
    name = f"{END}/{counts.used}"
    return Message(agenda.token, name, body | {"counts": counts.to_dict(), "id": f"{agenda.token}/{name}"})


def _body(
    event: str,
    study: str,
    trial: int | None,
    metric: str | None,
    score: float | None,
    params: Any,
    at: float | None,
    text: str,
) -> dict[str, Any]:
    when = datetime.fromtimestamp(at or 0.0, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "event": event,
        "study": study,
        "trial": trial,
        "metric": metric,
        "score": score,
        "params": params,
        "at": when,
        "text": text,
    }


def launch_failure(name: str, token: str, reason: str) -> dict[str, Any]:
    """A launch that ended with an error; it has no trial."""
    body = _body(FAILURE, name, None, None, None, None, time.time(), f"{name}: the launch failed: {reason}")
    return body | {"reason": reason, "id": f"{token}/launch/{secrets.token_hex(8)}"}
