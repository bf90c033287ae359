"""Which system calls a system container needs: names only, each family with the reason for it.

Data, imports nothing. What is not here is left to the profile: a name that no installed kernel or libseccomp knows
does no harm, a name too many widens what a container may try on the kernel.

Left out on purpose, because a user namespace does not contain what they reach, or nothing inside depends on them:

* kexec_load, kexec_file_load, init_module, finit_module, delete_module: code into the host's kernel.
* swapon, swapoff, acct, settimeofday, clock_settime, stime: state of the whole machine that is in no namespace.
* syslog: with kernel.dmesg_restrict=0 anybody reads the host's kernel log. iopl, ioperm: the host's ports.
* perf_event_open: watches the whole machine where kernel.perf_event_paranoid is low. lookup_dcookie: likewise.
* io_uring_*: nothing inside needs it to start, and of all facilities it gave the most ways out; default profiles
  dropped it in 2023. userfaultfd: holds kernel code at a page fault, which exploits of races want.
* nfsservctl, sysfs, uselib, ustat, vm86, vm86old, _sysctl, get_kernel_syms and such: gone, or of no use.
"""

# Without these the machine does not boot or its container engines cannot make a container. A profile that blocks them
# by name cannot be meant for a system container, so they are unblocked in block-lists too.
_REQUIRED = (
    # Namespaces: systemd's sandboxing, every container engine. The kernel checks capabilities in the user namespace.
    # Profiles refuse clone by its flags, and clone3 altogether because a filter cannot see its flags.
    "clone clone3 setns unshare "
    # Mounts, the old way and by file descriptor. EPERM (not ENOSYS) on the new calls makes systemd, crun and
    # runc ≥ 1.3.3 give up instead of falling back.
    "mount umount umount2 fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr "
    # The root of an inner container.
    "chroot pivot_root "
    # Names of the machine: in the UTS namespace.
    "sethostname setdomainname "
    # Keyrings: systemd and runc give each service or container a session keyring, and fail on EPERM.
    "add_key keyctl request_key "
    # Inner engines and systemd's SystemCallFilter= put further filters on top; a filter can only take away.
    "seccomp"
)

# What runs inside uses these and does with less when they fail. Only allow-lists are extended by them: who blocks one
# by name may have meant it.
_WANTED = (
    # Mounts as objects (6.8 and newer): they show and change what the mount namespace holds.
    "listmount listns open_tree_attr statmount "
    # File handles: systemd reads cgroup ids and opens cgroups and pidfds by them. Opening needs CAP_DAC_READ_SEARCH
    # over the file system's own user namespace, which a container has for what it mounted itself.
    "name_to_handle_at open_by_handle_at "
    # Device rules of cgroup v2, IP accounting, LSM hooks of systemd. Without CAP_BPF on the host or a delegated token
    # the kernel allows nothing of it, as long as kernel.unprivileged_bpf_disabled is on (the default).
    "bpf "
    # In a pid namespace reboot(2) only ends its init, by SIGHUP to restart and SIGINT to power off: how the two
    # are told apart from outside.
    "reboot "
    # Processes by file descriptor, and looking into them: checked as for ptrace, in the user namespace.
    "kcmp pidfd_getfd pidfd_open pidfd_send_signal process_madvise process_mrelease process_vm_readv process_vm_writev "
    "ptrace "
    # Quotas: dockerd asks for project quotas, systemd limits tmpfs; what is not the caller's own needs CAP_SYS_ADMIN
    # on the host.
    "quotactl quotactl_fd "
    # Watching file systems: since 5.13 the unprivileged subset, on what the caller can open.
    "fanotify_init "
    # Sandboxes that a process puts itself in, and the labels of itself.
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules "
    "lsm_set_self_attr "
    # NUMA policies of services and inner containers: on the caller's own memory.
    "get_mempolicy mbind set_mempolicy set_mempolicy_home_node "
    # How the program is to be treated: setarch, 32-bit containers; see CONDITIONAL for how far.
    "personality"
)

# What ordinary programs use, and Docker's default profile has long allowed.
_ORDINARY = (
    """
    accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown chown32 clock_adjtime clock_getres
    clock_gettime clock_nanosleep close connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group
    faccessat fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchown fchown32 fchownat fcntl
    fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
    fstatfs64 fsync ftruncate ftruncate64 futex futimesat get_robust_list get_thread_area getcpu getcwd getdents
    getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 gethostname getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
    ioctl ioprio_get ioprio_set ipc kill lchown lchown32 lgetxattr link linkat listen listxattr llistxattr _llseek
    lremovexattr lseek lsetxattr lstat lstat64 madvise memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap
    msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat _newselect open openat pause
    pipe pipe2 poll ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv recv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2
    restart_syscall rmdir rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield select semctl semget semop semtimedop send sendfile sendfile64 sendmmsg sendmsg
    sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr shmat shmctl shmdt shmget
    shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socket socketcall socketpair splice stat stat64
    statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times
    tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4
    waitid waitpid write writev
    """
    # The same with 64-bit time, which 32-bit programs use since 2038 came near.
    """
    clock_adjtime64 clock_getres_time64 clock_gettime64 clock_nanosleep_time64 futex_time64 io_pgetevents_time64
    mq_timedreceive_time64 mq_timedsend_time64 ppoll_time64 pselect6_time64 recvmmsg_time64 rt_sigtimedwait_time64
    sched_rr_get_interval_time64 semtimedop_time64 timer_gettime64 timer_settime64 timerfd_gettime64
    timerfd_settime64 utimensat_time64
    """
    # What came since: C libraries try these first, and most fall back on ENOSYS only.
    """
    cachestat close_range epoll_pwait2 faccessat2 fchmodat2 file_getattr file_setattr futex_requeue futex_wait
    futex_waitv futex_wake getxattrat listxattrat membarrier openat2 removexattrat rseq setxattrat
    """
    # Memory protection keys and shadow stacks: on the caller's own memory.
    "map_shadow_stack memfd_secret mseal pkey_alloc pkey_free pkey_mprotect "
    # What a single architecture needs: thread areas, caches, segments, and the uprobe trampoline of a traced program.
    "arch_prctl arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush modify_ldt riscv_flush_icache riscv_hwprobe "
    "s390_runtime_instr set_tls swapcontext sync_file_range2 uretprobe"
)

# Needed, but the conditions of the profile stay: personality can switch address randomisation off, and socket opens
# families, such as AF_VSOCK, that no network namespace contains.
CONDITIONAL = frozenset(("personality", "socket"))

REQUIRED = frozenset(_REQUIRED.split())
NEEDED = frozenset((_REQUIRED + " " + _WANTED + " " + _ORDINARY).split())
