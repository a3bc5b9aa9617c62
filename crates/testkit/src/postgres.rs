//! A Postgres server of the test's own, from the binaries of the machine.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::directory::temporary;
use crate::process::{Ending, Process, Stdout, User, command};
use crate::{Engine, Unavailable, eventually, locate};

const ROLE: &str = "steading";
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Another process may take the free port between our look and the server's bind.
const ATTEMPTS: u32 = 3;

/// Whether the server waits for the disk at commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// It does not: fast, and only safe against the death of the server, not of the machine.
    Off,
    /// It does, as in production: for measurements.
    On,
}

/// A running Postgres server on a loopback port, with a superuser and a random password. Dropping it ends it and
/// removes its files.
#[derive(Debug)]
pub struct Postgres {
    // Dropped in this order: the server ends before its directory goes.
    process: Process,
    cluster: Cluster,
    port: u16,
    databases: AtomicU32,
}

#[derive(Debug)]
struct Cluster {
    directory: TempDir,
    programs: PathBuf,
    user: User,
    password: String,
}

impl Postgres {
    /// Starts a server of its own for the caller; about half a second.
    ///
    /// # Errors
    /// `Missing` where the machine has no Postgres, `Broken` with the server's log where it does not start.
    pub fn start(fsync: Fsync) -> Result<Self, Unavailable> {
        let programs = locate::postgres_directory().ok_or(Unavailable::Missing(Engine::Postgres))?;
        Cluster::create(programs)
            .and_then(|cluster| cluster.serve(fsync))
            .map_err(Unavailable::broken("postgres"))
    }

    /// The server that this process's tests share, without fsync; it ends when the last of them lets go of it.
    /// Tests keep apart by [`Postgres::fresh_database`].
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn shared() -> Result<Arc<Self>, Unavailable> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(Self::start(Fsync::Off)?);
        *shared = Arc::downgrade(&started);
        Ok(started)
    }

    /// The address of `database`, password included, as sqlx and libpq read it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}:{}@127.0.0.1:{}/{database}", self.cluster.password, self.port)
    }

    /// Creates an empty database that nobody else uses, and gives its address.
    ///
    /// # Errors
    /// What the server said.
    pub fn fresh_database(&self) -> anyhow::Result<String> {
        let name = format!("fresh_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name}"))?;
        Ok(self.url(&name))
    }

    /// Runs SQL as the superuser in the database `postgres` and gives psql's plain output.
    ///
    /// # Errors
    /// What the server said.
    pub fn execute(&self, sql: &str) -> anyhow::Result<String> {
        self.cluster.psql(self.port, sql)
    }

    /// The process id of the server.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Cluster {
    fn create(programs: PathBuf) -> anyhow::Result<Self> {
        let directory = temporary()?;
        let user = match directory.path().metadata()?.uid() {
            // Postgres refuses to run as root; its package brings a user for it.
            0 => {
                chown(directory.path(), Some(id_of("-u")?), Some(id_of("-g")?))?;
                User::Named("postgres")
            }
            _ => User::Current,
        };
        let cluster = Self { password: random_word()?, directory, programs, user };
        let password_file = cluster.directory.path().join("password");
        std::fs::write(&password_file, &cluster.password)?;
        let mut initdb = cluster.command("initdb");
        initdb
            .args(["--auth=scram-sha-256", "--no-sync", "--no-instructions", "--locale=C.UTF-8"])
            .arg(format!("--username={ROLE}"))
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(cluster.data());
        succeed(initdb.output()?).context("initdb")?;
        Ok(cluster)
    }

    fn serve(self, fsync: Fsync) -> anyhow::Result<Postgres> {
        let mut attempt = 1;
        loop {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut process = self.start_server(port, fsync)?;
            let answer = eventually(READY_LIMIT, || {
                if process.exited().is_some() {
                    return Some(None);
                }
                self.psql(port, "SHOW data_directory").ok().map(Some)
            });
            match answer {
                Some(Some(directory)) => {
                    ensure!(directory == self.data().to_string_lossy(), "port {port} is another server's");
                    return Ok(Postgres { process, cluster: self, port, databases: AtomicU32::new(0) });
                }
                _ if attempt < ATTEMPTS => attempt += 1,
                Some(None) => bail!("the server ended:\n{}", process.log_tail()),
                None => bail!("no answer within {READY_LIMIT:?}:\n{}", process.log_tail()),
            }
        }
    }

    fn start_server(&self, port: u16, fsync: Fsync) -> anyhow::Result<Process> {
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""]);
        server.args(["-c", "max_connections=200"]);
        if fsync == Fsync::Off {
            server.args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]);
        }
        Process::spawn(server, &self.directory.path().join("log"), Stdout::Log, Ending::Quit)
    }

    fn psql(&self, port: u16, sql: &str) -> anyhow::Result<String> {
        let mut psql = self.command("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"])
            .args(["-p", &port.to_string(), "-U", ROLE, "-d", "postgres", "-c", sql])
            .env("PGPASSWORD", &self.password);
        succeed(psql.output()?).context("psql")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(&self.programs.join(program), self.user);
        command.current_dir(self.directory.path()).env("LC_ALL", "C.UTF-8");
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

/// What the program printed, without the last line's end.
fn succeed(output: Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn id_of(flag: &str) -> anyhow::Result<u32> {
    let output = Command::new("id").args([flag, "postgres"]).stdin(Stdio::null()).output()?;
    Ok(succeed(output).context("as root, a user named postgres is needed")?.parse()?)
}

fn random_word() -> anyhow::Result<String> {
    use std::io::Read;
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
