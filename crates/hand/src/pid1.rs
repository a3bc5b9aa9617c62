//! The first process of a sandbox.

use std::error::Error;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::jail::{Confinement, become_first, confine};

/// Serves the connection until it closes.
///
/// # Errors
/// Where the arguments are wrong.
pub fn main(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    become_first()?;
    let [stream, confinement] = arguments else {
        return Err("usage: hand pid1 STREAM CONFINEMENT".into());
    };
    let confinement: Confinement = serde_json::from_str(confinement)?;
    // SAFETY: whoever started this left the descriptor open for it.
    #[expect(unsafe_code, reason = "a descriptor comes as a number")]
    let stream = unsafe { OwnedFd::from_raw_fd(stream.parse()?) };
    rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)?;
    for group in &confinement.groups {
        // SAFETY: as above.
        #[expect(unsafe_code, reason = "a descriptor comes as a number")]
        let group = unsafe { std::os::fd::BorrowedFd::borrow_raw(*group) };
        rustix::io::fcntl_setfd(group, rustix::io::FdFlags::CLOEXEC)?;
    }
    let mut stream = UnixStream::from(stream);
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut text)?;
        let argv: Vec<String> = serde_json::from_slice(&text)?;
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).current_dir("/workspace").env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/workspace").env("LANG", "C.UTF-8");
        let confinement = confinement.clone();
        // SAFETY: only system calls are made between fork and exec.
        #[expect(unsafe_code, reason = "a child confines itself before it executes anything")]
        unsafe {
            command.pre_exec(move || confine(&confinement));
        }
        let (code, out, err) = match command.output() {
            Ok(output) => (output.status.code().unwrap_or(-1), output.stdout, output.stderr),
            Err(error) => (-2, Vec::new(), error.to_string().into_bytes()),
        };
        let answer = serde_json::json!([code, String::from_utf8_lossy(&out), String::from_utf8_lossy(&err)]);
        let answer = serde_json::to_vec(&answer)?;
        stream.write_all(&u32::try_from(answer.len())?.to_le_bytes())?;
        stream.write_all(&answer)?;
    }
    Ok(())
}
