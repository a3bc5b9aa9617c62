//! Every metric, once: its name, its labels, what it means. `/metrics` and `docs/metrics.md` are made from this.

/// One family of metrics.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [Label],
    about: &'static [&'static str],
}

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They grow, and begin anew with the process.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are laid into buckets.
    Histogram,
}

/// A label, and what it may say: a closed set each, however many tenants, apps and addresses there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Which tool.
    Tool,
    /// What has become of it.
    Outcome,
    /// Which part of the platform was asked.
    Door,
    /// The first digit of the status.
    Status,
    /// How far a sandbox, or a connection, is.
    State,
    /// Which limit.
    Limit,
    /// Which kind of tokens.
    Kind,
    /// What has to be there.
    Part,
    /// Which version of the program.
    Version,
}

impl Metric {
    /// What it means, in one line.
    pub fn about(&self) -> String {
        self.about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    /// The names of its labels, as they are written.
    pub fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.as_str()).collect()
    }
}

impl Kind {
    /// Its name, as Prometheus has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Label {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Outcome => "outcome",
            Self::Door => "door",
            Self::Status => "status",
            Self::State => "state",
            Self::Limit => "limit",
            Self::Kind => "kind",
            Self::Part => "part",
            Self::Version => "version",
        }
    }
}

macro_rules! metrics {
    ($($(#[doc = $about:literal])+ $metric:ident = $kind:ident $name:literal [$($label:ident),*];)+) => {
        $($(#[doc = $about])+
        pub const $metric: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$(Label::$label),*],
            about: &[$($about),+],
        };)+

        /// All of them, in the order of `docs/metrics.md`.
        pub const ALL: &[Metric] = &[$($metric),+];
    };
}

metrics! {
    /// Calls of tools that have ended, at whichever door; `ok`, or the code of the error.
    TOOL_CALLS = Counter "steading_tool_calls_total" [Tool, Outcome];
    /// How long they have taken, in seconds, with all that a call waits for.
    TOOL_SECONDS = Histogram "steading_tool_call_duration_seconds" [Tool];
    /// Requests that were answered, by what was asked and the class of the status: `2xx`. `1xx` became sockets.
    REQUESTS = Counter "steading_http_requests_total" [Door, Status];
    /// How long it took until their answers began, in seconds.
    REQUEST_SECONDS = Histogram "steading_http_request_duration_seconds" [Door];
    /// Calls and requests that a limit held up (429), by whose limit that is: `key`, `token` and `tenant` are those of
    /// [limits].
    RATE_LIMITED = Counter "steading_rate_limited_total" [Limit];
    /// Connections, requests and answers that were turned away because one address, or all together, had too many.
    TURNED_AWAY = Counter "steading_turned_away_total" [Kind];

    /// Connections that are open, without sockets.
    CONNECTIONS = Gauge "steading_connections_open" [];
    /// Answers that have begun and are not read to their end: streams, downloads, and whatever waits for its reader.
    ANSWERS = Gauge "steading_answers_open" [];
    /// Connections and streams that tell apps what happens: `realtime`; sockets to functions and services: `function`;
    /// connections into sandboxes: `preview`.
    SOCKETS = Gauge "steading_sockets_open" [Kind];

    /// Sandboxes: `awake`, `waking` (being made), `frozen` (stopped where they are).
    SANDBOXES = Gauge "steading_sandboxes" [State];
    /// Sandboxes that were to be made: `made`, `failed`, `no_place` (as many were awake as may be).
    SANDBOX_STARTS = Counter "steading_sandbox_starts_total" [Outcome];

    /// Processes of functions and services that there are or are being started.
    PROCESSES = Gauge "steading_function_processes" [];
    /// Starts of such processes, which somebody has waited for: `started`, `failed`.
    FUNCTION_STARTS = Counter "steading_function_starts_total" [Outcome];
    /// How long those that succeeded have taken in all, in seconds.
    FUNCTION_START_SECONDS = Counter "steading_function_start_seconds_total" [];
    /// Requests to functions and services, schedules and events too: `answered`, `threw`, `refused` (it has no handler for
    /// that), `failed` (nothing has answered in time, or as it should).
    FUNCTION_ANSWERS = Counter "steading_function_answers_total" [Outcome];

    /// Calls to the model that are over: `said` (the provider has said what was used), `estimated` (nobody has, and all that was
    /// set aside counts), `unused` (the provider has not worked), `no_budget` (none was sent).
    MODEL_CALLS = Counter "steading_model_calls_total" [Outcome];
    /// Tokens of those calls: `prompt`, `cached` (the part of `prompt` that the provider had seen before), `completion`.
    MODEL_TOKENS = Counter "steading_model_tokens_total" [Kind];
    /// What was charged for them, in millionths of the operator's currency.
    MODEL_COST = Counter "steading_model_cost_micro_total" [];

    /// Records of calls that are not written yet.
    LEDGER_WAITING = Gauge "steading_ledger_waiting" [];
    /// Records of reads that were dropped because they came faster than the disk takes them.
    LEDGER_DROPPED = Counter "steading_ledger_dropped_total" [];
    /// How often records could not be written; calls that change something fail then.
    LEDGER_FAILURES = Counter "steading_ledger_failures_total" [];

    /// Connections to the control database: `used`, `idle`.
    DATABASE_CONNECTIONS = Gauge "steading_database_connections" [State];
    /// As many as there may be.
    DATABASE_CONNECTIONS_MAX = Gauge "steading_database_connections_max" [];
    /// Changes of the control database that could not begin or be committed, and times that it did not answer whether it is
    /// there.
    DATABASE_FAILURES = Counter "steading_database_failures_total" [];
    /// Environments whose databases are open.
    ENVIRONMENTS = Gauge "steading_environments_open" [];

    /// Whether what `/readyz` asks for is there: 1, or 0.
    READY = Gauge "steading_ready" [Part];
    /// Bytes that are free on the disk of the data directory.
    DISK_FREE = Gauge "steading_disk_free_bytes" [];
    /// Bytes that this disk has.
    DISK_SIZE = Gauge "steading_disk_size_bytes" [];
    /// Seconds since the platform has begun.
    UPTIME = Gauge "steading_uptime_seconds" [];
    /// Always 1, with the version of the program.
    BUILD = Gauge "steading_build_info" [Version];

    /// When the process has begun, in seconds since 1970.
    PROCESS_START = Gauge "process_start_time_seconds" [];
    /// Processor time that it has used, in seconds. Sandboxes and functions are processes of their own.
    PROCESS_CPU = Counter "process_cpu_seconds_total" [];
    /// Memory that it has, in bytes.
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [];
    /// Files that it has open.
    PROCESS_FDS = Gauge "process_open_fds" [];
    /// As many as it may.
    PROCESS_FDS_MAX = Gauge "process_max_fds" [];
}
