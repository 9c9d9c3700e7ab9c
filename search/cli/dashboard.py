"""`affinity-search dashboard`: the real optuna-dashboard, on loopback."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from search.cli.options import DEFAULT_STORAGE, Storage, opened, say

LOOPBACK_NAMES = ("127.0.0.1", "localhost")


def dashboard(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 8080,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Serve optuna-dashboard on this machine's loopback address until Ctrl-C."""
    from optuna_dashboard import wsgi
    from waitress.server import create_server

    from storage.errors import StorageError

    backend = opened(storage)
    try:
        server = create_server(loopback_only(wsgi(backend.optuna)), host="127.0.0.1", port=port, threads=8)
    except OSError as error:
        raise StorageError(f"port {port} of 127.0.0.1 cannot be opened ({error.strerror}); try --port 0") from error
    say(f"dashboard of {backend} at http://127.0.0.1:{port_of(server)}/ (Ctrl-C ends it)")
    server.run()


def loopback_only(app: Any) -> Any:
    """Refuse requests for another host name: a web page elsewhere could point its own name at this machine (DNS
    rebinding) and, with a dashboard that can delete studies, do so.
    """

    def checked(environ: dict[str, Any], start_response: Any) -> Any:
        host = environ.get("HTTP_HOST", "").rpartition(":")[0] or environ.get("HTTP_HOST", "")
        if host in LOOPBACK_NAMES:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"This dashboard answers to 127.0.0.1 and localhost only.\n"]

    return checked


def port_of(server: Any) -> int:
    """The port that a waitress server listens on; for port 0 the system has chosen it."""
    return int(server.effective_port)
