"""`affinity-search dashboard`: the real optuna-dashboard, on loopback."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from search.cli.options import DEFAULT_STORAGE, Storage, opened, say


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
        server = create_server(wsgi(backend.optuna), host="127.0.0.1", port=port, threads=8)
    except OSError as error:
        raise StorageError(f"port {port} of 127.0.0.1 cannot be opened ({error.strerror}); try --port 0") from error
    say(f"dashboard of {backend} at http://127.0.0.1:{port_of(server)}/ (Ctrl-C ends it)")
    server.run()


def port_of(server: Any) -> int:
    """The port that a waitress server listens on; for port 0 the system has chosen it."""
    return int(server.effective_port)
