//! Real programs with nothing but placeholders: a private repository is cloned and pushed to, private packages are installed.

use std::convert::Infallible;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kernel::Secret;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use super::tls::World;
use super::{PATIENCE, Policy, Sandbox, policy};
use crate::egress::{Bound, Places, TRUST_VARIABLES};

const TEXT: &str = "secret_registry_aaaaaaaaaaaaaaaa";
const REAL: &str = "reg_Real-Value/1+2=";

/// What a server makes of a request's path with query, its header and its body.
type Answer = dyn Fn(http::request::Parts, Bytes) -> futures::future::BoxFuture<'static, Response<Full<Bytes>>>
    + Send
    + Sync;

/// A host that answers whoever shows the real secret, at a port; and a sandbox with a placeholder for it.
struct Private {
    sandbox: Sandbox,
    place: String,
    proxy: String,
    refused: Arc<Mutex<usize>>,
    home: TempDir,
}

impl Private {
    /// One where `credential` is what `Authorization` has to say.
    async fn host(credential: String, answer: impl Fn(u16) -> Arc<Answer>) -> Self {
        let world = World::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (refused, answer) = (Arc::new(Mutex::new(0)), answer(port));
        let (counted, acceptor) = (Arc::clone(&refused), TlsAcceptor::from(world.server()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, credential, answer) =
                    (Arc::clone(&counted), credential.clone(), Arc::clone(&answer));
                let acceptor = acceptor.clone();
                let serve = service_fn(move |request: Request<Incoming>| {
                    let (counted, credential, answer) =
                        (Arc::clone(&counted), credential.clone(), Arc::clone(&answer));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        if parts.headers.get(AUTHORIZATION).is_none_or(|shown| *shown != *credential) {
                            *counted.lock().unwrap() += 1;
                            let refusal = Response::builder()
                                .status(StatusCode::UNAUTHORIZED)
                                .header(WWW_AUTHENTICATE, "Basic realm=\"private\"");
                            return Ok::<_, Infallible>(refusal.body(Full::default()).unwrap());
                        }
                        Ok(answer(parts, body).await)
                    }
                });
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        drop(http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await);
                    }
                });
            }
        });
        let place = format!("a.test:{port}");
        let hosts = vec![place.parse().unwrap()];
        let secret = Bound::new("registry", TEXT, Secret::new(REAL), hosts, Places::Headers).unwrap();
        let policy = Policy { secrets: vec![secret], ..policy(&[&place], &[&place]) };
        let sandbox = Sandbox::trusting(policy, world.roots());
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("authority.pem"), sandbox.egress.authority_pem()).unwrap();
        let proxy = format!("http://127.0.0.1:{}", sandbox.port().await);
        Self { sandbox, place, proxy, refused, home }
    }

    /// Runs a program as in the sandbox, with its way out and its authority, and returns what it says.
    async fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let home = self.home.path();
        let authority = home.join("authority.pem");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(home).stdin(Stdio::null()).kill_on_drop(true);
        for name in ["HTTPS_PROXY", "https_proxy", "npm_config_https_proxy", "PIP_PROXY"] {
            command.env(name, &self.proxy);
        }
        for name in TRUST_VARIABLES {
            command.env(name, &authority);
        }
        let nothing = Path::new("/dev/null");
        for (name, value) in [
            ("HOME", home),
            ("GIT_CONFIG_GLOBAL", nothing),
            ("GIT_CONFIG_SYSTEM", nothing),
            ("PIP_CONFIG_FILE", nothing),
            ("npm_config_userconfig", &home.join(".npmrc")),
            ("npm_config_cache", &home.join("npm-cache")),
        ] {
            command.env(name, value);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        let output = tokio::time::timeout(PATIENCE * 2, command.output()).await.expect("too slow").unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains(REAL), "{said}");
        if output.status.success() { Ok(said) } else { Err(said) }
    }
}

fn bytes(kind: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().header(CONTENT_TYPE, kind).body(Full::new(body.into())).unwrap()
}

fn nothing() -> Response<Full<Bytes>> {
    Response::builder().status(StatusCode::NOT_FOUND).body(Full::default()).unwrap()
}

/// What git's own server program answers (RFC 3875).
async fn git_backend(
    root: std::path::PathBuf,
    parts: http::request::Parts,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let field = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REMOTE_USER", "user")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", field(CONTENT_TYPE.as_str()))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", field(CONTENT_ENCODING.as_str()))
        .env("GIT_PROTOCOL", field("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = backend.stdin.take().unwrap();
    let writing = tokio::spawn(async move { input.write_all(&body).await });
    let output = backend.wait_with_output().await.unwrap().stdout;
    drop(writing.await);
    let end = output.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let mut response = Response::new(Full::from(output[end + 4..].to_vec()));
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "Status" {
            *response.status_mut() = value[..3].parse().unwrap();
        } else {
            response.headers_mut().append(
                http::HeaderName::try_from(name).unwrap(),
                http::HeaderValue::try_from(value).unwrap(),
            );
        }
    }
    response
}

#[tokio::test]
async fn git_clones_and_pushes_to_a_private_repository() {
    let repositories = tempfile::tempdir().unwrap();
    let root = repositories.path().to_owned();
    let credential = format!("Basic {}", STANDARD.encode(format!("user:{REAL}")));
    let private = Private::host(credential, |_| {
        let root = root.clone();
        Arc::new(move |parts, body| Box::pin(git_backend(root.clone(), parts, body)))
    })
    .await;
    let bare = root.join("app.git");
    let bare = bare.to_str().unwrap();
    private.run("git", &["init", "--quiet", "--bare", "--initial-branch=main", bare]).await.unwrap();
    private.run("git", &["-C", bare, "config", "http.receivepack", "true"]).await.unwrap();

    let address = format!("https://user:{TEXT}@{}/app.git", private.place);
    private.run("git", &["clone", "--quiet", &address, "one"]).await.unwrap();
    std::fs::write(private.home.path().join("one/large"), "line\n".repeat(500_000)).unwrap();
    let author = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-C", "one"];
    for command in [
        &["add", "."][..],
        &["commit", "--quiet", "-m", "first"],
        &["push", "--quiet", "origin", "HEAD:main"],
    ] {
        private.run("git", &[&author[..], command].concat()).await.unwrap();
    }
    private.run("git", &["clone", "--quiet", &address, "two"]).await.unwrap();
    let cloned = std::fs::read(private.home.path().join("two/large")).unwrap();
    assert_eq!(cloned.len(), 2_500_000);
    // Git asks without a credential first.
    assert!(*private.refused.lock().unwrap() > 0);

    let wrong = format!("https://user:{}@{}/app.git", TEXT.to_uppercase(), private.place);
    let refused = private.run("git", &["clone", "--quiet", &wrong, "three"]).await.unwrap_err();
    assert!(refused.contains("Authentication failed"), "{refused}");
    let elsewhere =
        private.run("git", &["clone", "--quiet", "https://b.test/app.git", "four"]).await.unwrap_err();
    assert!(elsewhere.contains("403"), "{elsewhere}");
    assert!(private.sandbox.events(1).await.iter().all(|event| !format!("{event:?}").contains(REAL)));
}

#[tokio::test]
async fn npm_installs_a_private_package() {
    let source = tempfile::tempdir().unwrap();
    let package = source.path().join("package");
    std::fs::create_dir(&package).unwrap();
    let manifest = r#"{"name":"@private/left","version":"1.0.0","main":"index.js"}"#;
    std::fs::write(package.join("package.json"), manifest).unwrap();
    std::fs::write(package.join("index.js"), "module.exports = 'private';\n").unwrap();
    let archive = source.path().join("left.tgz");
    let packed =
        Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(source.path()).arg("package").status();
    assert!(packed.await.unwrap().success());
    let archive = std::fs::read(archive).unwrap();

    let private = Private::host(format!("Bearer {REAL}"), |port| {
        let archive = archive.clone();
        Arc::new(move |parts, _| {
            let answer = match parts.uri.path() {
                "/@private%2fleft" => bytes(
                    "application/json",
                    serde_json::json!({
                        "name": "@private/left",
                        "dist-tags": { "latest": "1.0.0" },
                        "versions": { "1.0.0": {
                            "name": "@private/left", "version": "1.0.0",
                            "dist": { "tarball": format!("https://a.test:{port}/@private/left/-/left-1.0.0.tgz") },
                        } },
                    })
                    .to_string(),
                ),
                "/@private/left/-/left-1.0.0.tgz" => bytes("application/octet-stream", archive.clone()),
                _ => nothing(),
            };
            Box::pin(std::future::ready(answer))
        })
    })
    .await;
    let home = private.home.path();
    let settings = format!("@private:registry=https://{0}/\n//{0}/:_authToken={TEXT}\n", private.place);
    std::fs::write(home.join(".npmrc"), settings).unwrap();
    std::fs::create_dir(home.join("app")).unwrap();
    std::fs::write(home.join("app/package.json"), "{\"name\":\"app\",\"private\":true}").unwrap();
    let install =
        ["install", "--prefix", "app", "--no-audit", "--no-fund", "--fetch-retries=0", "@private/left"];
    private.run("npm", &install).await.unwrap();
    let installed = std::fs::read_to_string(home.join("app/node_modules/@private/left/index.js")).unwrap();
    assert_eq!((installed.as_str(), *private.refused.lock().unwrap()), ("module.exports = 'private';\n", 0));
}

#[tokio::test]
async fn pip_installs_a_private_package() {
    let source = tempfile::tempdir().unwrap();
    let wheel = source.path().join("private_thing-1.0-py3-none-any.whl");
    let make = "import sys, zipfile\n\
                with zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n\
                \x20   info = 'private_thing-1.0.dist-info/'\n\
                \x20   wheel.writestr('private_thing.py', 'WORD = 1\\n')\n\
                \x20   wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: private-thing\\nVersion: 1.0\\n')\n\
                \x20   wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
                \x20   wheel.writestr(info + 'RECORD', '')\n";
    let made = Command::new("python3").arg("-c").arg(make).arg(&wheel).status().await.unwrap();
    assert!(made.success());
    let wheel = std::fs::read(wheel).unwrap();
    let credential = format!("Basic {}", STANDARD.encode(format!("__token__:{REAL}")));
    let private = Private::host(credential, |_| {
        let wheel = wheel.clone();
        Arc::new(move |parts, _| {
            let answer = match parts.uri.path() {
                "/simple/private-thing/" => {
                    bytes("text/html", "<a href=\"/files/private_thing-1.0-py3-none-any.whl\">private_thing-1.0-py3-none-any.whl</a>")
                }
                "/files/private_thing-1.0-py3-none-any.whl" => bytes("application/zip", wheel.clone()),
                _ => nothing(),
            };
            Box::pin(std::future::ready(answer))
        })
    })
    .await;
    let index = format!("https://__token__:{TEXT}@{}/simple/", private.place);
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--retries=0",
        "--target=site",
        "-i",
        &index,
        "private-thing",
    ];
    private.run("python3", &install).await.unwrap();
    let installed = std::fs::read_to_string(private.home.path().join("site/private_thing.py")).unwrap();
    assert_eq!((installed.as_str(), *private.refused.lock().unwrap()), ("WORD = 1\n", 0));
}
