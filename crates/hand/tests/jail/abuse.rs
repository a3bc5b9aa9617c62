//! Everything that an attacker tries fails, and would not if the protection were not there.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use hand::jail::Protection::{self, Core, Landlock, Network, Seccomp};

use super::attempts::{CAPABLE, TABLE, beyond_root, denied};
use super::cell::{Cell, FIRST, cell, cell_of_nobody, cell_with, copy_program, without};

/// Protections, by their names.
fn protections(names: &[&str]) -> Vec<Protection> {
    names.iter().map(|name| serde_json::from_value((*name).into()).unwrap()).collect()
}

/// Puts this program into the workspace, and programs that would make their user root or give it a privilege.
fn armed(mut cell: Cell) -> Cell {
    let workspace = cell.directory.path().join("workspace");
    copy_program(std::env::current_exe().unwrap(), workspace.join("attempt.program"));
    copy_program("/usr/bin/id", workspace.join("suid"));
    fs::set_permissions(workspace.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    copy_program("/usr/bin/cat", workspace.join("capable"));
    let capable = "security.capability";
    rustix::fs::setxattr(workspace.join("capable"), capable, &CAPABLE, rustix::fs::XattrFlags::empty())
        .unwrap();
    chown(workspace.join("attempt.program"), Some(1000), Some(1000)).unwrap();
    // Commands that are the host's root write here too.
    cell.shell("chmod 777 /workspace");
    cell
}

/// What came of an attempt: `done`, `errno N`, or how the program ended.
fn attempt(cell: &mut Cell, name: &str) -> String {
    let workspace = cell.directory.path().join("workspace");
    fs::write(workspace.join("attempt"), name).unwrap();
    let _ = fs::remove_file(workspace.join("result"));
    let output = cell.run(&["/workspace/attempt.program", "--exact", "attempt", "--ignored", "--nocapture"]);
    fs::read_to_string(workspace.join("result")).unwrap_or_else(|_| format!("{output:?}"))
}

/// The same, made in a directory that is the sandbox's alone.
fn elsewhere(cell: &mut Cell, name: &str) -> String {
    let program = "/workspace/attempt.program --exact attempt --ignored > /dev/null 2>&1";
    cell.shell(&format!("cd /tmp; printf %s '{name}' > attempt; {program}; echo \"$(<result)\""))
}

#[test]
fn every_attempt_is_denied_and_the_first_process_lives() {
    let mut cell = armed(cell());
    let mut through = Vec::new();
    for name in TABLE.iter().flat_map(|(_, names)| *names) {
        let result = attempt(&mut cell, name);
        if !denied(&result) {
            through.push(format!("{name}: {result}"));
        }
    }
    assert_eq!(through, [""; 0]);
    assert_eq!(cell.shell("echo alive"), "alive");
}

#[test]
fn every_attempt_is_denied_where_nobody_had_privileges_to_make_the_jail() {
    let mut cell = armed(cell_of_nobody());
    let mut through = Vec::new();
    for name in TABLE.iter().flat_map(|(_, names)| *names) {
        let result = attempt(&mut cell, name);
        if !denied(&result) {
            through.push(format!("{name}: {result}"));
        }
    }
    // Its only user is the first process's, too: there is no other to become, and what it sends the first process of its
    // namespace the kernel drops.
    assert_eq!(through, ["setuid: errno 22", "kill 1: done"]);
    assert_eq!(cell.shell("echo alive"), "alive");
}

/// What comes of an attempt in a jail without these protections, which is its alone: one that gets through may leave it
/// in any state.
fn attempt_without(off: &[&str], name: &str) -> String {
    let mut cell = armed(without(&protections(off)));
    // The host's root is nobody whom a workspace knows.
    if off.contains(&"users") { elsewhere(&mut cell, name) } else { attempt(&mut cell, name) }
}

#[test]
fn every_attempt_gets_through_where_its_protection_is_off() {
    let (mut strange, mut denials) = (Vec::new(), Vec::new());
    for (off, names) in TABLE {
        for name in *names {
            let result = attempt_without(off, name);
            if denied(&result) {
                denials.push(*name);
            } else if result != "done" && !result.starts_with("errno ") {
                strange.push(format!("{name}: {result} without {off:?}"));
            }
        }
    }
    assert_eq!((strange, denials), (Vec::new(), beyond_root()));
}

/// Of the attempts that more than one protection is against: which of them are enough alone. Landlock stands before what
/// is done to mounts and files, and none of the system calls that are about neither; the filter lets raw sockets of
/// loopback and lower priorities be judged by what the user may.
const WALLS: [&str; 38] = [
    "mount: seccomp landlock privileges users",
    "umount: seccomp landlock privileges users",
    "fsopen: seccomp privileges users",
    "open_tree: seccomp privileges users",
    "mount_setattr: seccomp privileges users",
    "move_mount: seccomp landlock privileges users",
    "pivot_root: seccomp landlock privileges users",
    "chroot: seccomp privileges",
    "unshare 131072: seccomp privileges",
    "unshare 1073741824: seccomp privileges",
    "clone 131072: seccomp privileges",
    "setns /proc/self/ns/uts: seccomp privileges users",
    "setns /proc/1/ns/uts: seccomp privileges users",
    "setns /proc/1/ns/net: seccomp privileges users",
    "bpf: seccomp privileges users",
    "perf: seccomp privileges users",
    "userfaultfd 0: seccomp privileges users",
    "kexec: seccomp privileges users",
    "init_module: seccomp privileges users",
    "delete_module: seccomp privileges users",
    "open_by_handle_at: seccomp privileges users",
    "acct: seccomp landlock privileges users",
    "swapon: seccomp privileges users",
    "reboot: seccomp privileges users",
    "syslog: seccomp privileges users",
    "sethostname: seccomp privileges users",
    "mknod block: seccomp privileges users",
    "mknod character: seccomp privileges users",
    "socket 2,3,1: privileges users",
    "socket 17,3,0: seccomp privileges users",
    "nice: privileges users",
    "rlimit: privileges users",
    "ptrace: privileges seccomp",
    "process_vm_readv: privileges seccomp",
    "pidfd_getfd: privileges seccomp",
    "write /proc/sys/kernel/core_pattern: users privileges proc",
    "suid: nosuid no_new_privileges seccomp landlock",
    "capable: nosuid no_new_privileges seccomp landlock privileges",
];

#[test]
fn each_wall_of_several_holds_alone() {
    let beyond = beyond_root();
    let mut holding = Vec::new();
    for (walls, names) in TABLE.iter().filter(|(walls, _)| walls.len() > 1) {
        for name in names.iter().filter(|name| !beyond.contains(name)) {
            let holds = |wall: &&&str| {
                let others: Vec<_> = walls.iter().copied().filter(|other| other != *wall).collect();
                denied(&attempt_without(&others, name))
            };
            let alone: Vec<_> = walls.iter().filter(holds).copied().collect();
            holding.push(format!("{name}: {}", alone.join(" ")));
        }
    }
    let expected = WALLS.iter().filter(|row| !beyond.iter().any(|name| row.starts_with(&format!("{name}:"))));
    assert_eq!(holding, expected.copied().collect::<Vec<_>>());
}

#[test]
#[cfg(target_arch = "x86_64")]
fn other_ways_to_call_the_kernel_are_closed() {
    let mut closed = armed(cell());
    assert!(attempt(&mut closed, "int80").contains("code: -1"), "the program is ended");
    assert!(denied(&attempt(&mut closed, "x32")));
    assert_eq!(attempt(&mut armed(without(&[Seccomp])), "int80"), "done");
}

#[test]
fn nothing_of_the_host_is_reached_by_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let loopback = format!("connect {}", listener.local_addr().unwrap());
    let name = format!("abstract-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let name = format!("abstract {name}");
    let mut closed = armed(cell());
    for target in [&loopback, &name] {
        assert_eq!(attempt(&mut closed, target), format!("errno {}", libc::ECONNREFUSED), "{target}");
    }
    for target in ["192.0.2.1:80", "169.254.169.254:80", "[2001:db8::1]:80", "10.0.0.1:53"] {
        let result = attempt(&mut closed, &format!("connect {target}"));
        assert_eq!(result, format!("errno {}", libc::ENETUNREACH), "{target}");
        assert_eq!(attempt(&mut closed, &format!("udp {target}")), result, "{target}");
    }
    assert_eq!(attempt(&mut armed(without(&[Network])), &loopback), "done");
    assert_eq!(attempt(&mut armed(without(&[Network, Landlock])), &name), "done");
    assert!(denied(&attempt(&mut armed(without(&[Network])), &name)), "Landlock is a second wall");
}

#[test]
fn a_crash_reaches_no_program_of_the_host() {
    let limit = "grep 'core file' /proc/self/limits | tr -s ' '";
    assert_eq!(cell().shell(limit), "Max core file size 1 1 bytes");
    assert_ne!(without(&[Core]).shell(limit), "Max core file size 1 1 bytes");
    assert!(cell().shell("ulimit -c 0").contains("not permitted"));
    let mut crashed = cell();
    assert_eq!(crashed.run(&["/bin/bash", "-c", "sh -c 'kill -SEGV $$'; echo $?; ls"]).stdout, "139\n");
}

#[test]
fn everything_killed_leaves_the_first_process() {
    let mut cell = cell();
    cell.shell("sleep 100 & kill -9 -1");
    assert_eq!(cell.shell("echo alive"), "alive");
}

#[test]
fn what_the_kernel_counts_for_a_user_it_counts_for_each_sandbox() {
    let mut greedy = armed(cell());
    let workspace = greedy.directory.path().join("workspace");
    fs::write(workspace.join("attempt"), "watch").unwrap();
    greedy.shell("./attempt.program --exact attempt --ignored > /dev/null 2>&1 &");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !workspace.join("full").exists() {
        assert!(Instant::now() < deadline, "the watches never end");
        std::thread::sleep(Duration::from_millis(5));
    }
    let watch = "python3 -c 'import ctypes; print(ctypes.CDLL(None).inotify_init1(0) >= 0)'";
    let mut same_users = cell();
    let mut others = cell_with(|spec| spec.users = hand::jail::Users::Range { first: FIRST + (1 << 16) });
    assert_eq!([&mut same_users, &mut others].map(|cell| cell.shell(watch)), ["False", "True"]);
}
