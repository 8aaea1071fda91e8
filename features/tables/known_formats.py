"""Forms of dates and times in common use, and which of them a text may be of.

A text is taken apart from the left: a date, what joins it to the clock, the clock, a zone. No list
of whole formats is needed, and a text of several forms (`01/02/2024`) has several.
"""

import re

_SEPARATORS = (".", "/", "-")
_ORDERS = ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%Y{0}%m{0}%d")
_SHORT_YEARS = ("%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")
_NAMED = (
    "%d %b %Y", "%d. %b %Y", "%d-%b-%Y", "%d/%b/%Y", "%d.%b.%Y", "%d %b, %Y", "%d-%b-%y", "%d%b%Y",
    "%b %d, %Y", "%b %d %Y", "%b-%d-%Y", "%Y %b %d", "%Y-%b-%d", "%Y/%b/%d",
)  # fmt: skip
_DAYS_FIRST = tuple(f"%a, {one}" for one in _NAMED) + tuple(f"%a {one}" for one in _NAMED)
_COMPACT = ("%Y%m%d",)
_WEEKS = ("%G-W%V-%u", "%GW%V%u", "%G-W%V", "%GW%V")
_MONTHS = ("%Y-%m", "%Y/%m", "%Y.%m", "%m/%Y", "%m.%Y", "%b %Y")
_DATES = (
    *(order.format(one) for order in _ORDERS for one in _SEPARATORS),
    *(order.format(one) for order in _SHORT_YEARS for one in _SEPARATORS),
    *_NAMED, *_DAYS_FIRST, *_COMPACT, *_WEEKS,
)  # fmt: skip
_CLOCKS = (
    "%H:%M:%S.%f", "%H:%M:%S,%f", "%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%I:%M:%S%p",
    "%I:%M%p", "%H.%M.%S", "%H.%M", "%H-%M-%S", "%H%M%S", "%H%M",
)  # fmt: skip
_JOINS = (", ", " at ", " - ", " ", "T", "_", ":", "-", "")
_ALONE = ("%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y")
_PATTERNS = {
    "%Y": r"(?:19|20)[0-9]{2}", "%y": "[0-9]{2}", "%m": "(?:1[0-2]|0?[1-9])",
    "%d": "(?:[12][0-9]|3[01]|0?[1-9])",
    "%b": "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?"
    "(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)",
    "%a": "(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?",
    "%H": "(?:2[0-3]|[01]?[0-9])", "%I": "(?:1[0-2]|0?[1-9])", "%M": "[0-5][0-9]",
    "%S": "[0-5][0-9]", "%f": "[0-9]{1,9}",
    "%p": r"[ap]\.?m\.?", "%z": r"(?:z|utc|gmt|[+-][0-9]{2}:?(?:[0-9]{2})?)",
    "%G": r"(?:19|20)[0-9]{2}", "%V": "(?:0[1-9]|[1-4][0-9]|5[0-3])", "%u": "[1-7]",
}  # fmt: skip
_ZONES = ("%z", " %z")
_TWO = {"%m": "(?:0[1-9]|1[0-2])", "%d": "(?:0[1-9]|[12][0-9]|3[01])", "%H": "(?:[01][0-9]|2[0-3])"}


def formats_of(text: str) -> list[str]:
    """Return the formats that a text may be of, the day before the month first; ISO's not."""
    text = text.strip()
    found = [one for one in (*_ALONE, *_MONTHS) if _regex(one).fullmatch(text)]
    for date in _DATES:
        start = _regex(date).match(text)
        if start is None:
            continue
        rest = text[start.end() :]
        found += [f"{date}{more}" for more in _clocks_of(rest, date)]
    return [one for one in dict.fromkeys(found) if not _is_iso(one)]


def declared_as(text: str) -> str:
    """Return what to declare for a text that has a known format."""
    return f"declare format: '{formats_of(text)[0]}'"


def _clocks_of(rest: str, date: str) -> list[str]:
    """Return what of a format may stand behind its date."""
    if not rest:
        return [""]
    zone = _zone_of(rest)
    if zone:
        return [zone]
    for join in _JOINS:
        if not rest.startswith(join):
            continue
        if not join and date not in _COMPACT:
            continue
        for clock in _CLOCKS:
            start = _regex(clock).match(rest[len(join) :])
            if start is None:
                continue
            more = rest[len(join) + start.end() :]
            if not more or _zone_of(more):
                return [f"{join}{clock}{_zone_of(more)}"]
    return []


def _zone_of(rest: str) -> str:
    return next((zone for zone in _ZONES if rest and _regex(zone).fullmatch(rest)), "")


def _is_iso(text: str) -> bool:
    """Whether `unit: datetime` reads it without a format."""
    return bool(re.fullmatch(r"%Y-%m-%d([ T]%H:%M(:%S(\.%f)?)?(%z)?)?", text))


_COMPILED: dict[str, re.Pattern[str]] = {}


def _regex(text: str) -> re.Pattern[str]:
    if text not in _COMPILED:
        compact = re.search("%[a-zA-Z]%[a-zA-Z]", text) is not None
        parts = re.findall("%[a-zA-Z]|[^%]+", text)
        pattern = "".join(
            (_TWO if compact and one in _TWO else _PATTERNS).get(one) or re.escape(one)
            for one in parts
        )
        _COMPILED[text] = re.compile(pattern, re.IGNORECASE)
    return _COMPILED[text]
