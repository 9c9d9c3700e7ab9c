"""HTTP Basic login with one password and limited attempts, as WSGI middleware."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.wrappers import Request, Response

from affinity_search.search.view.dashboard.guard import refused
from affinity_search.search.view.dashboard.password import Password

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ATTEMPTS = parse("10 per 5 minutes")
IPV6_PREFIX = 64  # a provider gives one customer such a network, so an attacker has all of its addresses


def client_of(address: str | None) -> str:
    """The client whose attempts count together: an IPv4 address, an IPv6 network, or all clients without an address."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))


class Login:
    """Lets a request with the password pass.

    A client with too many wrong attempts is refused until its oldest attempts are forgotten, even with the right
    password. Otherwise the answer would confirm a right guess.
    """

    def __init__(
        self, app: WSGIApplication, password: Password, say: Callable[[str], None], attempts: RateLimitItem = ATTEMPTS
    ) -> None:
        self._app = app
        self._password = password
        self._say = say
        self._attempts = attempts
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refusal = self._refusal(Request(environ, populate_request=False))
        return (refusal or self._app)(environ, start_response)

    def _refusal(self, request: Request) -> Response | None:
        given = request.authorization
        if given is None or given.type != "basic":
            # This is no attempt: every browser begins without a password.
            return self._challenge(request, "Sign in to see this dashboard: load the page again.")
        client = client_of(request.remote_addr)
        if not self._limiter.test(self._attempts, client):
            return self._come_back_later(request, client)
        if self._password.matches(given.username, given.password):
            return None
        self._limiter.hit(self._attempts, client)
        if not self._limiter.test(self._attempts, client):
            self._say(f"login: {client} gave a wrong password {self._attempts.amount} times and is refused for a while")
        return self._challenge(request, "Wrong user name or password.")

    def _challenge(self, request: Request, reason: str) -> Response:
        answer = refused(request, 401, reason)
        answer.www_authenticate = WWWAuthenticate("basic", {"realm": "affinity-search", "charset": "UTF-8"})
        return answer

    def _come_back_later(self, request: Request, client: str) -> Response:
        wait_s = self._limiter.get_window_stats(self._attempts, client).reset_time - time.time()
        answer = refused(request, 429, "Too many wrong passwords from this address; try again later.")
        answer.headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
        return answer
