//! The filter of system calls. What [`ALLOWED`] does not list does not exist here; what is known for harm is refused in
//! so many words.

mod calls;

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use calls::{ALLOWED, ALLOWED_X86_64, REFUSED};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// One condition: which argument, its width, how it is compared, and with what.
type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

use SeccompCmpArgLen::{Dword, Qword};
use SeccompCmpOp::{Eq, MaskedEq, Ne};

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
const CLONE_NEWTIME: u64 = 0x80;

/// Requests that put words into a terminal, or take its lines elsewhere.
const TERMINAL: [u64; 4] = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD, libc::TIOCCONS];

/// btrfs answers its own requests to everybody, among them to make a subvolume that no quota counts. Those to share
/// extents between files are every file system's.
const BTRFS: u64 = 0x9400;
const SHARE_EXTENTS: [u64; 3] = [0x4004_9409, 0x4020_940d, 0xc018_9436];

/// What a filter holds against it cannot be told.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the filter cannot be made")]
    Make(#[from] seccompiler::BackendError),
    #[error("the filter cannot be installed")]
    Install(#[from] seccompiler::Error),
}

/// Installs it for this process and all that come from it. Calls of another architecture end the process.
///
/// # Errors
/// Where the kernel refuses.
pub fn filter() -> io::Result<()> {
    install().map_err(io::Error::other)
}

fn install() -> Result<(), Error> {
    let program = |rules, matched, otherwise| -> Result<BpfProgram, Error> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        Ok(SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()?)
    };
    let errno = |number: libc::c_int| SeccompAction::Errno(number.unsigned_abs());
    let allowed = program(allowed()?, SeccompAction::Allow, errno(libc::ENOSYS))?;
    let refused = program(refused()?, errno(libc::EPERM), SeccompAction::Allow)?;
    seccompiler::apply_filter(&allowed)?;
    // Of two refusals the one of the later filter is what the caller sees.
    Ok(seccompiler::apply_filter(&refused)?)
}

fn allowed() -> Result<Rules, Error> {
    let mut rules: Rules = ALLOWED.iter().chain(ALLOWED_X86_64).map(|call| (*call, Vec::new())).collect();
    let mut add = |call: i64, alternatives: Vec<Vec<Condition>>| -> Result<(), Error> {
        let rules = rules.entry(call).or_default();
        for conditions in alternatives {
            rules.push(rule(conditions)?);
        }
        Ok(())
    };

    let family = |family: libc::c_int| (0, Dword, Eq, u64::from(family.unsigned_abs()));
    let protocol = |protocol: libc::c_int| (2, Dword, Eq, u64::from(protocol.unsigned_abs()));
    let mut sockets =
        vec![vec![family(libc::AF_UNIX)], vec![family(libc::AF_NETLINK), protocol(libc::NETLINK_ROUTE)]];
    for internet in [libc::AF_INET, libc::AF_INET6] {
        for number in [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6] {
            sockets.push(vec![family(internet), protocol(number)]);
        }
    }
    add(libc::SYS_socket, sockets)?;
    add(libc::SYS_socketpair, vec![vec![family(libc::AF_UNIX)]])?;

    let ask = u64::from(u32::MAX);
    add(libc::SYS_personality, vec![vec![(0, Dword, Eq, 0)], vec![(0, Dword, Eq, ask)]])?;

    let kinds = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
    let node = |argument: u8| {
        let kind =
            |kind: libc::mode_t| vec![(argument, Dword, MaskedEq(libc::S_IFMT.into()), u64::from(kind))];
        kinds.into_iter().map(kind).collect::<Vec<_>>()
    };
    add(libc::SYS_mknodat, node(2))?;
    #[cfg(target_arch = "x86_64")]
    add(libc::SYS_mknod, node(1))?;
    Ok(rules)
}

fn refused() -> Result<Rules, Error> {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut add = |call: i64, conditions: Vec<Condition>| -> Result<(), Error> {
        rules.entry(call).or_default().push(rule(conditions)?);
        Ok(())
    };
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        for flag in NAMESPACES {
            let flag = u64::from(flag.unsigned_abs());
            add(call, vec![(0, Qword, MaskedEq(flag), flag)])?;
        }
    }
    add(libc::SYS_unshare, vec![(0, Qword, MaskedEq(CLONE_NEWTIME), CLONE_NEWTIME)])?;
    // The kernel looks at the lower half of a request.
    for request in TERMINAL {
        add(libc::SYS_ioctl, vec![(1, Dword, Eq, request)])?;
    }
    let mut btrfs: Vec<Condition> = SHARE_EXTENTS.iter().map(|request| (1, Dword, Ne, *request)).collect();
    btrfs.push((1, Dword, MaskedEq(0xff00), BTRFS));
    add(libc::SYS_ioctl, btrfs)?;
    // A limit for core files other than the one that is set would let a program of the host have a crash.
    let core = u64::from(libc::RLIMIT_CORE);
    add(libc::SYS_prlimit64, vec![(1, Dword, Eq, core), (2, Qword, Ne, 0)])?;
    #[cfg(target_arch = "x86_64")]
    add(libc::SYS_setrlimit, vec![(0, Dword, Eq, core)])?;
    Ok(rules)
}

fn rule(conditions: Vec<Condition>) -> Result<SeccompRule, Error> {
    let condition =
        |(argument, length, operator, value)| SeccompCondition::new(argument, length, operator, value);
    let conditions = conditions.into_iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    Ok(SeccompRule::new(conditions)?)
}
