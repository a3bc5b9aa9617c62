//! A mail server of the caller's own, which keeps what it is sent: `aiosmtpd`.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::directory::temporary;
use crate::process::{Ending, Process, Stdout};
use crate::{PythonTool, Unavailable, eventually};

const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a mail may take from the request that causes it.
const DELIVERY: Duration = Duration::from_secs(20);
/// Another process may take the free port between our look and the server's bind.
const ATTEMPTS: u32 = 3;

/// A running mail server on a loopback port. Dropping it ends it and removes what it was sent.
#[derive(Debug)]
pub struct Mailbox {
    // Dropped in this order: the server ends before its directory goes.
    _process: Process,
    directory: TempDir,
    url: String,
}

/// One mail as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Everything before the first empty line, as it came.
    pub head: String,
    /// The address that the server was told to deliver to.
    pub to: String,
    /// The text, decoded.
    pub text: String,
}

impl Mailbox {
    /// Starts one that is empty.
    ///
    /// # Errors
    /// As [`PythonTool::install`], whose environment has the program, and `Broken` with its log where it does not start.
    pub fn start() -> Result<Self, Unavailable> {
        let python = PythonTool::install()?;
        Self::serve(&python).map_err(Unavailable::broken("aiosmtpd"))
    }

    /// Starts one at this address, for who has been sending there already.
    ///
    /// # Errors
    /// As [`Mailbox::start`], and `Broken` where the address is taken.
    pub fn start_at(address: SocketAddr) -> Result<Self, Unavailable> {
        let start = || Self::serve_at(&PythonTool::install()?, temporary()?, address);
        start()
            .and_then(|mailbox| mailbox.context("it ended before it was ready"))
            .map_err(Unavailable::broken("aiosmtpd"))
    }

    /// Its address, as the product's settings want it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What has arrived, in no order.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn mails(&self) -> anyhow::Result<Vec<Mail>> {
        let mut mails = Vec::new();
        for entry in std::fs::read_dir(self.new_mails())? {
            if let Ok(raw) = std::fs::read_to_string(entry?.path()) {
                mails.push(Mail::read(&raw)?);
            }
        }
        Ok(mails)
    }

    /// Waits for a mail that is `wanted`, takes it out of the box and gives it.
    ///
    /// # Errors
    /// With all that has come, where none has in time.
    pub fn take(&self, wanted: impl Fn(&Mail) -> bool) -> anyhow::Result<Mail> {
        let found = eventually(DELIVERY, || {
            for entry in std::fs::read_dir(self.new_mails()).ok()?.flatten() {
                // One that another test has taken meanwhile is gone.
                let Ok(raw) = std::fs::read_to_string(entry.path()) else { continue };
                if let Some(mail) = Mail::read(&raw).ok().filter(&wanted) {
                    std::fs::remove_file(entry.path()).ok()?;
                    return Some(mail);
                }
            }
            None
        });
        found.with_context(|| format!("no such mail: {:#?}", self.mails()))
    }

    fn new_mails(&self) -> PathBuf {
        self.directory.path().join("mails/new")
    }

    fn serve(python: &PythonTool) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            if let Some(mailbox) = Self::serve_at(python, temporary()?, address)? {
                return Ok(mailbox);
            }
        }
        bail!("it ended {ATTEMPTS} times before it was ready")
    }

    /// None where it ends before it is ready.
    fn serve_at(
        python: &PythonTool,
        directory: TempDir,
        address: SocketAddr,
    ) -> anyhow::Result<Option<Self>> {
        let mut serve = python.command(directory.path())?;
        serve.args(["-m", "aiosmtpd", "--nosetuid", "--smtputf8", "--listen", &address.to_string()]);
        serve.args(["--class", "aiosmtpd.handlers.Mailbox"]).arg(directory.path().join("mails"));
        let mut process = Process::spawn(serve, &directory.path().join("log"), Stdout::Log, Ending::Kill)?;
        let ready = eventually(READY_LIMIT, || {
            if process.exited().is_some() {
                return Some(false);
            }
            greets(address).then_some(true)
        });
        match ready {
            Some(true) => Ok(Some(Self { _process: process, directory, url: format!("smtp://{address}") })),
            Some(false) => Ok(None),
            None => bail!("no greeting within {READY_LIMIT:?}:\n{}", process.log_tail()),
        }
    }
}

/// Whether a mail server greets there (RFC 5321 §4.2).
fn greets(address: SocketAddr) -> bool {
    use std::io::Read as _;
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let mut greeting = [0; 4];
    let patient = stream.set_read_timeout(Some(Duration::from_secs(5)));
    patient.is_ok() && stream.read_exact(&mut greeting).is_ok() && greeting == *b"220 "
}

impl Mail {
    fn read(raw: &str) -> anyhow::Result<Self> {
        let raw = raw.replace("\r\n", "\n");
        let (head, body) = raw.split_once("\n\n").context("no empty line")?;
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(line[name.len()..].trim().to_owned())
        };
        let to = field("x-rcptto:").context("no recipient")?;
        let text = match field("content-transfer-encoding:").as_deref() {
            Some("quoted-printable") => unquoted(body),
            Some("7bit" | "8bit") | None => body.to_owned(),
            Some(other) => bail!("a text in {other}"),
        };
        Ok(Self { head: head.to_owned(), to, text })
    }

    /// The subject, unfolded.
    #[must_use]
    pub fn subject(&self) -> String {
        let unfolded = self.head.replace("\n ", " ");
        let line = unfolded.lines().find(|line| line.to_ascii_lowercase().starts_with("subject:"));
        line.map(|line| line["subject:".len()..].trim().to_owned()).unwrap_or_default()
    }

    /// The code of six digits that stands alone on a line.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.text
            .lines()
            .map(str::trim)
            .find(|line| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit()))
    }

    /// The link that stands alone on a line.
    #[must_use]
    pub fn link(&self) -> Option<&str> {
        self.text.lines().map(str::trim).find(|line| line.contains("=lt_"))
    }

    /// What the link ends with.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        Some(self.link()?.rsplit_once('=')?.1)
    }
}

/// Undoes quoted-printable (RFC 2045 §6.7).
fn unquoted(text: &str) -> String {
    let text = text.replace("=\n", "");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let hex = others.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'=') {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
