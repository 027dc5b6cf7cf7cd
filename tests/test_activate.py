"""Steps whose command is made of names."""

from generator.activate import forget_neighbors


def test_sessions_that_end() -> None:
    """Of a numbered session no interface says anything."""
    argv = forget_neighbors(65001, ["10.9.9.1", "eth0.100", "fd00::1"]).argv
    assert set(argv[1::2]) == {"-c"}
    assert [line for line in argv if line.startswith("interface")] == ["interface eth0.100"]
    assert argv[-3::2] == ("no neighbor eth0.100", "no neighbor fd00::1")
    assert argv.index("router bgp 65001") > argv.index("no ipv6 nd ra-lifetime")
