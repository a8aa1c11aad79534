# Sourced by scripts that run long commands: a signal sent to the script alone reaches its command too.
#
#   run PROGRAM ...   runs a program and returns its status. If a signal arrived, the program gets it, and when it has
#                     ended, the script ends with 128 plus the number of the signal.
#   run_for_line VARIABLE PROGRAM ...   does the same, and sets a variable to the line that the program prints.
#   await PROCESS     does the same for a program that runs in the background already, given by its process id.
#   record FILE       copies its input to its output and appends it to a file, until the end of the input: for the
#                     output of a stopped program.
#   output_failed STATUS  ends a script whose output cannot be written.
#
# After a signal, the script ends with 128 plus its number wherever it ends, also if it can no longer print. A script that
# has to do something after a stopped program sets ends_when_stopped=false. $stopped is the name of the signal, or empty.
# Signals ignored from the start, as by nohup, stay ignored.

# Closed standard streams become the null device: otherwise the next file that a program opens would be one of them.
[[ -e /dev/fd/0 ]] || exec </dev/null
[[ -e /dev/fd/1 ]] || exec >/dev/null
[[ -e /dev/fd/2 ]] || exec 2>/dev/null

output_failed() { # ends the script after a program with status $1 could not print: 141 if the reader has ended, or 1
    exit $(($1 == 141 ? 141 : 1))
}

stopping_signals=(HUP INT QUIT USR1 USR2 ALRM TERM XCPU VTALRM PROF) # those of mlperf/util/signals.py
stopped=
ends_when_stopped=true
running=
signals_received=0

receive() {
    stopped=${stopped:-$1}
    signals_received=$((signals_received + 1))
    [[ -z $running ]] || kill -s "$1" "$running" 2>/dev/null || true
}
for signal in "${stopping_signals[@]}"; do
    # shellcheck disable=SC2064 # the name of this signal, not of the last
    trap "receive $signal" "$signal"
done

trap '[[ -z $stopped ]] || exit "$(stop_status)"' EXIT

stop_status() { # prints 128 plus the number of the signal that arrived
    echo $((128 + $(kill -l "$stopped")))
}

run() {
    if [[ -n $stopped ]]; then
        [[ $ends_when_stopped == false ]] || exit "$(stop_status)"
        return "$(stop_status)"
    fi
    # In the background, a shell ignores INT and QUIT, and reads nothing unless its input is named.
    (trap - INT QUIT && exec "$@") <&0 &
    await $!
}

run_for_line() {
    # Not a command substitution, during which this shell would not forward signals.
    exec 4< <(trap - INT QUIT && exec "${@:2}")
    await $! || return
    IFS= read -r "${1?}" <&4
    exec 4<&-
}

await() {
    local received status
    running=$1
    # A signal that arrived before the trap knew the process.
    [[ -z $stopped ]] || kill -s "$stopped" "$running" 2>/dev/null || true
    while
        received=$signals_received
        status=0
        wait "$running" || status=$?
        [[ $signals_received -ne $received ]] # the wait was interrupted, not the process
    do :; done
    running=
    [[ -z $stopped || $ends_when_stopped == false ]] || exit "$(stop_status)"
    return "$status"
}

record() {
    trap '' "${stopping_signals[@]}"
    exec tee -a "$1"
}
