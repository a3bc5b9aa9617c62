//! The system calls that the libraries in use do not have, or have for threads only.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Of clone3(2); the library cuts it to 32 bits, of which it is none.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Which process returns from a fork.
pub enum Side {
    /// The new one.
    Child,
    /// The one that was there, with the number of the new one.
    Parent(i32),
}

/// Makes a process whose parent is that of this one, as far as `CLONE_PARENT` is in `flags`.
///
/// # Errors
/// Of clone(2).
pub fn fork(flags: libc::c_int) -> io::Result<Side> {
    // SAFETY: without a stack and without shared memory, clone is a fork; this program has one thread.
    #[expect(unsafe_code, reason = "no library forks with flags")]
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    side(pid)
}

/// Makes a process in the control group of version 2 whose directory that is; its parent is that of this one.
///
/// # Errors
/// Of clone3(2).
pub fn fork_into(group: BorrowedFd<'_>) -> io::Result<Side> {
    // SAFETY: all-zero is a valid request.
    #[expect(unsafe_code, reason = "the structure has no other maker")]
    let mut request: libc::clone_args = unsafe { std::mem::zeroed() };
    request.flags = libc::CLONE_PARENT as u64 | CLONE_INTO_CGROUP;
    request.cgroup = group.as_raw_fd() as u64;
    // SAFETY: without a stack and without shared memory it is a fork, of a program that has one thread; the structure and
    // its size belong together.
    #[expect(unsafe_code, reason = "no library forks into a group")]
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const request, size_of::<libc::clone_args>()) };
    side(pid)
}

fn side(pid: libc::c_long) -> io::Result<Side> {
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => i32::try_from(pid).map(Side::Parent).map_err(io::Error::other),
    }
}

/// Ends a child at once.
pub fn kill(pid: i32) {
    // SAFETY: a plain system call on a child of this process that nobody has waited for.
    #[expect(unsafe_code, reason = "the number is not one of rustix's")]
    unsafe {
        libc::kill(pid, libc::SIGKILL);
    }
}

/// Waits for all children, whether or not they signal their end.
pub fn reap_children() {
    // SAFETY: a plain system call that writes nothing.
    #[expect(unsafe_code, reason = "rustix waits only for children that signal")]
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) } > 0 {}
}

/// Sleeps until killed.
pub fn sleep_for_good() -> ! {
    loop {
        // SAFETY: pause takes nothing and touches nothing.
        #[expect(unsafe_code, reason = "rustix has no pause")]
        unsafe {
            libc::pause();
        }
    }
}

/// Leaves the namespaces that `flags` name for new ones.
///
/// # Errors
/// Of unshare(2).
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the program has one thread, and no descriptors are shared or left behind.
    #[expect(unsafe_code, reason = "what is shared between threads changes")]
    let result = unsafe { libc::unshare(flags) };
    check(result)
}

/// Goes into the namespace, which is of that kind.
///
/// # Errors
/// Of setns(2).
pub fn enter(namespace: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: a plain system call on an open descriptor.
    #[expect(unsafe_code, reason = "rustix changes the namespaces of a thread")]
    let result = unsafe { libc::setns(namespace.as_raw_fd(), kind) };
    check(result)
}

/// What to set on a mount.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// `MOUNT_ATTR_…`.
    pub set: u64,
    /// The namespace of users whose numbers the mount shows.
    pub users: Option<BorrowedFd<'a>>,
}

/// Sets them on a mount that is attached nowhere yet, and on those below it.
///
/// # Errors
/// Of `mount_setattr(2)`.
pub fn set_mount_attributes(mount: BorrowedFd<'_>, attributes: Attributes<'_>) -> io::Result<()> {
    set_attributes(mount, attributes, libc::AT_RECURSIVE)
}

/// Sets `MOUNT_ATTR_…` on one mount alone.
///
/// # Errors
/// Of `mount_setattr(2)`.
pub fn set_mount_attributes_of_one(mount: BorrowedFd<'_>, set: u64) -> io::Result<()> {
    set_attributes(mount, Attributes { set, users: None }, 0)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes<'_>, how: libc::c_int) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set | attributes.users.map_or(0, |_| libc::MOUNT_ATTR_IDMAP),
        attr_clr: 0,
        propagation: if how == 0 { 0 } else { libc::MS_PRIVATE },
        userns_fd: attributes.users.map_or(0, |users| users.as_raw_fd() as u64),
    };
    // SAFETY: the structure and its size belong together, and the path is a string.
    #[expect(unsafe_code, reason = "rustix does not have mount_setattr")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | how,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes the open `program`; returns only if that fails.
pub fn execute(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with a null and outlive the call.
    #[expect(unsafe_code, reason = "rustix does not execute descriptors")]
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Becomes user and group `id` of the process's namespace of users, in no other group.
///
/// # Errors
/// Of the system calls.
pub fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: plain system calls; the list of groups is empty, so nothing is read.
    #[expect(unsafe_code, reason = "rustix changes the ids of a thread, this is about the process")]
    let failed = unsafe {
        libc::setgroups(0, std::ptr::null()) != 0
            || libc::setresgid(id, id, id) != 0
            || libc::setresuid(id, id, id) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor but the standard streams; whoever started this may have left some open.
///
/// # Errors
/// Of `close_range(2)`.
pub fn close_others() -> io::Result<()> {
    // SAFETY: called before anything is opened, so that nothing in use closes.
    #[expect(unsafe_code, reason = "descriptors close that no value owns")]
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Touches files as user and group `id`, with the capabilities that the process may have.
///
/// # Errors
/// Of the system calls.
pub fn touch_files_as(id: u32) -> io::Result<()> {
    // SAFETY: plain system calls; what they return is who it was before.
    #[expect(unsafe_code, reason = "rustix does not have these")]
    unsafe {
        libc::setfsgid(id);
        libc::setfsuid(id);
    }
    raise_capabilities()
}

/// The kernel takes them from a process that stops acting as root.
fn raise_capabilities() -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    let sets = rustix::thread::CapabilitySets { effective: held.permitted, ..held };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Makes namespaces as user `id`, with the capabilities that the process may have.
///
/// # Errors
/// Of the system calls.
pub fn act_as(id: u32) -> io::Result<()> {
    // SAFETY: a plain system call; the real and the saved user stay, so that the next call is permitted.
    #[expect(unsafe_code, reason = "rustix changes the ids of a thread, this is about the process")]
    let failed = unsafe { libc::setresuid(u32::MAX, id, u32::MAX) != 0 };
    if failed { Err(io::Error::last_os_error()) } else { raise_capabilities() }
}

/// Switches the loopback interface of the network namespace on.
///
/// # Errors
/// Of the system calls.
pub fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero is a valid request, which the kernel reads within its size.
    #[expect(unsafe_code, reason = "no library sets an interface's flags by ioctl")]
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed() as libc::c_char;
        request.ifr_name[1] = b'o'.cast_signed() as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    check(result)
}

/// `prctl(2)` with one argument.
///
/// # Errors
/// Of the call.
pub fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: used only for options whose argument is a number.
    #[expect(unsafe_code, reason = "rustix does not take every number")]
    let result = unsafe { libc::prctl(option, argument, 0, 0, 0) };
    check(result)
}

/// Has the program say what becomes of each system call of this process and all that come from it.
///
/// # Errors
/// Of seccomp(2).
pub fn filter_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = program.len().try_into().map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies as many statements as there are, and writes nothing.
    #[expect(unsafe_code, reason = "rustix has no filters")]
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A string of the system's kind.
///
/// # Errors
/// Where it holds a null.
pub fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::other)
}

/// The empty path.
pub const HERE: &CStr = c"";

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
