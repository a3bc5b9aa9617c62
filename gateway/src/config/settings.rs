//! Every setting, once: its key, what it means, where it lies in `Config`. The example file is made from this.

use super::value::{Kind, Value};
use super::{Config, Error, Source};

/// One setting.
pub(super) struct Setting {
    /// The key with its section, `mcp.body_limit` for example.
    pub key: &'static str,
    /// The TOML type.
    pub kind: Kind,
    about: &'static [&'static str],
    read: fn(&mut Config, &str) -> Result<(), String>,
    show: fn(&Config) -> String,
}

macro_rules! settings {
    ($($(#[doc = $about:literal])+ $key:literal => $($field:ident).+;)+) => {
        &[$(Setting {
            key: $key,
            kind: kind_of(|config: &Config| &config.$($field).+),
            about: &[$($about),+],
            read: |config, text| Value::read(text).map(|value| config.$($field).+ = value),
            show: |config| config.$($field).+.show(),
        },)+]
    };
}

const fn kind_of<V: Value>(_: fn(&Config) -> &V) -> Kind {
    V::KIND
}

/// The settings outside any section come first, as TOML wants it; the others keep their sections together.
const SETTINGS: &[Setting] = settings! {
    /// Where to listen. Port 0 takes a free one.
    "listen" => listen;
    /// Where everything is kept. A relative path starts at the working directory.
    "data_dir" => data_dir;
    /// The address the platform is reached at from outside, such as "https://cloud.example.com".
    /// Empty: the address it listens on.
    "public_url" => public_url;
    /// The domain below which apps live, with the port where it is not the scheme's own. Choose a registrable
    /// domain other than the platform's. Empty: "localhost:<port>".
    "apps_domain" => apps_domain;
    /// The domain below which sandbox previews live. Empty: "preview.localhost:<port>".
    "preview_domain" => preview_domain;
    /// Plain HTTP on anything but loopback sends keys in the clear, so it must be asked for.
    "allow_insecure_http" => allow_insecure_http;
    /// Proxies that stand before the platform, as networks: ["10.0.0.0/8"]. Who asks is then whom the last of them that is
    /// not in the list names in X-Forwarded-For; from anybody else that header counts for nothing.
    "trusted_proxies" => trusted_proxies;
    /// Seconds that calls in flight may go on once the program is told to stop.
    "shutdown_grace_s" => shutdown_grace_s;

    /// Where to listen for HTTPS, such as "0.0.0.0:443". Empty: nowhere. "listen" then stays for this machine.
    "tls.listen" => tls.listen;
    /// Where plain HTTP is sent on to HTTPS, such as "0.0.0.0:80".
    "tls.http_redirect" => tls.http_redirect;
    /// Where certificates come from: "local_ca", an authority of this installation's own (`steading ca` shows what
    /// to trust); "acme", a public one, whose terms you agree to; "files", the ones below and no others.
    "tls.mode" => tls.mode;
    /// A certificate chain as PEM, for the platform, and best for "*.<apps_domain>" too: previews of releases get no
    /// public certificate by "acme".
    "tls.cert_file" => tls.cert_file;
    /// The key of cert_file, as PEM.
    "tls.key_file" => tls.key_file;
    /// A directory of further certificates: <any>.crt with <any>.key. Files are read again when they change.
    "tls.cert_dir" => tls.cert_dir;
    /// Browsers are told to come to the platform and to apps by HTTPS only. Domains of apps' own say it by themselves.
    "tls.hsts" => tls.hsts;

    /// The directory of the ACME server that certificates are ordered from.
    "acme.directory" => acme.directory;
    /// A PEM file with the authority that this server itself is trusted by. Empty: those of this machine.
    "acme.root_file" => acme.root_file;
    /// An address for mail from the authority.
    "acme.contact" => acme.contact;
    /// How it is shown that a host is here: "http-01" (port 80), "tls-alpn-01" (port 443), or "any".
    "acme.challenge" => acme.challenge;
    /// How many certificates are ordered for one tenant in seven days.
    "acme.orders_per_tenant" => acme.orders_per_tenant;

    /// The public addresses of this installation, with commas between them, for the records of domains that cannot be
    /// a CNAME. Empty: those that the apps' domain leads to.
    "domains.addresses" => domains.addresses;
    /// The DNS servers that domains are looked up at, such as "192.0.2.53:53", with commas between them. Empty: those
    /// of this machine.
    "domains.dns" => domains.dns;

    /// Sessions for MCP clients of 2025-11-25 and before (for sampling and elicitation).
    "mcp.legacy_sessions" => mcp.legacy_sessions;
    /// The largest request body, in bytes.
    "mcp.body_limit" => mcp.body_limit;

    /// Calls per second of one key.
    "limits.key_per_second" => limits.key_per_second;
    /// Calls one key may make at once.
    "limits.key_burst" => limits.key_burst;
    /// Calls per second of one minted credential.
    "limits.token_per_second" => limits.token_per_second;
    /// Calls one minted credential may make at once.
    "limits.token_burst" => limits.token_burst;
    /// Calls per second of all credentials of one tenant.
    "limits.tenant_per_second" => limits.tenant_per_second;
    /// Calls all credentials of one tenant may make at once.
    "limits.tenant_burst" => limits.tenant_burst;

    /// Where tenants, environments and keys are kept: "postgres://…". A password belongs into the variable
    /// STEADING_DATABASE_URL. Empty: SQLite in the data directory.
    "database.url" => database.url;

    /// How many environments' databases are open at once.
    "environments.max_open" => environments.max_open;
    /// The largest database of one environment, in bytes.
    "environments.max_database_bytes" => environments.max_database_bytes;
    /// What the files of one environment may have together, in bytes; and as much the contents of its sites.
    "environments.max_files_bytes" => environments.max_files_bytes;
    /// What the log of one environment may have in all, in bytes; visits fill one half of it, and
    /// everything else the other. Each is in four files, and the oldest goes for a new one.
    "environments.max_log_bytes" => environments.max_log_bytes;
    /// How many entries a second one environment may log, and as many warnings and errors. What is over is dropped, and the
    /// log says how much.
    "environments.max_log_per_second" => environments.max_log_per_second;
    /// The longest one statement may run, in milliseconds.
    "environments.statement_timeout_ms" => environments.statement_timeout_ms;
    /// How often backups that are due are made and what is old is removed, in seconds.
    "environments.upkeep_s" => environments.upkeep_s;
    /// How many snapshots one environment may have, beside those that the platform makes.
    "environments.max_snapshots" => environments.max_snapshots;
    /// How many bytes the snapshots of one environment may take, without what they share with it.
    "environments.max_snapshot_bytes" => environments.max_snapshot_bytes;
    /// How many bytes the backups of one environment may take; the newest is kept whatever its size.
    "environments.max_backup_bytes" => environments.max_backup_bytes;
    /// How long the backups of a deleted environment are kept, in seconds.
    "environments.keep_deleted_s" => environments.keep_deleted_s;

    /// How many sandboxes are awake at once. One that nobody uses makes room for the next; its files stay.
    "sandbox.awake" => sandbox.awake;
    /// How many sandboxes of one tenant are awake at once.
    "sandbox.awake_of_tenant" => sandbox.awake_of_tenant;
    /// The memory that one sandbox may use, in bytes.
    "sandbox.memory_bytes" => sandbox.memory_bytes;
    /// The processor time that one sandbox may use, in thousandths of a core.
    "sandbox.cpu_millis" => sandbox.cpu_millis;
    /// What a new workspace may hold, in bytes; 512 MiB at least.
    "sandbox.workspace_bytes" => sandbox.workspace_bytes;
    /// What the snapshots of all workspaces of one tenant may hold, in bytes.
    "sandbox.snapshot_bytes_of_tenant" => sandbox.snapshot_bytes_of_tenant;
    /// After how many seconds without a call and without work a sandbox is stopped where it is.
    "sandbox.freeze_after_s" => sandbox.freeze_after_s;
    /// After how many seconds it is ended; its files stay.
    "sandbox.park_after_s" => sandbox.park_after_s;
    /// After how many seconds without use the files of a workspace go to the bucket of [storage], or to the data
    /// directory where there is none; the next call brings them back. 0: never.
    "sandbox.archive_after_s" => sandbox.archive_after_s;
    /// What a new workspace's sandbox has below /usr/local: "blank", "node" (Node.js and npm) or "python" (pip).
    "sandbox.template" => sandbox.template;
    /// Where templates are put together, once, with the npm and the Python of this machine; it can be brought along from
    /// another machine of the same kind. Empty: below the data directory.
    "sandbox.templates_dir" => sandbox.templates_dir;
    /// How many seconds the token is good for by which what runs in a sandbox calls tools, 3 to 900; it is renewed while
    /// the sandbox is awake.
    "sandbox.token_s" => sandbox.token_s;
    /// What one sandbox may send and receive while it is awake, in bytes.
    "sandbox.egress_bytes" => sandbox.egress_bytes;
    /// How many sandboxes are made before anybody asks for them, so that nobody waits while one is made. 0: none.
    "sandbox.spares" => sandbox.spares;
    /// Hosts that sandboxes may ask, through a proxy: ["packages.example.com", "*.example.org:443"], or
    /// ["<a tenant's id>=git.example.com"] for those of one tenant. Empty: none.
    "sandbox.allow" => sandbox.allow;
    /// Of those, hosts with ports whose addresses may be private: ["registry.internal:443"].
    "sandbox.origins" => sandbox.origins;
    /// How strongly sandboxes must be kept apart at least: "namespaces", "pod", "gvisor" or "microvm" for all tenants, or
    /// ["<a tenant's id>=gvisor"] for one. Where a machine has less, none is made. `steading doctor` shows what it has.
    "sandbox.isolation" => sandbox.isolation;
    /// The program of gVisor, `runsc`, for sandboxes that must be kept apart by it. Empty: /usr/bin/runsc, or the one
    /// below /usr/local.
    "sandbox.runsc" => sandbox.runsc;

    /// How many processes of functions there are at once, of all environments. One that nobody asks makes room.
    "functions.processes" => functions.processes;
    /// How many of one environment there are at once.
    "functions.processes_of_env" => functions.processes_of_env;
    /// The memory that all of them use, in bytes, from which on those end that have waited longest.
    "functions.memory_bytes" => functions.memory_bytes;
    /// What all processes of one environment may use together, in bytes: the sum of what each of them may.
    "functions.memory_of_env" => functions.memory_of_env;
    /// For how many seconds a process waits for its next request until it ends.
    "functions.idle_s" => functions.idle_s;

    /// The model that functions ask by `env.ai`: the address of a provider that speaks OpenAI's chat completions,
    /// "https://api.example.com/v1" or "http://127.0.0.1:8080/v1". It may be a private one. Empty: none.
    "model.base_url" => model.base_url;
    /// What the provider calls the model. Its variable is STEADING_MODEL.
    "model.name" => model.name;
    /// The provider's key, which belongs into the variable STEADING_MODEL_API_KEY. Empty: it wants none.
    "model.api_key" => model.api_key;
    /// How many tokens one environment may use on a calendar day, in UTC, sent and received together. 0: none, so that its
    /// functions have no model.
    "model.tokens_of_env" => model.tokens_of_env;
    /// How many tokens the model's template adds to the messages of a request at most: so many are set aside besides. Where it
    /// begins with a text of its own, more than here; the log says when a provider counts more than was set aside.
    "model.template_tokens" => model.template_tokens;

    /// The server that sends mail to the users of apps: "smtp://mail.example.com:587" with STARTTLS, "smtps://…" with
    /// TLS from the start. Empty: mail stays in each environment's outbox, which the tool auth_users shows.
    "mail.smtp" => mail.smtp;
    /// The address that mail comes from; the app's name stands before it.
    "mail.from" => mail.from;
    /// The name to sign in to the server with.
    "mail.user" => mail.user;
    /// Its password; it belongs into the variable STEADING_MAIL_PASSWORD.
    "mail.password" => mail.password;

    /// Seconds that a mailed code or link is good for.
    "auth.code_s" => auth.code_s;
    /// Seconds that an access token of an app's user lives.
    "auth.access_s" => auth.access_s;
    /// Seconds that a session of an app's user lives without being refreshed.
    "auth.session_s" => auth.session_s;

    /// Whether MCP clients may register themselves, as most do.
    "oauth.registration" => oauth.registration;
    /// Whether a client may be named by the address of a document about it, which is then fetched.
    "oauth.documents" => oauth.documents;
    /// Seconds that a user's consent to a client lasts.
    "oauth.consent_s" => oauth.consent_s;

    /// The directory that vouches for members of tenants, by OpenID Connect: its issuer, "https://id.example.com/realms/main".
    /// docs/members.md says how. Empty: none.
    "directory.issuer" => directory.issuer;
    /// What the platform is called there. The directory sends people back to <public_url>/oauth/directory/callback.
    "directory.client_id" => directory.client_id;
    /// What proves that it is the platform, which belongs into the variable STEADING_DIRECTORY_CLIENT_SECRET. Empty: the
    /// client is a public one.
    "directory.client_secret" => directory.client_secret;
    /// What people call the directory; the button says "Sign in with <name>". Its variable is STEADING_DIRECTORY. Empty: the
    /// issuer's host.
    "directory.name" => directory.name;
    /// Scopes that are asked for besides openid, email and profile: ["groups"].
    "directory.scopes" => directory.scopes;
    /// The slug of the tenant that people enter.
    "directory.tenant" => directory.tenant;
    /// The claim that names the tenant instead, by its external id or its slug.
    "directory.tenant_claim" => directory.tenant_claim;
    /// The claim that says what people are: a text, or a list of texts. Dots lead into objects: "realm_access.roles".
    "directory.role_claim" => directory.role_claim;
    /// What that makes them: ["platform-admins=owner", "developers=developer", "*=viewer"]. The highest that matches counts,
    /// "*" matches everybody, and nobody is let in without a match.
    "directory.roles" => directory.roles;
    /// Networks around the platform in which the directory may be: ["10.1.0.0/16"]. There plain HTTP is allowed too.
    "directory.private" => directory.private;

    /// Whose signed tokens (JWT) are exchanged for tokens of the platform at /oauth/token (RFC 8693), by what they say in
    /// "iss"; docs/members.md says how. Whoever signs them decides who is who. Empty: nobody's.
    "exchange.issuer" => exchange.issuer;
    /// Where the keys are that verify them: "https://id.example.com/jwks.json".
    "exchange.jwks_url" => exchange.jwks_url;
    /// Networks around the platform in which that may be: ["10.1.0.0/16"].
    "exchange.private" => exchange.private;

    /// A program with its arguments, such as ["/usr/local/bin/kms"], that wraps data keys in place of the key in
    /// "keys/master". It gets "wrap" or "unwrap" as one more argument and the key on its standard input, as docs/secrets.md
    /// says, and it is never left out where it has been used.
    "keys.command" => keys.command;

    /// Networks around the platform that requests may reach which apps cause: a provider of sign-in, or a service that
    /// sends texts, which stands beside it: ["10.1.0.0/16"]. There plain HTTP is allowed too. All other private, local
    /// and special addresses are out of their reach.
    "outbound.private" => outbound.private;

    /// The bucket of an S3 service that holds the files of apps, and backups. Empty: they are in the data directory.
    "storage.s3_bucket" => storage.s3_bucket;
    /// The service's address: "https://s3.example.org".
    "storage.s3_endpoint" => storage.s3_endpoint;
    /// Its region.
    "storage.s3_region" => storage.s3_region;
    /// The access key of the bucket.
    "storage.s3_access_key" => storage.s3_access_key;
    /// Its secret, which belongs into the variable STEADING_STORAGE_S3_SECRET_KEY.
    "storage.s3_secret_key" => storage.s3_secret_key;

    /// What Prometheus shows to read /metrics, as a bearer token; it opens nothing else, has 16 characters at least, and
    /// belongs into the variable STEADING_METRICS_TOKEN. Empty: only the operator's key opens it.
    "metrics.token" => metrics.token;

    /// The least severe lines that are written: "error", "warn", "info", "debug" or "trace".
    "log.level" => log.level;
    /// "text" for people, "json" for machines; to stderr either way.
    "log.format" => log.format;
};

impl Setting {
    /// Puts `text` into `config`.
    pub fn put(&self, config: &mut Config, text: &str, from: Source) -> Result<(), Error> {
        (self.read)(config, text).map_err(|reason| Error::Value { key: self.key, from, reason })
    }

    /// The environment variable, `STEADING_MCP_BODY_LIMIT` for `mcp.body_limit`; what a section is the name of has the section's.
    pub fn variable(&self) -> String {
        let key = self.key.strip_suffix(".name").unwrap_or(self.key);
        format!("STEADING_{}", key.replace('.', "_").to_uppercase())
    }

    fn section(&self) -> Option<&'static str> {
        self.key.split_once('.').map(|(section, _)| section)
    }
}

/// The setting with that key.
pub(super) fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting with that environment variable.
pub(super) fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.variable() == name)
}

/// The key most like `wrong`, where one is alike at all.
pub(super) fn nearest(wrong: &str) -> Option<&'static str> {
    let scored = SETTINGS.iter().map(|setting| (distance(wrong, setting.key), setting.key));
    scored.min().filter(|(score, _)| *score <= 3).map(|(_, key)| key)
}

/// How many single characters must change to turn `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(80).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(80).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The example file: every setting with its meaning and its default, each commented out.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Every setting of Steading with its default. Copy this file to steading.toml and uncomment what you change.\n\
         # Each can be set by a variable too: mcp.body_limit is STEADING_MCP_BODY_LIMIT. Flags override variables,\n\
         # variables override this file.\n",
    );
    let defaults = Config::default();
    let mut section = None;
    for setting in SETTINGS {
        if setting.section() != section {
            section = setting.section();
            text.push_str(&format!("\n#[{}]\n", section.unwrap_or_default()));
        }
        text.push('\n');
        for line in setting.about {
            text.push_str(&format!("# {}\n", line.trim()));
        }
        let name = setting.key.rsplit('.').next().unwrap_or(setting.key);
        let shown = (setting.show)(&defaults);
        let shown = match setting.kind {
            Kind::Text => format!("{shown:?}"),
            Kind::List => format!("[{shown}]"),
            Kind::Bool | Kind::Integer => shown,
        };
        text.push_str(&format!("#{name} = {shown}\n"));
    }
    text
}
