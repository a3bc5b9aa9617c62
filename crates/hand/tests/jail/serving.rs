//! What the first process does for its holder works inside the walls too.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use hand::wire::{Exec, Existing, FileRequest, Mode, Output, Program, Request, Size, Stdin, Terminal};

use crate::cell::{self, cell, cell_of_nobody, cell_with};

fn activate(token: &str) -> Request {
    Request::Activate { env: BTreeMap::new(), token: Some(token.to_owned()) }
}

#[test]
fn files_are_worked_with_by_the_user_in_the_jail() {
    for mut cell in [cell(), cell_of_nobody()] {
        let write =
            FileRequest::Write { path: "a/b".into(), size: 0, mode: None, existing: Existing::Refuse };
        assert_eq!(cell.files(write), cell::Output { code: 0, stdout: String::new(), stderr: String::new() });
        assert_eq!(cell.shell("stat -c '%u %g %a %s' a/b"), "1000 1000 644 0");
        cell.shell("echo content > a/b");
        let read = |path: &str| FileRequest::Read { path: path.into(), offset: 0, limit: None };
        let content = cell.files(read("a/b"));
        assert!(content.code == 0 && content.stdout.ends_with("}\ncontent\n"), "{content:?}");
        let hidden = cell.files(read("/etc/shadow"));
        assert!(hidden.code == 1 && hidden.stderr.contains("not_found"), "{hidden:?}");
        let walled = cell.files(FileRequest::MakeDirectory { path: "/usr/new".into() });
        assert!(walled.code == 1 && walled.stderr.contains("denied"), "{walled:?}");
        let other = cell.files(read("/proc/1/environ"));
        assert!(other.code == 1, "{other:?}");
    }
}

#[test]
fn commands_control_terminals_in_the_jail() {
    for mut cell in [cell(), cell_of_nobody()] {
        let line = "stty size && echo tty > /dev/tty && test -t 0 && tty";
        let terminal = Terminal::Of(Size { rows: 30, cols: 99 });
        let output = cell.exec(Program::Command(line.into()), terminal);
        let expected = "30 99\r\ntty\r\n/dev/pts/0\r\n";
        assert_eq!(output, cell::Output { code: 0, stdout: expected.into(), stderr: String::new() });
    }
}

#[test]
fn the_run_token_is_the_users_to_read_and_is_renewed() {
    for mut cell in [cell(), cell_of_nobody()] {
        for token in ["first", "second"] {
            let done = cell.request(&activate(token));
            assert_eq!(done.stdout, "\"done\"", "{done:?}");
            let seen = cell.shell(
                "cat /run/steading/token; stat -c ' %u %a' /run/steading/token; ls /run/steading | wc -l",
            );
            assert_eq!(seen, format!("{token} 1000 400\n6"));
        }
        // Links that the user puts in the way are replaced, not followed.
        cell.shell("rm -f /run/steading/token; ln -s /workspace/caught /run/steading/token; ln -s /workspace/caught /run/steading/token.new");
        let done = cell.request(&activate("third"));
        assert_eq!(done.stdout, "\"done\"", "{done:?}");
        assert_eq!(cell.shell("cat /run/steading/token; ls caught 2>&1 | grep -c 'No such'"), "third1");
    }
}

#[test]
fn output_that_is_too_much_goes_to_a_file_of_the_users() {
    let mut cell = cell();
    let output = cell.shell("seq 1 200000");
    assert_eq!(output.len(), 256 << 10);
    assert_eq!(
        cell.shell("seq 1 200000 | cmp - /tmp/.steading/1.stdout && stat -c '%u %a' /tmp/.steading/1.stdout"),
        "1000 600"
    );
}

#[test]
fn the_way_out_leads_to_the_sandboxs_own_socket() {
    let mut cell = cell_with(|spec| {
        let path = spec.egress.clone();
        std::fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(crate::cell::FIRST + 1000), Some(crate::cell::FIRST + 1000))
            .unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            stream.write_all(all.to_uppercase().as_bytes()).unwrap();
        });
    });
    let python = "import socket; s = socket.create_connection(('127.0.0.1', 3128)); s.sendall(b'question'); s.shutdown(1); print(s.recv(99))";
    assert_eq!(cell.run(&["python3", "-c", python]).stdout, "b'QUESTION'\n");
    let ports = cell.request(&Request::Ports);
    assert_eq!(ports.stdout, r#"{"ports":[]}"#);
}

#[test]
fn ports_and_use_are_told_in_the_jail() {
    let mut cell = cell();
    let python = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 5173)); s.listen(); print(1, flush=True); time.sleep(1000)";
    cell.shell(&format!("python3 -c \"{python}\" > up & until [ -s up ]; do sleep 0.01; done"));
    let ports = cell.request(&Request::Ports);
    assert_eq!(ports.stdout, r#"{"ports":[{"port":5173,"uid":1000}]}"#);
    let stats = cell.request(&Request::Stats);
    assert!(stats.stdout.contains(r#""processes":3,"#), "{stats:?}");
}

#[test]
fn a_command_that_does_nothing_but_fork_is_ended_with_all_it_forked() {
    let mut cell = cell();
    let bomb = Exec {
        program: Program::Command(
            "f() { f | setsid bash -c \"$(declare -f f); f\" & f; }; f; sleep 1000".into(),
        ),
        cwd: None,
        env: BTreeMap::new(),
        terminal: Terminal::None,
        stdin: Stdin::Empty,
        timeout_ms: Some(2_000),
        mode: Mode::Foreground(Output::Capped { head: 0, tail: 0 }),
    };
    let ended = cell.request(&Request::Exec(bomb));
    assert_eq!(ended.code, -1, "{ended:?}");
    assert!(ended.stdout.contains("timed_out"), "{ended:?}");
    let begun = Instant::now();
    loop {
        let stats = cell.request(&Request::Stats).stdout;
        if stats.contains(r#""processes":1,"#) && stats.contains(r#""commands":0,"#) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{stats}");
    }
    assert_eq!(cell.shell("echo on"), "on");
}
