"""How calls are cut into files, and what may still be spent on them.

It sends nothing and stores nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tasks._llm.batch_store import NewLine
from tasks._llm.batch_types import BatchSettings
from tasks._llm.budget import worst_case_usd
from tasks._llm.errors import BudgetReached, RequestInvalid
from tasks._llm.prices import PriceTable
from tasks._llm.types import CallRequest

_REST = 0.1


def groups_of(
    lines: Iterable[tuple[str, str, int]], max_lines: int, max_bytes: int
) -> Iterator[tuple[str, list[str]]]:
    """Cuts lines into files: one model each, and neither too many lines nor too many bytes.

    Args:
        lines: (model, key, bytes), sorted by model.
        max_lines: Lines in a file.
        max_bytes: Size of a file.

    Yields:
        (model, keys) of each file.
    """
    keys: list[str] = []
    size, current = 0, ""
    for model, key, n_bytes in lines:
        if keys and (model != current or len(keys) == max_lines or size + n_bytes > max_bytes):
            yield current, keys
            keys, size = [], 0
        current = model
        keys.append(key)
        size += n_bytes
    if keys:
        yield current, keys


class Caps:
    """Hard caps of one buyer, over calls that are new; what is out already is spent already.

    A call counts with the most it can cost until its reply tells what it did cost, since a batch
    that is sent cannot be stopped at a sum.
    """

    def __init__(self, settings: BatchSettings, prices: PriceTable) -> None:
        self._settings = settings
        self._prices = prices
        self._calls = 0
        self._spent_usd = 0.0
        self._worst_usd: dict[str, float] = {}

    def admit(self, request: CallRequest) -> bytes:
        """Takes one call below the caps.

        Returns:
            Its body.

        Raises:
            BudgetReached: it does not fit.
            PriceUnknown: there is a cap of money, and the model has no price.
        """
        body = request.body()
        cap = self._settings.max_calls
        if cap is not None and self._calls >= cap:
            raise BudgetReached(
                f"Cap of {cap} calls: all are used and more are wanted; finished calls are kept; "
                "raise the cap and run again to go on"
            )
        worst_usd = worst_case_usd(self._settings, self._prices, request, body)
        cap_usd = self._settings.max_cost_usd
        if cap_usd is not None and self._spent_usd + worst_usd > cap_usd:
            raise BudgetReached(
                f"Cap of US$ {cap_usd:g}: the calls sent come to US$ {self._spent_usd:.4f} at most "
                f"and the next one to US$ {worst_usd:.4f}; finished calls are kept; raise the cap "
                "and run again"
            )
        self._calls += 1
        self._spent_usd += worst_usd
        if cap_usd is not None:
            self._worst_usd[request.key] = worst_usd
        return body

    def settle(self, bought: Mapping[str, float | None]) -> None:
        """Counts calls with what they cost in US$; None, or a call not named: still the most."""
        for key, cost_usd in bought.items():
            worst_usd = self._worst_usd.pop(key, None)
            if worst_usd is not None and cost_usd is not None:
                self._spent_usd += cost_usd - worst_usd

    def is_worth_a_round(self) -> bool:
        """Whether more batches can go out now that earlier ones are settled.

        A batch may take a day: the last tenth of a cap of money is not spent in ever smaller ones.
        """
        cap, cap_usd = self._settings.max_calls, self._settings.max_cost_usd
        has_calls = cap is None or self._calls < cap
        return has_calls and cap_usd is not None and self._spent_usd <= (1 - _REST) * cap_usd

    def check_sizes(self, lines: Sequence[NewLine]) -> None:
        """Refuses a call that fits into no file.

        Raises:
            RequestInvalid: a line is longer than a file may be.
        """
        for line in lines:
            if line.n_bytes > self._settings.max_bytes:
                raise RequestInvalid(
                    f"Call {line.request_key[:12]}: its line has {line.n_bytes} bytes; expected "
                    f"at most {self._settings.max_bytes}, the size of a batch file; shorten it"
                )
