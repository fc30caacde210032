"""How long a fault is borne: the attempts of a call, the retries of a run, an endpoint away.

It sends nothing and waits for nobody.
"""

from tasks._llm.errors import CallFailed
from tasks._llm.orders import Order
from tasks._llm.retry import RULES, Action, Fault, backoff_s, fault_error
from tasks._llm.types import Endpoint, EngineSettings

_FIRST_CONNECT_SENDS = 3
_FIRST_CONNECT_S = 3.0


class Patience:
    """Turns the fault of one send into a pause, or into the error that ends the run."""

    def __init__(self, settings: EngineSettings, endpoint: Endpoint) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._answers = 0
        self._retries = 0
        self._refusals = 0
        self._gone_since_s: float | None = None
        self._has_answered = False

    def heard(self) -> None:
        """The endpoint replied, whatever it said."""
        self._answers += 1
        self._has_answered = True
        self._gone_since_s = None

    def pause_s(self, order: Order, fault: Fault, now_s: float) -> float:
        """Seconds until the order may be sent again.

        Args:
            order: What was sent; its faults are counted up.
            fault: What came back.
            now_s: The loop's clock.

        Raises:
            LlmError: the table says to stop, or patience is at its end.
        """
        rule, settings = RULES[fault.kind], self._settings
        key, sends = order.request.key, order.sends
        # A refused rate is the pacer's to deal with: the call itself need not wait ever longer.
        is_refused = rule.action is Action.RETRY_PATIENTLY
        pause_s = backoff_s(key, 1 if is_refused else sends, fault, settings)
        if rule.action is Action.RECONNECT:
            self._refusals += 1
            if self._gone_since_s is None:
                self._gone_since_s = now_s
            gone_s = now_s - self._gone_since_s
            if self._has_answered:
                is_over = gone_s > settings.unreachable_patience_s
            else:
                is_over = self._refusals >= _FIRST_CONNECT_SENDS or gone_s > _FIRST_CONNECT_S
        elif is_refused:
            if order.refused_since_s is None:
                order.refused_since_s = now_s
            waited_s = now_s - order.refused_since_s
            is_over = waited_s + pause_s > settings.rate_limit_patience_s
        elif rule.action is Action.RETRY:
            self._has_answered = True
            self._gone_since_s = None
            order.faults += 1
            is_over = order.faults >= settings.max_attempts
            is_over = is_over or pause_s > settings.rate_limit_patience_s
        else:
            is_over = True
        if is_over:
            raise fault_error(fault, self._endpoint, order.request.model, sends)
        if rule.action is Action.RETRY:
            self._count_retry(order, fault)
        return pause_s

    def _count_retry(self, order: Order, fault: Fault) -> None:
        self._retries += 1
        settings = self._settings
        allowed = settings.run_retries + settings.run_retry_share * self._answers
        if self._retries > allowed:
            last = fault_error(fault, self._endpoint, order.request.model, order.sends)
            raise CallFailed(
                f"Retry budget of the run: {self._retries} retries for {self._answers} replies; "
                f"expected at most {settings.run_retries} + {settings.run_retry_share:g} a reply; "
                f"the endpoint fails too often, finished calls are kept. Last: {last}"
            )
