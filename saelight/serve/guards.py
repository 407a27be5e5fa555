"""What every request passes: who may ask, from which page, with how much; and answers that are one clear line."""

import contextlib
import hashlib
import hmac
import ipaddress
import json
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ValidationError

from saelight.errors import UserError, did_you_mean

MOST_BYTES = 64 * 1024
"""Of a request's body."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Asked = TypeVar("Asked", bound=BaseModel)


class Refused(Exception):
    """A request that is answered by one line, and a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_names(host: str) -> set[str]:
    """The names by which a server bound to `host` may be called: else a page from elsewhere could have its own name lead
    here (DNS rebinding)."""
    if is_loopback(host):
        return {"localhost", "127.0.0.1", "::1", host}
    return {"localhost", "127.0.0.1", "::1", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


class Guard:
    """The middleware.

    Args:
        names: Hosts by which this server may be called.
        token: What a client has to show; None where everyone on this machine may read.
    """

    def __init__(self, names: Collection[str], token: str | None) -> None:
        self._names, self._token = names, token
        # A browser sends a cookie to all ports of a machine: another server's has another name.
        self._cookie = f"saelight-{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check, answer, and say in one line what went wrong."""
        try:
            self._check_origin(request)
            if (response := self._check_token(request)) is None:
                if (request.content_length or 0) > MOST_BYTES:
                    raise Refused(413, f"the body has {request.content_length} bytes: send at most {MOST_BYTES}")
                response = await handler(request)
        except web.HTTPException as error:
            response = _answer(error.status, _said(error, request))
        except Refused as error:
            response = _answer(error.status, str(error))
        except UserError as error:
            response = _answer(404 if request.method == "GET" else 400, str(error))
        except ConnectionError:
            raise  # the client has gone: there is nobody to answer
        except Exception:
            traceback.print_exc(file=sys.stderr)
            response = _answer(500, "the server failed at this request: its terminal says how")
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _check_origin(self, request: web.Request) -> None:
        host = _host(request.headers.get("Host", ""))
        literal = self._token is not None and _is_address(host)  # a name can lead anywhere, an address cannot
        if host not in self._names and not literal:
            raise Refused(
                403, f"this server is not called {host[:100]!r}: open it as localhost, or by the name it was given"
            )
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
            raise Refused(403, f"a page of {origin[:100]!r} may not ask this server: open the server's own page")

    def _check_token(self, request: web.Request) -> web.StreamResponse | None:
        """A redirect that keeps the token of a page's address as a cookie; None where the request may go on."""
        if self._token is None:
            return None
        in_address = request.query.get("token")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        for given in (in_address, bearer, request.cookies.get(self._cookie)):
            if given and hmac.compare_digest(given.encode(errors="replace"), self._token.encode()):
                break
        else:
            raise Refused(401, "no token, or a wrong one: open the address that the server printed, or send it as a Bearer")
        if in_address is None or request.path.startswith("/api/"):
            return None
        clean = request.rel_url.update_query({}).without_query_params("token")
        response = web.Response(status=303, headers={"Location": str(clean)})
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="Strict")
        return response


async def read_body(request: web.Request, model: type[Asked]) -> Asked:
    """The JSON that a request brings, as a `model`. Raises `Refused` for what is none."""
    if request.content_type != "application/json":
        raise Refused(415, f"Content-Type is {request.content_type}: send JSON, as application/json")
    try:
        content = json.loads(await request.text())
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON ({str(error)[:100]}): send one object") from None
    if not isinstance(content, dict):
        raise Refused(400, f"the body is no JSON object: send the fields {', '.join(model.model_fields)}")
    try:
        return model.model_validate(content, strict=True)
    except ValidationError as error:
        raise Refused(400, _first_problem(error, model)) from None


def one(request: web.Request, name: str) -> str:
    """A parameter that stands once. Raises `Refused`."""
    given = request.query.getall(name, [])
    if len(given) != 1:
        raise Refused(400, f"give one {name}")
    return given[0]


def json_of(answer: BaseModel, status: int = 200) -> web.Response:
    """A model as JSON."""
    return web.Response(text=answer.model_dump_json(), content_type="application/json", status=status)


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    found = error.errors(include_url=False, include_input=False)
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    field = str(first["loc"][0])[:60] if first["loc"] else "the body"
    if first["type"] == "extra_forbidden":
        near = did_you_mean(field, model.model_fields) or f": there are {', '.join(model.model_fields)}"
        return f"no field {field!r}{near}"
    return f"{field}: {first['msg'][:200]}"


def _answer(status: int, message: str) -> web.Response:
    line = " ".join(message.split())
    return web.json_response({"error": line}, status=status)


def _said(error: web.HTTPException, request: web.Request) -> str:
    if error.status == 404:
        return f"there is no {request.path[:100]}: GET /api/openapi.json lists what there is"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.path[:100]} takes {' or '.join(sorted(error.allowed_methods))}, not {request.method[:20]}"
    if error.status == 413:
        return f"the body is too large: send at most {MOST_BYTES} bytes"
    return error.reason


def _host(header: str) -> str:
    with contextlib.suppress(ValueError):
        return (urlsplit(f"//{header}").hostname or "").lower()
    return header


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
