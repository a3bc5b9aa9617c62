//! An S3 service of the caller's own, SeaweedFS, with one bucket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::directory::temporary;
use crate::http::Request;
use crate::process::{Ending, Process, Stdout, User, command};
use crate::{PythonTool, Unavailable, eventually, free};

const BUCKET: &str = "files-of-apps";
const ACCESS: &str = "access";
const SECRET: &str = "of-a-service-that-lives-for-a-minute";
/// It elects itself before it stores anything.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// Another process may take a free port between our look and the server's bind.
const ATTEMPTS: u32 = 3;

/// A running SeaweedFS on loopback ports. Dropping it ends it and removes what it stores.
#[derive(Debug)]
pub struct SeaweedFs {
    // Dropped in this order: the server ends before its directory goes.
    process: Process,
    _directory: TempDir,
    endpoint: String,
    filer: String,
}

impl SeaweedFs {
    /// Starts one whose bucket is empty.
    ///
    /// # Errors
    /// As [`PythonTool::install`], whose environment has the program, and `Broken` with the server's log where it does
    /// not start.
    pub fn start() -> Result<Self, Unavailable> {
        let program = PythonTool::install()?.program("weed");
        Self::serve(&program).map_err(Unavailable::broken("seaweedfs"))
    }

    /// What the product's settings have to say, as variables.
    #[must_use]
    pub fn settings(&self) -> [(&'static str, &str); 4] {
        [
            ("STEADING_STORAGE_S3_BUCKET", BUCKET),
            ("STEADING_STORAGE_S3_ENDPOINT", &self.endpoint),
            ("STEADING_STORAGE_S3_ACCESS_KEY", ACCESS),
            ("STEADING_STORAGE_S3_SECRET_KEY", SECRET),
        ]
    }

    /// The names of what lies in a folder of the bucket, as the server itself knows it.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn names(&self, folder: &str) -> anyhow::Result<Vec<String>> {
        let url = format!("{}/buckets/{BUCKET}/{folder}/?limit=100000", self.filer);
        let answer = Request::get(&url).header("accept", "application/json").send()?;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        let listed = answer.json()?;
        let names = listed["Entries"].as_array().map(Vec::as_slice).unwrap_or_default().iter().map(|entry| {
            let path = entry["FullPath"].as_str().context("an entry without a path")?;
            Ok(path.rsplit('/').next().unwrap_or_default().to_owned())
        });
        names.collect()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn serve(program: &Path) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS {
            let directory = temporary()?;
            let identity = json!({ "name": "steading", "actions": ["Read", "Write", "List"],
                "credentials": [{ "accessKey": ACCESS, "secretKey": SECRET }] });
            let config = directory.path().join("s3.json");
            std::fs::write(&config, json!({ "identities": [identity] }).to_string())?;
            let data = directory.path().join("data");
            std::fs::create_dir(&data)?;
            let mut serve = command(program, User::Current);
            serve.env("TMPDIR", directory.path());
            serve.arg("server").arg(format!("-dir={}", data.display())).current_dir(directory.path());
            // It listens for everybody, and takes ports of its own choice, where it is told nothing else.
            serve.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3.iam=false"]);
            let mut port = |name: &str| -> anyhow::Result<String> {
                let address = free()?;
                serve.arg(format!("-{name}={}", address.port()));
                Ok(format!("http://{address}"))
            };
            for name in ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc"] {
                port(name)?;
            }
            for name in ["filer.port.grpc", "s3.port.grpc"] {
                port(name)?;
            }
            let (filer, endpoint) = (port("filer.port")?, port("s3.port")?);
            serve.args(["-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
            serve.arg(format!("-s3.config={}", config.display()));
            // Each bucket has volumes of its own, which must not be few.
            serve.args(["-volume.max=200", "-master.volumeSizeLimitMB=64"]);
            let mut process =
                Process::spawn(serve, &directory.path().join("log"), Stdout::Log, Ending::Kill)?;
            // It answers for seconds before it can store anything.
            let probe = format!("{filer}/buckets/{BUCKET}/probe");
            let ready = eventually(READY_LIMIT, || {
                if process.exited().is_some() {
                    return Some(false);
                }
                let stored = Request::new("PUT", &probe).body("probe").send().ok()?.status == 201;
                (stored && Request::get(&endpoint).send().is_ok()).then_some(true)
            });
            match ready {
                Some(true) => {
                    Request::new("DELETE", &probe).send()?;
                    return Ok(Self { process, _directory: directory, endpoint, filer });
                }
                Some(false) => {}
                None => bail!("nothing can be stored within {READY_LIMIT:?}:\n{}", process.log_tail()),
            }
        }
        bail!("it ended {ATTEMPTS} times before it was ready")
    }
}
