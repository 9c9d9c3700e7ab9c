"""The table [tracking], and the addresses of an MLflow server, folder or database as people write them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from affinity_search.studies.model.mistakes import CUSTOM, show
from affinity_search.studies.model.tables.section import Section

ALLOWED = "mlflow, or mlflow=ADDRESS with a server's URL, a folder or sqlite:///FILE.db"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(//)?", re.IGNORECASE)


@dataclass(frozen=True)
class MlflowAddress:
    """Where MLflow keeps its runs. Only `user` and `password` are secrets; `uri` never has them."""

    uri: str  # a server's URL, sqlite:///FILE, or a folder's path
    user: str | None = None
    password: str | None = None

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for another kind."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    @property
    def folder(self) -> Path | None:
        """The folder; None for another kind."""
        return None if self.is_server or self.file else Path(self.uri)


def address_of(text: str) -> MlflowAddress:
    """The address of a server, a folder (`file:` before it is allowed) or a SQLite file. Paths become absolute.

    Raises:
        ValueError: it is none of these. The message never shows what may hold a password.
    """
    scheme = _SCHEME.match(text)
    kind = scheme[1].lower() if scheme else ""
    if kind in ("http", "https"):
        return _server(text)
    if kind == "sqlite":
        path = text[len("sqlite:///") :]
        if text[len("sqlite:") :][:3] != "///" or path in ("", "/", ":memory:") or "?" in path:
            raise ValueError("the SQLite address names no file; write sqlite:///FILE.db")
        return MlflowAddress(f"sqlite:///{_absolute(path)}")
    if kind == "file":
        return MlflowAddress(_absolute(unquote(urlsplit(text).path)))
    if kind and len(kind) > 1 and scheme and scheme[2]:
        raise ValueError(f"an MLflow address of kind {kind!r} is not supported; allowed: {ALLOWED}")
    if "@" in text or not text.isprintable():
        raise ValueError(f"the MLflow address cannot be read (it is not shown, as it may hold a password): {ALLOWED}")
    return MlflowAddress(_absolute(text))


def _server(text: str) -> MlflowAddress:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = SplitResult("", "", "", "", "")
    if not host or not text.isprintable() or " " in text or parts.query or parts.fragment:
        raise ValueError(
            "the URL of the MLflow server cannot be read (it is not shown, as it may hold a password); write "
            "https://HOST:PORT or https://USER:PASSWORD@HOST:PORT, with special characters percent-encoded"
        )
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port is None else f"{shown}:{port}"
    user, password = (unquote(each) if each else None for each in (parts.username, parts.password))
    return MlflowAddress(f"{parts.scheme.lower()}://{netloc}{parts.path.rstrip('/')}", user, password)


def _absolute(path: str) -> str:
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - as the shell: a link stays a link


def asked_address(text: str) -> str | None:
    """The address in `mlflow=ADDRESS`; None for `mlflow` alone.

    Raises:
        ValueError: it begins with another word.
    """
    kind, equals, address = text.partition("=")
    if kind.strip().lower() != "mlflow" or (equals and not address.strip()):
        shown = show(kind) if "@" not in kind and "/" not in kind else "something else"
        raise ValueError(f"{shown} given; allowed: {ALLOWED}")
    return address.strip() or None


class TrackingSpec(Section):
    """Where a launch of the study sends its finished trials."""

    to: str = Field(description=ALLOWED)

    @field_validator("to")
    @classmethod
    def _without_secrets(cls, text: str) -> str:
        try:
            address = asked_address(text)
            known = address_of(address) if address else None
        except (ValueError, RuntimeError) as error:
            raise PydanticCustomError(CUSTOM, "{text}", {"text": str(error)}) from None
        if known and (known.user or known.password):
            why = "a study file is stored, so it holds no password; give it in MLFLOW_TRACKING_USERNAME and _PASSWORD"
            raise PydanticCustomError(CUSTOM, "{text}", {"text": why})
        if known and not known.is_server and address and not re.match(r"/|~|(sqlite|file):/+[~/]", address):
            why = "the path of a folder or file begins with / or ~ here, as a launch may run anywhere"
            raise PydanticCustomError(CUSTOM, "{text}", {"text": why})
        return text
