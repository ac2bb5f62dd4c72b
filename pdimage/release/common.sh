# What both hooks share; `release` is set. They are called by fussy with facts in FUSSY_*, by older installers with less
# (fussy 1.0 gives the path alone), or by hand, and may run twice or after anything else. So they look at what is there.
target=${FUSSY_TARGET:-${release%/*}}
current=$target/current
link=$(readlink "$current" || true)
previous=${FUSSY_PREVIOUS-${link:+$target/${link##*/}}}
if [ "$previous" = "$release" ]; then previous=; fi
action=${FUSSY_ACTION:-install}
if [ "${2:-False}" = True ]; then action=fallback; fi
. "$release/.fussy/hooks.conf"

has_systemd() {
    [ "$SYSTEM" = / ] && [ -d /run/systemd/system ]
}

runs() { # PID: a process id is given to other programs again, so look who has it
    tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -q 'lib/start.py paradrop.main:main'
}

lives() { # PID: it is there and no zombie
    grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"
}

stop_by_pid() { # FILE: politely, for the runtime takes its configuration back; then for good
    pid=$(cat "$1" 2>/dev/null) || return 0
    case $pid in '' | *[!0-9]*) rm -f "$1"; return 0 ;; esac
    if runs "$pid"; then
        kill "$pid" 2>/dev/null || true
        tries=300
        while runs "$pid" && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
        if runs "$pid"; then kill -9 "$pid" 2>/dev/null || true; fi
    fi
    rm -f "$1"
}

stop_runtime() {
    if has_systemd; then
        systemctl stop paradrop.service 2>/dev/null || ! systemctl is-active --quiet paradrop.service
    fi
    # the release before may keep its process id elsewhere
    for other in "$previous" "$release"; do
        if [ -r "$other/.fussy/hooks.conf" ]; then
            stop_by_pid "$(. "$other/.fussy/hooks.conf"; echo "$RUN/pd.pid")"
        fi
    done
}

start_timers() { # a trial begins now, not at the next boot
    if has_systemd && [ -e "$release/etc/systemd/system/firmware-trial.timer" ]; then
        systemctl daemon-reload
        systemctl start firmware-trial.timer
    fi
}

start_runtime() {
    if has_systemd; then
        systemctl daemon-reload
        mode=replace
        if [ "$(systemctl is-active firmware-recover.service)" = activating ]; then
            # A boot finishes an upgrade: the runtime would wait for that service, which waits for this hook.
            systemctl start docker.service 2>/dev/null || true  # without one the runtime tells what it lacks
            mode=ignore-dependencies
        fi
        systemctl restart --job-mode=$mode paradrop.service
        return
    fi
    mkdir -p "$RUN"
    # an output of its own: the hook's ends with the hook
    setsid "$current/bin/pd" </dev/null >>"$RUN/pd.log" 2>&1 &
    pid=$!
    echo $pid >"$RUN/pd.pid"
    # until its command line is the runtime's, stop_by_pid would take it for another program
    tries=100
    until runs $pid; do
        tries=$((tries - 1))
        if ! lives $pid || [ $tries = 0 ]; then echo "the runtime does not start, see $RUN/pd.log" >&2; return 1; fi
        sleep 0.05
    done
}
