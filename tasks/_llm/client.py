"""One HTTP exchange with an OpenAI-compatible endpoint, raw bytes out.

It retries nothing and parses nothing.
"""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

import aiohttp
import httpx2
import openai

from tasks._llm.retry import Fault, FaultKind
from tasks._llm.types import Endpoint, EngineSettings

# The SDK refuses to be built without a key; servers that want none ignore this one.
_NO_KEY = "no-key-needed"


class HttpReply(NamedTuple):
    """What came back: status, headers (case-insensitive), raw body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ChatClient:
    """The SDK in its fast form: aiohttp transport, pre-serialized body, no typed reply.

    Must be used from one event loop. Faults are values, not exceptions: an exception of the SDK
    carries the request with its headers, and through tracebacks the key would get about.
    """

    def __init__(self, endpoint: Endpoint, settings: EngineSettings) -> None:
        self._endpoint = endpoint
        self._timeout_s = settings.timeout_s
        key = endpoint.api_key
        timeout = httpx2.Timeout(settings.timeout_s, connect=settings.connect_timeout_s)
        # What is left out here is copied deeply for every call.
        self._options: openai.RequestOptions = {
            "max_retries": 0,
            "timeout": timeout,
            "headers": {},
            "params": {},
        }
        self._sdk = _Sdk(
            api_key=(key.reveal() if key else "") or _NO_KEY,
            base_url=endpoint.base_url,
            max_retries=0,
            timeout=timeout,
            http_client=_Http(
                limits=httpx2.Limits(max_connections=settings.max_in_flight),
                # A redirect would carry key and prompt to a host nobody named.
                follow_redirects=False,
                # A proxy from the environment must not stand before this very machine.
                trust_env=not _is_loopback(endpoint.host),
            ),
        )

    async def send(self, body: bytes) -> HttpReply | Fault:
        """Posts one chat completion.

        Args:
            body: JSON, as `CallRequest.body` writes it.

        Returns:
            The reply of whatever status, or the transport's fault.
        """
        try:
            # The SDK's read timeout is between two bytes; a reply that trickles needs this one.
            async with asyncio.timeout(self._timeout_s):
                response = await self._sdk.post(
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    content=body,
                    options=self._options,
                )
        except openai.APIStatusError as error:
            response = error.response
        except (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
            # TimeoutError is an OSError.
            return self._transport_fault(error)
        except ValueError as error:
            # aiohttp and httpx2 raise bare ones for a status line or header they cannot read.
            return self._fault(FaultKind.CONNECTION_LOST, f"unreadable reply: {error}")
        key = self._endpoint.api_key
        content = key.scrub_bytes(response.content) if key else response.content
        return HttpReply(response.status_code, response.headers, content)

    async def close(self) -> None:
        """Closes all connections."""
        await self._sdk.close()

    def _fault(self, kind: FaultKind, message: str) -> Fault:
        key = self._endpoint.api_key
        return Fault(kind, key.scrub(message) if key else message)

    def _transport_fault(self, error: BaseException) -> Fault:
        # The SDK reports a refused connection and a dropped one as "Request timed out": its
        # aiohttp bridge maps both to a timeout. The truth is further down the chain.
        chain = _causes(error)
        for cause in chain:
            if isinstance(cause, aiohttp.ClientConnectorDNSError):
                return self._fault(FaultKind.NAME_UNKNOWN, str(cause))
            if isinstance(cause, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
                return self._fault(FaultKind.TLS, str(cause))
            if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                return self._fault(FaultKind.UNREACHABLE, str(cause))
        for cause in chain:
            if isinstance(cause, aiohttp.ServerDisconnectedError):
                return self._fault(FaultKind.CONNECTION_LOST, "the server closed the connection")
            if isinstance(cause, aiohttp.ClientPayloadError | ConnectionError):
                return self._fault(FaultKind.CONNECTION_LOST, str(cause))
        if any(isinstance(cause, TimeoutError) for cause in chain):
            return self._fault(FaultKind.TIMEOUT, f"no whole reply within {self._timeout_s:g} s")
        last = chain[-1]
        return self._fault(FaultKind.CONNECTION_LOST, f"{type(last).__name__}: {last}")


class _Sdk(openai.AsyncOpenAI):
    """The SDK's client with the address of a path worked out once, a tenth of a call's cost."""

    _prepared: tuple[str, httpx2.URL] | None = None

    def _prepare_url(self, url: str) -> httpx2.URL:
        if self._prepared is None or self._prepared[0] != url:
            self._prepared = url, super()._prepare_url(url)
        return self._prepared[1]


class _Http(openai.DefaultAioHttpClient):
    """The SDK's aiohttp client, which is handed the same address as text with every call."""

    def build_request(self, method: str, url: httpx2.URL | str, **fields: Any) -> httpx2.Request:
        return super().build_request(method, _parsed(str(url)), **fields)


@lru_cache(maxsize=64)
def _parsed(url: str) -> httpx2.URL:
    return httpx2.URL(url)


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 12:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
