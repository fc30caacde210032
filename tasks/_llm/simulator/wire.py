"""OpenAI's wire format: reading a chat request, writing a completion, a model list, an error.

It opens no socket and writes no answers. What it cannot honor it refuses: a server that says 200
and ignores half of the request misleads whoever tests against it.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks._llm.simulator.judge import JUDGE_MODELS
from tasks._llm.simulator.messages import content_text
from tasks._llm.simulator.responder import RESPONDER_MODEL

MODELS = (RESPONDER_MODEL, *JUDGE_MODELS)

# A fixed time: a reply must be the same bytes whenever it is given.
CREATED = 1_767_225_600

_MAX_CHOICES = 128
_MAX_TOP_LOGPROBS = 20
# What OpenAI writes for a probability of zero, since JSON has no -Infinity.
_LOG_ZERO = -9999.0

# Our own pieces of text; no vocabulary is behind them. Joined they give the text back.
_PIECE = re.compile(r"\n+| ?[^\W\d_]+| ?[^\s\w]|[\d]| ?_|\s", re.UNICODE)
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class WireError(Exception):
    """A request that is answered with an error body.

    Attributes:
        status: HTTP status.
        message: What a client reads.
        kind: OpenAI's error type.
        param: The field at fault, if one is.
        code: OpenAI's error code, if it has one.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code

    def body(self) -> bytes:
        """Return the error as OpenAI's JSON."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()


@dataclass(frozen=True)
class ChatRequest:
    """The part of a chat request that changes the reply.

    Attributes:
        model: One of `MODELS`.
        messages: The messages, as sent.
        n: Number of choices.
        max_tokens: Where a choice is cut, or None.
        has_logprobs: Whether log probabilities are asked for.
        top_logprobs: Number of alternatives per token.
        seed: The request's own seed, or None.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    n: int
    max_tokens: int | None
    has_logprobs: bool
    top_logprobs: int
    seed: int | None


class Choice(NamedTuple):
    """One answer and, for a judge's verdict, how probable each option was.

    Attributes:
        text: The whole answer, before it is cut.
        options: Option → its probability; empty where the answer has no verdict.
    """

    text: str
    options: Mapping[str, float]


def parse_chat_request(body: bytes) -> ChatRequest:
    """Read and check a chat request.

    Raises:
        WireError: If the body is no JSON object, lacks messages, names an unknown model, or asks
            for something that the simulator does not do.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise WireError(400, "The body of the request is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise WireError(400, "The body of the request is not a JSON object.")
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise WireError(400, "Missing required parameter: 'model'.", param="model")
    _check_messages(fields.get("messages"))
    if model not in MODELS:
        raise model_not_found(model)
    for name, wanted in (("stream", "false"), ("tools", "nothing"), ("functions", "nothing")):
        if fields.get(name):
            raise WireError(
                400,
                f"Unsupported value: '{name}' is not simulated; send {wanted}.",
                param=name,
                code="unsupported_value",
            )
    max_tokens = _integer(fields, "max_completion_tokens", 1, None)
    if max_tokens is None:
        max_tokens = _integer(fields, "max_tokens", 1, None)
    has_logprobs = fields.get("logprobs") or False
    if not isinstance(has_logprobs, bool):
        raise WireError(400, "Invalid type for 'logprobs': expected a boolean.", param="logprobs")
    top_logprobs = _integer(fields, "top_logprobs", 0, _MAX_TOP_LOGPROBS)
    if top_logprobs is not None and not has_logprobs:
        raise WireError(
            400, "'top_logprobs' is allowed only with 'logprobs': true.", param="top_logprobs"
        )
    return ChatRequest(
        model=model,
        messages=fields["messages"],
        n=_integer(fields, "n", 1, _MAX_CHOICES) or 1,
        max_tokens=max_tokens,
        has_logprobs=has_logprobs,
        top_logprobs=top_logprobs or 0,
        seed=_integer(fields, "seed", None, None),
    )


def _check_messages(messages: object) -> None:
    if messages is None:
        raise WireError(400, "Missing required parameter: 'messages'.", param="messages")
    if not isinstance(messages, list) or not messages:
        raise WireError(
            400, "Invalid 'messages': expected an array of at least one.", param="messages"
        )
    for place, message in enumerate(messages):
        param = f"messages[{place}]"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise WireError(
                400,
                f"Invalid '{param}': expected an object with a role of {', '.join(_ROLES)}.",
                param=param,
            )
        if not isinstance(message.get("content"), str | list):
            raise WireError(
                400,
                f"Invalid '{param}.content': expected a text or an array of parts.",
                param=f"{param}.content",
            )


def _integer(fields: Mapping[str, Any], name: str, low: int | None, high: int | None) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or (low is not None and value < low) or (high is not None and value > high):
        least = "" if low is None else f" of at least {low}"
        most = "" if high is None else f" and at most {high}"
        raise WireError(
            400, f"Invalid value for '{name}': expected an integer{least}{most}.", param=name
        )
    return int(value)


def model_not_found(model: str) -> WireError:
    """Return the error for a model that is not served."""
    return WireError(
        404,
        f"The model `{model}` does not exist here; this simulation serves {', '.join(MODELS)}.",
        code="model_not_found",
    )


def invalid_api_key() -> WireError:
    """Return the error for a missing or different key; it repeats nothing of the key."""
    return WireError(401, "Incorrect API key provided.", code="invalid_api_key")


def pieces_of(text: str) -> list[str]:
    """Cut a text into the pieces that count as its tokens; joined they give it back."""
    return _PIECE.findall(text)


def completion_body(
    request: ChatRequest, choices: Sequence[Choice], reply_id: str, system_fingerprint: str
) -> bytes:
    """Return the JSON of a chat completion."""
    written = []
    n_completion = 0
    for index, choice in enumerate(choices):
        pieces = pieces_of(choice.text)
        is_cut = request.max_tokens is not None and len(pieces) > request.max_tokens
        if is_cut:
            pieces = pieces[: request.max_tokens]
        n_completion += len(pieces)
        logprobs = None
        if request.has_logprobs:
            logprobs = {"content": _logprobs(pieces, choice, request), "refusal": None}
        text = "".join(pieces) if is_cut else choice.text
        written.append(
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": logprobs,
                "finish_reason": "length" if is_cut else "stop",
            }
        )
    # About four characters a token, and a few tokens around every message.
    n_prompt = sum(4 + (len(content_text(one)) + 3) // 4 for one in request.messages)
    completion = {
        "id": f"chatcmpl-{reply_id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": request.model,
        "choices": written,
        "usage": {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_completion,
            "total_tokens": n_prompt + n_completion,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "system_fingerprint": system_fingerprint,
    }
    return json.dumps(completion, ensure_ascii=False).encode("utf-8", "replace")


def _logprobs(pieces: Sequence[str], choice: Choice, request: ChatRequest) -> list[dict[str, Any]]:
    # The last piece that is an option is the verdict; every other piece was certain.
    places = [place for place, piece in enumerate(pieces) if piece in choice.options]
    verdict = places[-1] if places else -1
    content = []
    for place, piece in enumerate(pieces):
        rivals = dict(choice.options) if place == verdict else {piece: 1.0}
        ranked = sorted(rivals.items(), key=lambda item: (-item[1], item[0]))
        content.append(
            {
                **_token(piece, rivals[piece]),
                "top_logprobs": [_token(*rival) for rival in ranked[: request.top_logprobs]],
            }
        )
    return content


def _token(piece: str, probability: float) -> dict[str, Any]:
    logprob = math.log(probability) if probability > 0.0 else _LOG_ZERO
    return {
        "token": piece,
        "logprob": logprob,
        "bytes": list(piece.encode("utf-8", "replace")),
    }


def model_card(model: str, shutdown_date: str = "") -> dict[str, Any]:
    """Return one entry of the list of models."""
    card = {"id": model, "object": "model", "created": CREATED, "owned_by": "simulation"}
    return {**card, "shutdown_date": shutdown_date} if shutdown_date else card


def model_list_body(shutdown_date: str = "") -> bytes:
    """Return the JSON of the list of models."""
    cards = [model_card(model, shutdown_date) for model in MODELS]
    return json.dumps({"object": "list", "data": cards}).encode()
