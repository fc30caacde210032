"""Texts as token ids, end to end in one array, and padded batches of them; no network is known."""

from typing import NamedTuple

import numpy as np
import torch

from pref_model.errors import BadArray
from pref_model.types import Ints


class TokenTexts(NamedTuple):
    """R texts as token ids, laid end to end.

    Attributes:
        tokens: (T,) int64, ids of all texts.
        offsets: (R + 1,) int64, text r is tokens[offsets[r] : offsets[r + 1]].
        pool_start: (R,) int64, first token, counted within the text, that is the response.
        pool_stop: (R,) int64, one past the last of them; at least pool_start + 1.
    """

    tokens: Ints
    offsets: Ints
    pool_start: Ints
    pool_stop: Ints

    @property
    def lengths(self) -> Ints:
        """(R,) tokens a text."""
        result: Ints = np.diff(self.offsets)
        return result


def padded_length(length: int, multiple: int, most: int | None = None) -> int:
    """Return a length rounded up to a multiple, but not beyond `most`."""
    rounded = -(-length // multiple) * multiple
    return rounded if most is None else max(length, min(rounded, most))


class TokenBatch(NamedTuple):
    """Texts padded on the right.

    Attributes:
        ids: (B, L) int64.
        lengths: (B,) int64.
        pool_start: (B,) int64.
        pool_stop: (B,) int64.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    pool_start: torch.Tensor
    pool_stop: torch.Tensor

    def to(self, device: torch.device) -> "TokenBatch":
        """Return the batch on a device."""
        return TokenBatch(*(part.to(device, non_blocking=True) for part in self))


def make_token_texts(
    tokens: Ints, offsets: Ints, pool_start: Ints | None = None, pool_stop: Ints | None = None
) -> TokenTexts:
    """Check the arrays of some texts; by default a whole text is the response.

    Raises:
        BadArray: Offsets do not rise from 0 to T, or a response is empty or outside its text.
    """
    columns = [np.asarray(tokens), np.asarray(offsets)]
    if any(c.ndim != 1 or not np.issubdtype(c.dtype, np.integer) for c in columns):
        raise BadArray("texts: found tokens or offsets that are no flat integers, expected ids")
    ids, ends = (column.astype(np.int64) for column in columns)
    if ends.size == 0 or ends[0] != 0 or ends[-1] != ids.size or np.any(np.diff(ends) < 1):
        raise BadArray(
            f"texts: found offsets from {ends[:1]} to {ends[-1:]}, expected them to rise from 0 "
            f"to {ids.size}, the number of tokens, with no empty text"
        )
    lengths = np.diff(ends)
    start = np.zeros_like(lengths) if pool_start is None else np.asarray(pool_start, np.int64)
    stop = lengths if pool_stop is None else np.asarray(pool_stop, np.int64)
    if start.shape != lengths.shape or stop.shape != lengths.shape:
        raise BadArray(
            f"texts: found {start.shape} and {stop.shape} pooling bounds, expected {lengths.shape}"
        )
    if np.any(start < 0) or np.any(stop <= start) or np.any(stop > lengths):
        raise BadArray("texts: found an empty or outlying response, expected 0 <= start < stop")
    return TokenTexts(ids, ends, start, stop)


def pad_texts(
    texts: TokenTexts, rows: Ints, pad_id: int, multiple: int = 1, most: int | None = None
) -> TokenBatch:
    """Return some texts padded on the right to the longest, rounded up to a multiple.

    Rounding stops at `most`, the longest text that the network takes.
    """
    lengths = texts.lengths[rows]
    longest = padded_length(int(lengths.max(initial=1)), multiple, most)
    ids = np.full((rows.size, longest), pad_id, dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : lengths[place]] = texts.tokens[texts.offsets[row] : texts.offsets[row + 1]]
    columns = (ids, lengths, texts.pool_start[rows], texts.pool_stop[rows])
    return TokenBatch(*(torch.from_numpy(np.ascontiguousarray(column)) for column in columns))
