"""Times and lengths of time in words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60))


def span(time: timedelta) -> str:
    """A length of time in its largest unit, rounded down: ``3 hours``, ``under a minute``."""
    seconds = abs(time.total_seconds())
    for unit, length in UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "under a minute"


def relative(time: datetime, now: datetime | None = None) -> str:
    """A time from now: ``3 hours ago``, ``in 2 days``."""
    difference = time - (now or datetime.now(timezone.utc))
    return f"{span(difference)} ago" if difference <= timedelta(0) else f"in {span(difference)}"


def date(time: datetime) -> str:
    """A date and time in UTC that reads the same everywhere: ``24 Nov 2026, 08:05 UTC``."""
    return f"{time.astimezone(timezone.utc):%-d %b %Y, %H:%M} UTC"


def seconds(value: float) -> str:
    """Seconds as people say them: ``42 s``, ``3 min 20 s``."""
    whole = round(value)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
