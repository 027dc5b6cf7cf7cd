"""The points of a trace of strace are the calls that change something, and no others."""

from tests.lab import tracing

TRACE = """\
openat(AT_FDCWD</root>, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3</etc/passwd>
mkdir("/var/lib/evpn-host", 0700)       = -1 EEXIST (File exists)
mkdir("/run/evpn-host/evpn-host-stage-wyl474bo", 0700) = 0
openat(AT_FDCWD</root>, "/etc/frr/.frr.conf.new", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 4</e>
openat(5</etc/frr>, ".x.new", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 4</etc/frr/.x.new>
write(4</etc/frr/.frr.conf.new>, "! Written \\"by\\" evpn-host"..., 2286) = 2286
write(2</dev/pts/0>, "warning", 7) = 7
write(5<pipe:[6358]>, "address replace"..., 205) = 205
fsync(4</etc/frr/.frr.conf.new>)        = 0
rename("/etc/frr/.frr.conf.new", "/etc/frr/frr.conf") = 0
renameat(5</etc/frr>, ".x.new", 5</etc/frr>, "x") = 0
vfork()                                 = 2198
--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=2198, si_uid=0, si_status=0} ---
sendto(4<socket:[1]>, [{nlmsg_len=32, nlmsg_type=0x12 /* NLMSG_??? */, nlmsg_flags=1}], 32) = 32
sendto(4<socket:[1]>, [{nlmsg_len=32, nlmsg_type=0x14 /* NLMSG_??? */, nlmsg_flags=1}], 32) = 32
sendto(4<socket:[1]>, [{nlmsg_len=32, nlmsg_type=RTM_GETLINK, nlmsg_flags=1}], 32) = 32
sendto(4<socket:[1]>, "show bgp summary json\\0", 22, 0, NULL, 0) = 22
clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD, exit_signal=0, stack_size=0x9000}, 88) = 2226
clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD, stack_size=0x9000}, 88) = 2227
fsync(4</etc/frr>)                      = -1 EIO (Input/output error) (INJECTED)
unlinkat(6</run/evpn-host/evpn-host-stage-wyl474bo/etc/netplan>, "50-operator.yaml", 0) = 0
openat(AT_FDCWD</root>, "/var/lib/evpn-host/generations/.6/record.json", O_WRONLY|O_CREAT) = 4
sync()                                  = 0
+++ exited with 0 +++
"""


def test_points_are_calls_that_change_something() -> None:
    """A point has its number among the calls of its kind, and a path that each run has."""
    assert [(p.syscall, p.number, p.subject) for p in tracing.points(TRACE)] == [
        ("mkdir", 2, "/run/evpn-host/evpn-host-stage-*"),
        ("openat", 2, "/etc/frr/.frr.conf.new"),
        ("openat", 3, "/etc/frr/.x.new"),
        ("write", 1, "/etc/frr/.frr.conf.new"),
        ("fsync", 1, "/etc/frr/.frr.conf.new"),
        ("rename", 1, "/etc/frr/frr.conf"),
        ("renameat", 1, "/etc/frr/x"),
        ("vfork", 1, "a command"),
        ("sendto", 2, "a socket"),
        ("clone3", 2, "a command"),
        ("fsync", 2, "/etc/frr"),
        ("unlinkat", 1, "/run/evpn-host/evpn-host-stage-*/etc/netplan/50-operator.yaml"),
        ("openat", 4, "/var/lib/evpn-host/generations/.N/record.json"),
        ("sync", 1, ""),
    ]


def test_nearest_finds_a_call_again() -> None:
    """nearest() finds a call again although the run has read another file before it."""
    point = next(p for p in tracing.points(TRACE) if p.syscall == "renameat")
    more = 'renameat(5</etc/frr>, ".y.new", 5</etc/frr>, "y") = 0\n' + TRACE
    assert tracing.nearest(TRACE, point) == point.number == 1
    assert tracing.nearest(more, point) == 2
    assert tracing.nearest("", point) == 0


def test_last_finds_a_call_by_its_number() -> None:
    """last() finds a call by its number, and no call that did not happen."""
    assert tracing.last(TRACE, "fsync", 3) is None
    call = tracing.last(TRACE, "fsync", 2)
    assert call
    assert call[0].subject == "/etc/frr"
    assert tracing.INJECTED in call[1]


def test_starts_before_counts_commands() -> None:
    """starts_before() counts the commands that were started before a call."""
    assert tracing.starts_before(TRACE, "vfork", 1) == 0
    assert tracing.starts_before(TRACE, "clone3", 2) == 1
    assert tracing.starts_before(TRACE, "sync", 1) == 2


PROGRAMS = """\
2570  execve("/opt/evpn-host/bin/python", ["python", "-m", "generator"], 0x7f /* 5 vars */) = 0
2570  vfork( <unfinished ...>
2571  execve("/usr/local/sbin/ip", ["ip", "-force"], 0x40 /* 6 vars */) = -1 ENOENT (No such file)
2571  execve("/usr/sbin/ip", ["ip", "-force"], 0x40 /* 6 vars */ <unfinished ...>
2570  <... vfork resumed>)              = 2571
2570  clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88 <unfinished ...>
2570  <... clone3 resumed>)             = 2580
2580  execve("/usr/lib/systemd/systemd-sysctl", ["systemd-sysctl"], 0x41 <unfinished ...>
2580  vfork()                           = 2590
2590  execve("/usr/bin/grandchild", ["grandchild"], 0x41 /* 6 vars */) = 0
"""


def test_first_programs_are_our_tools() -> None:
    """first_programs() has our tools, not the tools of a tool."""
    tools = {"/usr/local/sbin/ip", "/usr/lib/systemd/systemd-sysctl"}
    assert tracing.first_programs(PROGRAMS) == tools
