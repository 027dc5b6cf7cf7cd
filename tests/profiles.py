"""How many examples the random tests try: few in the gate, and many with `--all`.

The gate must not fail for a reason that has nothing to do with the change. So its examples are the
same in each run. With `--all` they are new each time, and a failure shows how to repeat it.
"""

from dataclasses import dataclass

from hypothesis import HealthCheck, settings

_SUPPRESSED = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


@dataclass
class _Choice:
    long: bool = False


_choice = _Choice()


def choose(*, long: bool) -> None:
    """Load hypothesis' profile for this run, and choose what `rounds` returns.

    Called before any test module is imported: a test's own settings start from the profile.
    """
    _choice.long = long
    both = settings(deadline=None, print_blob=True, suppress_health_check=_SUPPRESSED)
    settings.register_profile("short", both, derandomize=True, database=None, max_examples=25)
    settings.register_profile("long", both, max_examples=500)
    settings.load_profile("long" if long else "short")


def rounds(*, short: int, long: int) -> int:
    """Return how many attempts a loop of random or repeated attempts makes in this run."""
    return long if _choice.long else short
