"""The compiled part of the histories: pure functions of arrays.

An event is three int64 words: (high bits of the cents << 43 | time_ms << 1 | known fraud), (low 31 bits of the cents <<
32 | low half of the counterpart's hash), and the transaction's 64-bit identity; earlier versions, whose cents had 31
bits, wrote the same. A key's events are kept in order of (time, identity) in pages of EVENTS, chained from the newest
to the oldest; an event's ordinal says which page (a block of the changelog) it is on, and every page but the first and
the last is full.

    pages  int64 [P, WORDS]: (previous page << 1 | changed since the last drain), then EVENTS events. Page 0 is not a
    page:
                             it holds the first free page, the number of pages ever used, and a counter of uses.
    slots  int64 [S, COLUMNS]: one row a key

All of it stands in one file, because numba's cache looks only at the file of the function called: compiled code would
outlive a change of another file. Only the features' places come from another one, and `compiled` knows them.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from featherweight.apps.fraud.features.catalogue import CUSTOMER, TERMINAL
from featherweight.core.arrays import FeatureRow, Words
from featherweight.core.compiled import compiled

kernel = compiled(constants=(CUSTOMER, TERMINAL))
"""What every function here is compiled by: anew when a feature is added, taken away or moved."""


EVENTS: Final = 8
WORDS: Final = 1 + 3 * EVENTS
TIME_BITS: Final = 42
"""Bits of a time in milliseconds since 1970: up to the year 2109."""
LOW_BITS: Final = 31
CENTS_BITS: Final = 50
"""Five times the sum of BOUND amounts is still an int64: `usual_amounts` needs that."""
WHEN: Final = (1 << TIME_BITS + 1) - 1
"""The bits of time and fraud in the first word."""
BOUND: Final = 1024
"""Events that a key keeps: then the oldest is forgotten."""

TAIL, COUNT, FIRST, SENT_FROM, SENT_TO, CHANGED, USED, NEAR = range(8)
"""The newest page; events held; ordinal of the oldest; blocks that the changelog has, [from, to); is it queued; the
place of its last use among all uses, from 1 on; then the newest pages, two a word, which only `touch` reads."""
USES: Final = 3
"""The word of page 0 that counts uses."""
TOUCHED: Final = 8
COLUMNS: Final = NEAR + TOUCHED // 2

SEEN, QUEUE, FULL, OTHER, LATE = 1, 2, 4, 8, 16
"""What `advance_*` and `apply_label` return, added up: the event was there; the key has to be queued for the changelog;
the last free page has been taken; what was there has another time, amount or counterpart; the event came so late that
what its windows held may be forgotten in part."""

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
LONGEST: Final = 30 * DAY
HIGH_TWICE: Final = 5
"""An amount is high above 2.5 times the usual one."""
LATENESS: Final = DAY
"""An event up to this late sees whole windows; see `is_late` for one that comes later."""
WITNESSES: Final = 3
"""When an event of time t arrives, those are forgotten to which so many of its key, up to t, are newer by the longest
window (and the delay, and LATENESS). One or two events with a wrong clock in the future wipe out nothing, and more of
them only what came before: the past goes on beside them."""


@kernel
def customer_features(events: Words, time: int, cents: int, other: int, out: FeatureRow) -> None:
    """The features of a transaction by its customer. events: of `gather`, the customer's others up to `time`; out:
    float32 [len(CUSTOMER)]."""
    start = begin(events, time - LONGEST)
    count_10m = count_1h = count_1d = count_7d = 1
    sum_1d = sum_7d = cents
    sum_30d = largest = frauds = 0
    for i in range(start, len(events)):
        age = time - (events[i, 0] >> 1)
        paid = events[i, 1]
        sum_30d += paid
        largest = max(largest, paid)
        frauds += events[i, 0] & 1
        if age < 7 * DAY:
            count_7d += 1
            sum_7d += paid
            if age < DAY:
                count_1d += 1
                sum_1d += paid
                if age < HOUR:
                    count_1h += 1
                    count_10m += age < MINUTE * 10
    others = len(events) - start
    days = time // DAY
    of_day = time - days * DAY
    out[CUSTOMER.amount] = cents / 100
    out[CUSTOMER.is_weekend] = (days + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    out[CUSTOMER.is_night] = of_day < 7 * HOUR
    out[CUSTOMER.hour] = of_day / HOUR
    out[CUSTOMER.customer_count_10m] = count_10m
    out[CUSTOMER.customer_count_1h] = count_1h
    out[CUSTOMER.customer_count_1d] = count_1d
    out[CUSTOMER.customer_count_7d] = count_7d
    out[CUSTOMER.customer_count_30d] = others + 1
    out[CUSTOMER.customer_mean_amount_1d] = sum_1d / count_1d / 100
    out[CUSTOMER.customer_mean_amount_7d] = sum_7d / count_7d / 100
    out[CUSTOMER.customer_mean_amount_30d] = (sum_30d + cents) / (others + 1) / 100
    out[CUSTOMER.customer_sum_amount_1d] = sum_1d / 100
    out[CUSTOMER.customer_seconds_since_last] = (time - (events[-1, 0] >> 1)) / 1000 if others else np.nan
    out[CUSTOMER.customer_terminal_count_30d] = count_different(events[start:], other)
    out[CUSTOMER.customer_frauds_30d_known] = frauds
    out[CUSTOMER.customer_amount_ratio_30d] = ratio(cents * others, sum_30d)
    out[CUSTOMER.customer_amount_z_30d] = deviation(events[start:], cents)
    out[CUSTOMER.customer_max_ratio_30d] = ratio(cents, largest)
    usual_amounts(events, start, sum_30d, time, cents, out)


@kernel
def usual_amounts(events: Words, start: int, total: int, time: int, cents: int, out: FeatureRow) -> None:
    """A customer whose card is abused has a few huge amounts that spoil the plain mean: the usual amount leaves out
    what is above 2.5 times that mean. total: of events[start:], those of 30 days. Exact integers are compared."""
    others = len(events) - start
    count = usual = 0
    for i in range(start, len(events)):
        paid = events[i, 1]
        if 2 * paid * others <= HIGH_TWICE * total:
            count += 1
            usual += paid
    out[CUSTOMER.customer_usual_amount_30d] = usual / count / 100 if count else np.nan
    out[CUSTOMER.customer_usual_ratio_30d] = ratio(cents * count, usual)
    high = largest = 0
    oldest = -1
    for i in range(begin(events, time - 14 * DAY), len(events)):
        paid = events[i, 1]
        largest = max(largest, paid)
        if 2 * paid * count > HIGH_TWICE * usual:
            high += 1
            if oldest < 0:
                oldest = events[i, 0] >> 1
    out[CUSTOMER.customer_high_count_14d] = high if count else np.nan
    out[CUSTOMER.customer_high_ratio_14d] = ratio(largest * count, usual)
    out[CUSTOMER.customer_days_since_first_high_14d] = (time - oldest) / DAY if high else np.nan


@kernel
def begin(events: Words, limit: int) -> int:
    """The place of the first event after `limit`."""
    low, high = 0, len(events)
    while low < high:
        middle = (low + high) // 2
        if events[middle, 0] >> 1 > limit:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def ratio(above: int, below: int) -> float:
    """A quotient; NaN where the divisor is 0."""
    return above / below if below else np.nan


@kernel
def count_different(events: Words, other: int) -> int:
    """Different counterparts, `other` included."""
    size = 8
    while size < 2 * (len(events) + 1):
        size *= 2
    table = np.zeros(size, np.int64)  # of hashes + 1
    mask = size - 1
    low = other & 0xFFFFFFFF
    table[low & mask] = low + 1
    count = 1
    for i in range(len(events)):
        low = events[i, 2]
        place = low & mask
        while table[place] != 0 and table[place] != low + 1:
            place = (place + 1) & mask
        if table[place] == 0:
            table[place] = low + 1
            count += 1
    return count


@kernel
def deviation(events: Words, cents: int) -> float:
    """Standard deviations (of the population, 100 cents at least) from the mean of the events up to `cents`."""
    count = len(events)
    if count < 2:
        return np.nan
    origin = events[-1, 1]  # taken from every amount, so that equal amounts deviate by exactly 0
    total, squares = 0, 0.0
    for i in range(count):
        paid = events[i, 1] - origin
        total += paid
        squares += float(paid) * float(paid)
    mean = total / count
    spread = math.sqrt(max(squares / count - mean * mean, 0.0))
    result: float = (cents - origin - mean) / max(spread, 100.0)
    return result


@kernel
def terminal_features(events: Words, time: int, cents: int, delay: int, out: FeatureRow) -> None:
    """The features of a transaction by its terminal. events: of `gather`, the terminal's others up to `time`; delay in
    ms; out: float32 [len(TERMINAL)]."""
    count_1d = count_7d = 1
    sum_7d = cents
    frauds = 0
    fraud_age = legitimate_age = streak_age = -1
    streak = streak_sum = 0
    delayed_1d = delayed_7d = delayed_30d = 1 if delay == 0 else 0  # without delay the transaction itself is among them
    frauds_1d = frauds_7d = frauds_30d = 0
    for i in range(len(events) - 1, begin(events, time - LONGEST - delay) - 1, -1):
        age = time - (events[i, 0] >> 1)
        fraud = events[i, 0] & 1
        if age < 7 * DAY:
            count_7d += 1
            sum_7d += events[i, 1]
            count_1d += age < DAY
        if fraud:
            frauds += age < LONGEST
            if fraud_age < 0:
                fraud_age = age
        if age >= delay:
            delayed_30d += 1
            frauds_30d += fraud
            if age - delay < 7 * DAY:
                delayed_7d += 1
                frauds_7d += fraud
                if age - delay < DAY:
                    delayed_1d += 1
                    frauds_1d += fraud
            if legitimate_age < 0:
                if fraud:
                    streak += 1
                    streak_sum += events[i, 1]
                    streak_age = age
                else:
                    legitimate_age = age
    out[TERMINAL.terminal_count_1d_delayed] = delayed_1d
    out[TERMINAL.terminal_risk_1d_delayed] = frauds_1d / max(delayed_1d, 1)
    out[TERMINAL.terminal_count_7d_delayed] = delayed_7d
    out[TERMINAL.terminal_risk_7d_delayed] = frauds_7d / max(delayed_7d, 1)
    out[TERMINAL.terminal_count_30d_delayed] = delayed_30d
    out[TERMINAL.terminal_risk_30d_delayed] = frauds_30d / max(delayed_30d, 1)
    out[TERMINAL.terminal_count_1d] = count_1d
    out[TERMINAL.terminal_count_7d] = count_7d
    out[TERMINAL.terminal_mean_amount_7d] = sum_7d / count_7d / 100
    out[TERMINAL.terminal_amount_ratio_7d] = ratio(cents * count_7d, sum_7d)
    out[TERMINAL.terminal_frauds_30d_known] = frauds
    out[TERMINAL.terminal_days_since_known_fraud] = fraud_age / DAY if fraud_age >= 0 else np.nan
    out[TERMINAL.terminal_fraud_streak] = streak
    out[TERMINAL.terminal_fraud_streak_days] = streak_age / DAY if streak else np.nan
    out[TERMINAL.terminal_fraud_streak_mean_amount] = streak_sum / streak / 100 if streak else np.nan
    out[TERMINAL.terminal_days_since_known_legitimate] = legitimate_age / DAY if legitimate_age >= 0 else np.nan


@kernel
def advance_customer(
    pages: Words, slots: Words, slot: int, identity: int, time: int, cents: int, other: int, delay: int, out: FeatureRow
) -> int:
    """Features, then the event goes into the history unless it is there; see SEEN."""
    use(pages, slots, slot)
    when, what = pack(time, cents, other)
    events, answer = gather(pages, slots, slot, identity, when, what)
    customer_features(events, time, cents, other, out)
    late = LATE if is_late(pages, slots, slot, time) else 0
    return late + (answer if answer else insert(pages, slots, slot, when, what, identity, LONGEST))


@kernel
def advance_terminal(
    pages: Words, slots: Words, slot: int, identity: int, time: int, cents: int, other: int, delay: int, out: FeatureRow
) -> int:
    """As advance_customer, of a terminal."""
    use(pages, slots, slot)
    when, what = pack(time, cents, other)
    events, answer = gather(pages, slots, slot, identity, when, what)
    terminal_features(events, time, cents, delay, out)
    late = LATE if is_late(pages, slots, slot, time) else 0
    return late + (answer if answer else insert(pages, slots, slot, when, what, identity, LONGEST + delay))


@kernel
def use(pages: Words, slots: Words, slot: int) -> None:
    """Make this key the most recently used one."""
    pages[0, USES] += 1
    slots[slot, USED] = pages[0, USES]


@kernel
def pack(time: int, cents: int, other: int) -> tuple[int, int]:
    """The first two words of an event that is not known to be a fraud. A time beyond what there is room for, which
    nobody believes, becomes the last one."""
    time = min(time, WHEN >> 1)
    low = cents & ((1 << LOW_BITS) - 1)
    return cents >> LOW_BITS << TIME_BITS + 1 | time << 1, low << 32 | other & 0xFFFFFFFF


@kernel
def time_of(when: int) -> int:
    """The time in an event's first word."""
    return (when & WHEN) >> 1


@kernel
def gather(pages: Words, slots: Words, slot: int, identity: int, when: int, what: int) -> tuple[Words, int]:
    """(events up to the time of `when` but that of `identity`, in order; whether that one is in the history, and what
    else it was: see SEEN). when, what: the words of the one that comes. Of an event, int64 [N, 3]: time << 1 | known
    fraud, cents, low half of the counterpart's hash."""
    count, first, page = slots[slot, COUNT], slots[slot, FIRST], slots[slot, TAIL]
    touch(pages, slots, slot)
    events = np.empty((count, 3), np.int64)
    place, answer, until = count, 0, when & WHEN | 1
    for ordinal in range(first + count - 1, first - 1, -1):
        word = 1 + 3 * (ordinal % EVENTS)
        if pages[page, word + 2] == identity:
            answer = SEEN if pages[page, word] >> 1 == when >> 1 and pages[page, word + 1] == what else SEEN | OTHER
        elif pages[page, word] & WHEN <= until:
            place -= 1
            events[place, 0] = pages[page, word] & WHEN
            events[place, 1] = pages[page, word] >> TIME_BITS + 1 << LOW_BITS | pages[page, word + 1] >> 32
            events[place, 2] = pages[page, word + 1] & 0xFFFFFFFF
        if ordinal % EVENTS == 0:
            page = pages[page, 0] >> 1
    return events[place:], answer


@kernel
def touch(pages: Words, slots: Words, slot: int) -> None:
    """Load the newest pages into the cache all at once: along the chain every one would be waited for in turn."""
    read = 0
    for i in range(NEAR, COLUMNS):
        left, right = slots[slot, i] >> 32, slots[slot, i] & 0xFFFFFFFF
        for word in range(0, WORDS, 8):
            read ^= pages[left, word] ^ pages[right, word]
    pages[0, 2] = read  # page 0 holds no events; without a use the reads would be optimized away


@kernel
def insert(pages: Words, slots: Words, slot: int, when: int, what: int, identity: int, horizon: int) -> int:
    """Put an event where it belongs, and forget those that are out of the horizon (ms, LATENESS not included)."""
    count, first, page = slots[slot, COUNT], slots[slot, FIRST], slots[slot, TAIL]
    time = time_of(when)
    if count == BOUND and time < time_of(nth_newest(pages, slots, slot, BOUND)):
        return 0
    answer = 0
    place = (first + count) % EVENTS
    if place == 0 or count == 0:
        page = add_page(pages, slots, slot)
        answer = 0 if has_free_page(pages) else FULL
    for _ in range(count):  # the later ones make room
        before, at = (page, place - 1) if place > 0 else (pages[page, 0] >> 1, EVENTS - 1)
        word = 1 + 3 * at
        earlier = time_of(pages[before, word])
        if earlier < time or (earlier == time and pages[before, word + 2] <= identity):
            break
        pages[page, 1 + 3 * place : 4 + 3 * place] = pages[before, word : word + 3]
        pages[page, 0] |= 1
        page, place = before, at
    word = 1 + 3 * place
    pages[page, word], pages[page, word + 1], pages[page, word + 2] = when, what, identity
    pages[page, 0] |= 1
    slots[slot, COUNT] = count + 1
    trim(pages, slots, slot, witness_time(pages, slots, slot, time) - horizon - LATENESS)
    return answer + queue(slots, slot)


@kernel
def witness_time(pages: Words, slots: Words, slot: int, time: int) -> int:
    """The time of the third newest (see WITNESSES) of the events up to `time`; 0 without."""
    page, left = slots[slot, TAIL], WITNESSES
    for ordinal in range(slots[slot, FIRST] + slots[slot, COUNT] - 1, slots[slot, FIRST] - 1, -1):
        found = time_of(pages[page, 1 + 3 * (ordinal % EVENTS)])
        left -= found <= time
        if left == 0:
            return int(found)
        if ordinal % EVENTS == 0:
            page = pages[page, 0] >> 1
    return 0


@kernel
def is_late(pages: Words, slots: Words, slot: int, time: int) -> bool:
    """Whether what the windows of an event of this time held may be forgotten: where WITNESSES of its key are newer by
    more than LATENESS, or where the BOUND leaves no room before the oldest."""
    count = slots[slot, COUNT]
    if count < WITNESSES or time_of(nth_newest(pages, slots, slot, 1)) <= time:
        return False
    if time_of(nth_newest(pages, slots, slot, WITNESSES)) > time + LATENESS:
        return True
    return bool(count == BOUND and time_of(nth_newest(pages, slots, slot, BOUND)) > time)


@kernel
def nth_newest(pages: Words, slots: Words, slot: int, n: int) -> int:
    """The first word of a key's n-th newest event."""
    ordinal = slots[slot, FIRST] + slots[slot, COUNT] - 1
    page = slots[slot, TAIL]
    for _ in range(ordinal // EVENTS - (ordinal - n + 1) // EVENTS):
        page = pages[page, 0] >> 1
    return int(pages[page, 1 + 3 * ((ordinal - n + 1) % EVENTS)])


@kernel
def trim(pages: Words, slots: Words, slot: int, limit: int) -> None:
    """Forget what is beyond the bound, or not after `limit`."""
    while slots[slot, COUNT] > BOUND or time_of(nth_newest(pages, slots, slot, slots[slot, COUNT])) <= limit:
        slots[slot, FIRST] += 1
        slots[slot, COUNT] -= 1
        if slots[slot, FIRST] % EVENTS == 0:
            page = slots[slot, TAIL]
            for _ in range((slots[slot, COUNT] - 1) // EVENTS):
                page = pages[page, 0] >> 1
            give_page(pages, pages[page, 0] >> 1)


@kernel
def add_page(pages: Words, slots: Words, slot: int) -> int:
    """A new page at the end of a key's."""
    page = slots[slot, TAIL] = take_page(pages, slots[slot, TAIL])
    block = (slots[slot, FIRST] + slots[slot, COUNT]) // EVENTS
    near, half = NEAR + block % TOUCHED // 2, block % 2
    slots[slot, near] = slots[slot, near] & 0xFFFFFFFF << 32 * (1 - half) | page << 32 * half
    return int(page)


@kernel
def take_page(pages: Words, previous: int) -> int:
    """An empty page, which follows `previous`; 0 as `previous` begins a chain."""
    page = pages[0, 0]
    if page:
        pages[0, 0] = pages[page, 0] >> 1
    else:
        page = pages[0, 1]
        pages[0, 1] += 1
    pages[page, 0] = previous << 1
    return int(page)


@kernel
def give_page(pages: Words, page: int) -> None:
    """Put a page among the free ones."""
    pages[page, 0] = pages[0, 0] << 1
    pages[0, 0] = page


@kernel
def has_free_page(pages: Words) -> bool:
    """Whether a page can be taken before memory has to grow."""
    return bool(pages[0, 0] != 0 or pages[0, 1] < len(pages))


@kernel
def queue(slots: Words, slot: int) -> int:
    """QUEUE where the slot was not yet queued for the changelog, else 0."""
    if slots[slot, CHANGED]:
        return 0
    slots[slot, CHANGED] = 1
    return QUEUE


@kernel
def apply_label(pages: Words, slots: Words, slot: int, identity: int, time_ms: int, fraud: int) -> int:
    """Mark the event of that identity as a fraud or not, whatever its time; see SEEN."""
    count, first, page = slots[slot, COUNT], slots[slot, FIRST], slots[slot, TAIL]
    for ordinal in range(first + count - 1, first - 1, -1):
        word = 1 + 3 * (ordinal % EVENTS)
        if pages[page, word + 2] == identity:
            answer = SEEN if pages[page, word] >> 1 == time_ms else SEEN | OTHER
            if pages[page, word] & 1 == fraud:
                return answer
            pages[page, word] ^= 1
            pages[page, 0] |= 1
            return answer + queue(slots, slot)
        if ordinal % EVENTS == 0:
            page = pages[page, 0] >> 1
    return 0


@kernel
def collect(pages: Words, slots: Words, queued: Words, everything: bool) -> tuple[Words, Words]:
    """What the queued keys have changed since the last time (or everything of them): heads int64 [R, 5] of (slot,
    block, place of the first event, events (0: the block is gone), its distance from the key's oldest), and words int64
    [R, 3 * EVENTS], the events."""
    size = 0
    for slot in queued:
        size += slots[slot, COUNT] // EVENTS + 2 + max(slots[slot, FIRST] // EVENTS - slots[slot, SENT_FROM], 0)
    heads, words = np.zeros((size, 5), np.int64), np.empty((size, 3 * EVENTS), np.int64)
    rows = 0
    for slot in queued:
        if not (slots[slot, CHANGED] or everything):
            continue  # the key has been released since
        slots[slot, CHANGED] = 0
        first, page = slots[slot, FIRST], slots[slot, TAIL]
        last = first + slots[slot, COUNT] - 1
        front, back = first // EVENTS, last // EVENTS
        for block in range(slots[slot, SENT_FROM], min(front, slots[slot, SENT_TO])):
            heads[rows, 0], heads[rows, 1] = slot, block
            rows += 1
        for block in range(back, front - 1, -1):
            if pages[page, 0] & 1 or everything:
                start = first % EVENTS if block == front else 0
                count = (last % EVENTS if block == back else EVENTS - 1) + 1 - start
                heads[rows, 0], heads[rows, 1], heads[rows, 2], heads[rows, 3] = slot, block, start, count
                heads[rows, 4] = block * EVENTS + start - first
                words[rows, : 3 * count] = pages[page, 1 + 3 * start : 1 + 3 * (start + count)]
                rows += 1
            pages[page, 0] = pages[page, 0] >> 1 << 1
            page = pages[page, 0] >> 1
        slots[slot, SENT_FROM], slots[slot, SENT_TO] = front, back + 1
    return heads[:rows], words[:rows]


@kernel
def fill(pages: Words, slots: Words, filled: Words, counts: Words, events: Words) -> int:
    """Put the events [T, 3] of several keys, counts[i] of them in order for the empty slot filled[i], into histories.
    There must be pages enough; the first slot was used the longest ago. Returns the place of the first event that
    cannot be one or is out of order, or -1."""
    at = 0
    for i in range(len(filled)):
        slot, page = filled[i], 0
        use(pages, slots, slot)
        for j in range(at, at + counts[i]):
            earlier, time = time_of(events[max(j - 1, at), 0]), time_of(events[j, 0])
            if events[j, 0] < 0 or events[j, 1] < 0 or earlier > time:
                return j
            if j > at and earlier == time and events[j - 1, 2] >= events[j, 2]:
                return j
            place = (slots[slot, FIRST] + slots[slot, COUNT]) % EVENTS
            if place == 0 or j == at:
                page = add_page(pages, slots, slot)
            pages[page, 1 + 3 * place : 4 + 3 * place] = events[j]
            pages[page, 0] |= 1
            slots[slot, COUNT] += 1
        queue(slots, slot)
        at += counts[i]
    return -1


@kernel
def mark_sent(pages: Words, slots: Words, sent: Words) -> None:
    """The changelog has these slots as they are."""
    for slot in sent:
        page = slots[slot, TAIL]
        for _ in range((slots[slot, FIRST] + slots[slot, COUNT] - 1) // EVENTS - slots[slot, FIRST] // EVENTS + 1):
            pages[page, 0] = pages[page, 0] >> 1 << 1
            page = pages[page, 0] >> 1
        slots[slot, CHANGED] = 0


@kernel
def dump(pages: Words, slots: Words, dumped: Words) -> tuple[Words, Words]:
    """(counts [N], events [T, 3]) of the slots, as `fill` takes them."""
    counts = np.empty(len(dumped), np.int64)
    for i in range(len(dumped)):
        counts[i] = slots[dumped[i], COUNT]
    events = np.empty((counts.sum(), 3), np.int64)
    end = 0
    for i in range(len(dumped)):
        slot, at = dumped[i], end + counts[i]
        end, page = at, slots[slot, TAIL]
        for ordinal in range(slots[slot, FIRST] + counts[i] - 1, slots[slot, FIRST] - 1, -1):
            at -= 1
            word = 1 + 3 * (ordinal % EVENTS)
            for k in range(3):
                events[at, k] = pages[page, word + k]
            if ordinal % EVENTS == 0:
                page = pages[page, 0] >> 1
    return counts, events


@kernel
def release(pages: Words, slots: Words, slot: int) -> None:
    """Empty a slot."""
    if slots[slot, COUNT]:
        page = slots[slot, TAIL]
        last = slots[slot, FIRST] + slots[slot, COUNT] - 1
        for _ in range(last // EVENTS - slots[slot, FIRST] // EVENTS + 1):
            previous = pages[page, 0] >> 1
            give_page(pages, page)
            page = previous
    slots[slot, :] = 0


@kernel
def newest_times(pages: Words, slots: Words, used: Words) -> Words:
    """The time of each slot's newest event."""
    times = np.empty(len(used), np.int64)
    for i in range(len(used)):
        times[i] = time_of(nth_newest(pages, slots, used[i], 1))
    return times
