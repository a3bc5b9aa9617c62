//! What a jail looks like from inside, and from outside.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Mutex;

use hand::jail::{JailSpec, Report, Step, Told, Tree};

use super::cell::{Cell, FIRST, cell, cell_of_nobody, cell_with, copy_program, try_cell};

/// Held by whoever mounts something on the host, or looks at what is mounted there.
static HOST_MOUNTS: Mutex<()> = Mutex::new(());

#[test]
fn a_command_is_the_user_agent_in_its_workspace_and_holds_nothing() {
    let mut cell = cell();
    let script = "id -u; id -g; id -G; id -un; pwd; hostname; ls -A; umask; echo hello > file; cat file";
    assert_eq!(cell.shell(script), "1000\n1000\n1000\nagent\n/workspace\nsandbox\n0022\nhello");
    let file = fs::metadata(cell.directory.path().join("workspace/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1000, 1000));
    let status = cell.shell("grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status | tr -d ' \\t'");
    let none =
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:0000000000000000"));
    assert_eq!(status, format!("Groups:\n{}\nNoNewPrivs:1", none.join("\n")));
    let names = cell.shell("env -u _ -u SHLVL -u PWD -u OLDPWD | cut -d= -f1 | sort | tr '\n' ' '");
    let expected = "HOME HTTPS_PROXY HTTP_PROXY LANG NODE_USE_ENV_PROXY NO_PROXY PATH PIP_PROXY USER http_proxy https_proxy no_proxy npm_config_https_proxy npm_config_proxy";
    assert_eq!(names.split(' ').collect::<BTreeSet<_>>(), expected.split(' ').collect());

    assert_eq!(cell.shell("ls /proc/self/fd"), "0\n1\n2\n3");
}

#[test]
fn the_first_process_keeps_three_capabilities_and_no_way_to_more() {
    let mut cell = cell();
    let kept = "00000000000000e0";
    let status = cell.shell("grep ^Cap /proc/1/status | tr -d '\\t'");
    assert_eq!(
        status,
        format!("CapInh:{kept}\nCapPrm:{kept}\nCapEff:{kept}\nCapBnd:0000000000000000\nCapAmb:{kept}")
    );
}

#[test]
fn every_namespace_is_its_own() {
    let mut cell = cell();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(cell.shell(&format!("readlink /proc/self/ns/{kind}")), ours.to_string_lossy(), "{kind}");
    }
    assert_eq!(cell.shell("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '"), "lo");
    assert_eq!(cell.shell("cd /proc; for p in [0-9]*; do [ $p -lt 50 ] || echo $p; done"), "");
}

#[test]
fn the_root_is_made_up_and_only_read() {
    let mut cell = cell();
    assert_eq!(
        cell.shell("ls -A / | grep -v -E '^(lib|bin|sbin)' | tr '\\n' ' '"),
        "dev etc home opt proc run tmp usr var workspace"
    );
    let places = ["/", "/usr", "/usr/local", "/etc", "/opt", "/home", "/run", "/dev", "/proc/sys/kernel"];
    for place in places.into_iter().chain(["/run/steading/runner", "/run/steading/runners"]) {
        let said = cell.shell(&format!("echo x > {place}/x"));
        assert!(
            said.contains("Read-only") || said.contains("denied") || said.contains("No such"),
            "{place}: {said}"
        );
    }
    assert_eq!(cell.shell("ls -A /usr/local /opt /home"), "/home:\n\n/opt:\n\n/usr/local:");
    assert_eq!(
        cell.shell("ls -A /dev | tr '\\n' ' '"),
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    assert_eq!(
        cell.shell("ls -A /run /run/steading | tr '\\n' ' '"),
        "/run: steading  /run/steading: bridge.sock egress.sock hand runner runners"
    );
    assert_eq!(
        cell.shell("cat /etc/resolv.conf; ls /sys"),
        "ls: cannot access '/sys': No such file or directory"
    );
}

#[test]
fn what_the_kernel_tells_of_the_host_is_covered() {
    let mut cell = cell();
    let covered =
        "cmdline kallsyms config.gz partitions diskstats interrupts modules kmsg kcore keys timer_list";
    for name in covered.split(' ').filter(|name| Path::new("/proc").join(name).exists()) {
        assert_eq!(cell.shell(&format!("cat /proc/{name} | head -c 100")), "", "{name}");
    }
    assert_eq!(cell.shell("head -1 /proc/meminfo"), "MemTotal:         524288 kB");
    let said = cell.shell("echo x > /proc/sys/kernel/core_pattern; echo 1 > /proc/sys/vm/drop_caches");
    assert_eq!(
        said.lines().filter(|line| line.contains("Read-only") || line.contains("denied")).count(),
        2,
        "{said}"
    );
}

#[test]
fn temporary_files_are_bounded() {
    let mut cell = cell();
    let said = cell.shell("head -c 32M /dev/zero > /tmp/big; stat -c %s /tmp/big");
    assert!(said.contains("No space left on device") && said.ends_with(&(16 << 20).to_string()), "{said}");
    assert_eq!(cell.shell("rm /tmp/big; for i in $(seq 5000); do : > /tmp/$i || break; done 2>&1 | head -c 200 | grep -c 'No space'"), "1");
}

#[test]
fn an_overlay_shows_its_layers_and_keeps_changes_as_the_users() {
    let mut cell = cell_with(|spec| {
        let root = spec.scratch.parent().unwrap().to_owned();
        for directory in ["low/a", "lower/b", "changes/upper", "changes/work"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("low/a/one"), "below").unwrap();
        fs::write(root.join("lower/a"), "hides").unwrap();
        fs::write(root.join("lower/b/two"), "two").unwrap();
        chown(root.join("changes/upper"), Some(1000), Some(1000)).unwrap();
        for path in ["lower/b", "lower/b/two"] {
            chown(root.join(path), Some(1000), Some(1000)).unwrap();
        }
        spec.workspace = Tree::Overlay {
            lowers: vec![root.join("lower"), root.join("low")],
            upper: root.join("changes/upper"),
            work: root.join("changes/work"),
        };
    });
    assert_eq!(
        cell.shell("cat a b/two; echo three > b/three; echo 2 > b/two; cat b/*; stat -c %u b/*; ls -A /run"),
        "hidestwothree\n2\n1000\n1000\nsteading"
    );
    let changed = fs::metadata(cell.directory.path().join("changes/upper/b/three")).unwrap();
    assert_eq!((changed.uid(), changed.gid()), (1000, 1000));
    assert_eq!(fs::read_to_string(cell.directory.path().join("lower/b/two")).unwrap(), "two");
}

#[test]
fn layers_lie_over_usr_local_and_are_only_read() {
    for count in [1, 2] {
        let mut cell = cell_with(|spec| {
            for number in 0..count {
                let layer = spec.scratch.with_file_name(format!("layer{number}"));
                fs::create_dir_all(layer.join("bin")).unwrap();
                let tool = layer.join(format!("bin/tool{number}"));
                let text = tool.with_extension("text");
                fs::write(&text, format!("#!/bin/sh\necho tool {number}\n")).unwrap();
                fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
                copy_program(&text, &tool);
                spec.layers.push(layer);
            }
        });
        let script = (0..count).map(|number| format!("tool{number};")).collect::<String>();
        let said = (0..count).map(|number| format!("tool {number}\n")).collect::<String>();
        assert_eq!(cell.shell(&script), said.trim_end());
        assert!(cell.shell("touch /usr/local/bin/x").contains("Read-only file system"));
    }
}

#[test]
fn a_jail_that_is_told_late_what_lies_on_disks_is_the_same_as_any() {
    let said = "ls -A / /run /usr/local; sort /proc/mounts; id; echo x > file; stat -c %U file";
    let layer = |spec: &mut JailSpec| {
        let layer = spec.scratch.with_file_name("layer");
        fs::create_dir_all(layer.join("bin")).unwrap();
        spec.layers.push(layer);
    };
    let [mut now, mut later] = [Told::AtOnce, Told::Later].map(|disks| {
        cell_with(|spec| {
            layer(spec);
            spec.disks = disks;
        })
    });
    assert_eq!(now.shell(said), later.shell(said));
    let missing = try_cell(|spec| {
        spec.disks = Told::Later;
        spec.workspace = Tree::Directory { path: "/nowhere/at/all".into() };
    });
    assert!(matches!(missing, Err(Report::Failed { step: Step::Workspace, .. })), "{:?}", missing.err());
}

#[test]
fn a_jail_on_what_all_have_in_common_is_the_same_as_any() {
    let _alone = HOST_MOUNTS.lock();
    let base = tempfile::tempdir().unwrap();
    let common = Mounted(base.path().to_owned());
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_hand")).arg("base").arg(&common.0).status();
    assert!(made.unwrap().success());
    let layer = |spec: &mut JailSpec| {
        let layer = spec.scratch.with_file_name("layer");
        fs::create_dir_all(layer.join("bin")).unwrap();
        spec.layers.push(layer);
    };
    let [mut alone, mut one, mut other] = [None, Some(&common.0), Some(&common.0)].map(|base| {
        cell_with(|spec| {
            layer(spec);
            spec.base = base.cloned();
        })
    });
    let said = "stat -c '%n %F %a %u' /* /etc/* /dev/* /usr/local/*; cat /etc/passwd; sort /proc/mounts; id; \
                echo x > file; stat -c %U file; head -c 10 /proc/cmdline /proc/version; head -1 /proc/meminfo";
    let expected = alone.shell(said);
    assert_eq!(one.shell(said), expected);
    assert_eq!(other.shell(said), expected);
    // Nothing of one is seen by another, and nothing of the base changes.
    for place in ["tmp", "dev/shm", "run/steading"] {
        one.shell(&format!("echo x > /{place}/mark"));
        assert_eq!(
            other.shell(&format!("cat /{place}/mark")),
            format!("cat: /{place}/mark: No such file or directory")
        );
    }
    let changed = one.shell(
        "touch /new /etc/passwd /opt/new /dev/new /etc/new /var/new 2>&1 | grep -c -e Read-only -e denied",
    );
    assert_eq!(changed, "6");
    drop(common);
    assert_eq!(other.shell(said), expected);
}

#[test]
fn the_host_knows_the_users_by_numbers_that_nobody_else_has() {
    let cell = cell();
    let status = fs::read_to_string(format!("/proc/{}/status", cell.pid)).unwrap();
    let first = FIRST.to_string();
    assert!(
        status.lines().any(|line| line.split_whitespace().eq(["Uid:", &first, &first, &first, &first])),
        "{status}"
    );
}

#[test]
fn nothing_is_left_when_the_connection_closes_or_the_jail_fails() {
    let _alone = HOST_MOUNTS.lock();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let Cell { pid, .. } = cell();
    let gone = || fs::read_to_string(format!("/proc/{pid}/stat")).is_err();
    super::cell::reap(pid);
    assert!(gone());
    let missing = try_cell(|spec| spec.workspace = Tree::Directory { path: "/nowhere/at/all".into() });
    assert!(missing.is_err());
    assert_eq!(mounts(), before);
}

#[test]
fn somebody_without_privileges_makes_the_same_jail_of_one_user() {
    let mut cell = cell_of_nobody();
    let script = "id -u; id -un; pwd; echo hello > file; cat file; cat /proc/net/dev | tail -n +3 | cut -d: -f1; ls -A /";
    let root = "bin\ndev\netc\nhome\nlib\nlib64\nopt\nproc\nrun\nsbin\ntmp\nusr\nvar\nworkspace";
    let said = cell.shell(script);
    assert!(said.starts_with("1000\nagent\n/workspace\nhello\n    lo\n"), "{said}");
    assert!(root.lines().filter(|name| !name.starts_with("lib")).all(|name| said.contains(name)), "{said}");
    let file = fs::metadata(cell.directory.path().join("workspace/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (65534, 65534));
    let none =
        "CapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000\nCapBnd:0000000000000000";
    assert!(cell.shell("grep ^Cap /proc/self/status | tr -d '\\t'").starts_with(none));
    for denied in
        ["cat /proc/1/environ", "ls /proc/1/fd", "cat /proc/1/maps", "echo x > /usr/x", "unshare -U true"]
    {
        let said = cell.shell(denied);
        assert!(
            said.contains("denied") || said.contains("Read-only") || said.contains("not permitted"),
            "{denied}: {said}"
        );
    }
    cell.shell("kill -9 -1");
    assert_eq!(cell.shell("echo alive"), "alive");
}

/// A file system of the host, as long as this lives.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn files_are_the_users_where_mounts_cannot_translate() {
    let _alone = HOST_MOUNTS.lock();
    let mut mounted = None;
    let mut cell = cell_with(|spec| {
        let path = spec.scratch.with_file_name("plain");
        fs::create_dir(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        assert!(mount.args(["-t", "ramfs", "none"]).arg(&path).status().unwrap().success());
        mounted = Some(Mounted(path.clone()));
        chown(&path, Some(1000), Some(1000)).unwrap();
        spec.workspace = Tree::Directory { path };
    });
    assert_eq!(cell.shell("id -un; echo x > file; stat -c %U file"), "agent\nagent");
    let file = fs::metadata(cell.directory.path().join("plain/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1000, 1000));
}

#[test]
fn commands_speak_with_one_another_by_abstract_sockets() {
    let mut cell = cell();
    let server = "import socket; server = socket.socket(socket.AF_UNIX); server.bind('\\0inside'); server.listen(9); \
                  server.accept()[0].sendall(b'heard')";
    let client = "import socket; stream = socket.socket(socket.AF_UNIX); stream.connect('\\0inside'); print(stream.recv(9))";
    cell.shell(&format!("(python3 -c \"{server}\" > /tmp/server 2>&1 &)"));
    let client = format!(
        "for i in $(seq 100); do grep -q inside /proc/net/unix && break; sleep 0.1; done; python3 -c \"{client}\"; cat /tmp/server"
    );
    assert_eq!(cell.shell(&client), "b'heard'");
}
