# bash completion for sysvisor-runc
# generated from sysvisor_runc/cli/table.py by `make docs`; edit that instead

_sysvisor_runc_words() { COMPREPLY=($(compgen -W "$1" -- "$cur")); }
_sysvisor_runc_paths() { local IFS=$'\n'; COMPREPLY=($(compgen "$1" -- "$cur")); }

# Complete the value of flag $2 of command $1, which is empty for a global flag. Fails if that takes none.
_sysvisor_runc_value() {
    case $1:$2 in
        :--log | :--root | :--criu | create:--console-socket | create:--pidfd-socket | create:--pid-file | exec:--console-socket | exec:--pidfd-socket | exec:--process | exec:-p | exec:--pid-file | install:--config | restore:--console-socket | restore:--pid-file | run:--console-socket | run:--pidfd-socket | run:--pid-file | update:--resources | update:-r)
            _sysvisor_runc_paths -f ;;
        :--log-format)
            _sysvisor_runc_words 'text json' ;;
        :--rootless)
            _sysvisor_runc_words 'true false auto' ;;
        checkpoint:--image-path | checkpoint:--work-path | checkpoint:--parent-path | create:--bundle | create:-b | exec:--cwd | restore:--bundle | restore:-b | restore:--image-path | restore:--work-path | run:--bundle | run:-b | spec:--bundle | spec:-b)
            _sysvisor_runc_paths -d ;;
        checkpoint:--manage-cgroups-mode | restore:--manage-cgroups-mode)
            _sysvisor_runc_words 'soft full strict ignore' ;;
        checkpoint:--empty-ns | checkpoint:--status-fd | checkpoint:--page-server | create:--preserve-fds | create:--set-credential | create:--load-credential | events:--interval | events:--since | exec:--env | exec:-e | exec:--user | exec:-u | exec:--additional-gids | exec:-g | exec:--process-label | exec:--apparmor | exec:--cap | exec:-c | exec:--preserve-fds | exec:--cgroup | logs:--since | restore:--empty-ns | restore:--lsm-profile | restore:--lsm-mount-context | run:--preserve-fds | run:--set-credential | run:--load-credential | run:--restart | run:--restart-delay | spec:--id-map | spec:-m | supervisor:--linger | update:--blkio-weight | update:--cpu-period | update:--cpu-quota | update:--cpu-burst | update:--cpu-share | update:--cpu-rt-period | update:--cpu-rt-runtime | update:--cpuset-cpus | update:--cpuset-mems | update:--memory | update:--memory-reservation | update:--memory-swap | update:--pids-limit | update:--l3-cache-schema | update:--mem-bw-schema)
            COMPREPLY=() ;;
        create:--uid-shift | run:--uid-shift)
            _sysvisor_runc_words 'idmap chown none' ;;
        events:--format | events:-f)
            _sysvisor_runc_words 'json table' ;;
        list:--format | list:-f | ps:--format | ps:-f)
            _sysvisor_runc_words 'table json' ;;
        update:--cpu-idle)
            _sysvisor_runc_words '0 1' ;;
        *) return 1 ;;
    esac
    return 0 # compgen fails where nothing matches
}

_sysvisor_runc_flags() {
    case $1 in
        '') _sysvisor_runc_words '--debug --log --log-format --root --systemd-cgroup --rootless --criu --no-sysvisor-fs --no-syscont --only-syscont --help -h --version -v' ;;
        attach) _sysvisor_runc_words '' ;;
        checkpoint) _sysvisor_runc_words '--image-path --work-path --tcp-established --ext-unix-sk --shell-job --lazy-pages --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --parent-path --leave-running --tcp-skip-in-flight --link-remap --status-fd --page-server --pre-dump' ;;
        create) _sysvisor_runc_words '--bundle -b --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --set-credential --load-credential --uid-shift --cpuset-from-quota' ;;
        delete) _sysvisor_runc_words '--force -f' ;;
        doctor) _sysvisor_runc_words '--json' ;;
        events) _sysvisor_runc_words '--interval --stats --all -a --since --format -f' ;;
        exec) _sysvisor_runc_words '--console-socket --pidfd-socket --cwd --env -e --tty -t --user -u --additional-gids -g --process -p --detach -d --pid-file --process-label --apparmor --no-new-privs --cap -c --preserve-fds --cgroup --ignore-paused' ;;
        features) _sysvisor_runc_words '' ;;
        help) _sysvisor_runc_words '' ;;
        install) _sysvisor_runc_words '--docker --containerd --podman --crio --default --uninstall --dry-run --config' ;;
        kill) _sysvisor_runc_words '' ;;
        list) _sysvisor_runc_words '--format -f --quiet -q' ;;
        logs) _sysvisor_runc_words '--follow -f --since' ;;
        pause) _sysvisor_runc_words '' ;;
        ps) _sysvisor_runc_words '--format -f' ;;
        restore) _sysvisor_runc_words '--console-socket --bundle -b --detach -d --pid-file --no-subreaper --no-pivot --image-path --work-path --tcp-established --ext-unix-sk --shell-job --lazy-pages --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --lsm-profile --lsm-mount-context' ;;
        resume) _sysvisor_runc_words '' ;;
        run) _sysvisor_runc_words '--bundle -b --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --set-credential --load-credential --uid-shift --cpuset-from-quota --detach -d --no-supervisor --restart --restart-delay --keep --no-subreaper' ;;
        spec) _sysvisor_runc_words '--bundle -b --rootless --id-map -m' ;;
        start) _sysvisor_runc_words '' ;;
        state) _sysvisor_runc_words '' ;;
        supervisor) _sysvisor_runc_words '--status --stop --linger' ;;
        update) _sysvisor_runc_words '--resources -r --blkio-weight --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period --cpu-rt-runtime --cpu-idle --cpuset-cpus --cpuset-mems --memory --memory-reservation --memory-swap --pids-limit --l3-cache-schema --mem-bw-schema' ;;
        wait) _sysvisor_runc_words '' ;;
    esac
}

_sysvisor_runc() {
    local cur='' verb='' pending='' word arguments=0 i root=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == = ]]; then
            continue # bash hands --flag=value over as three words
        elif [[ -n $pending ]]; then
            [[ $pending == --root ]] && root=(--root "$word")
            pending=''
        elif [[ $word == -* ]]; then
            if _sysvisor_runc_value "$verb" "$word" || _sysvisor_runc_value '' "$word"; then pending=$word; fi
        elif [[ -z $verb ]]; then
            verb=$word
        else
            ((++arguments))
        fi
    done
    cur=${COMP_WORDS[COMP_CWORD]}
    [[ $cur == = ]] && cur=''
    COMPREPLY=()
    if [[ -n $pending ]]; then
        _sysvisor_runc_value "$verb" "$pending" || _sysvisor_runc_value '' "$pending"
    elif [[ $cur == -* ]]; then
        _sysvisor_runc_flags "$verb"
    elif [[ -z $verb || $verb == help ]]; then
        _sysvisor_runc_words 'attach checkpoint create delete doctor events exec features help install kill list logs pause ps restore resume run spec start state supervisor update wait'
    elif [[ ' attach checkpoint delete events exec kill logs pause ps resume start state update wait ' == *" $verb "* && $arguments == 0 ]]; then
        _sysvisor_runc_words "$("${COMP_WORDS[0]}" "${root[@]}" list --quiet 2>/dev/null)"
    elif [[ $verb == kill && $arguments == 1 ]]; then
        local signals
        signals=$(compgen -A signal -X 'SIGJUNK*' SIG)
        [[ $cur == SIG* ]] || signals=${signals//SIG/}
        _sysvisor_runc_words "$signals"
    fi
}

complete -o filenames -F _sysvisor_runc sysvisor-runc
