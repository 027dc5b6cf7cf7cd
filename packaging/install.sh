#!/bin/sh
{ # The shell reads the whole block before it runs any of it, because the download may be cut short.

set -eu
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

settings=/etc/evpn-host
command=/usr/bin/evpn-host # the package's, not another one in PATH
units="evpn-host.service evpn-host.timer"
controller='' host='' ca_file='' ca_fingerprint='' token_file='' packages='' yes=''
aside='' before='' stopped=''
newline='
'

help() {
    cat <<'END'
Install evpn-host on this Debian or Ubuntu server and apply its controller's payload:

    install.sh --controller https://controller.example/{host}.json [OPTION …]

  --controller URL      where the payload comes from; {host} becomes the host's name
  --host NAME           the host's name in the payload, if it is not the machine's
  --ca-file FILE        the controller's CA certificate (PEM), instead of the system's
  --ca-fingerprint HEX  instead of --ca-file: SHA-256 of a certificate that the controller shows
  --token-file FILE     a bearer token
  --package NAME|FILE   what apt-get installs; may be repeated          [evpn-host]
  --yes                 apply without asking
  --help                show this text and change nothing

It installs the package, writes /etc/evpn-host/, fetches the payload, shows what would change, asks
you, applies, and enables the boot service and the timer. If that fails before the host was changed,
or if you answer no, it restores packages and settings. Run it again to upgrade the package or to
change a setting. A setting that you do not give stays as it is.

Exit codes: 0 done; 1 nothing was changed; 2 wrong usage; 4 a person is needed, and the message says
what to look at; else those of `evpn-host apply`.
END
}

say() { printf 'install.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
usage() { say "$*; --help shows the options"; exit 2; }

# Runs at the end of the script, in any case. If the host was not changed yet, it restores everything.
undo() {
    code=$?
    trap - EXIT
    trap '' HUP INT TERM
    set +e
    if [ "$code" -ne 0 ] && [ "$before" ]; then
        say "going back: the settings are restored, and new packages are removed"
        if ! back; then
            say "going back failed, see above: check $settings and the packages"
            code=4
        fi
    fi
    if [ "$stopped" ] && ! systemctl start evpn-host.timer; then
        say "evpn-host.timer was running before, and can't be started again"
        code=4
    fi
    [ ! "$aside" ] || rm -rf "$aside"
    exit "$code"
}

# Restores settings and packages. Returns 1 if a part failed, but tries all parts.
back() {
    copy_settings || return 1
    result=0
    purge_new || result=1 # before the settings: purging a new evpn-host removes them
    restore_settings || result=1
    return "$result"
}

# Removes the packages that this script installed, unless apt would have to remove others too.
purge_new() {
    list_packages "$aside/after" || return 1
    comm -13 "$aside/before" "$aside/after" >"$aside/new"
    new=$(tr '\n' ' ' <"$aside/new")
    [ "$new" ] || return 0
    if [ -e "$aside/vtep" ]; then
        say "these packages stay, because removing them would take this VTEP out of the fabric: $new"
        return 0
    fi
    # shellcheck disable=SC2086 # a list
    apt-get purge --simulate $new </dev/null >"$aside/log" 2>&1 || { cat "$aside/log" >&2; return 1; }
    sed -n 's/^Purg //p; s/^Remv //p' "$aside/log" | sed 's/ .*//' | sort -u >"$aside/leaving"
    if [ "$(comm -23 "$aside/leaving" "$aside/new")" ]; then
        say "these packages stay, because packages from before need them: $new"
        return 0
    fi
    # shellcheck disable=SC2086 # a list
    apt-get purge --yes --quiet=2 $new </dev/null >"$aside/log" 2>&1 || { cat "$aside/log" >&2; return 1; }
}

# Copies the settings to a place that survives a power cut: /tmp may be in memory.
copy_settings() {
    rm -rf "$settings.before" || return 1
    [ -e "$aside/settings" ] || return 0
    cp -a "$aside/settings" "$settings.copy" && sync && mv -T "$settings.copy" "$settings.before"
}

restore_settings() {
    rm -rf "$settings.failed"
    [ ! -e "$settings" ] || mv -T "$settings" "$settings.failed" || return 1
    [ ! -e "$settings.before" ] || mv -T "$settings.before" "$settings" || return 1
    sync
    rm -rf "$settings.failed"
}

# Writes the names of all installed packages, also half-installed ones.
list_packages() {
    dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' >"$1.all" &&
        sed '/^not-installed /d; /^config-files /d; s/^[^ ]* //' "$1.all" >"$1.names" &&
        sort -u "$1.names" >"$1" &&
        grep -qx dpkg "$1" # a list without dpkg is wrong, and packages not in it may be purged
}

# Sets ca_file to that certificate of the controller that has the given fingerprint.
fetch_ca() {
    command -v openssl >/dev/null || fail "--ca-fingerprint needs openssl"
    place=${controller#https://}
    place=${place%%[/?#]*}
    place=${place##*@}
    case $place in
        \[*\]) place=$place:443 ;;
        *:*) ;;
        *) place=$place:443 ;;
    esac
    timeout 20 openssl s_client -connect "$place" -servername "${place%:*}" -showcerts </dev/null \
        >"$aside/shown" 2>/dev/null || fail "$place: can't be reached, or does not speak TLS"
    awk -v to="$aside/cert" '/BEGIN CERT/ {n++; on = 1} on {print >(to n)} /END CERT/ {on = 0}' \
        "$aside/shown"
    for each in "$aside"/cert*; do
        [ -e "$each" ] || break
        fingerprint=$(openssl x509 -in "$each" -noout -fingerprint -sha256 2>/dev/null) || continue
        if [ "$(printf %s "${fingerprint#*=}" | tr -d :)" = "$ca_fingerprint" ]; then
            ca_file=$each
            return
        fi
    done
    fail "$place shows no certificate with that fingerprint"
}

# Writes the given settings. In config.yaml it replaces only their values.
write_settings() {
    /usr/bin/python3 -I - "$settings" "$controller" "$host" "$ca_file" "$token_file" <<'END'
import json, os, stat, sys
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


def write(path, data, mode, owner=(0, 0)):
    """Replace a file durably. Until it is complete, only root can read it."""
    new = f"{path}.new"
    if os.path.lexists(new):
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(data)
        opened.flush()
        if os.geteuid() == 0:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    os.rename(new, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def parse(text):
    """Return the settings of a text as a dict, and its tree of YAML nodes or None."""
    values = YAML(typ="safe", pure=True).load(text)
    if not isinstance(values, (dict, type(None))):
        raise ValueError("is not a list of settings, name: value")
    return dict(values or {}), YAML(typ="safe", pure=True).compose(text)


def replaced(text, settings):
    """Return the text with these settings. Every other character stays."""
    for name, value in settings.items():
        values, tree = parse(text)
        if values.get(name) == value:
            continue
        quoted = json.dumps(value, ensure_ascii=False)
        pairs = tree.value if values else []
        places = [pair for pair in pairs if pair[0].value == name]
        if places:
            [(key, node)] = places
            start, end = node.start_mark.index, node.end_mark.index
            end = start + len(text[start:end].rstrip())  # a block's end mark is on the next line
            if start == end:  # no value: the parser's marks are further down
                start = end = text.index(":", key.end_mark.index) + 1
                quoted = f" {quoted}"
            text = text[:start] + quoted + text[end:]
        elif tree is not None and getattr(tree, "flow_style", False):
            start = tree.start_mark.index + 1
            text = f"{text[:start]}{name}: {quoted}, {text[start:]}"
        else:
            end = tree.end_mark.index if pairs else len(text)
            indent = " " * pairs[0][0].start_mark.column if pairs else ""
            line_end = "" if text[:end].endswith("\n") or not text[:end] else "\n"
            text = f"{text[:end]}{line_end}{indent}{name}: {quoted}\n{text[end:]}"
        if parse(text)[0] != values | {name: value}:
            raise ValueError(f"has a form in which {name} can't be replaced: change it there")
    return text


def main(folder, controller, host, ca_file, token_file):
    file = f"{folder}/config.yaml"
    settings = {"controller": controller, "host": host}
    try:
        os.makedirs(folder, 0o755, exist_ok=True)
        for name, source, copy, mode in (
            ("ca_file", ca_file, f"{folder}/ca.pem", 0o644),
            ("token_file", token_file, f"{folder}/token", 0o600),
        ):
            if source:
                settings[name] = copy
                with open(source, "rb") as opened:
                    data = opened.read()
                write(copy, data, mode)
        mode, owner, text = 0o600, (0, 0), ""
        if os.path.lexists(file):
            status = os.lstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("is not a regular file: change the settings there yourself")
            mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
            with open(file, encoding="utf-8", newline="") as opened:
                text = opened.read()
        new = replaced(text, {name: value for name, value in settings.items() if value})
        if new != text:
            if "?" in controller:  # the query may have a token
                mode &= ~0o077
            write(file, new.encode(), mode, owner)
    except (YAMLError, ValueError, RecursionError) as error:
        sys.exit(f"install.sh: {file}: {error}")
    except OSError as error:
        sys.exit(f"install.sh: {error.filename or folder}: {error.strerror}")


main(*sys.argv[1:])
END
}

answer() {
    [ ! "$yes" ] || return 0
    printf 'Apply this to %s? [y/N] ' "$(uname -n)" >/dev/tty
    read -r reply </dev/tty || reply=
    case $reply in [yY] | [yY][eE][sS]) ;; *) fail "you answered no" ;; esac
}

# Ends with a message if a value can't be right for its option.
check_value() { # option, value
    case $2 in
        '') usage "$1 needs a value" ;;
        -*) usage "$1 needs a value, and $2 looks like an option" ;;
        *[[:cntrl:]]*) usage "$1: the value has a line end or another control character" ;;
    esac
    printf %s "$2" | iconv --from-code UTF-8 --to-code UTF-16 >/dev/null 2>&1 ||
        usage "$1: the value is not UTF-8"
    case $1 in
        --controller)
            case $2 in
                *[[:space:]]*) usage "--controller: a URL has no spaces" ;;
                http://?* | https://?* | /*) ;;
                *) usage "--controller: $2 is not an http(s) URL" ;;
            esac
            ;;
        --package)
            case $2 in
                /* | ./* | ../* | *.deb) ;;
                *[*?[]* | *- | *[[:space:]]*) # apt-get would search, or remove the package
                    usage "--package: $2 is neither the name of a package nor a file" ;;
            esac
            ;;
    esac
}

parse_options() {
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in
            --help | -h) help && exit ;;
            --yes) yes=1 && continue ;;
            --*=*) value=${option#*=} option=${option%%=*} ;;
            *)
                value=${1-}
                [ $# -eq 0 ] || shift
                ;;
        esac
        case $option in
            --controller | --host | --ca-file | --ca-fingerprint | --token-file | --package) ;;
            --yes | --help) usage "$option takes no value" ;;
            *) usage "$option is not an option" ;;
        esac
        check_value "$option" "$value"
        case $option in
            --controller) controller=$value ;;
            --host) host=$value ;;
            --ca-file) ca_file=$value ;;
            --ca-fingerprint)
                ca_fingerprint=$(printf %s "$value" | tr -d ': ' | tr a-f A-F)
                case ${#ca_fingerprint}:${ca_fingerprint%%[!0-9A-F]*} in
                    "64:$ca_fingerprint") ;;
                    *) usage "--ca-fingerprint is not 64 hexadecimal digits" ;;
                esac
                ;;
            --token-file) token_file=$value ;;
            --package)
                # apt-get treats a value as a file only if its path begins like this.
                case $value in
                    /* | ./* | ../*) ;;
                    *.deb) [ ! -f "$value" ] || value=./$value ;;
                esac
                packages=$packages$value$newline
                ;;
        esac
    done
}

# Checks that need no change.
check_host() {
    [ "$(id -u)" = 0 ] || usage "needs root"
    [ "$controller" ] || [ -e "$settings/config.yaml" ] || usage "--controller is not given"
    [ ! "$ca_file" ] || [ ! "$ca_fingerprint" ] || usage "--ca-file or --ca-fingerprint, not both"
    if [ "$ca_fingerprint" ]; then
        case $controller in https://*) ;; *) usage "--ca-fingerprint needs --controller https://…" ;; esac
    fi
    command -v apt-get >/dev/null || fail "there is no apt-get: not a Debian or Ubuntu system"
    [ -d /run/systemd/system ] || fail "systemd does not run this machine"
    for each in "$ca_file" "$token_file"; do
        [ ! "$each" ] || { [ -r "$each" ] && [ ! -d "$each" ]; } || fail "$each: can't be read"
    done
    if [ "$token_file" ]; then
        [ -z "$(find -L "$token_file" -perm /077)" ] || fail "$token_file: others can read it: chmod 600"
    fi
    [ ! -L "$settings" ] || fail "$settings is a symbolic link: it could not be restored"
    [ "$yes" ] || { : >/dev/tty; } 2>/dev/null || usage "there is no terminal to ask on: --yes"
}

install_packages() {
    [ "$packages" ] || packages=evpn-host$newline
    # File names may have spaces; no name is a pattern for the shell.
    IFS=$newline
    set -f
    # shellcheck disable=SC2086 # a list
    set -- $packages
    set +f
    unset IFS
    say "installing $*"
    for each; do
        case $each in
            */*) ;;
            *)
                apt-get update --quiet=2 --option APT::Update::Error-Mode=any </dev/null >&2 ||
                    say "apt-get update failed, see above: the newest version may not be installed"
                break
                ;;
        esac
    done
    # Remove no package, because it could not be restored. Keep the operator's conffiles: dpkg would
    # ask about them, but the question would be in the log, where nobody can answer it.
    apt-get install --yes --quiet=2 --no-remove --option Dpkg::Use-Pty=0 \
        --option Dpkg::Options::=--force-confdef --option Dpkg::Options::=--force-confold \
        -- "$@" </dev/null >"$aside/log" 2>&1 || {
        cat "$aside/log" >&2
        fail "the package can't be installed"
    }
    [ -x "$command" ] || fail "$command is missing: no package brought it"
}

apply() {
    differs=0
    "$command" diff || differs=$?
    [ "$differs" -le 1 ] || fail "evpn-host diff ended with $differs: see above"
    [ "$differs" = 0 ] || answer
    # If the terminal closes from now on, apply must not stop halfway.
    trap '' HUP INT TERM
    applied=0
    "$command" apply >"$aside/log" 2>&1 || applied=$?
    cat "$aside/log" || true
    case $applied in
        0) before='' ;;
        1 | 2 | 3 | 130) exit "$applied" ;; # the host is as before
        *)
            before='' # leave everything in place for a person to look at
            say "evpn-host apply ended with $applied: everything stays as it is now, for you to look at"
            exit "$applied"
            ;;
    esac
}

main() {
    parse_options "$@"
    check_host
    umask 022
    aside=$(mktemp -d)
    trap undo EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    list_packages "$aside/before" || fail "dpkg can't list the packages"
    # A power cut while going back may have left only the copy.
    [ -e "$settings" ] || [ ! -e "$settings.before" ] || mv -T "$settings.before" "$settings"
    [ ! -e "$settings" ] || cp -a "$settings" "$aside/settings"
    if [ -e /var/lib/evpn-host/record.json ] && ! grep -qx evpn-host "$aside/before"; then
        : >"$aside/vtep" # by a wheel
    fi
    [ ! "$ca_fingerprint" ] || fetch_ca
    if systemctl --quiet is-active evpn-host.timer; then
        stopped=1 # else the timer could apply before you have agreed
        systemctl stop evpn-host.timer
    fi

    before=1
    install_packages
    write_settings
    say "asking the controller"
    "$command" check || fail "the payload can't be fetched, or has problems"
    apply
    # shellcheck disable=SC2086 # a list
    if ! systemctl enable --quiet $units || ! systemctl start evpn-host.timer; then
        say "the host is a VTEP now, but its units can't be enabled: $units"
        exit 4
    fi
    stopped=''
    "$command" status || true
}

main "$@"
}
