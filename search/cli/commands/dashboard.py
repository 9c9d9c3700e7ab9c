"""`affinity-search dashboard`: the real optuna-dashboard, behind a login where others can reach it."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import Files, Storage, home_path, opened, say
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.view.dashboard.serving import Access


EXAMPLES = (
    "affinity-search dashboard",
    "affinity-search dashboard --host 0.0.0.0 --password-file password.txt",
)


Host = Annotated[
    str,
    typer.Option(
        "--host", metavar="ADDRESS", help="Address to listen on; one that other machines reach needs a password."
    ),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        parser=home_path,
        envvar="AFFINITY_SEARCH_PASSWORD_FILE",
        help="Ask for the password in this file: USER:PASSWORD or a password alone, mode 600.",
    ),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option("--allowed-host", metavar="NAME", help="A host name that people type to reach it; repeatable."),
]
AllowEdit = Annotated[
    bool, typer.Option("--allow-edit", help="Allow the page to change and delete studies and their files.")
]
TrustedProxy = Annotated[
    str | None,
    typer.Option("--trusted-proxy", metavar="ADDRESS", help="Address of a proxy; its X-Forwarded-For is believed."),
]


def dashboard(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    password_file: PasswordFile = None,
    allowed_host: AllowedHost = None,
    allow_edit: AllowEdit = False,
    trusted_proxy: TrustedProxy = None,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
) -> None:
    """Serve optuna-dashboard until Ctrl-C. By default it is read-only and only this machine reaches it."""
    from affinity_search.search.view.dashboard.guard import is_loopback
    from affinity_search.search.view.dashboard.password import read_password
    from affinity_search.search.view.dashboard.serving import Access, guarded, port_of, server_for
    from affinity_search.storage.files import default_root
    from affinity_search.storage.trials.reading import reading_storage

    password = read_password(password_file) if password_file else None
    if password is None and not is_loopback(host):
        raise typer.BadParameter(
            f"{host!r} can be reached from other machines; give a password with --password-file FILE"
        )
    access = Access(host, port, password, tuple(allowed_host or ()), allow_edit, trusted_proxy)
    backend = opened(storage, read_only=not allow_edit)
    root = files or default_root(backend.url)
    trials = reading_storage(backend)
    server = server_for(guarded(trials, root, access, say, backend.check), access)
    # Read the trials now. Otherwise the first visitor of a large study waits for them.
    threading.Thread(target=trials.read_ahead, daemon=True).start()
    _announce(f"{backend}", access, port_of(server))
    _end_on_sigterm()
    server.run()


def _end_on_sigterm() -> None:
    """Without it, process 1 of a container does not react to SIGTERM."""
    from affinity_search.search.worker.stopping import is_ignored

    if not is_ignored(signal.SIGTERM):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))


def _announce(backend: str, access: Access, port: int) -> None:
    from affinity_search.search.view.dashboard.guard import is_loopback

    host = f"[{access.host}]" if ":" in access.host else access.host
    mode = "studies can be changed" if access.allow_edit else "read-only"
    say(f"dashboard of {backend} at http://{host}:{port}/ ({mode}; Ctrl-C ends it)")
    if not is_loopback(access.host):
        say(
            "the password is sent unencrypted; outside a trusted network, put a proxy with TLS in front (docs/share.md)"
        )
