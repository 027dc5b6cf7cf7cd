"""Steps whose command is made of names."""

from generator.activate import Step, forget_neighbors, run, silent


def test_sessions_that_end() -> None:
    """Of a numbered session no interface says anything."""
    argv = forget_neighbors(65001, ["10.9.9.1", "eth0.100", "fd00::1"]).argv
    assert set(argv[1::2]) == {"-c"}
    assert [line for line in argv if line.startswith("interface")] == ["interface eth0.100"]
    assert argv[-3::2] == ("no neighbor eth0.100", "no neighbor fd00::1")
    assert argv.index("router bgp 65001") > argv.index("no ipv6 nd ra-lifetime")


def test_who_asks_networkd_is_as_patient_as_the_step() -> None:
    """Its clients would give up after 25 s, whatever time the step has."""
    told = run(Step(("sh", "-c", "echo $SYSTEMD_BUS_TIMEOUT; echo $PATH"), "", timeout=90), silent)
    assert told.split("\n", 1)[0] == "90"
    assert told.split("\n")[1]
