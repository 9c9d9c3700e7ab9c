"""The `affinity-search` command. Human text goes to stderr, data to stdout."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; a person's mistake or an outside failure becomes one message, never a traceback."""
    try:  # our imports happen within it: Ctrl-C may come then too
        from affinity_search.search.launch import children

        children.leave_out_current_folder()
        if sys.argv[1:] == ["worker", children.LATER]:
            from affinity_search.search.launch import ahead

            sys.argv[1:] = ahead.received()
        from affinity_search.search.cli import streams
        from affinity_search.search.cli.app import app

        streams.settle()
        app()
    except KeyboardInterrupt:  # first: explaining other errors imports more
        sys.exit(130)  # Exit.INTERRUPTED
    except Exception as error:
        code, message = _explained(error)
        if isinstance(error, streams.ENDS_STDOUT):
            streams.abandon_stdout()
        if message is None:
            raise
        if message:
            print(f"error: {message}", file=sys.stderr)
        sys.exit(code)


def _explained(error: Exception) -> tuple[int, str | None]:
    """The exit code and the message, which may be empty; None for a bug."""
    from affinity_search.search.worker.exits import Exit, exit_for

    code = exit_for(error)
    if code is None:
        return Exit.FAILED, _storage_failure(error)
    return code, "" if isinstance(error, BrokenPipeError) else str(error)


def _storage_failure(error: BaseException) -> str | None:
    """What to say when the database or the study went away in the middle of a command; None for every other error."""
    if isinstance(error, KeyError) and "Record does not exist" in str(error):  # Optuna's
        return "the study was deleted while this command worked on it; see: affinity-search status"
    if not type(error).__module__.startswith(("sqlalchemy.", "optuna.")):
        return None
    from affinity_search.storage.database.failures import explain_late

    return explain_late(error)
