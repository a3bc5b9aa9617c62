//! Opening the control database, and the one way to write to it.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernel::Secret;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::error::DatabaseError;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Connection, Executor, Row, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Audit, Budgets, Certificates, DataKeys, Demands, Domains, Egress, Environments, Error, Keys, Listeners,
    Members, Meters, ModelCalls, News, OAuth, Plans, Prices, Records, Replays, Result, Runs, Schedules,
    Secrets, Settings, SigningKeys, Spent, Tenants, Workspaces, migrations,
};

/// One writer and two readers. Each idle connection costs memory that an idle platform does not have.
const SQLITE_CONNECTIONS: u32 = 3;
const POSTGRES_CONNECTIONS: u32 = 10;
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);
/// On each new connection to Postgres. Nobody waits for a lock longer than for a connection, and what a lost program has begun
/// is undone soon.
const SESSION: &str = "SET lock_timeout = '8s'; SET idle_in_transaction_session_timeout = '20s'; \
     SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";
/// A larger file would make the start wait for its check; damage in it shows when the page is read.
const CHECKED_BYTES: u64 = 8 << 20;

/// Runs on each new connection. FULL: what was answered is on disk, whatever happens to the machine.
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
     PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -512; \
     PRAGMA journal_size_limit = 4194304";

/// Where the control database is.
#[derive(Debug, Clone)]
pub enum Location {
    /// A file, made where it is missing; its directory must be there.
    Sqlite(PathBuf),
    /// The address of a Postgres database, `postgres://user:password@host/name`.
    Postgres(Secret),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// The open control database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    engine: Engine,
    /// SQLite has one writer and waits for it by polling; waiting here is fair and wakes at once.
    writer: Arc<Semaphore>,
    failures: Failures,
}

/// How often the database did not take a change, or did not answer whether it is there.
#[derive(Debug, Clone, Default)]
struct Failures(Arc<AtomicU64>);

impl Failures {
    fn count<T, E>(&self, outcome: Result<T, E>) -> Result<T, E> {
        if outcome.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

/// The connections to the control database, and how it has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Those that are open and lie idle.
    pub idle: u64,
    /// Those that somebody uses.
    pub used: u64,
    /// As many as there may be.
    pub most: u64,
    /// Changes that could not begin or be committed, and times that it did not answer whether it is there.
    pub failures: u64,
}

impl Store {
    /// Opens the database and brings its tables up to date.
    ///
    /// # Errors
    /// `Open` where it cannot be reached, `Damaged` where the file is not sound, `Newer` where a later program
    /// has written it.
    pub async fn open(location: &Location) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let (engine, options) = match location {
            Location::Sqlite(path) => (Engine::Sqlite, sqlite_options(path)?),
            Location::Postgres(url) => (Engine::Postgres, postgres_options(url)?),
        };
        // A pool would retry a damaged file until its time is up and then say that it was slow.
        let mut first = options.connect().await.map_err(opening)?;
        if let Location::Sqlite(path) = location {
            turn_on(&mut first).await.map_err(opening)?;
            check(&mut first, path).await?;
        }
        first.close().await?;
        let pool = match engine {
            Engine::Sqlite => AnyPoolOptions::new()
                .max_connections(SQLITE_CONNECTIONS)
                .test_before_acquire(false)
                .max_lifetime(None)
                .after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(PRAGMAS).await.map(drop) })
                })
                // SQLite undoes a transaction by itself when its disk is full. sqlx then still counts it as open, and
                // would refuse to begin another one on this connection for ever.
                .after_release(|connection, _| {
                    Box::pin(async move {
                        connection.ping().await?;
                        Ok(!connection.is_in_transaction())
                    })
                }),
            Engine::Postgres => {
                AnyPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(SESSION).await.map(drop) })
                })
            }
        };
        let pool = pool.acquire_timeout(ACQUIRE_LIMIT).connect_lazy_with(options);
        let (writer, failures) = (Arc::new(Semaphore::new(1)), Failures::default());
        let store = Self { pool, engine, writer, failures };
        migrations::apply(&store).await?;
        Ok(store)
    }

    /// Ends every connection; on SQLite the log is folded into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Its connections.
    #[must_use]
    pub fn connections(&self) -> Connections {
        let idle = self.pool.num_idle() as u64;
        let failures = self.failures.0.load(Ordering::Relaxed);
        // Asked for one after the other, while others take and give back.
        let used = u64::from(self.pool.size()).saturating_sub(idle);
        Connections { idle, used, most: self.pool.options().get_max_connections().into(), failures }
    }

    /// Whether the database answers, with something of its own.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn ping(&self) -> Result<()> {
        let asked = sqlx::query("SELECT name FROM settings LIMIT 1").fetch_optional(&self.pool).await;
        Ok(self.failures.count(asked).map(drop)?)
    }

    /// The tenants.
    #[must_use]
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants(self)
    }

    /// The environments.
    #[must_use]
    pub fn environments(&self) -> Environments<'_> {
        Environments(self)
    }

    /// The domains that environments claim.
    #[must_use]
    pub fn domains(&self) -> Domains<'_> {
        Domains(self)
    }

    /// When schedules are due.
    #[must_use]
    pub fn schedules(&self) -> Schedules<'_> {
        Schedules(self)
    }

    /// Whose functions are told of events.
    #[must_use]
    pub fn listeners(&self) -> Listeners<'_> {
        Listeners(self)
    }

    /// How strongly sandboxes must be kept apart.
    #[must_use]
    pub fn demands(&self) -> Demands<'_> {
        Demands(self)
    }

    /// Where sandboxes may go.
    #[must_use]
    pub fn egress(&self) -> Egress<'_> {
        Egress(self)
    }

    /// The workspaces of sandboxes.
    #[must_use]
    pub fn workspaces(&self) -> Workspaces<'_> {
        Workspaces(self)
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> Certificates<'_> {
        Certificates(self)
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys(self)
    }

    /// The keys that values are sealed with.
    #[must_use]
    pub fn data_keys(&self) -> DataKeys<'_> {
        DataKeys(self)
    }

    /// The keys that sign tokens.
    #[must_use]
    pub fn signing_keys(&self) -> SigningKeys<'_> {
        SigningKeys(self)
    }

    /// Minted credentials.
    #[must_use]
    pub fn runs(&self) -> Runs<'_> {
        Runs(self)
    }

    /// What gateways tell each other.
    #[must_use]
    pub fn news(&self) -> News<'_> {
        News(self)
    }

    /// What clients were given for their users' consent.
    #[must_use]
    pub fn oauth(&self) -> OAuth<'_> {
        OAuth(self)
    }

    /// The environments' secrets.
    #[must_use]
    pub fn secrets(&self) -> Secrets<'_> {
        Secrets(self)
    }

    /// The memory of calls with an idempotency key.
    #[must_use]
    pub fn replays(&self) -> Replays<'_> {
        Replays(self)
    }

    /// Ids that count no longer.
    #[must_use]
    pub fn spent(&self) -> Spent<'_> {
        Spent(self)
    }

    /// How much may be spent on models.
    #[must_use]
    pub fn budgets(&self) -> Budgets<'_> {
        Budgets(self)
    }

    /// People of tenants.
    #[must_use]
    pub fn members(&self) -> Members<'_> {
        Members(self)
    }

    /// Bundles of limits, and who has which.
    #[must_use]
    pub fn plans(&self) -> Plans<'_> {
        Plans(self)
    }

    /// What models cost.
    #[must_use]
    pub fn prices(&self) -> Prices<'_> {
        Prices(self)
    }

    /// What environments use by the hour.
    #[must_use]
    pub fn meters(&self) -> Meters<'_> {
        Meters(self)
    }

    /// What environments ask of models.
    #[must_use]
    pub fn model_calls(&self) -> ModelCalls<'_> {
        ModelCalls(self)
    }

    /// The chains of acts.
    #[must_use]
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }

    /// Rows of calls, and usage.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records(self)
    }

    /// The platform's own settings.
    #[must_use]
    pub fn settings(&self) -> Settings<'_> {
        Settings(self)
    }

    pub(crate) fn reader(&self) -> &AnyPool {
        &self.pool
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// Begins a transaction that may write. On SQLite it takes the write lock at once, for one that reads first
    /// cannot be upgraded when another has written meanwhile.
    pub(crate) async fn begin_write(&self) -> Result<Write> {
        let begun = match self.engine {
            Engine::Sqlite => {
                let turn = Arc::clone(&self.writer).acquire_owned().await;
                let turn = turn.map_err(|_| Error::Unreachable(sqlx::Error::PoolClosed))?;
                self.pool.begin_with("BEGIN IMMEDIATE").await.map(|transaction| (transaction, Some(turn)))
            }
            Engine::Postgres => self.pool.begin().await.map(|transaction| (transaction, None)),
        };
        let (transaction, turn) = self.failures.count(begun)?;
        Ok(Write { transaction, failures: self.failures.clone(), _turn: turn })
    }
}

/// A transaction that may write; undone where it is dropped.
pub(crate) struct Write {
    // Dropped in this order: the next writer's turn comes when this one's connection is rolling back.
    transaction: Transaction<'static, Any>,
    failures: Failures,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Write {
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    pub(crate) async fn commit(self) -> Result<()> {
        Ok(self.failures.count(self.transaction.commit().await)?)
    }
}

/// Sets the pragmas on the first connection. Of programs that turn the log of a new file on at once, SQLite refuses all
/// but one, and has none of them wait.
async fn turn_on(connection: &mut AnyConnection) -> sqlx::Result<()> {
    let start = Instant::now();
    loop {
        match connection.execute(PRAGMAS).await {
            Err(sqlx::Error::Database(error)) if is_busy(&*error) && start.elapsed() < ACQUIRE_LIMIT => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            done => return done.map(drop),
        }
    }
}

/// Whether it is SQLITE_BUSY, in any of its extended forms.
fn is_busy(error: &dyn DatabaseError) -> bool {
    error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

fn opening(error: sqlx::Error) -> Error {
    match Error::from(error) {
        Error::Unreachable(source) | Error::Engine(source) => Error::Open(source.into()),
        other => other,
    }
}

fn sqlite_options(path: &Path) -> Result<AnyConnectOptions> {
    // SQLite gives its log files the mode of the database file, so this one line keeps all three private.
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::Open(error.into()))?;
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => url.push(*byte as char),
            _ => drop(write!(url, "%{byte:02X}")),
        }
    }
    url.push_str("?mode=rw");
    quiet(AnyConnectOptions::from_str(&url))
}

fn postgres_options(url: &Secret) -> Result<AnyConnectOptions> {
    let text = url.expose();
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(Error::Open("the address must begin with postgres://".into()));
    }
    quiet(AnyConnectOptions::from_str(text))
}

fn quiet(options: sqlx::Result<AnyConnectOptions>) -> Result<AnyConnectOptions> {
    options.map(ConnectOptions::disable_statement_logging).map_err(|error| Error::Open(error.into()))
}

async fn check(connection: &mut AnyConnection, path: &Path) -> Result<()> {
    let length = std::fs::metadata(path).map_err(|error| Error::Open(error.into()))?.len();
    if length > CHECKED_BYTES {
        return Ok(());
    }
    let verdict: String = connection.fetch_one("PRAGMA quick_check(1)").await.map_err(opening)?.try_get(0)?;
    if verdict == "ok" { Ok(()) } else { Err(Error::Damaged(verdict.into())) }
}
