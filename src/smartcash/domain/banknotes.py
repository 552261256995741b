"""Rupiah values of class names, their text and their colours.

Data sets name the same note `1000`, `Rp1.000`, `Rp 1.000,-`, `1k`, `001`, `l2_050`, `10_note` or `seribu`.
Some of these can be read alone, some only together with the other names of the set, so `values_of` judges
all class names at once. Its rules:

1.  *Reading one name.* Case, separators, CamelCase and full-width digits do not matter; `1.000`, `1,000`,
    `1 000` and `1.000,00` are one number. Number words, Indonesian or English, together or apart, are numbers
    (`lima_puluh_ribu`, `LimaRibu`, `five thousand`). A *unit* (`k`, `rb`, `ribu`, `thousand`) multiplies by
    1,000. Digits that hang on an unknown word are part of an identifier and not an amount (`class0`, the
    emission code `l2` in `l2_050`). Other words say nothing about the value (`2000_baru`, `1000-depan`).
2.  *Several numbers in one name.* A single note's value or unit wins over everything smaller (`3_1000`,
    `1000_1`), and an emission year is left out where another number remains (`2016_10000`). What is still
    ambiguous has no value.
3.  *Certain alone.* A note's full value (`10000`), a number with a unit, a spelled-out value.
4.  *Certain only together.* Small numbers are thousands when the bare numbers of the set are at least two,
    one of them 10 or more, and every one of them is 1, 2, 5, 10, 20, 50, 75 or 100; so `001 … 100` are notes
    and `0 … 7` are not. Numbers 50 to 500 are coins when a full note value stands beside them, or when the
    name itself says coin, `koin`, `logam`, `Rp` or `IDR`.
5.  *Another currency.* When small numbers stand beside full values (`10 … 2000`), or a note or coin occurs
    that Indonesia does not have (`200000`, `2_coin`), or a name says `taka`, `USD`, `€` …, bare numbers have
    no value at all: a wrong sum would be worse than none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

Colour = tuple[int, int, int]

NOTES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 75_000, 100_000)
COINS = (50, 100, 200, 500, 1_000)
DENOMINATIONS = tuple(sorted({*NOTES, *COINS}))

_THOUSANDS = {note // 1_000 for note in NOTES}
_ROUND = {digit * 10**power for digit in (1, 2, 5) for power in range(8)}  # what any currency prints
_YEARS = range(1945, 2100)

_ADDS = {
    "satu": 1, "dua": 2, "tiga": 3, "empat": 4, "lima": 5, "enam": 6, "tujuh": 7, "delapan": 8,
    "sembilan": 9, "se": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_MULTIPLIES = {"puluh": 10, "ratus": 100, "hundred": 100}
_UNITS = {"k", "rb", "rbu", "ribu", "ribuan", "thousand"}
_RUPIAH_WORDS = {"rp", "idr", "rupiah"}
_COIN_WORDS = {"coin", "coins", "koin", "logam", "uanglogam"}
_MONEY_WORDS = {"uang", "note", "notes", "banknote", "bill", "kertas", "pecahan", "nominal", "lembar"}
_FOREIGN_WORDS = {
    "usd", "dollar", "dollars", "cents", "eur", "euro", "euros", "gbp", "inr", "rupee", "rupees", "pkr",
    "npr", "bdt", "taka", "php", "peso", "pesos", "myr", "ringgit", "sgd", "thb", "baht", "vnd", "dong",
    "jpy", "yen", "cny", "yuan", "krw", "mkd", "denar", "denari", "egp", "lira", "brl", "reais", "naira",
    "lkr", "kyat", "aud", *"$€£¥₹₱฿₫₩",
}  # fmt: skip
_MAY_TOUCH_DIGITS = _RUPIAH_WORDS | _COIN_WORDS | _MONEY_WORDS | _FOREIGN_WORDS

_GROUPED = re.compile(r"(?<!\d)\d{1,3}(?:(?:\.\d{3})+|(?:,\d{3})+|[ _]000)(?:[.,]\d{2})?(?!\d)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TOKEN = re.compile(r"\d+|[^\W\d_]+|[$€£¥₹₱฿₫₩]")
_NUMBER_WORD = re.compile("se(?=puluh|ratus|ribu)|" + "|".join(
    sorted([*(_ADDS.keys() - {"se"}), *_MULTIPLIES, "ribu", "thousand"], key=len, reverse=True)
))  # fmt: skip

_COLOURS: dict[int, Colour] = {
    1_000: (125, 138, 31), 2_000: (107, 112, 118), 5_000: (160, 106, 44), 10_000: (109, 74, 156),
    20_000: (46, 125, 70), 50_000: (31, 95, 168), 75_000: (14, 124, 134), 100_000: (176, 48, 72),
    500: (142, 118, 62), 200: (120, 130, 140), 100: (150, 156, 162), 50: (170, 160, 140),
}  # fmt: skip


@dataclass(frozen=True)
class _Number:
    """One number in a name, and whether a unit (ribu, k) was part of it."""

    amount: int
    has_unit: bool = False
    spelled: bool = False


@dataclass(frozen=True)
class _Reading:
    """What one class name says by itself; `amount` is None where it says nothing or two things."""

    amount: int | None
    certain: bool = False
    marked: bool = False
    coin: bool = False
    foreign: bool = False


def value_of(class_name: str) -> int | None:
    """The Rupiah value of a class name that can be read alone, else None. Use `values_of` for a data set."""
    return values_of([class_name])[0]


def values_of(class_names: Sequence[str]) -> tuple[int | None, ...]:
    """The Rupiah value of each class name, judged together by the rules above; None where there is none."""
    readings = [_read(name) for name in class_names]
    amounts = [(r.amount, r) for r in readings if r.amount is not None and not r.foreign]
    bare = {amount for amount, r in amounts if not r.certain and not r.coin}
    full = {amount for amount, r in amounts if amount >= 1_000}
    coins = {amount for amount, r in amounts if r.coin}

    small = bare & (_THOUSANDS - set(COINS))
    another_currency = (
        any(r.foreign for r in readings)
        or bool(small and full & set(NOTES))
        or not coins <= set(DENOMINATIONS)
        or any(amount in _ROUND and amount not in NOTES for amount in full)
    )
    in_thousands = len(bare) >= 2 and max(bare) >= 10 and bare <= _THOUSANDS and not full - coins

    def value(reading: _Reading) -> int | None:
        amount = reading.amount
        if amount is None or reading.foreign:
            return None
        if reading.certain and (reading.marked or not another_currency):
            return amount if amount in DENOMINATIONS else None
        if another_currency:
            return None
        if in_thousands and not reading.coin:
            return amount * 1_000
        is_face_value = reading.coin or reading.marked or bool(full)
        return amount if is_face_value and amount in COINS else None

    return tuple(value(reading) for reading in readings)


def format_rupiah(value: int) -> str:
    """The way Indonesia writes it: 75000 → "Rp75.000"."""
    sign = "-" if value < 0 else ""
    return f"{sign}Rp{abs(value):,}".replace(",", ".")


def display_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """How each class is shown: "Rp50.000" where that names one class of the set only, else its own name."""
    values = values_of(class_names)
    return tuple(
        name if value is None or values.count(value) > 1 else format_rupiah(value)
        for name, value in zip(class_names, values)
    )


def colour_of(value: int | None) -> Colour | None:
    """The note's own colour as (red, green, blue) 0–255, the same as in the web page; None if it has none."""
    return None if value is None else _COLOURS.get(value)


def _read(name: str) -> _Reading:
    """What `name` says by itself (rules 1 to 3)."""
    plain = unicodedata.normalize("NFKC", name)
    plain = _GROUPED.sub(_without_grouping, _CAMEL.sub(" ", plain).casefold())
    tokens = list(_TOKEN.finditer(plain))
    words = {token.group() for token in tokens}
    number = _the_number(_numbers(tokens))
    marked = bool(words & _RUPIAH_WORDS)
    foreign = not marked and bool(words & _FOREIGN_WORDS)
    coin = bool(words & _COIN_WORDS)
    if number is None:
        return _Reading(None, foreign=foreign)
    certain = number.has_unit or number.amount in NOTES
    # a unit, or a number spelled out in full, says Rupiah as clearly as "Rp" does
    return _Reading(number.amount, certain, marked or number.has_unit or number.spelled, coin, foreign)


def _without_grouping(match: re.Match[str]) -> str:
    whole = re.sub(r"[.,]\d{2}$", "", match.group())
    return re.sub(r"\D", "", whole)


def _numbers(tokens: list[re.Match[str]]) -> list[_Number]:
    """Every number in the name: runs of digits and number words, with the unit that follows them."""
    numbers: list[_Number] = []
    phrase: list[str] = []

    def close() -> None:
        if phrase:
            numbers.append(_evaluate(phrase))
            phrase.clear()

    for position, token in enumerate(tokens):
        word = token.group()
        if word.isdecimal():
            close()
            if _stands_alone(tokens, position):
                phrase.append(word)
        elif word in _UNITS:
            phrase.extend(["ribu"] if phrase else [])
            close()
        elif parts := _number_words(word):
            phrase.extend(parts)
        else:
            close()
    close()
    return numbers


def _stands_alone(tokens: list[re.Match[str]], position: int) -> bool:
    """Whether these digits are a number of their own and not part of an identifier such as `class0`."""
    token = tokens[position]
    before = tokens[position - 1] if position else None
    after = tokens[position + 1] if position + 1 < len(tokens) else None
    if before is not None and before.end() == token.start() and before.group() not in _MAY_TOUCH_DIGITS:
        return not before.group().isalpha()
    if after is None or after.start() != token.end():
        return True
    follows = after.group()
    return int(token.group()) in NOTES or not follows.isalpha() or follows in _MAY_TOUCH_DIGITS | _UNITS


def _number_words(word: str) -> list[str]:
    """`limapuluhribu` → lima, puluh, ribu; empty when the word is not made of number words alone."""
    parts = _NUMBER_WORD.findall(word)
    return parts if "".join(parts) == word else []


def _evaluate(phrase: list[str]) -> _Number:
    """`["tujuh", "puluh", "lima", "ribu"]` → 75,000 with a unit."""
    total = group = last = 0
    has_unit = False
    for word in phrase:
        if word in _MULTIPLIES:
            group, last = group + max(last, 1) * _MULTIPLIES[word], 0
        elif word in _UNITS:
            total, group, last, has_unit = total + (group + last) * 1_000, 0, 0, True
        else:
            group, last = group + last, _ADDS[word] if word in _ADDS else int(word)
    return _Number(total + group + last, has_unit, any(word in {"ratus", "ribu"} for word in phrase))


def _the_number(numbers: list[_Number]) -> _Number | None:
    """The one number that can be the amount, or None (rule 2)."""
    for choice in (
        [number for number in numbers if number.has_unit],
        [number for number in numbers if number.amount in NOTES],
        [number for number in numbers if number.amount not in _YEARS],
    ):
        if len({number.amount for number in choice}) == 1:
            return choice[0]
        if choice:
            return None
    return None
