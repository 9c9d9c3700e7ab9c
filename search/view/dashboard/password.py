"""The dashboard's one password, from a file that nobody else can read."""

from __future__ import annotations

import hmac
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from affinity_search.studies.errors import AffinitySearchError

LEAST_CHARACTERS = 12
MAKE_ONE = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(24))'"


class PasswordFileError(AffinitySearchError):
    """The password file cannot be used, so the dashboard does not start."""


@dataclass(frozen=True)
class Password:
    """What a person must enter. `user` None accepts every user name."""

    user: str | None
    secret: str = field(repr=False)

    def matches(self, user: str | None, secret: str | None) -> bool:
        """Whether both are right. The time it takes does not depend on how much of them is right."""
        right_user = self.user is None or _same(self.user, user or "")
        right_secret = _same(self.secret, secret or "")
        return right_user and right_secret


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def read_password(path: Path) -> Password:
    """Read a file with one line: USER:PASSWORD, or PASSWORD alone. The first colon divides.

    Raises:
        PasswordFileError: the file cannot be read, others can read it, it has several lines, or its password is too
        short. The message shows no part of the password.
    """
    try:
        mode = path.stat().st_mode & 0o777
        line = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise PasswordFileError(f"the password file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise PasswordFileError(f"the password file {path} is not UTF-8 text; write one line, {_WANTED}") from None
    if mode & 0o077:
        shown = shlex.quote(str(path))
        raise PasswordFileError(f"others can use the password file {path} (mode {mode:o}); run: chmod 600 {shown}")
    if len(line.splitlines()) > 1:
        raise PasswordFileError(f"the password file {path} has several lines; write one, {_WANTED}")
    user, colon, secret = line.partition(":")
    password = Password(user or None, secret) if colon else Password(None, line)
    if len(password.secret.strip()) < LEAST_CHARACTERS:
        shown = shlex.quote(str(path))
        raise PasswordFileError(
            f"the password in {path} has fewer than {LEAST_CHARACTERS} characters; {MAKE_ONE} > {shown}"
        )
    return password


_WANTED = "USER:PASSWORD or a password alone"
