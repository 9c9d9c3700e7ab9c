"""What the dashboard sends: harmless artifacts, headers that keep other pages out, and compressed large answers."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",  # no other page may show ours in a frame
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
# Every other kind (HTML, SVG, XML, PDF) could run script with the reader's login, so the browser saves it. An <img>
# still shows an SVG and runs none of its script.
SHOWN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain", "text/csv", "application/json"})
WORTH_COMPRESSING = 2048  # bytes
# The page shows a value on one line. A long one would make the whole page wide.
STYLE = b"""<style>
body { overflow-wrap: anywhere }
p.MuiTypography-body1 { white-space: normal } /* an attribute's value */
* { scrollbar-color: #808080 transparent } /* white ones shine on the dark page */
table:not([class]) :is(th, td) { padding: 2px 12px; text-align: left } /* those in notes */
</style>"""
# The page has no read-only mode. Without this it shows buttons that can only fail. If a later version renames them,
# they are shown again; their requests are refused as before.
READ_ONLY_STYLE = b"""<style>
[aria-label="delete study"], [aria-label="rename study"],
button:has([data-testid=AddBoxIcon]), button:has([data-testid=EditIcon]), button:has([data-testid=DeleteIcon])
{ display: none !important }
body::after { content: "read-only"; position: fixed; top: 20px; right: 24px; z-index: 9999; color: white;
font: 14px sans-serif; border: 1px solid; border-radius: 12px; padding: 2px 10px; pointer-events: none }
</style>"""
FAST = 1  # gzip's level: 20 MB of trials shrink to a tenth in 0.3 s


class Answers:
    """Corrects optuna-dashboard's answers: it sends an artifact as the type that its name claims, to any origin."""

    def __init__(self, app: WSGIApplication, *, read_only: bool) -> None:
        self._app = app
        self._read_only = read_only

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # without it optuna-dashboard fails on its own files
        request = Request(environ, populate_request=False)
        page = request.path.startswith("/dashboard")
        if page:
            environ.pop("HTTP_IF_MODIFIED_SINCE", None)  # of the unchanged file
        answer = Response.from_app(self._app, environ)
        answer.headers.remove("Access-Control-Allow-Origin")
        answer.headers.update(ALWAYS)
        answer.headers.setdefault("Cache-Control", "private, no-cache")
        if request.path.startswith("/artifacts/"):
            _disarm(answer)
        elif page and request.method == "GET":
            _restyle(answer, STYLE + READ_ONLY_STYLE * self._read_only)
        elif request.accept_encodings["gzip"] and request.method == "GET":
            _compress(answer)
        return answer(environ, start_response)


def _disarm(answer: Response) -> None:
    answer.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    if answer.mimetype not in SHOWN:
        answer.headers["Content-Disposition"] = "attachment"


def _restyle(answer: Response, style: bytes) -> None:
    if answer.status_code == 200 and answer.mimetype == "text/html":
        answer.set_data(answer.get_data().replace(b"</head>", style + b"</head>", 1))
        answer.headers.remove("Last-Modified")
        answer.headers.remove("ETag")


def _compress(answer: Response) -> None:
    kind = answer.mimetype or ""
    compressible = kind == "application/json" or kind.startswith("text/")
    if answer.status_code != 200 or not compressible or "Content-Encoding" in answer.headers:
        return
    plain = answer.get_data()
    answer.vary.add("Accept-Encoding")
    if len(plain) >= WORTH_COMPRESSING:
        answer.set_data(gzip.compress(plain, FAST))
        answer.content_encoding = "gzip"
