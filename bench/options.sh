# Splits arguments that hold several options, as scripts for the original implementation pass them:
#   bench/dlrm_s_criteo_terabyte.sh "--test-freq=10240 --memory-map --data-sub-sample-rate=0.875"
# The scripts of this folder source this file. It sets `options` to their arguments, each with one option or value.
# The value of a single option may contain spaces: "--raw-data-file=my folder/train.txt". Among several options,
# quotes around it are removed; they are needed if it contains " --": "--raw-data-file='a --b/train.txt' --memory-map".

split_argument() { # appends the options in argument $1 to `options`
    local rest=$1 head
    local quoted="^(--[^[:space:]=]+)(=|[[:space:]]+)('([^']*)'|\"([^\"]*)\")([[:space:]]+(--.*)?)?\$"
    local switch='^(--[^[:space:]=]+)[[:space:]]*$'
    local separate='^(--[^[:space:]=]+)[[:space:]]+(.+)$'
    while [[ -n $rest ]]; do
        if [[ $rest =~ $quoted ]]; then
            rest=${BASH_REMATCH[7]}
            if [[ ${BASH_REMATCH[2]} == "=" ]]; then
                options+=("${BASH_REMATCH[1]}=${BASH_REMATCH[4]}${BASH_REMATCH[5]}")
            else
                options+=("${BASH_REMATCH[1]}" "${BASH_REMATCH[4]}${BASH_REMATCH[5]}")
            fi
            continue
        fi
        head=${rest%%[[:space:]]--[[:alpha:]]*}
        rest=${rest:${#head}}
        rest=${rest#"${rest%%[![:space:]]*}"} # without leading spaces
        [[ -z $rest ]] || head=${head%"${head##*[![:space:]]}"}
        if [[ $head =~ $switch ]]; then
            options+=("${BASH_REMATCH[1]}")
        elif [[ $head =~ $separate ]]; then
            options+=("${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}")
        else
            options+=("$head")
        fi
    done
}

options=()
previous=
for argument in "$@"; do
    trimmed=${argument#"${argument%%[![:space:]]*}"}
    case $trimmed in
    "") # an empty variable of the caller, unless it is the value of the option before it
        [[ $previous != --* || $previous == *[=[:space:]]* ]] || options+=("$argument")
        ;;
    --*[[:space:]]*) split_argument "$trimmed" ;;
    --*) options+=("$trimmed") ;;
    *) options+=("$argument") ;;
    esac
    previous=$argument
done
