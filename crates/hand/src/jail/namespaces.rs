//! The namespaces of a jail: users, and everything else.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::{At, Error, Step, USER, Users, sys};

/// Everything but users, mounts, groups and the network.
const MOST: libc::c_int = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWPID;

/// How many users a jail has.
const COUNT: u32 = 1 << 16;

/// Whose numbers files on disk have in a jail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Those of the jail: mounts translate them.
    Translated,
    /// [`USER`] of the host is that of the jail, for file systems whose mounts do not translate.
    Plain,
}

/// Becomes the root of a namespace of users that holds nobody but who starts this, with mounts of its own, so that what
/// follows needs no privileges.
///
/// # Errors
/// Where the machine does not let its users make one.
pub fn become_own_root() -> Result<(), Error> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER).at(Step::Users, "unshare")?;
    write_maps("self", &format!("0 {user} 1\n"), &format!("0 {group} 1\n"), user != 0)?;
    sys::unshare(libc::CLONE_NEWNS).at(Step::Namespaces, "unshare")
}

/// Makes the namespace of the jail's users, which the descriptor keeps. Whoever was in it is about to end, and is to be
/// reaped by [`reap`] when there is time.
///
/// # Errors
/// Where the kernel refuses, or there is no `/proc`.
pub fn make_users(users: Users, disk: Disk) -> Result<OwnedFd, Error> {
    let map = match (users, disk) {
        (Users::Single, _) => format!("{USER} 0 1\n"),
        (Users::Range { first }, Disk::Translated) => format!("0 {first} {COUNT}\n"),
        (Users::Range { first }, Disk::Plain) => {
            let after = USER + 1;
            format!("0 {first} {USER}\n{USER} {USER} 1\n{after} {} {}\n", first + after, COUNT - after)
        }
    };
    // What the kernel counts for each user, as watched files, it counts for whoever owns the namespace, too.
    sys::act_as(users.root()).at(Step::Users, "its owner")?;
    let forked = sys::fork(libc::CLONE_NEWUSER);
    if let Ok(sys::Side::Child) = forked {
        sys::sleep_for_good();
    }
    sys::act_as(0).at(Step::Users, "its owner")?;
    let sys::Side::Parent(pid) = forked.at(Step::Users, "clone")? else {
        sys::sleep_for_good();
    };
    let made = write_maps(&pid.to_string(), &map, &map, users == Users::Single).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Users, path)
    });
    sys::kill(pid);
    made
}

/// Takes the exit states of all children.
pub fn reap() {
    sys::reap_children();
}

/// Leaves every other namespace but those of mounts and of groups. The next process that is made is the first of the new one of
/// processes.
///
/// # Errors
/// Where the kernel refuses one of them.
pub fn leave_most(network: bool) -> Result<(), Error> {
    let network_flag = if network { libc::CLONE_NEWNET } else { 0 };
    sys::unshare(MOST | network_flag).at(Step::Namespaces, "unshare")?;
    rustix::system::sethostname(b"sandbox").at(Step::Namespaces, "sethostname")?;
    if network {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        );
        let socket = socket.at(Step::Network, "socket")?;
        sys::loopback_up(std::os::fd::AsFd::as_fd(&socket)).at(Step::Network, "lo")?;
    }
    Ok(())
}

/// Leaves those, too: the groups that this process is in are all that is seen from here on.
///
/// # Errors
/// Where the kernel refuses.
pub fn leave_rest() -> Result<(), Error> {
    sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP).at(Step::Namespaces, "unshare")
}

/// Goes to the mounts of the process with that number, where their root is.
///
/// # Errors
/// Where the kernel refuses, or there is no `/proc`.
pub fn enter_mounts(pid: i32) -> Result<(), Error> {
    let path = format!("/proc/{pid}/ns/mnt");
    let mounts = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mounts = mounts.at(Step::Namespaces, path)?;
    sys::enter(std::os::fd::AsFd::as_fd(&mounts), libc::CLONE_NEWNS).at(Step::Namespaces, "setns")
}

fn write_maps(process: &str, users: &str, groups: &str, deny_groups: bool) -> Result<(), Error> {
    let write = |name: &str, text: &str| {
        let path = format!("/proc/{process}/{name}");
        write_once(&path, text).at(Step::Users, path)
    };
    if deny_groups {
        write("setgroups", "deny")?;
    }
    write("uid_map", users)?;
    write("gid_map", groups)
}

/// The kernel takes a map only in one piece.
fn write_once(path: &str, text: &str) -> io::Result<()> {
    use std::io::Write;
    let written = fs::OpenOptions::new().write(true).open(path)?.write(text.as_bytes())?;
    if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
