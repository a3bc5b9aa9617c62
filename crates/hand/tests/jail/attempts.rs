//! What an attacker tries, one call each. This program runs inside the jail to try it.

#![expect(unsafe_code, reason = "attacks are system calls that no library makes")]

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libc::{c_int, c_long};

/// What the host's root in the jail's other namespaces could do.
const OF_ROOT: &[&str] = &[
    "mount",
    "umount",
    "fsopen",
    "open_tree",
    "mount_setattr",
    "move_mount",
    "pivot_root",
    "chroot",
    "unshare 131072",
    "unshare 1073741824",
    "clone 131072",
    "setns /proc/self/ns/uts",
    "setns /proc/1/ns/uts",
    "setns /proc/1/ns/net",
    "bpf",
    "perf",
    "userfaultfd 0",
    "kexec",
    "init_module",
    "delete_module",
    "open_by_handle_at",
    "acct",
    "swapon",
    "reboot",
    "syslog",
    "sethostname",
    "mknod block",
    "mknod character",
    "socket 2,3,1",
    "socket 17,3,0",
    "nice",
    "rlimit",
];

/// What the filter of system calls alone keeps from any user.
const OF_ANYBODY: &[&str] = &[
    "unshare 268435456",
    "clone 268435456",
    "clone3 268435456",
    "keyctl",
    "add_key",
    "userfaultfd 1",
    "io_uring",
    "personality",
    "quotactl",
    "clock_settime",
    "socket 40,1,0",
    "socket 38,5,0",
    "socket 15,3,2",
    "socket 16,3,9",
    "socket 2,1,132",
    "core",
    "terminal 21522",
    "terminal 21532",
    "terminal 21539",
    "subvolume",
];

/// What takes the first process's own privileges.
const OF_THE_FIRST: &[&str] = &[
    "setuid",
    "setgroups",
    "kill 1",
    "open /proc/1/maps",
    "open /proc/1/environ",
    "open /proc/1/mem",
    "list /proc/1/fd",
    "list /proc/1/root/",
    "readlink /proc/1/exe",
];

/// What also takes a system call that is filtered.
const OF_ITS_MEMORY: &[&str] = &["ptrace", "process_vm_readv", "pidfd_getfd"];

/// What changes the host's settings.
const OF_SETTINGS: &[&str] = &["write /proc/sys/kernel/core_pattern"];

/// A program that makes its user root.
const OF_OWNERS: &[&str] = &["suid"];

/// A program whose file has a privilege that its user has not.
const OF_FILES: &[&str] = &["capable"];

/// Each attempt, with the protections without which it succeeds or fails for its own nonsense only. Without those of the
/// first the user is the host's root in the jail's other namespaces.
pub const TABLE: &[(&[&str], &[&str])] = &[
    (&["seccomp", "landlock", "privileges", "users"], OF_ROOT),
    (&["seccomp"], OF_ANYBODY),
    (&["privileges"], OF_THE_FIRST),
    (&["privileges", "seccomp"], OF_ITS_MEMORY),
    (&["users", "privileges", "proc", "landlock"], OF_SETTINGS),
    (&["nosuid", "no_new_privileges", "seccomp", "landlock"], OF_OWNERS),
    (&["nosuid", "no_new_privileges", "seccomp", "landlock", "privileges"], OF_FILES),
];

/// What a program's file has to say, as the attribute `security.capability`, so that it has the privilege to become
/// anybody (version 2, in force from the start).
pub const CAPABLE: [u8; 20] = [1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What this machine's own root gets no further with, so that nothing here shows that these attempts are real: its kernel
/// is built without what they are about, or it runs without a capability that they take. Any other one that fails where
/// nothing is against it is a mistake of the table.
pub fn beyond_root() -> Vec<&'static str> {
    const RESOURCE: u64 = 1 << 24;
    let missing = |path: &str| fs::metadata(path).is_err();
    let off = |switch: &str| fs::read_to_string(switch).is_ok_and(|value| value.trim() == "1");
    let mut beyond = Vec::new();
    if missing("/sys/kernel/kexec_loaded") || off("/proc/sys/kernel/kexec_load_disabled") {
        beyond.push("kexec");
    }
    if missing("/proc/modules") || off("/proc/sys/kernel/modules_disabled") {
        beyond.extend(["init_module", "delete_module"]);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    if u64::from_str_radix(held.trim(), 16).unwrap() & RESOURCE == 0 {
        beyond.push("rlimit");
    }
    beyond
}

/// Tries what the file `attempt` names and leaves what came of it in the file `result`.
pub fn attempt() {
    let name = fs::read_to_string("attempt").unwrap();
    let result = match attempt_named(name.trim()) {
        Ok(()) => "done".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(errno) => format!("errno {errno}"),
            None => error.to_string(),
        },
    };
    fs::write("result", result).unwrap();
}

/// Whether the kernel has said no: EPERM, EACCES, EROFS, ENOSYS.
pub fn denied(result: &str) -> bool {
    ["errno 1", "errno 13", "errno 30", "errno 38"].contains(&result)
}

fn call(number: c_long, arguments: [u64; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    match unsafe { libc::syscall(number, a, b, c, d, e, 0u64) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<()> {
    call(libc::SYS_socket, [family as u64, kind as u64, protocol as u64, 0, 0])
}

/// Makes a process by `clone`, which ends at once.
fn cloned(number: c_long, arguments: [u64; 2]) -> io::Result<()> {
    match unsafe { libc::syscall(number, arguments[0], arguments[1], 0u64, 0u64, 0u64) } {
        -1 => Err(io::Error::last_os_error()),
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

fn write_to(path: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path).map(drop)
}

fn attempt_named(name: &str) -> io::Result<()> {
    let (name, argument) = name.split_once(' ').unwrap_or((name, ""));
    let text = |text: &str| CString::new(text).unwrap().into_raw() as u64;
    let mut buffer = [0_u8; 256];
    let there = buffer.as_mut_ptr() as u64;
    match name {
        "mount" => call(libc::SYS_mount, [text("none"), text("/tmp"), text("tmpfs"), 0, 0]),
        "umount" => call(libc::SYS_umount2, [text("/usr"), libc::MNT_DETACH as u64, 0, 0, 0]),
        "fsopen" => call(libc::SYS_fsopen, [text("tmpfs"), 0, 0, 0, 0]),
        "open_tree" => call(libc::SYS_open_tree, [libc::AT_FDCWD as u64, text("/usr"), 1, 0, 0]),
        "move_mount" => {
            let (tree, place) = (fs::File::open("/usr")?, text("/tmp"));
            let tree = std::os::fd::AsRawFd::as_raw_fd(&tree) as u64;
            // MOVE_MOUNT_F_EMPTY_PATH
            call(libc::SYS_move_mount, [tree, text(""), libc::AT_FDCWD as u64, place, 4])
        }
        "mount_setattr" => call(libc::SYS_mount_setattr, [libc::AT_FDCWD as u64, text("/usr"), 0, there, 32]),
        "pivot_root" => call(libc::SYS_pivot_root, [text("/tmp"), text("/tmp"), 0, 0, 0]),
        "chroot" => call(libc::SYS_chroot, [text("/tmp"), 0, 0, 0, 0]),
        "unshare" => call(libc::SYS_unshare, [argument.parse().unwrap(), 0, 0, 0, 0]),
        "clone" => cloned(libc::SYS_clone, [argument.parse::<u64>().unwrap() | libc::SIGCHLD as u64, 0]),
        "clone3" => {
            let mut arguments = [0_u64; 8];
            arguments[0] = argument.parse().unwrap();
            arguments[4] = libc::SIGCHLD as u64;
            cloned(libc::SYS_clone3, [arguments.as_ptr() as u64, 64])
        }
        "setns" => {
            let namespace = fs::File::open(argument)?;
            let number = std::os::fd::AsRawFd::as_raw_fd(&namespace);
            call(libc::SYS_setns, [number as u64, 0, 0, 0, 0])
        }
        "ptrace" => call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as u64, 1, 0, 0, 0]),
        "process_vm_readv" => {
            let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 1 };
            let vector = (&raw const vector) as u64;
            // Past the checks, an address that is not mapped there is EFAULT.
            call(libc::SYS_process_vm_readv, [1, vector, 1, vector, 1])
        }
        "pidfd_getfd" => {
            let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, 1, 0) };
            call(libc::SYS_pidfd_getfd, [pidfd as u64, 0, 0, 0, 0])
        }
        "open" => fs::File::open(argument).map(drop),
        "list" => fs::read_dir(argument).map(drop),
        "readlink" => fs::read_link(argument).map(drop),
        "write" => write_to(argument),
        "kill" => {
            call(libc::SYS_kill, [argument.parse::<i64>().unwrap() as u64, libc::SIGKILL as u64, 0, 0, 0])
        }
        "keyctl" => call(libc::SYS_keyctl, [0, (-3_i64) as u64, 1, 0, 0]),
        "add_key" => call(libc::SYS_add_key, [text("user"), text("x"), text("y"), 1, (-2_i64) as u64]),
        "userfaultfd" => call(libc::SYS_userfaultfd, [argument.parse().unwrap(), 0, 0, 0, 0]),
        "io_uring" => call(libc::SYS_io_uring_setup, [4, there, 0, 0, 0]),
        "bpf" => {
            // BPF_MAP_CREATE of an array of one number.
            let array = [2_u32, 4, 4, 1, 0, 0, 0, 0];
            call(libc::SYS_bpf, [0, array.as_ptr() as u64, 32, 0, 0])
        }
        "perf" => {
            // PERF_TYPE_SOFTWARE, whose first event is the processor's clock.
            let event = [1_u32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            call(libc::SYS_perf_event_open, [event.as_ptr() as u64, 0, u64::MAX, u64::MAX, 0])
        }
        "kexec" => call(libc::SYS_kexec_load, [0, 1000, 0, u64::MAX, 0]),
        "init_module" => call(libc::SYS_init_module, [0, 0, 0, 0, 0]),
        "delete_module" => call(libc::SYS_delete_module, [text("nosuchmodule"), 0, 0, 0, 0]),
        "open_by_handle_at" => {
            // The handle of a directory that everybody may see, where somebody gives it; 128 bytes of room for it.
            let directory = fs::File::open("/workspace")?;
            let number = std::os::fd::AsRawFd::as_raw_fd(&directory) as u64;
            let (mut handle, mut mount) = ([0_u32; 34], 0_i32);
            handle[0] = 128;
            let handle = handle.as_mut_ptr() as u64;
            let mount = (&raw mut mount) as u64;
            // AT_EMPTY_PATH
            let _ = call(libc::SYS_name_to_handle_at, [number, text(""), handle, mount, 0x1000]);
            call(libc::SYS_open_by_handle_at, [number, handle, 0, 0, 0])
        }
        "personality" => call(libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0]),
        "quotactl" => call(libc::SYS_quotactl, [u64::MAX, text("/"), 0, 0, 0]),
        "acct" => {
            fs::write("/tmp/acct", "")?;
            let begun = call(libc::SYS_acct, [text("/tmp/acct"), 0, 0, 0, 0]);
            // Where it worked the host's own goes on without.
            if begun.is_ok() { call(libc::SYS_acct, [0; 5]) } else { begun }
        }
        "swapon" => call(libc::SYS_swapon, [text("/nowhere"), 0, 0, 0, 0]),
        "reboot" => call(libc::SYS_reboot, [1, 2, 3, 0, 0]),
        "clock_settime" => call(libc::SYS_clock_settime, [99, there, 0, 0, 0]),
        "syslog" => call(libc::SYS_syslog, [10, 0, 0, 0, 0]),
        "sethostname" => call(libc::SYS_sethostname, [text("x"), 1, 0, 0, 0]),
        "mknod" => {
            let path = format!("/tmp/node{argument}");
            let kind = if argument == "block" { libc::S_IFBLK } else { libc::S_IFCHR };
            call(libc::SYS_mknodat, [libc::AT_FDCWD as u64, text(&path), u64::from(kind | 0o600), 0x700, 0])
        }
        "socket" => {
            let numbers: Vec<c_int> = argument.split(',').map(|number| number.parse().unwrap()).collect();
            socket(numbers[0], numbers[1], numbers[2])
        }
        "connect" => {
            let address: SocketAddr = argument.parse().unwrap();
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).map(drop)
        }
        "abstract" => {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(argument)?;
            UnixStream::connect_addr(&address).map(drop)
        }
        "terminal" => unsafe {
            let main = libc::posix_openpt(libc::O_RDWR);
            libc::grantpt(main);
            libc::unlockpt(main);
            let mut name = [0; 64];
            libc::ptsname_r(main, name.as_mut_ptr(), 64);
            libc::setsid();
            let terminal = libc::open(name.as_ptr(), libc::O_RDWR);
            libc::ioctl(terminal, libc::TIOCSCTTY, 0);
            // A request's upper half is not looked at by the kernel, and must not be by a filter.
            let request = argument.parse::<u64>().unwrap() | 1 << 32;
            match libc::ioctl(terminal, request, c"x".as_ptr()) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        },
        "setuid" => call(libc::SYS_setuid, [0; 5]),
        "setgroups" => call(libc::SYS_setgroups, [1, [0_u32].as_ptr() as u64, 0, 0, 0]),
        "nice" => call(libc::SYS_setpriority, [0, 0, (-20_i64) as u64, 0, 0]),
        "rlimit" => {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            let files = libc::RLIMIT_NOFILE;
            call(libc::SYS_prlimit64, [0, u64::from(files), (&raw const limit) as u64, 0, 0])
        }
        "core" => {
            let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            call(libc::SYS_prlimit64, [0, u64::from(libc::RLIMIT_CORE), (&raw const limit) as u64, 0, 0])
        }
        "capable" => {
            // Whoever has privileges of its own gives them up first; who has none does not get so far, which is as good.
            let (version, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
            let _ = call(libc::SYS_setuid, [1000, 0, 0, 0, 0]);
            call(libc::SYS_capset, [version.as_ptr() as u64, none.as_ptr() as u64, 0, 0, 0])?;
            let mut program = std::process::Command::new("/workspace/capable");
            let status = program.arg("/proc/self/status").output()?.stdout;
            match String::from_utf8_lossy(&status).contains("CapEff:\t0000000000000080") {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(libc::EPERM)),
            }
        }
        "udp" => {
            let address: SocketAddr = argument.parse().unwrap();
            let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            // Nothing is sent; it is enough that there is a way.
            std::net::UdpSocket::bind(own)?.connect(address)
        }
        "suid" => {
            let said = std::process::Command::new("/workspace/suid").arg("-u").output()?;
            match said.stdout.as_slice() {
                b"0\n" => Ok(()),
                _ => Err(io::Error::from_raw_os_error(libc::EPERM)),
            }
        }
        "watch" => {
            // As many as the kernel gives one user, and not one less.
            loop {
                let watch = unsafe { libc::inotify_init1(0) };
                if watch < 0 {
                    break;
                }
            }
            fs::write("full", "")?;
            std::thread::sleep(Duration::from_secs(600));
            Ok(())
        }
        "subvolume" => {
            let directory = fs::File::open("/workspace")?;
            let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
            // BTRFS_IOC_SUBVOL_CREATE
            call(libc::SYS_ioctl, [number as u64, 0x5000_940e, there, 0, 0])
        }
        #[cfg(target_arch = "x86_64")]
        "int80" => {
            let result: i64;
            unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result) };
            if result > 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOSYS)) }
        }
        #[cfg(target_arch = "x86_64")]
        "x32" => call(0x4000_0000 | libc::SYS_getpid, [0; 5]),
        _ => Err(io::Error::other("no such attempt")),
    }
}
