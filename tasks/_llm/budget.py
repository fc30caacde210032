"""Hard caps of calls and money.

It reserves worst cases and settles them; it knows no call and waits for nobody.
"""

from tasks._llm.batch_types import BatchSettings
from tasks._llm.errors import BudgetReached, PriceUnknown
from tasks._llm.prices import PriceTable
from tasks._llm.types import CallRequest, EngineSettings

# Role, separators and the like cost a few tokens a message that no text shows.
_TOKENS_PER_MESSAGE = 16


class Budget:
    """What one engine may still spend. Used from one thread only.

    A send reserves its worst case before it leaves. An answer with a known cost replaces the
    reservation; where the bill is not known (no usage, a reply that never came back) the worst
    case stays spent, so that the cap holds whatever the provider charges.
    """

    def __init__(self, settings: EngineSettings, prices: PriceTable) -> None:
        self._settings = settings
        self._prices = prices
        self._calls = 0
        self._spent_usd = 0.0
        self._reserved_usd = 0.0

    def worst_case_usd(self, request: CallRequest, body: bytes) -> float:
        """The most one send can cost; see the function of this name."""
        return worst_case_usd(self._settings, self._prices, request, body)

    def take_call(self) -> None:
        """Counts one more bought call.

        Raises:
            BudgetReached: the cap of calls is used up.
        """
        cap = self._settings.max_calls
        if cap is not None and self._calls >= cap:
            raise BudgetReached(
                f"Cap of {cap} calls: all are used and more are wanted; finished calls are kept; "
                "raise the cap and run again to go on"
            )
        self._calls += 1

    def give_call_back(self) -> None:
        """Takes back what `take_call` counted: another process bought it."""
        self._calls -= 1

    def reserve(self, worst_case_usd: float) -> bool:
        """Sets money aside for one send.

        Returns:
            False where calls on the wire must settle first.

        Raises:
            BudgetReached: nothing is on the wire and the send may still exceed the cap.
        """
        cap = self._settings.max_cost_usd
        if cap is None:
            return True
        if self._spent_usd + self._reserved_usd + worst_case_usd <= cap:
            self._reserved_usd += worst_case_usd
            return True
        if self._reserved_usd > 0:
            return False
        raise BudgetReached(
            f"Cap of US$ {cap:g}: US$ {self._spent_usd:.4f} are spent and the next call may cost "
            f"US$ {worst_case_usd:.4f}; finished calls are kept; raise the cap and run again"
        )

    def settle(self, worst_case_usd: float, cost_usd: float | None) -> None:
        """Replaces a reservation by what the send cost; None where that is not known."""
        if self._settings.max_cost_usd is None:
            return
        # Sums of floats leave crumbs, and a crumb would read as a call still on the wire.
        self._reserved_usd = max(self._reserved_usd - worst_case_usd, 0.0)
        if self._reserved_usd < 1e-9:
            self._reserved_usd = 0.0
        self._spent_usd += worst_case_usd if cost_usd is None else cost_usd


def worst_case_usd(
    settings: EngineSettings | BatchSettings,
    prices: PriceTable,
    request: CallRequest,
    body: bytes,
) -> float:
    """The most one call can cost: a token a byte in, the longest reply out; 0 without a cap.

    Raises:
        PriceUnknown: there is a money cap, and the model has no price.
    """
    if settings.max_cost_usd is None:
        return 0.0
    price = prices.lookup(request.model)
    if price is None:
        raise PriceUnknown(
            f"Cap of US$ {settings.max_cost_usd:g}: it cannot be kept. "
            + prices.how_to_add(request.model)
        )
    limits = [
        limit
        for name in ("max_tokens", "max_completion_tokens")
        if isinstance(limit := request.sampling.get(name), int)
    ]
    n_completion = max(limits, default=settings.assumed_completion_tokens)
    n_prompt = len(body) + _TOKENS_PER_MESSAGE * len(request.messages)
    is_batch = isinstance(settings, BatchSettings)
    return price.cost_usd(n_prompt, n_completion, is_batch=is_batch) or 0.0
