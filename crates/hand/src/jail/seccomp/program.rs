//! What becomes of each system call, as one short program of the kernel's.
//!
//! The kernel runs it once for each number when it is installed, and from then on for those whose fate is not always to
//! pass; every sandbox has a copy. Numbers are therefore looked up by halves, and neighbours with one fate are one.

use std::collections::BTreeMap;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};

/// What is done with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The kernel does it.
    Allow,
    /// It fails with this number.
    Fail(i32),
}

/// Holds one word of a call's arguments, as far as the mask has it, against a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// Which argument.
    pub argument: u8,
    /// Which half of it.
    pub half: Half,
    /// The bits that count.
    pub mask: u32,
    /// What they are to be.
    pub wanted: Wanted,
}

/// Half of an argument. The kernel looks at the lower one alone where it takes a number of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The lower.
    Low,
    /// The upper.
    High,
}

/// What a word is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This.
    Is(u32),
    /// Anything else.
    IsNot(u32),
}

/// What is done with a call all of whose tests hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Held one after the other.
    pub tests: Vec<Test>,
    /// What is then done.
    pub action: Action,
}

/// What becomes of a call: what the first rule says that holds, or this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// In their order.
    pub rules: Vec<Rule>,
    /// Where none holds.
    pub otherwise: Action,
}

/// The table is too long for jumps.
#[derive(Debug, thiserror::Error)]
#[error("the filter is too long")]
pub struct TooLong;

/// Where the kernel shows a filter the call's number, its architecture, and its arguments.
const NUMBER: usize = 0;
const ARCHITECTURE: usize = 4;
const ARGUMENTS: usize = 16;

/// Puts it together. Calls of any architecture but `architecture` end the process; those that have no fate are not there.
///
/// # Errors
/// [`TooLong`].
pub fn assemble(architecture: u32, fates: &BTreeMap<u32, Fate>) -> Result<Vec<sock_filter>, TooLong> {
    let unknown = Fate { rules: Vec::new(), otherwise: Action::Fail(libc::ENOSYS) };
    let mut pieces: Vec<(u32, &Fate)> = vec![(0, &unknown)];
    for (number, fate) in fates {
        let next = (number + 1, &unknown);
        // The one before has left the number open.
        pieces.pop_if(|(from, _)| from == number);
        if pieces.last().is_none_or(|(_, before)| *before != fate) {
            pieces.push((*number, fate));
        }
        pieces.push(next);
    }
    let mut program = vec![
        load(ARCHITECTURE),
        jump(BPF_JEQ, architecture, 1, 0),
        statement(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    program.extend(search(&pieces)?);
    Ok(program)
}

/// Finds the piece that a number is in; a piece goes from its number to that of the next.
fn search(pieces: &[(u32, &Fate)]) -> Result<Vec<sock_filter>, TooLong> {
    if let [(_, fate)] = pieces {
        return decide(fate);
    }
    let (low, high) = pieces.split_at(pieces.len() / 2);
    let below = search(low)?;
    let length = u8::try_from(below.len()).map_err(|_| TooLong)?;
    let middle = high.first().map_or(u32::MAX, |(from, _)| *from);
    Ok([vec![jump(BPF_JGE, middle, length, 0)], below, search(high)?].concat())
}

fn decide(fate: &Fate) -> Result<Vec<sock_filter>, TooLong> {
    let mut program = Vec::new();
    for Rule { tests, action } in &fate.rules {
        // From the end on, so that each test knows how far it is to what follows the rule.
        let mut rule = vec![end(*action)];
        for test in tests.iter().rev() {
            let past = u8::try_from(rule.len()).map_err(|_| TooLong)?;
            let argument = ARGUMENTS + 8 * usize::from(test.argument);
            let mut code = vec![load(if test.half == Half::Low { argument } else { argument + 4 })];
            if test.mask != u32::MAX {
                code.push(statement(BPF_ALU | BPF_AND | BPF_K, test.mask));
            }
            code.push(match test.wanted {
                Wanted::Is(value) => jump(BPF_JEQ, value, 0, past),
                Wanted::IsNot(value) => jump(BPF_JEQ, value, past, 0),
            });
            rule.splice(0..0, code);
        }
        program.extend(rule);
    }
    program.push(end(fate.otherwise));
    Ok(program)
}

fn end(action: Action) -> sock_filter {
    let value = match action {
        Action::Allow => SECCOMP_RET_ALLOW,
        Action::Fail(number) => SECCOMP_RET_ERRNO | number.unsigned_abs(),
    };
    statement(BPF_RET | BPF_K, value)
}

fn load(offset: usize) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset as u32)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | code | BPF_K) as u16, jt, jf, k }
}
