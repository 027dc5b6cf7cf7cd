# Sourced by login shells of the machine (/etc/profile.d); does something in lab/shell's alone.
if [ "${LAB_SHELL-}" ] && [ "${BASH-}" ]; then
    [ "$LAB_SHELL" != new ] || export LAB_SHELL=$$
    PATH=/opt/repo/lab/guest/bin:$PATH
    [ -e ~/examples ] || ln -s /opt/repo/examples ~/examples
    . /opt/repo/lab/guest/completion.bash
    for folder in /etc /usr/lib /usr/share /lib; do
        [ ! -e "$folder/terminfo/${TERM:0:1}/$TERM" ] || LAB_SHELL_TERM=$TERM
    done
    # The machine knows few terminals. Those that it does not know are like xterm nowadays.
    export TERM=${LAB_SHELL_TERM:-xterm-256color}
    unset folder LAB_SHELL_TERM
fi
