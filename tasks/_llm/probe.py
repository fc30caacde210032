"""Tells what an endpoint honors, refuses or silently ignores, from about a dozen small calls.

It keeps nothing: its calls are in no ledger, and no run uses their replies.
"""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import httpx2
import openai

from prompts.catalog import load_template
from prompts.verdict import Unparsed, Verdict, VerdictMenu, parse_verdict
from tasks._llm.client import ChatClient, HttpReply
from tasks._llm.errors import ModelUnknown, clean_line
from tasks._llm.probe_types import ABILITIES, Finding, ProbeResult, Standing
from tasks._llm.replies import Answer, read_reply
from tasks._llm.retry import RULES, Action, Fault, FaultKind, fault_error
from tasks._llm.types import Endpoint, EngineSettings

_TRIES = 3
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 20.0
_JUDGE_TOKENS = 32
_TALE_TOKENS = 60
# Open enough that a model which draws at random words it differently each time.
_TALE = "Make up a one-sentence story about an unusual animal with an unusual name."
_COLORS = ("red", "green", "blue")
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "color",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"color": {"type": "string", "enum": list(_COLORS)}},
            "required": ["color"],
            "additionalProperties": False,
        },
    },
}


class _Seen(NamedTuple):
    """One chat completion of the probe: what came, and the whole object where it was one."""

    answer: Answer | Fault
    data: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def choices(self) -> list[Any]:
        found = self.data.get("choices")
        return found if isinstance(found, list) else []

    @property
    def text(self) -> str | None:
        return self.answer.text if isinstance(self.answer, Answer) else None


def probe(
    endpoint: Endpoint,
    model: str,
    menu: VerdictMenu | None = None,
    *,
    wanted: Collection[str] = ABILITIES,
    timeout_s: float = 60.0,
) -> ProbeResult:
    """Asks an endpoint about a dozen small things.

    Args:
        endpoint: Where.
        model: Model to ask for.
        menu: What a judge may answer; None for that of the template ``judge_attributes``.
        wanted: Abilities to ask about; fewer need fewer calls, and some come with others.
        timeout_s: Longest that one call may take.

    Raises:
        LlmError: the endpoint cannot be reached, rejects the key, or does not serve the model.
    """
    return asyncio.run(_Probe(endpoint, model, menu, timeout_s).run(frozenset(wanted)))


class _Probe:
    def __init__(
        self, endpoint: Endpoint, model: str, menu: VerdictMenu | None, timeout_s: float
    ) -> None:
        template = load_template("judge_attributes")
        if menu is None and template.menu is None:
            raise ModelUnknown("Template judge_attributes: it has no menu; expected one")
        self._menu = menu or template.menu
        self._judge = template.render(
            persona="likes polite answers",
            prompt="How do I boil an egg?",
            response_1="Thank you for asking! Please boil it for eight minutes.",
            response_2="Boil it. Eight minutes.",
        )
        self._endpoint = endpoint
        self._model = model
        self._timeout_s = timeout_s
        self._settings = EngineSettings(timeout_s=timeout_s, max_in_flight=4)
        self._client: ChatClient | None = None
        self._n_calls = 0

    async def run(self, wanted: frozenset[str]) -> ProbeResult:
        self._client = ChatClient(self._endpoint, self._settings)
        try:
            first = await self._ask(self._judge, temperature=0, max_tokens=_JUDGE_TOKENS)
            if isinstance(first.answer, Fault):
                # The very first and plainest request fails: there is nothing to probe.
                raise fault_error(first.answer, self._endpoint, self._model, 1)
            findings = [
                Finding("answers", Standing.HONORED, _quoted(first.text)),
                self._judge_parses(first),
                _usage(first),
                _rate_headers(first),
            ]
            if not wanted.isdisjoint(("logprobs", "verdict_logprobs")):
                logprobs = await self._ask(
                    self._judge,
                    temperature=0,
                    max_tokens=_JUDGE_TOKENS,
                    logprobs=True,
                    top_logprobs=5,
                )
                findings += [_logprobs(logprobs), self._verdict_logprobs(logprobs)]
            asked = {
                "n": self._n,
                "seed": self._seed,
                "repeatable": self._repeatable,
                "response_format": self._response_format,
                "max_tokens": self._max_tokens,
            }
            findings += [await ask() for name, ask in asked.items() if name in wanted]
        finally:
            await self._client.close()
        date = None
        if not wanted.isdisjoint(("batch", "models")):
            batch, models, date = await asyncio.to_thread(self._ask_aside)
            findings += [batch, models]
        told = tuple(sorted(findings, key=lambda one: ABILITIES.index(one.name)))
        return ProbeResult(self._endpoint.shown_url, self._model, told, date, self._n_calls)

    async def _ask(self, messages: str | Sequence[Any], **fields: object) -> _Seen:
        """One call; a fault that passes by is given two more chances."""
        assembled = [{"role": "user", "content": messages}] if isinstance(messages, str) else None
        body = json.dumps(
            {"model": self._model, "messages": assembled or list(messages), **fields}
        ).encode()
        seen = _Seen(Fault(FaultKind.TIMEOUT, "not sent"), {}, {})
        for number in range(_TRIES):
            if self._client is None:
                break
            self._n_calls += 1
            result = await self._client.send(body)
            seen = _seen(result)
            fault = seen.answer
            if not isinstance(fault, Fault) or RULES[fault.kind].action is Action.STOP:
                break
            if number < _TRIES - 1:
                pause_s = (fault.retry_after_s or 0.0) + _PAUSE_S * 0.2 * (number + 1)
                await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))
        return seen

    def _judge_parses(self, seen: _Seen) -> Finding:
        verdict = self._parse(seen)
        if isinstance(verdict, Verdict):
            form = "exact" if verdict.is_exact else "tolerated"
            return Finding("judge_parses", Standing.HONORED, f"{form}: {_quoted(seen.text)}")
        evidence = f"{verdict.reason}: {_quoted(seen.text)}"
        return Finding("judge_parses", Standing.IGNORED, evidence)

    def _parse(self, seen: _Seen) -> Verdict | Unparsed:
        if self._menu is None:
            return Unparsed("no_verdict")
        reason = seen.answer.finish_reason if isinstance(seen.answer, Answer) else None
        return parse_verdict(seen.text or "", self._menu, is_truncated=reason == "length")

    def _verdict_logprobs(self, seen: _Seen) -> Finding:
        name = "verdict_logprobs"
        if isinstance(seen.answer, Fault):
            return _of_fault(name, seen.answer)
        tokens = _tokens(seen)
        options = {option.strip() for option in self._menu.options} if self._menu else set()
        for token in reversed(tokens):
            if str(token.get("token", "")).strip() not in options:
                continue
            rivals = token.get("top_logprobs")
            listed = rivals if isinstance(rivals, list) else []
            named = {str(one.get("token", "")).strip() for one in listed if isinstance(one, dict)}
            found = sorted(named & options)
            if len(found) == len(options):
                return Finding(name, Standing.HONORED, "every option has a probability")
            evidence = f"only {', '.join(found) or 'none'} of the options is listed"
            return Finding(name, Standing.UNCLEAR, evidence)
        if not tokens:
            return Finding(name, Standing.IGNORED, "no logprobs in the reply")
        return Finding(name, Standing.UNCLEAR, "no token of the reply is an option")

    async def _n(self) -> Finding:
        seen = await self._ask(_TALE, n=2, max_tokens=_TALE_TOKENS)
        if isinstance(seen.answer, Fault):
            return _of_fault("n", seen.answer)
        n = len(seen.choices)
        standing = Standing.HONORED if n == 2 else Standing.IGNORED
        return Finding("n", standing, f"{n} of 2 choices came")

    async def _seed(self) -> Finding:
        fields = {"temperature": 1, "max_tokens": _TALE_TOKENS}
        seen = [await self._ask(_TALE, seed=seed, **fields) for seed in (11, 11, 12)]
        for one in seen:
            if isinstance(one.answer, Fault):
                return _of_fault("seed", one.answer)
        same, other = seen[0].text == seen[1].text, seen[0].text != seen[2].text
        if same and other:
            return Finding("seed", Standing.HONORED, "one seed, one text; another, another")
        if same:
            return Finding("seed", Standing.UNCLEAR, "the text is the same with any seed")
        return Finding("seed", Standing.IGNORED, "two texts with one seed")

    async def _repeatable(self) -> Finding:
        fields = {"temperature": 0, "max_tokens": _TALE_TOKENS}
        seen = [await self._ask(_TALE, **fields) for _ in range(3)]
        for one in seen:
            if isinstance(one.answer, Fault):
                return _of_fault("repeatable", one.answer)
        n = len({one.text for one in seen})
        standing = Standing.HONORED if n == 1 else Standing.IGNORED
        return Finding("repeatable", standing, f"{n} different texts of 3 at temperature 0")

    async def _response_format(self) -> Finding:
        seen = await self._ask(
            "Name one color that you like in a short sentence.",
            response_format=_SCHEMA,
            max_tokens=_TALE_TOKENS,
        )
        if isinstance(seen.answer, Fault):
            return _of_fault("response_format", seen.answer)
        try:
            color = json.loads(seen.text or "").get("color")
        except (ValueError, AttributeError, RecursionError):
            color = None
        standing = Standing.HONORED if color in _COLORS else Standing.IGNORED
        return Finding("response_format", standing, _quoted(seen.text))

    async def _max_tokens(self) -> Finding:
        seen = await self._ask(_TALE, max_tokens=3)
        if isinstance(seen.answer, Fault):
            return _of_fault("max_tokens", seen.answer)
        reason, text = seen.answer.finish_reason, seen.text or ""
        is_cut = reason == "length" or len(text) < 40
        standing = Standing.HONORED if is_cut else Standing.IGNORED
        return Finding("max_tokens", standing, f"3 tokens asked, {len(text)} characters came")

    def _ask_aside(self) -> tuple[Finding, Finding, str | None]:
        """What is beside chat: the list of batches, and that of models."""
        key = self._endpoint.api_key
        # The proxy of the environment is the engine's business; a probe of two requests does
        # without it where the host is this machine.
        with openai.OpenAI(
            api_key=(key.reveal() if key else "") or "no-key-needed",
            base_url=self._endpoint.base_url,
            max_retries=1,
            timeout=self._timeout_s,
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False, trust_env=not _is_loopback(self._endpoint.host)
            ),
        ) as sdk:
            listed = _get(sdk, "/batches", {"limit": 1})
            if isinstance(listed.get("data"), list):
                batch = Finding("batch", Standing.HONORED, "GET /batches lists batches")
            else:
                batch = Finding("batch", Standing.REFUSED, _said(listed))
            models = _get(sdk, "/models", {})
        cards = models.get("data")
        if not isinstance(cards, list):
            return batch, Finding("models", Standing.REFUSED, _said(models)), None
        named = [one for one in cards if isinstance(one, dict) and one.get("id") == self._model]
        if not named:
            evidence = f"{len(cards)} models, this one not among them"
            return batch, Finding("models", Standing.UNCLEAR, evidence), None
        date = named[0].get("shutdown_date")
        evidence = f"{len(cards)} models, this one among them"
        shown = clean_line(str(date), 40) if date else None
        return batch, Finding("models", Standing.HONORED, evidence), shown


def _seen(result: HttpReply | Fault) -> _Seen:
    if isinstance(result, Fault):
        return _Seen(result, {}, {})
    answer = read_reply(result.status, result.body, result.headers)
    try:
        data = json.loads(result.body.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        data = {}
    return _Seen(answer, data if isinstance(data, dict) else {}, result.headers)


def _usage(seen: _Seen) -> Finding:
    if isinstance(seen.answer, Answer) and seen.answer.prompt_tokens is not None:
        counted = f"{seen.answer.prompt_tokens} + {seen.answer.completion_tokens} tokens"
        return Finding("usage", Standing.HONORED, counted)
    return Finding("usage", Standing.IGNORED, "no counts of tokens: the cost cannot be known")


def _tokens(seen: _Seen) -> list[dict[str, Any]]:
    choice = seen.choices[0] if seen.choices else None
    logprobs = choice.get("logprobs") if isinstance(choice, dict) else None
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def _logprobs(seen: _Seen) -> Finding:
    if isinstance(seen.answer, Fault):
        return _of_fault("logprobs", seen.answer)
    tokens = _tokens(seen)
    if not tokens:
        return Finding("logprobs", Standing.IGNORED, "no logprobs in the reply")
    return Finding("logprobs", Standing.HONORED, f"{len(tokens)} tokens have theirs")


def _rate_headers(seen: _Seen) -> Finding:
    names = sorted(
        name.lower() for name in seen.headers if "ratelimit" in name.lower().replace("-", "")
    )
    if not names:
        return Finding("rate_headers", Standing.IGNORED, "none: limits are met, not read")
    return Finding("rate_headers", Standing.HONORED, clean_line(", ".join(names), 120))


def _of_fault(name: str, fault: Fault) -> Finding:
    is_refused = RULES[fault.kind].action is Action.STOP
    standing = Standing.REFUSED if is_refused else Standing.UNCLEAR
    status = f"HTTP {fault.status}: " if fault.status else ""
    return Finding(name, standing, f"{status}{clean_line(fault.message, 120)}")


def _get(sdk: openai.OpenAI, path: str, query: Mapping[str, object]) -> dict[str, Any]:
    """The object at a path, or one with the name "said" that tells what came instead."""
    try:
        response = sdk.get(path, cast_to=httpx2.Response, options={"params": dict(query)})
    except openai.APIStatusError as error:
        return {"said": f"HTTP {error.status_code}"}
    except (openai.OpenAIError, httpx2.HTTPError) as error:
        return {"said": type(error).__name__}
    try:
        data = json.loads(response.content.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return {"said": "no JSON"}
    return data if isinstance(data, dict) else {"said": "no JSON object"}


def _said(found: Mapping[str, Any]) -> str:
    return str(found.get("said", "no list in the reply"))


def _quoted(text: str | None) -> str:
    return "no text" if text is None else repr(clean_line(text, 60))


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
