"""Where to send: the options `--track` and `--notify`, their environment variables, and what of them is a secret."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from affinity_search.search.devices.errors import UnfitMachineError
from affinity_search.search.launch.children import NOTIFY, PASSWORD, TOKEN, URI, USER
from affinity_search.storage.urls import cleaned
from affinity_search.studies.errors import AffinitySearchError
from affinity_search.studies.model.tables.tracking import MlflowAddress, address_of, asked_address


class TrackingError(AffinitySearchError):
    """An address that cannot be used. The message never shows what may be a secret."""


@dataclass(frozen=True)
class Sending:
    """Where finished trials and news go. None: nowhere."""

    mlflow: MlflowAddress | None = None
    notify: str | None = None  # the URL, all of it a secret

    @classmethod
    def asked(cls, track: str | None, notify: str | None) -> Sending:
        """What the options say, checked before anything trains.

        Raises:
            TrackingError: an address is wrong. UnfitMachineError: MLflow's package is missing.
        """
        mlflow = None if track is None else mlflow_address(track)
        return cls(mlflow, None if notify is None else notify_url(notify))

    def or_of(self, track: str | None) -> Sending:
        """The same, with a study's own `[tracking]` where the options name no place."""
        return self if self.mlflow or track is None else replace(self, mlflow=mlflow_address(track))

    def __bool__(self) -> bool:
        return bool(self.mlflow or self.notify)

    @property
    def variables(self) -> dict[str, str]:
        """How a collector's process is told: every user of a machine can read a command's arguments."""
        told = {}
        if self.mlflow:
            told[URI] = self.mlflow.uri
            if self.mlflow.user or self.mlflow.password:
                told |= {USER: self.mlflow.user or "", PASSWORD: self.mlflow.password or ""}
            elif TOKEN in os.environ:
                told[TOKEN] = os.environ[TOKEN]
        return told | ({NOTIFY: self.notify} if self.notify else {})

    @property
    def secrets(self) -> list[str]:
        """What no message may show."""
        found = [self.notify or "", self.mlflow.password or "" if self.mlflow else "", os.environ.get(TOKEN, "")]
        if self.notify:
            parts = urlsplit(self.notify)
            found += [parts.path.strip("/"), parts.query, parts.netloc]
        return sorted((each for each in found if each), key=len, reverse=True)


NOWHERE = Sending()


def mlflow_address(track: str, environment: Mapping[str, str] = os.environ) -> MlflowAddress:
    """Of `mlflow=ADDRESS`, or of MLFLOW_TRACKING_URI for `mlflow` alone. User and password may stand in MLflow's
    variables, as for MLflow itself.

    Raises:
        TrackingError: there is no address, or a wrong one. UnfitMachineError: MLflow's package is missing.
    """
    try:
        told = asked_address(cleaned(track, "--track"))
        given = told or environment.get(URI, "").strip()
        if not given:
            raise TrackingError(
                f"--track mlflow needs an address: write --track mlflow=ADDRESS (a server's URL, a folder or "
                f"sqlite:///FILE.db), or set {URI}"
            )
        found = address_of(given)
    except (ValueError, RuntimeError) as error:
        raise TrackingError(f"--track: {error}" if "--track" not in str(error) else str(error)) from None
    if importlib.util.find_spec("mlflow") is None:
        raise UnfitMachineError("--track mlflow needs the package mlflow-skinny; pip install 'affinity-search[mlflow]'")
    if found.is_server and not (found.user or found.password):
        found = replace(found, user=environment.get(USER), password=environment.get(PASSWORD))
    return found


def notify_url(text: str) -> str:
    """The URL to which news are posted.

    Raises:
        TrackingError: it is no http or https URL. It is not shown: whoever knows it can post there.
    """
    url = cleaned(text, "the address of --notify")
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in url and url.isascii()
        fits = fits and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        raise TrackingError(
            "the address of --notify cannot be used (it is not shown, as it is a secret); write "
            f"https://HOST/PATH or http://HOST:PORT/PATH, best in the environment variable {NOTIFY}"
        )
    return url
