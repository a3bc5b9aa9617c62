//! The filter of system calls. What [`ALLOWED`] does not list does not exist here; what is known for harm is refused in
//! so many words.

mod calls;
mod program;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use std::collections::BTreeMap;
use std::io;

use super::sys;
use calls::{ALLOWED, ALLOWED_X86_64, REFUSED};
use program::{Action, Fate, Half, Rule, Test, Wanted, assemble};

use Wanted::{Is, IsNot};

/// Flags of clone(2) and unshare(2) that make a namespace.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// unshare(2) has one more; for clone(2) the bit means something else.
const CLONE_NEWTIME: u32 = 0x80;

/// Requests that put words into a terminal, or take its lines elsewhere.
const TERMINAL: [u64; 4] = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD, libc::TIOCCONS];

/// btrfs answers its own requests to everybody, among them to make a subvolume that no quota counts. Those to share
/// extents between files are every file system's.
const BTRFS: u32 = 0x9400;
const SHARE_EXTENTS: [u32; 3] = [0x4004_9409, 0x4020_940d, 0xc018_9436];

/// What system calls are known by on this machine, as audit(7) has it.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: u32 = 0xc000_00f3;

/// Installs it for this process and all that come from it. Calls of another architecture end the process.
///
/// # Errors
/// Where the kernel refuses.
pub fn filter() -> io::Result<()> {
    let program = assemble(ARCHITECTURE, &fates()).map_err(io::Error::other)?;
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    sys::filter_calls(&program)
}

/// What becomes of the calls that are known.
fn fates() -> BTreeMap<u32, Fate> {
    let always = |action| Fate { rules: Vec::new(), otherwise: action };
    let number = |call: libc::c_long| call as u32;
    let allowed = ALLOWED.iter().chain(ALLOWED_X86_64).map(|call| (number(*call), always(Action::Allow)));
    let refused = REFUSED.iter().map(|call| (number(*call), always(Action::Fail(libc::EPERM))));
    let mut fates: BTreeMap<u32, Fate> = allowed.chain(refused).collect();
    // A rule of each: what passes of calls that are not there, and what is refused of calls that are.
    let mut only = |call: libc::c_long, alternatives: Vec<Vec<Test>>| {
        let rule = |tests| Rule { tests, action: Action::Allow };
        let rules = alternatives.into_iter().map(rule).collect();
        fates.insert(number(call), Fate { rules, otherwise: Action::Fail(libc::ENOSYS) });
    };
    only(libc::SYS_socket, sockets());
    only(libc::SYS_socketpair, vec![vec![low(0, Is(libc::AF_UNIX as u32))]]);
    only(libc::SYS_personality, vec![vec![low(0, Is(0))], vec![low(0, Is(u32::MAX))]]);
    let kinds = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
    let node = |argument| kinds.map(|kind| vec![masked(argument, libc::S_IFMT, Is(kind))]).to_vec();
    only(libc::SYS_mknodat, node(2));
    #[cfg(target_arch = "x86_64")]
    only(libc::SYS_mknod, node(1));

    let mut but = |call: libc::c_long, alternatives: Vec<Vec<Test>>| {
        let rule = |tests| Rule { tests, action: Action::Fail(libc::EPERM) };
        let rules = alternatives.into_iter().map(rule).collect();
        fates.insert(number(call), Fate { rules, otherwise: Action::Allow });
    };
    let namespaces = NAMESPACES.iter().fold(0, |all, flag| all | *flag as u32);
    but(libc::SYS_clone, vec![vec![masked(0, namespaces, IsNot(0))]]);
    but(libc::SYS_unshare, vec![vec![masked(0, namespaces | CLONE_NEWTIME, IsNot(0))]]);
    but(libc::SYS_ioctl, requests());
    // A limit for core files other than the one that is set would let a program of the host have a crash. It is set
    // where there is an address of one.
    let core = low(0, Is(libc::RLIMIT_CORE));
    let of_core = Test { argument: 1, ..core };
    let address = low(2, IsNot(0));
    but(
        libc::SYS_prlimit64,
        vec![vec![of_core, address], vec![of_core, Test { half: Half::High, ..address }]],
    );
    #[cfg(target_arch = "x86_64")]
    but(libc::SYS_setrlimit, vec![vec![core]]);
    fates
}

/// Families of sockets, and protocols of those that have several.
fn sockets() -> Vec<Vec<Test>> {
    let word = |argument, number: libc::c_int| low(argument, Is(number as u32));
    let mut sockets =
        vec![vec![word(0, libc::AF_UNIX)], vec![word(0, libc::AF_NETLINK), word(2, libc::NETLINK_ROUTE)]];
    for internet in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6] {
            sockets.push(vec![word(0, internet), word(2, protocol)]);
        }
    }
    sockets
}

/// Requests that are refused. The kernel looks at the lower half of them.
fn requests() -> Vec<Vec<Test>> {
    let mut btrfs = vec![masked(1, 0xff00, Is(BTRFS))];
    btrfs.extend(SHARE_EXTENTS.map(|request| low(1, IsNot(request))));
    TERMINAL.iter().map(|request| vec![low(1, Is(*request as u32))]).chain([btrfs]).collect()
}

fn low(argument: u8, wanted: Wanted) -> Test {
    masked(argument, u32::MAX, wanted)
}

fn masked(argument: u8, mask: u32, wanted: Wanted) -> Test {
    Test { argument, half: Half::Low, mask, wanted }
}
