//! What the hand and whoever holds its connection say to each other.
//!
//! Both sides send frames. The holder opens streams, under numbers it has not used before; the hand ends each of
//! them with exactly one [`Kind::Reply`] or [`Kind::Fail`], after which it says nothing more on it. Bytes go in both
//! directions under credit: who sends begins with [`WINDOW`] bytes per channel and is given more as they are taken.
//! Neither side trusts the other to keep to it.

mod files;
mod frame;
mod message;

pub use files::{
    Among, Change, Completeness, Contents, Entry, Existing, FileKind, FileRequest, Found, Listed, MAX_LINE,
    MAX_RESULTS, TreeCaps,
};
pub use frame::{Bad, Decoder, Frame, HEADER, Kind, MAX_PAYLOAD, WINDOW, encode};
pub use message::{
    Cause, Event, Exec, Exit, Failure, Hello, Kept, Listening, MAX_HEAD_AND_TAIL, MAX_LAST, Mode, Outcome,
    Output, Program, Reply, Request, Running, Size, State, Stats, Stdin, Tell, Terminal, VERSION,
};
