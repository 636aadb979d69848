"""A trained model behind HTTP: a page to try it, and JSON for programs.

GET /            the page
POST /predict    an image file as the body; ?explain=1 adds heat maps
GET /health      its state, and what it predicts
GET /card        the model card, Markdown

An error is JSON with one sentence: {"error": "..."}.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ensemble.commands.predict.pictures import draw_maps
from ensemble.commands.predict.predictor import Faces, Predictor
from ensemble.commands.predict.texts import as_record
from ensemble.commands.report.html import element, markdown_to_html
from ensemble.commands.serve.batch_queue import BatchQueue
from ensemble.system.cores import count_cores

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

_MAX_EXPLAINED = 4  # faces of a photo, the largest ones
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src blob: data:; "
    "media-src blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Limits:
    """Limits of the requests.

    Args:
        upload_bytes: Size of an image file.
        upload_seconds: Duration of its upload.
        response_seconds: Time from the end of the upload to the response.
        requests: Number in work at a time; more are refused with status 503.
    """

    upload_bytes: int = 20 * 2**20
    upload_seconds: float = 30.0
    response_seconds: float = 60.0
    requests: int = 64


def build_app(
    predictor: Predictor,
    *,
    name: str,
    card: str | None = None,
    limits: Limits | None = None,
    hosts: Sequence[str] = LOOPBACK,
) -> Starlette:
    """Builds the web application; uploads are not stored.

    Args:
        predictor: Predicts the uploaded images.
        name: Name of the model.
        card: Its model card in Markdown, if there is one.
        limits: Limits of the requests; None: the defaults.
        hosts: Host names of valid requests, which keeps pages of other sites out; "*": any.
    """
    service = _Service(predictor, name, card, limits or Limits())
    return Starlette(
        routes=[
            Route("/", service.page),
            Route("/health", service.health),
            Route("/card", service.card),
            Route("/predict", service.predict, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={HTTPException: _report_error, Exception: _report_failure},
        lifespan=service.lifespan,
    )


class _Service:
    def __init__(self, predictor: Predictor, name: str, card: str | None, limits: Limits) -> None:
        self._predictor = predictor
        self._name = name
        self._card = card
        self._limits = limits
        self._page = _make_page(card)
        self._in_work = 0

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Starts the queue and predicts once, as a model's first prediction is slow."""
        self._queue = BatchQueue(self._predictor.classify)
        self._readers = ThreadPoolExecutor(count_cores(), "reader")
        worker = asyncio.create_task(self._queue.run())
        size = self._predictor.model.image_size
        await self._queue.classify(np.zeros((1, size, size, 3), np.uint8))
        yield
        worker.cancel()
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers=_HEADERS)

    async def health(self, request: Request) -> Response:
        return _json(
            {
                "status": "ok",
                "model": self._name,
                "classes": list(self._predictor.classes),
                "face_detector": self._predictor.search.settings.detector,
                "explains": self._predictor.explains,
                "in_work": self._in_work,
                "upload_bytes": self._limits.upload_bytes,
            }
        )

    async def card(self, request: Request) -> Response:
        if self._card is None:
            raise HTTPException(404, "This model came without a card.")
        return PlainTextResponse(self._card, media_type="text/markdown", headers=_HEADERS)

    async def predict(self, request: Request) -> Response:
        explained = request.query_params.get("explain") == "1"
        if explained and not self._predictor.explains:
            raise HTTPException(400, "This model is an export, which cannot be explained.")
        if self._in_work >= self._limits.requests:
            raise HTTPException(503, "Too many requests at a time.", {"Retry-After": "1"})
        self._in_work += 1
        try:
            data = await self._receive(request)
            async with asyncio.timeout(self._limits.response_seconds):
                return await self._predict(data, explained)
        except TimeoutError as error:
            raise HTTPException(
                503, "The prediction took too long.", {"Retry-After": "5"}
            ) from error
        finally:
            self._in_work -= 1

    async def _receive(self, request: Request) -> bytes:
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(415, "Send the image file itself as the body, not a form.")
        limit = self._limits.upload_bytes
        too_large = HTTPException(413, f"The image is larger than {limit / 2**20:g} MB.")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large
        data = bytearray()
        try:
            async with asyncio.timeout(self._limits.upload_seconds):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > limit:
                        raise too_large
        except TimeoutError as error:
            raise HTTPException(408, "The image took too long to arrive.") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "The connection ended before the image did.") from error
        if not data:
            raise HTTPException(400, "There is no image in the request. Send its file as the body.")
        return bytes(data)

    async def _predict(self, data: bytes, explained: bool) -> Response:
        loop = asyncio.get_running_loop()
        faces = await loop.run_in_executor(self._readers, self._predictor.look, "upload", data)
        if faces.missing == "unreadable":
            raise HTTPException(422, f"The image cannot be read: {faces.reason}.")
        rows = await self._queue.classify(faces.crops) if len(faces.crops) else np.zeros((0, 0))
        records = [as_record(prediction) for prediction in self._predictor.answer(faces, rows)]
        for record in records:
            del record["photo"]
        if explained:
            await self._explain(faces, records)
        return _json(
            {
                "model": self._name,
                "face_detector": self._predictor.search.settings.detector,
                "classes": list(self._predictor.classes),
                "predictions": records,
            }
        )

    async def _explain(self, faces: Faces, records: list[dict[str, Any]]) -> None:
        for crop, record in zip(faces.crops[:_MAX_EXPLAINED], records, strict=False):
            explanation = await self._queue.call(self._predictor.explain, crop)
            record["explained_label"] = explanation.label
            record["heat_maps"] = {
                name: f"data:image/png;base64,{base64.b64encode(picture).decode()}"
                for name, picture in draw_maps(crop, explanation).items()
            }


def _make_page(card: str | None) -> str:
    """Returns the page with the model card in it, if there is one."""
    page = files("ensemble.commands.serve").joinpath("page.html").read_text("utf-8")
    about = ""
    if card is not None:
        content = element("div", markdown_to_html(card), id="card")
        about = element("details", element("summary", "Model card"), content, class_="card")
    return page.replace("<!-- card -->", about)


def _report_error(_: Request, error: Exception) -> Response:
    """Responds to a request that cannot be served."""
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code, error.headers)


def _report_failure(_: Request, __: Exception) -> Response:
    """Responds to a failure of the server; Starlette logs the error itself."""
    return _json({"error": "The server failed; see its log."}, 500)


def _json(
    content: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return JSONResponse(content, status, headers={**_HEADERS, **(headers or {})})
