"""The collector: looks at a search every few seconds, and sends each target what it has not got yet.

It reads the database as anybody may, and no worker waits for it. What was sent stands in the database's ledger
(`storage/results/deliveries.py`), so any number of collectors may run, and each may be killed at any time.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from affinity_search.search.launch.tracking.addresses import Sending
from affinity_search.search.launch.tracking.news import Webhook, launch_failure
from affinity_search.search.launch.tracking.on_mlflow import Mlflow
from affinity_search.search.launch.tracking.targets import (
    AwayError,
    Guard,
    Item,
    Look,
    LostError,
    RefusedError,
    Target,
)
from affinity_search.search.view.terminal import plural
from affinity_search.storage import SENDING_LEASE_S
from affinity_search.storage.database.patience import at_once, is_transient
from affinity_search.storage.errors import VanishedError
from affinity_search.storage.places.counts import Counts
from affinity_search.storage.places.recovery import complete_halves
from affinity_search.storage.results.deliveries import Deliveries, target_hash
from affinity_search.storage.stored.agenda import Agenda

EVERY_S = 3.0  # between two looks
SLICE_S = 10.0  # a look gives no more to one target: the other has news
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
PATIENCE_S = 15.0  # at the end, with a target that takes nothing
LAST_TRY_S = 30.0  # at the end of a launch, in all


@dataclass
class Post:
    """A target, what is still to be sent there, and when it is tried next."""

    target: Target
    ledger: Deliveries
    unsent: int = 0
    sent: int = 0  # by this collector
    pause_s: float = 0.0  # 0: it answers
    tried_at: float = float("-inf")
    refused: set[str] = field(default_factory=set)
    is_cut_short: bool = False  # the last look ended in the middle
    reason: str = ""  # why it does not answer


class Collector:
    """Of one study or comparison. Not for several threads."""

    def __init__(
        self,
        agenda: Agenda,
        sending: Sending,
        root: Path,
        say: Callable[[str], None],
        lease_s: float = SENDING_LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`root` is the folder of the files (--files). An item whose collector is silent for `lease_s` is another's."""
        self._agenda = agenda
        self._root = root
        self._lease_s = lease_s
        self._clock = clock
        self._say = partial(_masked, say, sending.secrets)
        targets: list[Target] = [Webhook(sending.notify)] if sending.notify else []  # first: they are few, and news
        targets += [Mlflow(sending.mlflow, self._say)] if sending.mlflow else []
        hashes = [target_hash(each.kind, each.identity) for each in targets]
        ledgers = [Deliveries(agenda.backend, each, lease_s) for each in hashes]
        self.posts = [Post(target, ledger) for target, ledger in zip(targets, ledgers, strict=True)]
        self._seen: tuple[Counts, int] | None = None
        self.is_over = False
        self._worked_at = clock()  # when something was sent last
        self._deadline = float("inf")
        self._told: set[str] = set()

    @property
    def unsent(self) -> int:
        """How many items wait, as of the last look."""
        return sum(post.unsent for post in self.posts)

    @property
    def pause_s(self) -> float:
        """How long to wait for the next look: not at all if one was cut short."""
        return 0.0 if any(post.is_cut_short for post in self.posts) else EVERY_S

    def forget(self) -> None:
        """Send everything again that MLflow lacks."""
        for post in self.posts:
            if post.target.kind == "mlflow":
                post.ledger.forget([self._agenda.token, *(study.token for study in self._agenda.studies)])

    def look(self, *, hurried: bool = False) -> None:
        """Send what is missing. A failure is told once, and tried again after a pause that grows.

        With `hurried` no pause is longer than the first. Errors of the database end the look, not the collector.

        Raises:
            VanishedError: the SQLite file is gone.
        """
        now = self._clock()
        most = FIRST_PAUSE_S if hurried else LONGEST_PAUSE_S
        ready = [post for post in self.posts if now - post.tried_at >= min(post.pause_s, most)]
        try:
            with at_once():
                look = self._look() if ready else None
                if look:
                    for post in ready:
                        self._serve(post, look)
        except VanishedError:
            raise
        except Exception as error:
            self._seen = None
            line = f"the collector failed ({type(error).__name__}: {error}); it tries again, and this is told once"
            if not is_transient(error) and line not in self._told:
                self._told.add(line)
                self._say(line)

    def _look(self) -> Look | None:
        """None if nothing has changed since, and nothing waits."""
        agenda = self._agenda = self._agenda.refreshed()
        studies, counts = agenda.studies, agenda.counts()
        seen = (counts, len(studies))
        if seen == self._seen and not self.unsent:
            return None
        for study in studies:
            complete_halves(study)  # a trial that its dead worker left is not waited for
        self._seen = seen
        self.is_over = counts.used >= counts.total and not getattr(agenda, "is_unfinished", False)
        return Look(agenda, [study.under_its_name() for study in studies], counts, self.is_over, self._root)

    def _serve(self, post: Post, look: Look) -> None:
        """Until nothing is left, or the target does not answer."""
        due = post.target.due(look)
        sent = {token: post.ledger.sent(token) for token in {item.token for item in due}}
        waiting = [item for item in due if item.name not in sent[item.token] and item.key not in post.refused]
        over = {item.key for item in post.target.superseded(look, waiting)}
        for token in sent:
            post.ledger.skip(token, [item.name for item in waiting if item.key in over and item.token == token])
        waiting = [item for item in waiting if item.key not in over]
        post.unsent = len(waiting)
        post.tried_at = begun = self._clock()
        post.is_cut_short = False
        for item in waiting:
            if self._clock() > self._deadline:
                return
            post.is_cut_short = self._clock() > begun + SLICE_S
            if post.is_cut_short or not self._send(post, item):
                return
        if len(look.finished) < look.counts.used:  # an Optuna trial is a moment behind its place
            self._seen = None

    def _send(self, post: Post, item: Item) -> bool:
        """Returns whether to go on with the next."""
        delivery = post.ledger.claim(item.token, item.name)
        if delivery is None:  # another collector is at it; look again whether it succeeds
            return True
        try:
            item.send(Guard(lambda: post.ledger.renew(delivery), delivery.is_fresh))
            if post.ledger.settle(delivery):
                post.sent += 1
                post.unsent -= 1
        except LostError:
            return True
        except RefusedError as error:
            post.ledger.give_back(delivery)
            post.refused.add(item.key)
            post.unsent -= 1
            self._say(f"{post.target.name} refuses {item.name}: {error}; this is told once")
            return True
        except AwayError as error:
            post.ledger.give_back(delivery)
            self._is_away(post, str(error))
            return False
        except BaseException:
            post.ledger.give_back(delivery)
            raise
        self._answers(post)
        return True

    def _is_away(self, post: Post, reason: str) -> None:
        if not post.pause_s:
            waiting = f"{plural(post.unsent, post.target.noun)} wait" + ("s" if post.unsent == 1 else "")
            self._say(f"{post.target.name} does not take what is sent ({reason}); {waiting}, the search goes on")
        post.reason = reason
        post.pause_s = min(2 * post.pause_s or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        post.tried_at = self._clock()

    def _answers(self, post: Post) -> None:
        if post.pause_s:
            self._say(f"{post.target.name} takes what is sent again")
        post.pause_s, post.reason = 0.0, ""
        self._worked_at = self._clock()

    def send_all(self, limit_s: float | None = None) -> None:
        """Look until nothing is left to send, or no target has taken anything for a while; for `limit_s` at most.

        An item that a dead collector holds is waited for: it becomes free when its lease ends.
        """
        begun = self._worked_at = self._clock()
        self._deadline = begun + (float("inf") if limit_s is None else limit_s)
        self.look(hurried=True)
        while self.unsent and self._clock() < self._deadline:
            is_away = any(post.pause_s for post in self.posts if post.unsent)
            patience_s = PATIENCE_S if is_away else PATIENCE_S + self._lease_s
            if self._clock() - self._worked_at > patience_s:
                return
            time.sleep(min(FIRST_PAUSE_S, self.pause_s))
            self.look(hurried=True)

    def tell_failure(self, reason: str) -> None:
        """Post that the launch failed. Nothing keeps this message: if its receiver is away for long, it is lost."""
        for post in self.posts:
            if isinstance(post.target, Webhook):
                body = launch_failure(self._agenda.name, self._agenda.token, reason)
                for pause_s in (1.0, 3.0, 0.0):
                    try:
                        post.target.post(body)
                        break
                    except AwayError:
                        time.sleep(pause_s)

    def tell(self, again: str) -> None:
        """What was sent, and what was not. `again` is the command that sends the rest."""
        for post in self.posts:
            noun, name = post.target.noun, post.target.name
            if post.unsent:
                reason = f" ({post.reason})" if post.reason else ""
                self._say(f"{plural(post.unsent, noun)} not sent to {name}{reason}; to send later: {again}")
            elif post.sent:
                self._say(f"{plural(post.sent, noun)} sent to {name}")
            if post.refused:
                self._say(f"{plural(len(post.refused), noun)} refused by {name}")


def command(agenda: Agenda, sending: Sending, storage_option: str) -> str:
    """The command that sends what is missing; addresses come from the environment, or are to be filled in."""
    to = " --to mlflow=ADDRESS" if sending.mlflow else ""
    if sending.mlflow and not (sending.mlflow.user or sending.mlflow.password):
        to = f" --to {shlex.quote(f'mlflow={sending.mlflow.uri}')}"
    notify = " --notify URL" if sending.notify else ""
    return f"affinity-search track {shlex.quote(agenda.name)}{storage_option}{to}{notify}"


def _masked(say: Callable[[str], None], secrets: Sequence[str], line: str) -> None:
    """Whatever a library puts into an error."""
    for secret in secrets:
        line = line.replace(secret, "***")
    say(line)
