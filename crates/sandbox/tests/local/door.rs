//! The way from the gateway to sockets of programs inside, which say nothing of where they lead.

use std::io;
use std::os::unix::net::UnixListener;

use kernel::{Code, SandboxId};
use sandbox::runner::Runner as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::{Cell, rig, rig_with_spares};

/// Listens at a name and answers every line with `name: line`.
async fn listen(cell: &Cell, name: &str) {
    let program = format!(
        "import os,socket\n\
         s=socket.socket(socket.AF_UNIX); s.bind('/run/steading/{name}'); s.listen(); os.chmod('/run/steading/{name}', 0o666)\n\
         if os.fork(): os._exit(0)\n\
         while True:\n  c=s.accept()[0]; c.sendall(b'{name}: '+c.recv(99)); c.close()\n"
    );
    let said = cell.shell(&format!("python3 -c \"{program}\" >/dev/null 2>&1; echo listens")).await;
    assert_eq!(said, "listens");
}

async fn answer(mut stream: tokio::net::UnixStream) -> String {
    stream.write_all(b"hello").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_program_inside_is_reached_at_its_own_socket() {
    for rig in [rig(), rig_with_spares(1)] {
        let (cell, other) = (rig.cell().await, rig.cell().await);
        let door = rig.local.door(cell.id).await.unwrap();
        assert_eq!(door.dial("fn.sock").await.unwrap_err().kind(), io::ErrorKind::NotFound);
        listen(&cell, "fn.sock").await;
        listen(&other, "fn.sock").await;
        assert_eq!(answer(door.dial("fn.sock").await.unwrap()).await, "fn.sock: hello");
        // Ended, it is nobody's, and its socket with it.
        rig.local.destroy(cell.id).await.unwrap();
        assert!(door.dial("fn.sock").await.is_err());
        assert_eq!(rig.local.door(cell.id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(rig.local.door(SandboxId::new()).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn nothing_inside_leads_whoever_dials_anywhere_else() {
    let rig = rig();
    let cell = rig.cell().await;
    // A socket of the host, which answers whoever gets to it.
    let host = rig.directory.path().join("host.sock");
    let _host = UnixListener::bind(&host).unwrap();
    assert!(std::os::unix::net::UnixStream::connect(&host).is_ok(), "it can be reached");
    listen(&cell, "mine").await;
    let traps = format!(
        "cd /run/steading; ln -s {0} link; ln -s /proc/1/root{0} around; ln -s mine to-mine; mkfifo fifo; echo x > file; \
         mkdir dir; ls | tr '\\n' ' '",
        host.display()
    );
    let there = cell.shell(&traps).await;
    assert!(there.contains("around") && there.contains("fifo") && there.contains("to-mine"), "{there}");
    let door = rig.local.door(cell.id).await.unwrap();
    for trap in
        ["link", "around", "to-mine", "fifo", "file", "dir", ".", "..", "", "../steading/mine", "/run/x"]
    {
        assert!(door.dial(trap).await.is_err(), "{trap}");
    }
    assert_eq!(answer(door.dial("mine").await.unwrap()).await, "mine: hello");
    // What it may write there is bounded, and not on a disk of the host.
    let full = cell.shell("cd /run/steading; i=0; while : > s$i; do i=$((i+1)); done 2>/dev/null; [ $i -lt 100 ] && echo full").await;
    assert_eq!(full, "full");
    let filled = cell.shell("rm -f /run/steading/s*; head -c 9000000 /dev/zero > /run/steading/big 2>/dev/null; stat -c %s /run/steading/big").await;
    assert!(filled.lines().last().unwrap().parse::<u64>().unwrap() <= 2 << 20, "{filled}");
}
