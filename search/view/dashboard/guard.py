"""Which requests the dashboard accepts: only for its own host names, and no changes to a study without --allow-edit.

Optuna's dashboard checks neither. A foreign web page could point its name at this machine (DNS rebinding) and delete
studies.
"""

from __future__ import annotations

import html
import ipaddress
import json
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK_NAMES = ("127.0.0.1", "::1", "localhost")
READING = ("GET", "HEAD")


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_of(authority: str) -> str | None:
    """The host in HOST:PORT, in lower case and without the brackets of an IPv6 address. None if the text is neither."""
    if not authority.isascii() or any(character in authority for character in "@/?#\\ "):
        return None
    try:
        parts = urlsplit(f"//{authority}")
        return parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        return None


class Guard:
    """Refuses a request for another host or from another origin. Without `allow_edit` it also refuses changes."""

    def __init__(self, app: WSGIApplication, hosts: Collection[str], *, allow_edit: bool) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self._allow_edit = allow_edit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refusal = self._refusal(Request(environ, populate_request=False))
        return (refusal or self._app)(environ, start_response)

    def _refusal(self, request: Request) -> Response | None:
        host = request.environ.get("HTTP_HOST", "")
        if host_of(host) not in self._hosts:
            # The page does not repeat the name: an attacker may have chosen it. Its owner knows which name is missing.
            return refused(request, 403, "This dashboard does not answer to that host name; see --allowed-host.")
        # The origin's scheme is not compared: behind a proxy with TLS it differs from ours.
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return refused(request, 403, "This dashboard does not answer to pages of another origin.")
        if request.method not in READING and not self._allow_edit:
            answer = refused(request, 405, "This dashboard is read-only; --allow-edit lets it change studies.")
            answer.headers["Allow"] = ", ".join(READING)
            return answer
        return None


PAGE = """<!doctype html><title>affinity-search</title><meta name="viewport" content="width=device-width">
<body style="font: 18px sans-serif; margin: 3em; color-scheme: light dark"><p>{reason}</p>
"""


def refused(request: Request, status: int, reason: str) -> Response:
    """An HTML page for a browser; JSON with the reason for a request of the dashboard's own page."""
    if request.accept_mimetypes.quality("text/html") > request.accept_mimetypes.quality("application/json"):
        return Response(PAGE.format(reason=html.escape(reason)), status, content_type="text/html; charset=utf-8")
    return Response(json.dumps({"reason": reason}) + "\n", status, content_type="application/json")
