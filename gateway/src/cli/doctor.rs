//! `steading doctor`: checks what the platform needs of this machine.

mod sandboxes;
mod workspaces;

use std::borrow::Cow;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use capabilities::domains::LocalCa;
use kernel::Code;
use serde_json::{Value, json};

use super::output::{cell, table};
use super::{Context, Failure};
use crate::config::{Config, TlsMode, is_loopback};
use crate::lockfile::{self, Holder};

/// Less free space than this is worth a warning, in bytes.
const LITTLE_SPACE: u64 = 1024 * 1024 * 1024;

/// Check what the platform needs of this machine
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Also make what can be made: a file system that holds workspaces to their size
    #[arg(long)]
    fix: bool,
}

struct Check {
    name: &'static str,
    verdict: Verdict,
    finding: String,
    hint: Option<Cow<'static, str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
        }
    }
}

impl Doctor {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let config = &context.config;
        let holder = lockfile::holder(&config.data_dir);
        let fixed = self.fix.then(|| workspaces::fix(config, matches!(holder, Ok(None))));
        let mut checks = vec![data_dir(&config.data_dir), secrets(&config.data_dir), lock(&holder)];
        checks.push(port(config, holder.ok().flatten().as_ref()));
        checks.extend([names(), domain(config), https(config), space(&config.data_dir), engine(config)]);
        checks.extend(sandboxes::checks(config).await);
        checks.push(fixed.unwrap_or_else(|| workspaces::check(config)));
        let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
        let report = json!({
            "ok": failed == 0,
            "checks": checks.iter().map(Check::to_json).collect::<Vec<_>>(),
        });
        context.output.result(&report, words);
        if failed == 0 { Ok(()) } else { Err(Failure::said(Code::Unavailable)) }
    }
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, finding: impl Into<String>) -> Self {
        Self { name, verdict, finding: finding.into(), hint: None }
    }

    fn hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn to_json(&self) -> Value {
        json!({ "name": self.name, "verdict": self.verdict.as_str(), "finding": self.finding, "hint": self.hint })
    }
}

fn words(report: &Value) -> String {
    let checks = report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<_> = checks
        .iter()
        .map(|check| ["name", "verdict", "finding"].map(|name| cell(&check[name])).to_vec())
        .collect();
    let mut text = table(&["CHECK", "VERDICT", "FINDING"], &rows);
    for check in checks.iter().filter(|check| check["hint"].is_string()) {
        text.push_str(&format!("\n{}: {}", cell(&check["name"]), cell(&check["hint"])));
    }
    text
}

fn data_dir(dir: &Path) -> Check {
    const NAME: &str = "data directory";
    let shown = dir.display();
    let Ok(metadata) = std::fs::metadata(dir) else {
        return Check::new(NAME, Verdict::Ok, format!("{shown} will be made on the first start"));
    };
    let mode = metadata.permissions().mode() & 0o777;
    match (metadata.is_dir(), mode & 0o077) {
        (false, _) => Check::new(NAME, Verdict::Failed, format!("{shown} is not a directory"))
            .hint("choose another with --data-dir"),
        (true, 0) => Check::new(NAME, Verdict::Ok, format!("{shown} is its owner's alone")),
        (true, _) => Check::new(NAME, Verdict::Warning, format!("{shown} is open to others (mode {mode:o})"))
            .hint("chmod 700 the data directory"),
    }
}

fn secrets(dir: &Path) -> Check {
    const NAME: &str = "keys";
    for name in ["operator.key", "keys"] {
        let Ok(metadata) = std::fs::metadata(dir.join(name)) else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Check::new(NAME, Verdict::Failed, format!("others may read {name} (mode {mode:o})"))
                .hint(
                    "chmod 600 operator.key, chmod 700 keys, and replace the keys that others may have read",
                );
        }
    }
    Check::new(NAME, Verdict::Ok, "only their owner may read them")
}

fn lock(holder: &Result<Option<Holder>, lockfile::Error>) -> Check {
    const NAME: &str = "lock";
    match holder {
        Ok(None) => Check::new(NAME, Verdict::Ok, "no process uses the data directory"),
        Ok(Some(Holder { pid, url })) => {
            Check::new(NAME, Verdict::Ok, format!("process {pid} serves it at {url}"))
        }
        Err(e) => Check::new(NAME, Verdict::Failed, e.to_string()),
    }
}

fn port(config: &Config, holder: Option<&Holder>) -> Check {
    const NAME: &str = "port";
    let listen = config.listen;
    match TcpListener::bind(listen) {
        Ok(_) => Check::new(NAME, Verdict::Ok, format!("{listen} is free")),
        Err(_) if holder.is_some_and(|holder| holder.url.ends_with(&format!(":{}", listen.port()))) => {
            Check::new(NAME, Verdict::Ok, format!("{listen} is the platform's"))
        }
        Err(e) => Check::new(NAME, Verdict::Failed, format!("{listen} cannot be listened on: {e}"))
            .hint("choose another with --listen"),
    }
}

fn names() -> Check {
    const NAME: &str = "*.localhost";
    let loopback = ("steading-doctor.localhost", 80)
        .to_socket_addrs()
        .is_ok_and(|mut found| found.next().is_some_and(|addr| addr.ip().is_loopback()));
    if loopback {
        return Check::new(NAME, Verdict::Ok, "resolves to this machine");
    }
    Check::new(NAME, Verdict::Warning, "does not resolve for every program; browsers and curl do it themselves").hint(
        "for other programs: dial the listening address with the app's name in the Host header, or add the name to /etc/hosts",
    )
}

fn domain(config: &Config) -> Check {
    const NAME: &str = "apps' domain";
    let Some(url) = config.public_url.as_ref().filter(|url| !is_loopback(url)) else {
        return Check::new(NAME, Verdict::Ok, "on this machine only");
    };
    let platform = url.host_str().unwrap_or_default();
    let Some(apps) = &config.apps_domain else {
        return Check::new(NAME, Verdict::Warning, "public_url is set and apps_domain is not")
            .hint("set apps_domain to a domain whose subdomains lead here, or apps are reached on this machine only");
    };
    let last_two = |name: &str| {
        let name = name.split(':').next().unwrap_or_default();
        name.rsplitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    if last_two(platform) == last_two(apps) {
        return Check::new(NAME, Verdict::Warning, format!("apps below {apps} share a site with {platform}"))
            .hint(
                "use a registrable domain of its own for apps, so that no browser treats them as one site",
            );
    }
    Check::new(NAME, Verdict::Ok, format!("apps below {apps} are a site apart from {platform}"))
}

fn https(config: &Config) -> Check {
    const NAME: &str = "https";
    let public = config.public_url.as_ref().is_some_and(|url| !is_loopback(url));
    let Some(listen) = config.tls.listen else {
        return match public {
            true => Check::new(NAME, Verdict::Warning, "public_url is set and HTTPS is not served here")
                .hint("set tls.listen and tls.http_redirect, or let a proxy serve HTTPS"),
            false => Check::new(NAME, Verdict::Ok, "not served"),
        };
    };
    match config.tls.mode {
        TlsMode::LocalCa => {
            let finding =
                format!("on {listen}, with the authority {}", LocalCa::file(&config.data_dir).display());
            let verdict = if public { Verdict::Warning } else { Verdict::Ok };
            Check::new(NAME, verdict, finding)
                .hint("steading ca shows how to trust it; visitors need tls.mode = \"acme\"")
        }
        TlsMode::Acme if config.tls.http_redirect.is_none() => {
            Check::new(NAME, Verdict::Warning, format!("on {listen}, and nothing sends plain HTTP on to it"))
                .hint("set tls.http_redirect = \"0.0.0.0:80\"")
        }
        TlsMode::Acme | TlsMode::Files => Check::new(NAME, Verdict::Ok, format!("on {listen}")),
    }
}

fn space(dir: &Path) -> Check {
    const NAME: &str = "disk space";
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let finding = format!("{} MiB free", free / (1024 * 1024));
            match free < LITTLE_SPACE {
                true => Check::new(NAME, Verdict::Warning, finding).hint("writes fail when the disk is full"),
                false => Check::new(NAME, Verdict::Ok, finding),
            }
        }
        Err(e) => Check::new(NAME, Verdict::Warning, format!("cannot be told: {e}")),
    }
}

fn engine(config: &Config) -> Check {
    let kept = if config.database.url.is_some() { "Postgres" } else { "SQLite" };
    let version = env!("CARGO_PKG_VERSION");
    Check::new(
        "engines",
        Verdict::Ok,
        format!("steading {version}; control plane in {kept}, environments in SQLite"),
    )
}
