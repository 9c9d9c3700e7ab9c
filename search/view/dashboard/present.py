"""If its database is gone, the dashboard says so instead of showing old values for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from affinity_search.storage.errors import VanishedError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Present:
    """Checks before every request."""

    def __init__(self, app: WSGIApplication, check: Callable[[], None], say: Callable[[str], None]) -> None:
        self._app = app
        self._check = check
        self._say = say
        self._told = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            self._check()
        except VanishedError as error:
            if not self._told:
                self._told = True
                self._say(f"error: {error}")
            return Response(f"{error}\n", status=503)(environ, start_response)
        return self._app(environ, start_response)
