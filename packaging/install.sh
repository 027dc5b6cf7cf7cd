#!/bin/sh
# Make this Debian or Ubuntu server what its controller says, in one go:
#
#     install.sh --controller https://controller.example/{host}.json [OPTION …]
#
#   --controller URL      where the payload comes from; {host} becomes the host's name
#   --host NAME           the host's name in the payload, if it is not the machine's
#   --ca-file FILE        the controller's CA certificate (PEM), in place of the system's
#   --ca-fingerprint HEX  instead: SHA-256 of a certificate that the controller itself shows
#   --token-file FILE     a bearer token
#   --package NAME|FILE   what apt-get installs; may be repeated          [evpn-host]
#   --yes                 apply without asking
#
# It installs the package, writes /etc/evpn-host/, asks the controller, shows what would change, asks
# you, applies, and enables the boot service and the timer. If that fails before the host was changed,
# or if you say no, packages and settings are as they were before. Run it again to upgrade the package
# or to change a setting. A setting that you do not give stays as it is.
#
# Exit codes: 0 done; 1 nothing was changed; 2 wrong usage; else those of `evpn-host apply`.
set -eu
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

settings=/etc/evpn-host
units="evpn-host.service evpn-host.timer"
controller='' host='' ca_file='' ca_fingerprint='' token_file='' packages='' yes=''
aside='' before='' stopped=''

say() { printf 'install.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
usage() { say "$*"; exit 2; }

# Runs at the end, however it comes. Before the host was changed, everything is restored.
undo() {
    code=$?
    trap - EXIT
    trap '' HUP INT TERM
    set +e
    [ "$code" -ne 0 ] && [ "$before" ] && back
    [ ! "$stopped" ] || systemctl start evpn-host.timer
    [ ! "$aside" ] || rm -rf "$aside"
    exit "$code"
}

back() {
    say "going back: this machine is left as it was found"
    installed >"$aside/after"
    new=$(comm -13 "$aside/before" "$aside/after")
    if grep -qx evpn-host "$aside/before"; then
        rm -rf "$settings"
        [ ! -e "$aside/settings" ] || cp -a "$aside/settings" "$settings"
    fi
    # shellcheck disable=SC2086 # a list
    [ ! "$new" ] || apt-get purge --yes --quiet=2 $new >"$aside/log" 2>&1 || cat "$aside/log" >&2
    if ! grep -qx evpn-host "$aside/before" && [ -e "$aside/settings" ]; then
        rm -rf "$settings"
        cp -a "$aside/settings" "$settings"
    fi
}

# Prints every package that dpkg has files of, half-installed ones too.
installed() {
    dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' |
        sed -n '/^not-installed /d; /^config-files /d; s/^[^ ]* //p' | sort -u
}

# Prints the certificate with that fingerprint, of those that the controller shows.
fetch_ca() {
    command -v openssl >/dev/null || fail "--ca-fingerprint needs openssl"
    place=${controller#https://}
    place=${place%%/*}
    case $place in *:*) ;; *) place=$place:443 ;; esac
    timeout 20 openssl s_client -connect "$place" -servername "${place%:*}" -showcerts </dev/null \
        >"$aside/shown" 2>/dev/null || fail "$place: can't be reached, or does not speak TLS"
    awk -v to="$aside/cert" '/BEGIN CERT/ {n++; on = 1} on {print >(to n)} /END CERT/ {on = 0}' \
        "$aside/shown"
    wanted=$(printf %s "$ca_fingerprint" | tr -d ': ' | tr '[:lower:]' '[:upper:]')
    for each in "$aside"/cert*; do
        [ -e "$each" ] || break
        found=$(openssl x509 -in "$each" -noout -fingerprint -sha256 | sed 's/.*=//; s/://g')
        if [ "$found" = "$wanted" ]; then
            ca_file=$each
            return
        fi
    done
    fail "$place shows no certificate with that fingerprint"
}

# Writes the given settings into the file of settings. Comments stay.
write_settings() {
    mkdir -p "$settings"
    case $ca_file in '' | "$settings/ca.pem") ;; *) install -m 644 "$ca_file" "$settings/ca.pem" ;; esac
    case $token_file in '' | "$settings/token") ;; *) install -m 600 "$token_file" "$settings/token" ;; esac
    /usr/bin/python3 -I - "$settings/config.yaml" "controller=$controller" "host=$host" \
        "ca_file=${ca_file:+$settings/ca.pem}" "token_file=${token_file:+$settings/token}" <<'END'
import os, shutil, sys
from ruamel.yaml import YAML

file, *words = sys.argv[1:]
given = dict(word.split("=", 1) for word in words if not word.endswith("="))
yaml, found = YAML(), {}
if os.path.exists(file):
    with open(file) as text:
        found = yaml.load(text) or {}
if given.items() - found.items():
    found.update(given)
    with open(f"{file}.new", "w") as text:
        yaml.dump(found, text)
    if os.path.exists(file):
        shutil.copymode(file, f"{file}.new")
    os.replace(f"{file}.new", file)
END
}

answer() {
    [ "$yes" ] && return
    printf 'Apply this to %s? [y/N] ' "$(uname -n)" >/dev/tty
    read -r said </dev/tty || said=
    case $said in [yY] | [yY][eE][sS]) ;; *) fail "you said no" ;; esac
}

# All of it is read before any of it runs: it may come through a pipe that breaks.
main() {
    while [ $# -gt 0 ]; do
        case $1 in
            --yes) yes=1 && shift && continue ;;
            --controller | --host | --ca-file | --ca-fingerprint | --token-file | --package) ;;
            *) usage "$1 is not an option" ;;
        esac
        [ "${2-}" ] || usage "$1 needs a value"
        case $1 in
            --controller) controller=$2 ;;
            --host) host=$2 ;;
            --ca-file) ca_file=$2 ;;
            --ca-fingerprint) ca_fingerprint=$2 ;;
            --token-file) token_file=$2 ;;
            --package) packages="$packages $2" ;;
        esac
        shift 2
    done

    # Checks that need no change.
    [ "$(id -u)" = 0 ] || usage "needs root"
    [ "$controller" ] || [ -e "$settings/config.yaml" ] || usage "--controller is not given"
    [ ! "$ca_file" ] || [ ! "$ca_fingerprint" ] || usage "--ca-file or --ca-fingerprint, not both"
    if [ "$ca_fingerprint" ]; then
        case $controller in https://*) ;; *) usage "--ca-fingerprint needs --controller https://…" ;; esac
    fi
    command -v apt-get >/dev/null || fail "there is no apt-get: not a Debian or Ubuntu system"
    [ -d /run/systemd/system ] || fail "systemd does not run this machine"
    [ ! "$ca_file" ] || [ -r "$ca_file" ] || fail "$ca_file: can't be read"
    if [ "$token_file" ]; then
        [ -r "$token_file" ] || fail "$token_file: can't be read"
        [ -z "$(find -L "$token_file" -perm /077)" ] || fail "$token_file: others can read it: chmod 600"
    fi
    [ "$yes" ] || { : >/dev/tty; } 2>/dev/null || usage "there is no terminal to ask on: --yes"

    umask 022
    aside=$(mktemp -d)
    trap undo EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    installed >"$aside/before"
    [ ! -e "$settings" ] || cp -a "$settings" "$aside/settings"
    [ ! "$ca_fingerprint" ] || fetch_ca
    if systemctl --quiet is-active evpn-host.timer; then
        stopped=1 # or it applies what nobody has agreed to yet
        systemctl stop evpn-host.timer
    fi

    before=1
    say "installing ${packages:-evpn-host}"
    for each in ${packages:-evpn-host}; do
        case $each in */*) ;; *) apt-get update --quiet=2 >&2 && break ;; esac
    done
    # shellcheck disable=SC2086 # a list
    apt-get install --yes --quiet=2 --option Dpkg::Use-Pty=0 ${packages:-evpn-host} >"$aside/log" 2>&1 || {
        cat "$aside/log" >&2
        fail "the package can't be installed"
    }
    write_settings
    say "asking the controller"
    evpn-host check || fail "the payload can't be had, or has problems"
    differs=0
    evpn-host diff || differs=$?
    [ "$differs" -le 1 ] || fail "this host can't be a VTEP as it is"
    [ "$differs" = 0 ] || answer
    # The terminal may go away now, and must not stop apply halfway.
    trap '' HUP INT TERM
    applied=0
    evpn-host apply >"$aside/log" 2>&1 || applied=$?
    cat "$aside/log" || true
    if [ "$applied" = 0 ] || [ "$applied" -gt 3 ]; then
        before='' # done, or a person has to look at it with what is there
    fi
    [ "$applied" = 0 ] || exit "$applied"
    # shellcheck disable=SC2086 # a list
    systemctl enable --quiet $units
    systemctl start evpn-host.timer
    stopped=''
    evpn-host status || true
}

main "$@"
