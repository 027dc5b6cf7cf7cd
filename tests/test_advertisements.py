"""Lines about router advertisements that FRR's reload can't change come in FRR's order."""

from generator.activation.advertisements import changes

RUNNING = """\
interface ens4
 ipv6 nd ra-interval 3
exit
!
interface nbr-40
 no ipv6 nd suppress-ra
 ipv6 nd ra-interval 30
 ipv6 nd ra-lifetime 90
 ipv6 nd prefix fd00:40::/64
 ipv6 nd rdnss fd00:53::1 300
exit
!
"""


def test_the_same_is_left_alone() -> None:
    """Another order of lines is no change, nor are lines of other interfaces."""
    assert not changes(RUNNING, "\n".join(["interface nbr-40", *RUNNING.splitlines()[9:4:-1]]))
    assert not changes(RUNNING, RUNNING.replace("ra-interval 3\n", "ra-interval 5\n"))


def test_an_interval_changes_while_there_is_no_lifetime() -> None:
    """FRR refuses an interval above the lifetime, and a lifetime below the interval."""
    longer = RUNNING.replace("interval 30", "interval 600").replace("lifetime 90", "lifetime 1800")
    for old, new in ((RUNNING, longer), (longer, RUNNING)):
        lines = changes(old, new)
        assert lines[:2] == ["interface nbr-40", "no ipv6 nd ra-lifetime"]
        interval, lifetime = (
            next(n for n, line in enumerate(lines) if line.startswith(f"ipv6 nd ra-{setting}"))
            for setting in ("interval", "lifetime")
        )
        assert interval < lifetime


def test_a_stanza_that_is_gone_is_taken_back_line_by_line() -> None:
    """FRR refuses `no interface` for an interface that the kernel has."""
    assert changes(RUNNING, "interface ens4\n ipv6 nd ra-interval 3\nexit\n") == [
        "interface nbr-40",
        "no ipv6 nd ra-lifetime",
        "ipv6 nd suppress-ra",
        "no ipv6 nd ra-interval 30",
        "no ipv6 nd ra-lifetime 90",
        "no ipv6 nd prefix fd00:40::/64",
        "no ipv6 nd rdnss fd00:53::1 300",
        "exit",
    ]


def test_a_new_bridge_is_told_all() -> None:
    """A bridge without a stanza gets every line of it."""
    assert changes("", RUNNING) == [
        "interface nbr-40",
        "no ipv6 nd ra-lifetime",
        *(line.strip() for line in RUNNING.splitlines()[5:10]),
        "exit",
    ]
