//! What is asked, told and answered, in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FileRequest, WINDOW};

/// The version of these messages; both sides are built together, so another one is refused.
pub const VERSION: u32 = 1;

/// `head` and `tail` of [`Output::Capped`], together at most: what the first window holds.
pub const MAX_HEAD_AND_TAIL: u32 = WINDOW;

/// The most bytes of a channel that [`Event::Last`] says.
pub const MAX_LAST: usize = 1_024;

/// The hand's first words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
}

/// What a stream is opened for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Run a program. Ends with [`Reply::Exited`], or, in the background, [`Reply::Began`].
    Exec(Exec),
    /// Read what a process in the background has written and writes, and write to it. Ends with [`Reply::Exited`].
    Attach {
        /// The process.
        handle: u32,
        /// From which byte of all it has written; the oldest that is still here, where that one is not.
        from: u64,
    },
    /// Tell of the processes in the background. Ends with [`Reply::Processes`].
    Processes,
    /// Send a signal to a process in the background and all it has begun. Ends with [`Reply::Done`].
    Kill {
        /// The process.
        handle: u32,
        /// The signal's number.
        signal: i32,
    },
    /// Forget a process in the background that has ended. Ends with [`Reply::Done`].
    Forget {
        /// The process.
        handle: u32,
    },
    /// Connect to a port on the loopback inside. Says [`Event::Connected`]; ends with [`Reply::Done`].
    Dial {
        /// The port.
        port: u16,
    },
    /// Tell which ports are listened on. Ends with [`Reply::Ports`].
    Ports,
    /// Tell what is used. Ends with [`Reply::Stats`].
    Stats,
    /// Make the sandbox somebody's: what every command sees from here on. Ends with [`Reply::Done`].
    Activate {
        /// Variables of each command from here on, in place of those of an earlier activation.
        env: BTreeMap<String, String>,
        /// The run token, for `/run/steading/token`.
        token: Option<String>,
    },
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// What to run.
    pub program: Program,
    /// Where; relative to the home directory, which it is without one.
    pub cwd: Option<String>,
    /// Variables, over those that every command has.
    pub env: BTreeMap<String, String>,
    /// With a terminal, and of which size.
    pub terminal: Terminal,
    /// What its standard input is.
    pub stdin: Stdin,
    /// How long it may run, in milliseconds; without one, in the foreground, ten minutes, but work with files until it
    /// ends.
    pub timeout_ms: Option<u64>,
    /// Whether the stream waits for it.
    pub mode: Mode,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A program and its arguments; the program is looked for in `PATH`.
    Argv(Vec<String>),
    /// A line for bash.
    Command(String),
    /// The hand itself, for work with files, as the user whom commands run as.
    Files(FileRequest),
}

/// Whether a program has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Terminal {
    /// Pipes.
    None,
    /// A terminal of its own, which it controls; standard error goes the way of standard output.
    Of(Size),
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// What a program's standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// Nothing.
    Empty,
    /// What comes on the stream, until its end.
    Stream,
}

/// Whether a stream waits for its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The stream is the program's life: it ends with the program, and the program with it.
    Foreground(Output),
    /// The same for what serves others: its output is sent, and it runs until it ends or is ended.
    Lasting,
    /// The program lives on; its output, standard error within, is kept for whoever attaches.
    Background,
}

/// What becomes of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Output {
    /// All of it is sent; the program waits for who reads it.
    Stream,
    /// The first and the last bytes of each channel are sent, the first at once, the last at the end; where there is
    /// more, all of it goes to a file inside. The program waits for nobody.
    Capped {
        /// Bytes from the beginning.
        head: u32,
        /// Bytes from the end. Both together at most [`MAX_HEAD_AND_TAIL`].
        tail: u32,
    },
}

/// What is told of a stream that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// Send this signal to the program's process group, or, with a terminal, to the group in its foreground.
    Signal(i32),
    /// The terminal has another size.
    Resize(Size),
    /// Say what the last of the output is, with [`Event::Last`].
    Last,
}

/// What happens before a stream ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The program runs.
    Started {
        /// Its process id inside.
        pid: i32,
    },
    /// The first byte that comes is this one of all that was written.
    Attached {
        /// Counted from 0.
        from: u64,
    },
    /// The connection stands.
    Connected,
    /// The last of the output that is kept, at most [`MAX_LAST`] bytes of each channel. What is no UTF-8 is replaced.
    Last {
        /// Of standard output.
        stdout: String,
        /// Of standard error.
        stderr: String,
    },
}

/// A stream's good end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// The program has ended.
    Exited(Exit),
    /// The program runs in the background, by this handle.
    Began(u32),
    /// The processes in the background.
    Processes(Vec<Running>),
    /// The ports that are listened on, by number.
    Ports(Vec<Listening>),
    /// What is used.
    Stats(Stats),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// In which way.
    pub outcome: Outcome,
    /// Its standard output, or with a terminal or in the background all output.
    pub stdout: Kept,
    /// Its standard error.
    pub stderr: Kept,
}

/// In which way a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was ended, with all it had begun, because its time was over.
    TimedOut,
}

/// What was written on a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Bytes in all.
    pub bytes: u64,
    /// Where they are inside, if there were more than were sent.
    pub file: Option<String>,
    /// Bytes in that file: fewer than all where it would have grown too large, or the disk was full.
    pub file_bytes: u64,
}

/// A process in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// Its handle.
    pub handle: u32,
    /// What was run, shortened.
    pub command: String,
    /// Its process id inside.
    pub pid: i32,
    /// How it is.
    pub state: State,
    /// Bytes that it has written.
    pub written: u64,
    /// Milliseconds since it began.
    pub age_ms: u64,
}

/// How a process in the background is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It runs.
    Running,
    /// It has ended.
    Ended(Outcome),
}

/// A port that is listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listening {
    /// The port.
    pub port: u16,
    /// The user whose it is.
    pub uid: u32,
}

/// What is used inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Processes.
    pub processes: u32,
    /// Resident memory of all of them, in bytes; pages that several share count for each.
    pub resident_bytes: u64,
    /// Processor time of those that live, in milliseconds.
    pub cpu_ms: u64,
    /// Commands that run, in the foreground and in the background.
    pub commands: u32,
    /// Streams that are open.
    pub streams: u32,
}

/// A stream's bad end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Of which sort.
    pub cause: Cause,
    /// In words; they may hold what is inside, and nothing else.
    pub message: String,
}

/// Of which sort a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The request makes no sense.
    Invalid,
    /// There is no such program, directory, handle or listener.
    NotFound,
    /// The kernel, or the jail, does not permit it.
    Denied,
    /// There is something already.
    Exists,
    /// The disk, or the quota, has no room for it.
    Full,
    /// It took longer than it may.
    TimedOut,
    /// Too much of something is in use.
    Busy,
    /// The stream was given up.
    Reset,
    /// Something else did not work.
    Broken,
}
