# Completion for the commands of lab/shell, and for evpn-host.
_lab_words() {
    COMPREPLY=($(compgen -W "$1" -- "${COMP_WORDS[COMP_CWORD]}"))
}

_lab_complete() {
    case $1:$COMP_CWORD in
        on:1) _lab_words "$(ls /run/netns)" ;;
        on:2) COMPREPLY=($(compgen -c -- "$2")) ;;
        underlay:1) _lab_words "ns-leaf-0 ns-leaf-1" ;;
        underlay:2) _lab_words "on off" ;;
        reboot:1) _lab_words "--hard" ;;
    esac
}
complete -F _lab_complete -o default on
complete -F _lab_complete underlay reboot

# evpn-host itself prints this completion. That takes a while, so it waits for the first Tab.
_lab_load_evpn_host() {
    eval "$(_EVPN_HOST_COMPLETE=bash_source evpn-host)"
    return 124 # tells bash to complete again
}
complete -F _lab_load_evpn_host evpn-host
