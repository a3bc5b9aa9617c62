//! A certificate authority that speaks ACME, Pebble, and the DNS server that it asks.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::directory::temporary;
use crate::http::Request;
use crate::process::{Ending, Process, Stdout, User, command};
use crate::{Engine, Https, Unavailable, eventually, locate};

const READY_LIMIT: Duration = Duration::from_secs(30);
/// Another process may take a free port between our look and the server's bind.
const ATTEMPTS: u32 = 3;

/// A DNS server whose records a test makes up; what nobody made is not there.
#[derive(Debug)]
pub struct NameServer {
    // Dropped in this order: the server ends before its directory goes.
    _process: Process,
    _directory: TempDir,
    address: SocketAddr,
    management: SocketAddr,
}

/// A running Pebble, which asks a [`NameServer`] and validates hosts at ports that the test chooses.
#[derive(Debug)]
pub struct Pebble {
    process: Option<Process>,
    directory: TempDir,
    program: PathBuf,
    dns: SocketAddr,
    listen: SocketAddr,
    management: SocketAddr,
}

impl NameServer {
    /// Starts one.
    ///
    /// # Errors
    /// `Missing`, and `Broken` with its log where it does not start.
    pub fn start() -> Result<Self, Unavailable> {
        let program =
            locate::program(&["pebble-challtestsrv"]).ok_or(Unavailable::Missing(Engine::Pebble))?;
        let start = || {
            for _ in 0..ATTEMPTS {
                let directory = temporary()?;
                let (address, management) = (free()?, free()?);
                let mut serve = command(&program, User::Current);
                serve.args([
                    "-http01",
                    "",
                    "-https01",
                    "",
                    "-tlsalpn01",
                    "",
                    "-defaultIPv4",
                    "",
                    "-defaultIPv6",
                    "",
                ]);
                serve.arg("-dns01").arg(address.to_string()).arg("-management").arg(management.to_string());
                let log = directory.path().join("log");
                let mut process = Process::spawn(serve, &log, Stdout::Log, Ending::Kill)?;
                let server = |_process| Self { _process, _directory: directory, address, management };
                let ready = eventually(READY_LIMIT, || {
                    let asked = Request::post(&format!("http://{management}/clear-txt"))
                        .json(&json!({ "host": "x." }));
                    if process.exited().is_some() {
                        return Some(false);
                    }
                    asked.send().ok().map(|answer| answer.status == 200)
                });
                if ready == Some(true) {
                    return Ok(server(process));
                }
            }
            bail!("it ended {ATTEMPTS} times before it was ready")
        };
        start().map_err(Unavailable::broken("pebble-challtestsrv"))
    }

    /// Where it answers, by UDP and TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a TXT record.
    ///
    /// # Errors
    /// Where the server does not take it.
    pub fn txt(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.tell("set-txt", &json!({ "host": format!("{name}."), "value": value }))
    }

    /// Removes a name's TXT records.
    ///
    /// # Errors
    /// Where the server does not take it.
    pub fn no_txt(&self, name: &str) -> anyhow::Result<()> {
        self.tell("clear-txt", &json!({ "host": format!("{name}.") }))
    }

    /// Leads a name to IPv4 addresses.
    ///
    /// # Errors
    /// Where the server does not take it.
    pub fn a(&self, name: &str, addresses: &[&str]) -> anyhow::Result<()> {
        self.tell("clear-a", &json!({ "host": format!("{name}.") }))?;
        self.tell("add-a", &json!({ "host": format!("{name}."), "addresses": addresses }))
    }

    /// Makes a name stand for another.
    ///
    /// # Errors
    /// Where the server does not take it.
    pub fn cname(&self, name: &str, target: &str) -> anyhow::Result<()> {
        self.tell("set-cname", &json!({ "host": format!("{name}."), "target": format!("{target}.") }))
    }

    /// Fails every question for a name from here on.
    ///
    /// # Errors
    /// Where the server does not take it.
    pub fn fail(&self, name: &str) -> anyhow::Result<()> {
        self.tell("set-servfail", &json!({ "host": format!("{name}.") }))
    }

    fn tell(&self, what: &str, body: &Value) -> anyhow::Result<()> {
        let answer = Request::post(&format!("http://{}/{what}", self.management)).json(body).send()?;
        ensure!(answer.status == 200, "{what}: {}: {}", answer.status, answer.text()?);
        Ok(())
    }
}

impl Pebble {
    /// Starts one that asks `dns` and validates hosts at these ports of loopback.
    ///
    /// # Errors
    /// `Missing`, and `Broken` with its log where it does not start.
    pub fn start(dns: &NameServer, http_port: u16, tls_port: u16) -> Result<Self, Unavailable> {
        let program = locate::program(&["pebble"]).ok_or(Unavailable::Missing(Engine::Pebble))?;
        let start = || {
            let directory = temporary()?;
            let (listen, management) = (free()?, free()?);
            let own =
                rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
            let file = |name: &str| directory.path().join(name);
            std::fs::write(file("cert.pem"), own.cert.pem())?;
            std::fs::write(file("key.pem"), own.signing_key.serialize_pem())?;
            let config = json!({ "pebble": {
                "listenAddress": listen.to_string(),
                "managementListenAddress": management.to_string(),
                "certificate": file("cert.pem"),
                "privateKey": file("key.pem"),
                "httpPort": http_port,
                "tlsPort": tls_port,
                "ocspResponderURL": "",
                "externalAccountBindingRequired": false,
            } });
            std::fs::write(file("config.json"), config.to_string())?;
            let mut pebble =
                Self { process: None, directory, program, dns: dns.address(), listen, management };
            pebble.go_on()?;
            Ok(pebble)
        };
        start().map_err(Unavailable::broken("pebble"))
    }

    /// Ends it: what it knew of accounts and orders is gone.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again, on the same ports and with another root.
    ///
    /// # Errors
    /// With its log, where it does not start.
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        let mut serve = command(&self.program, User::Current);
        serve.arg("-config").arg(self.directory.path().join("config.json"));
        serve.arg("-dnsserver").arg(self.dns.to_string()).env("PEBBLE_VA_NOSLEEP", "1");
        let mut process =
            Process::spawn(serve, &self.directory.path().join("log"), Stdout::Log, Ending::Kill)?;
        let ready = eventually(READY_LIMIT, || {
            if process.exited().is_some() {
                return Some(false);
            }
            self.root().ok().map(|_| true)
        });
        ensure!(ready == Some(true), "it does not start:\n{}", process.log_tail());
        self.process = Some(process);
        Ok(())
    }

    /// The address of its directory.
    #[must_use]
    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.listen)
    }

    /// The file that its own address is trusted by.
    #[must_use]
    pub fn root_file(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// The authority that it issues by, as PEM.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn root(&self) -> anyhow::Result<String> {
        let own = std::fs::read_to_string(self.root_file())?;
        let client = Https::new(self.management.to_string(), &[&own])?;
        let request = Request::get(&format!("https://{}/roots/0", self.management));
        let answer = client.send("localhost", request).context("no root")?.response;
        Ok(answer.text()?.to_owned())
    }
}

/// A port of loopback that nobody has.
///
/// # Errors
/// Where there is none.
pub fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
