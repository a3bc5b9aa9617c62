//! The filter, run as the kernel runs it.

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter};

use super::calls::{ALLOWED, ALLOWED_X86_64, REFUSED};
use super::program::assemble;
use super::{ARCHITECTURE, fates};

/// Calls that are judged by their arguments.
const JUDGED: [libc::c_long; 10] = [
    libc::SYS_clone,
    libc::SYS_ioctl,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_personality,
    libc::SYS_prlimit64,
    libc::SYS_setrlimit,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_unshare,
];

const ALLOW: u32 = SECCOMP_RET_ALLOW;
const UNKNOWN: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const FORBIDDEN: u32 = SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// What the program answers for a call.
fn run(program: &[sock_filter], architecture: u32, call: libc::c_long, arguments: [u64; 3]) -> u32 {
    let word = |offset: u32| match offset {
        0 => call as u32,
        4 => architecture,
        _ => {
            let argument = arguments[(offset as usize - 16) / 8];
            (argument >> (offset % 8 * 8)) as u32
        }
    };
    let (mut at, mut value) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x06 => return k,
            0x15 => at += jump(value == k),
            0x20 => value = word(k),
            0x35 => at += jump(value >= k),
            0x54 => value &= k,
            other => panic!("{other:#x}"),
        }
    }
}

#[test]
fn what_is_listed_passes_what_is_known_for_harm_is_refused_and_nothing_else_is_there() {
    let program = assemble(ARCHITECTURE, &fates()).unwrap();
    for call in (0..1024).chain([0x4000_0000, 0x4000_0001, 0xffff_ffff]) {
        if JUDGED.contains(&call) {
            continue;
        }
        let listed = ALLOWED.contains(&call) || ALLOWED_X86_64.contains(&call);
        let expected = match REFUSED.contains(&call) {
            true => FORBIDDEN,
            false if listed => ALLOW,
            false => UNKNOWN,
        };
        assert_eq!(run(&program, ARCHITECTURE, call, [0; 3]), expected, "{call}");
        assert_eq!(run(&program, ARCHITECTURE ^ 1, call, [0; 3]), SECCOMP_RET_KILL_PROCESS, "{call}");
    }
    assert!(program.len() < 400, "{}", program.len());
}

#[test]
fn some_calls_are_judged_by_their_arguments() {
    const HIGH: u64 = 1 << 32;
    let program = assemble(ARCHITECTURE, &fates()).unwrap();
    let (unix, inet, inet6) = (libc::AF_UNIX as u64, libc::AF_INET as u64, libc::AF_INET6 as u64);
    let (netlink, packet) = (libc::AF_NETLINK as u64, libc::AF_PACKET as u64);
    let core = u64::from(libc::RLIMIT_CORE);
    let files = u64::from(libc::RLIMIT_NOFILE);
    let user = libc::CLONE_NEWUSER as u64;
    let fork = libc::SIGCHLD as u64;
    let kind = |kind: libc::mode_t| u64::from(kind | 0o644);
    for (call, arguments, expected) in [
        (libc::SYS_socket, [unix, 1, 7], ALLOW),
        (libc::SYS_socket, [unix | HIGH, 1, 0], ALLOW),
        (libc::SYS_socket, [inet, 1, 0], ALLOW),
        (libc::SYS_socket, [inet, 2, 17], ALLOW),
        (libc::SYS_socket, [inet6, 2, 58], ALLOW),
        (libc::SYS_socket, [inet, 3, 255], UNKNOWN),
        (libc::SYS_socket, [netlink, 3, 0], ALLOW),
        (libc::SYS_socket, [netlink, 3, 12], UNKNOWN),
        (libc::SYS_socket, [packet, 3, 0], UNKNOWN),
        (libc::SYS_socketpair, [unix, 1, 0], ALLOW),
        (libc::SYS_socketpair, [inet, 1, 0], UNKNOWN),
        (libc::SYS_personality, [0, 0, 0], ALLOW),
        (libc::SYS_personality, [0xffff_ffff, 0, 0], ALLOW),
        (libc::SYS_personality, [0x40000, 0, 0], UNKNOWN),
        (libc::SYS_mknodat, [0, 0, 0o644], ALLOW),
        (libc::SYS_mknodat, [0, 0, kind(libc::S_IFIFO)], ALLOW),
        (libc::SYS_mknodat, [0, 0, kind(libc::S_IFCHR)], UNKNOWN),
        (libc::SYS_mknod, [0, kind(libc::S_IFREG), 0], ALLOW),
        (libc::SYS_mknod, [0, kind(libc::S_IFBLK), 0], UNKNOWN),
        (libc::SYS_clone, [fork, 0, 0], ALLOW),
        (libc::SYS_clone, [fork | user, 0, 0], FORBIDDEN),
        (libc::SYS_clone, [user | HIGH, 0, 0], FORBIDDEN),
        (libc::SYS_unshare, [libc::CLONE_FILES as u64, 0, 0], ALLOW),
        (libc::SYS_unshare, [libc::CLONE_NEWNET as u64, 0, 0], FORBIDDEN),
        (libc::SYS_unshare, [0x80, 0, 0], FORBIDDEN),
        (libc::SYS_ioctl, [0, libc::TCGETS, 0], ALLOW),
        (libc::SYS_ioctl, [0, libc::TIOCSTI, 0], FORBIDDEN),
        (libc::SYS_ioctl, [0, libc::TIOCSTI | HIGH, 0], FORBIDDEN),
        (libc::SYS_ioctl, [0, libc::TIOCCONS, 0], FORBIDDEN),
        (libc::SYS_ioctl, [0, 0x4004_9409, 0], ALLOW),
        (libc::SYS_ioctl, [0, 0x5000_940e, 0], FORBIDDEN),
        (libc::SYS_prlimit64, [0, files, 1], ALLOW),
        (libc::SYS_prlimit64, [0, core, 0], ALLOW),
        (libc::SYS_prlimit64, [0, core, 8], FORBIDDEN),
        (libc::SYS_prlimit64, [0, core, HIGH], FORBIDDEN),
        (libc::SYS_prlimit64, [0, core | HIGH, HIGH], FORBIDDEN),
        (libc::SYS_setrlimit, [core, 0, 0], FORBIDDEN),
        (libc::SYS_setrlimit, [files, 0, 0], ALLOW),
    ] {
        assert_eq!(run(&program, ARCHITECTURE, call, arguments), expected, "{call} {arguments:x?}");
    }
}

/// What research calls for to be refused, by number, so that a call that is moved into the list of what passes is missed
/// here.
const DENIED: [libc::c_long; 57] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_clone3,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    libc::SYS_vmsplice,
];

#[test]
fn nothing_that_is_known_for_harm_passes_whatever_it_is_given() {
    let program = assemble(ARCHITECTURE, &fates()).unwrap();
    let values = [0, 1, 2, 0x1000_0000, u64::from(u32::MAX), 1 << 32, u64::MAX];
    for call in DENIED {
        for a in values {
            for b in values {
                for c in values {
                    let fate = run(&program, ARCHITECTURE, call, [a, b, c]);
                    assert!(fate == FORBIDDEN || fate == UNKNOWN, "{call} {:x?}: {fate:x}", [a, b, c]);
                }
            }
        }
    }
}
