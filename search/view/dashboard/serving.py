"""optuna-dashboard with all checks in front of it, and the server that it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affinity_search.search.view.dashboard.answers import Answers
from affinity_search.search.view.dashboard.guard import LOOPBACK_NAMES, Guard, is_loopback
from affinity_search.search.view.dashboard.login import Login
from affinity_search.search.view.dashboard.password import Password
from affinity_search.search.view.dashboard.present import Present
from affinity_search.search.view.dashboard.readable import Readable
from affinity_search.search.view.pictures import PictureStore
from affinity_search.storage.errors import StorageError
from affinity_search.storage.trials.reading import ReadingStorage

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

THREADS = 8
# The server reads a whole body before any check sees the request. Readers send none, so theirs may be short.
BODY_READING = 16 * 1024
BODY_EDITING = 256 * 1024 * 1024  # an artifact, as optuna-dashboard takes them
ANY_ADDRESS = ("", "0.0.0.0", "::", "*")


@dataclass(frozen=True)
class Access:
    """Who may reach the dashboard, where, and what they may do."""

    host: str
    port: int
    password: Password | None
    allowed_hosts: tuple[str, ...] = ()
    allow_edit: bool = False
    trusted_proxy: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The host names that a request may give."""
        own = () if self.host in ANY_ADDRESS else (self.host,)
        return (*LOOPBACK_NAMES, *own, *self.allowed_hosts)


def guarded(
    storage: ReadingStorage,
    files: Path,
    access: Access,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> WSGIApplication:
    """The dashboard of all studies in `storage`, with the artifacts under `files`.

    `check` raises VanishedError when the database is gone. Then every answer is that message.
    """
    from optuna_dashboard import wsgi

    bare = wsgi(storage, artifact_store=PictureStore(files))
    bare.install(Readable(storage))
    app: WSGIApplication = Answers(Present(bare, check, say), read_only=not access.allow_edit)
    if access.password:
        app = Login(app, access.password, say)
    return Guard(app, access.names, allow_edit=access.allow_edit)


def server_for(app: WSGIApplication, access: Access) -> Any:
    """A waitress server that listens already.

    Raises:
        StorageError: the address or its port cannot be opened.
    """
    from waitress.server import create_server

    proxy: dict[str, Any] = {}
    body = BODY_EDITING if access.allow_edit else BODY_READING
    if access.trusted_proxy:
        # Only these headers of the proxy are used. The host still comes from the Host header.
        proxy = {"trusted_proxy": access.trusted_proxy, "trusted_proxy_headers": {"x-forwarded-for"}}
    try:
        return create_server(
            app, host=access.host, port=access.port, threads=THREADS, ident=None, max_request_body_size=body, **proxy
        )
    except OSError as error:
        hint = (
            "try --port 0"
            if is_loopback(access.host)
            else "check that this is an address of this machine, or try --port 0"
        )
        raise StorageError(
            f"port {access.port} of {access.host} cannot be opened ({error.strerror}); {hint}"
        ) from error


def port_of(server: Any) -> int:
    """The port that the server listens on. For port 0 the system chose it."""
    if hasattr(server, "effective_port"):
        return int(server.effective_port)
    return int(server.effective_listen[0][1])  # a name with several addresses
