//! Everything that an attacker tries fails, and would not if the protection were not there.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use hand::jail::Protection::{self, Core, Landlock, Network, Seccomp};

use super::attempts::{TABLE, denied, is_beyond_root};
use super::cell::{Cell, FIRST, cell, cell_with, without};

/// Protections, by their names.
fn protections(names: &[&str]) -> Vec<Protection> {
    names.iter().map(|name| serde_json::from_value((*name).into()).unwrap()).collect()
}

/// Puts this program into the workspace, and a program that would make its user root.
fn armed(mut cell: Cell) -> Cell {
    let workspace = cell.directory.path().join("workspace");
    fs::copy(std::env::current_exe().unwrap(), workspace.join("attempt.program")).unwrap();
    fs::copy("/usr/bin/id", workspace.join("suid")).unwrap();
    fs::set_permissions(workspace.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
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
fn every_attempt_gets_through_where_its_protection_is_off() {
    let mut denials = Vec::new();
    for (off, names) in TABLE {
        for name in *names {
            // An attempt that gets through may leave the jail in any state.
            let mut cell = armed(without(&protections(off)));
            // The host's root is nobody whom a workspace knows.
            let result =
                if off.contains(&"users") { elsewhere(&mut cell, name) } else { attempt(&mut cell, name) };
            let came = result == "done" || result.starts_with("errno ");
            if !came || denied(&result) && !is_beyond_root(name, &result) {
                denials.push(format!("{name}: {result} without {off:?}"));
            }
        }
    }
    assert_eq!(denials, [""; 0]);
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
