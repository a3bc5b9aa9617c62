//! Sandboxes use secrets that they do not have, go where their environment lets them, and no further.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use conformance_tests::Neighbour;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Client, Steading, require};

const REAL: &str = "reg_Real-Value/1+2=";

/// Finds the value without being it.
const SEARCHED: &str = "reg_Real-[V]alue";

/// Hosts, and a server whose sandboxes are let out to some of them.
struct World {
    steading: Steading,
    places: Value,
    directory: TempDir,
    hosts: Child,
}

impl World {
    fn start(settings: &[(&str, &str)]) -> Self {
        let directory = testkit::temporary().unwrap();
        let at = |name: &str| directory.path().join(name);
        certify(directory.path());
        std::fs::write(at("real"), REAL).unwrap();
        let mut hosts = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sandbox_egress.py"))
            .args([directory.path().to_path_buf(), at("host.pem"), at("host.key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(hosts.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let places: Value = serde_json::from_str(&line).unwrap();
        let listed: Vec<&str> =
            ["private", "named", "other", "plain"].map(|name| places[name].as_str().unwrap()).to_vec();
        let near = places["near"].as_str().unwrap().replace("127.0.0.1", "localhost");
        let launch =
            settings.iter().fold(Steading::launch(), |launch, (name, value)| launch.env(name, value));
        let steading = require(
            launch
                .env("SSL_CERT_FILE", at("authority.pem"))
                .env("STEADING_SANDBOX_ALLOW", format!("{},{near}", listed.join(",")))
                .env("STEADING_SANDBOX_ORIGINS", listed.join(","))
                .start(),
        );
        Self { steading, places, directory, hosts }
    }

    fn place(&self, name: &str) -> &str {
        self.places[name].as_str().unwrap()
    }

    fn client(&self) -> Client {
        self.steading.client()
    }

    /// What a command ends with, and all it says.
    fn runs(&self, command: &str) -> (i64, String) {
        let ran =
            self.client().output("shell_run", &json!({ "command": command, "timeout_s": 180 })).unwrap();
        let said = format!("{}{}", ran["stdout"].as_str().unwrap(), ran["stderr"].as_str().unwrap());
        assert!(!said.contains(REAL), "{command}: {said}");
        (ran["exit_code"].as_i64().unwrap(), said)
    }

    fn run(&self, command: &str) -> String {
        let (code, said) = self.runs(command);
        assert_eq!(code, 0, "{command}: {said}");
        said
    }

    fn fails(&self, command: &str) -> String {
        let (code, said) = self.runs(command);
        assert_ne!(code, 0, "{command}: {said}");
        said
    }

    fn set(&self, input: &Value) {
        self.client().output("secret_set", input).unwrap();
    }

    fn hold_to(&self, allow: &Value) {
        let put = self.client().without_env().request("PUT", "/v1/envs/default/egress");
        let answer = put.json(&json!({ "allow": allow })).send().unwrap();
        assert_eq!((answer.status, answer.json().unwrap()), (200, json!({ "allow": allow })));
    }

    /// What the hosts were sent.
    fn seen(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("seen")).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.hosts.kill();
        let _ = self.hosts.wait();
    }
}

/// An authority, and the hosts' certificate by it.
fn certify(directory: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(directory.join("authority.pem"), ca.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, key);
    let key = KeyPair::generate().unwrap();
    let names = ["127.0.0.2", "127.0.0.3", "localhost"].map(str::to_owned);
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("host.pem"), leaf.pem()).unwrap();
    std::fs::write(directory.join("host.key"), key.serialize_pem()).unwrap();
}

fn command(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// What the private host has: a repository, a package for npm, one for pip.
fn stock(directory: &Path) {
    let write = |path: &str, text: &str| {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    command("git", &["init", "--quiet", "--initial-branch=main", "work"], directory);
    write("work/word.txt", "private\n");
    let author = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-C", "work"];
    command("git", &["-C", "work", "add", "."], directory);
    command("git", &[&author[..], &["commit", "--quiet", "-m", "first"]].concat(), directory);
    command("git", &["clone", "--quiet", "--bare", "work", "app.git"], directory);

    write("package/package.json", r#"{"name":"@private/left","version":"1.0.0","main":"index.js"}"#);
    write("package/index.js", "module.exports = 'private';\n");
    command("tar", &["-czf", "left.tgz", "package"], directory);
    let left = json!({
        "name": "@private/left", "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": { "name": "@private/left", "version": "1.0.0",
            "dist": { "tarball": "https://PLACE/npm/left.tgz" } } },
    });
    write("left.json", &left.to_string());

    let wheel = "import zipfile\n\
        with zipfile.ZipFile('private_thing-1.0-py3-none-any.whl', 'w') as wheel:\n\
        \x20   info = 'private_thing-1.0.dist-info/'\n\
        \x20   wheel.writestr('private_thing.py', 'WORD = 1\\n')\n\
        \x20   wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: private-thing\\nVersion: 1.0\\n')\n\
        \x20   wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        \x20   wheel.writestr(info + 'RECORD', '')\n";
    command("python3", &["-c", wheel], directory);
    write(
        "index.html",
        "<a href=\"private_thing-1.0-py3-none-any.whl\">private_thing-1.0-py3-none-any.whl</a>",
    );
}

#[test]
fn private_code_and_packages_are_installed_with_placeholders_alone() {
    let world = World::start(&[]);
    stock(world.directory.path());
    let private = world.place("private").to_owned();
    // npm takes no certificate for an address, and a sandbox's own loopback is near to it unless it is told otherwise.
    let named = world.place("named").to_owned();
    // One sandbox is awake before the secret is there, and has it when it is.
    world.run("test -z \"$REG_TOKEN\" && test -z \"$GIT_SSL_CAINFO\"");
    world.set(&json!({ "name": "REG_TOKEN", "value": REAL, "hosts": [private, named] }));

    world.run(&format!(
        "git clone --quiet https://user:$REG_TOKEN@{private}/app.git && grep -x private app/word.txt"
    ));
    let npmrc = format!("@private:registry=https://{named}/npm/\n//{named}/npm/:_authToken=${{REG_TOKEN}}\n");
    world.client().output("file_write", &json!({ "path": ".npmrc", "text": npmrc })).unwrap();
    world.run("mkdir js && echo '{\"name\":\"app\",\"private\":true}' > js/package.json");
    world.run("env -u NO_PROXY -u no_proxy npm install --prefix js --no-audit --no-fund --fetch-retries=0 @private/left");
    assert!(world.run("cat js/node_modules/@private/left/index.js").contains("private"));
    world.run(&format!(
        "python3 -m pip install --quiet --no-deps --retries=0 --target=site -i https://__token__:$REG_TOKEN@{private}/simple/ private-thing"
    ));
    assert_eq!(world.run("cat site/private_thing.py"), "WORD = 1\n");

    // The value is nowhere inside, also where the host says what it was sent.
    let told = world.run(&format!("curl -sS -H \"authorization: Bearer $REG_TOKEN\" https://{private}/echo"));
    assert!(told.contains("uthorization"), "{told}");
    let found = format!(
        "grep -rlsE '{SEARCHED}' /run /tmp /var /etc /workspace /usr/local /dev/shm | head; \
         cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -E '{SEARCHED}' | head; env | grep -E '{SEARCHED}'; true"
    );
    assert_eq!(world.run(&found), "");
    assert!(world.run("echo $REG_TOKEN").starts_with("secret_REG_TOKEN_"));

    // It is another's value from the next request on, and nobody's when it is deleted.
    std::fs::write(world.directory.path().join("real"), "another-Value-2").unwrap();
    let ask = format!(
        "curl -sS -o /dev/null -w '%{{http_code}}' -H \"authorization: Bearer $REG_TOKEN\" https://{private}/x"
    );
    assert_eq!(world.run(&ask), "401");
    world.set(&json!({ "name": "REG_TOKEN", "value": "another-Value-2", "hosts": [private] }));
    assert_eq!(world.run(&ask), "200");
    let gone = json!({ "kind": "secret", "name": "REG_TOKEN", "dry_run": true });
    let confirm = world.client().output("resource_delete", &gone).unwrap()["confirm"].clone();
    let text = world.run("echo $REG_TOKEN");
    let gone = json!({ "kind": "secret", "name": "REG_TOKEN", "confirm": confirm });
    world.client().output("resource_delete", &gone).unwrap();
    let sent = world.seen().lines().count();
    world.run(&format!("curl -ksS -H 'authorization: Bearer {}' https://{private}/x", text.trim()));
    let after: Vec<String> = world.seen().lines().skip(sent).map(str::to_owned).collect();
    assert!(after.len() == 1 && after[0].contains(text.trim()), "{after:?}");
}

#[test]
fn a_placeholder_becomes_the_secret_for_its_host_alone() {
    let world = World::start(&[]);
    let (private, other, plain, unlisted) =
        (world.place("private"), world.place("other"), world.place("plain"), world.place("unlisted"));
    world.set(&json!({ "name": "TOKEN", "value": REAL, "hosts": [private] }));
    world.set(&json!({ "name": "PATH", "value": REAL, "hosts": [private] }));
    let header = "-sS -H \"authorization: Bearer $TOKEN\" -H \"x-other: $TOKEN\"";
    world.run(&format!("curl {header} https://{private}/x"));
    world.run(&format!("curl -k {header} https://{other}/x"));
    world.run(&format!("curl {header} http://{plain}/x"));
    world.run(&format!("curl {header} -H 'host: {private}' http://{plain}/x"));
    // The tunnel's host counts, not what is said in it; a redirect is a request of its own.
    world.runs(&format!("curl -k {header} --connect-to {private}:{other} https://{private}/x"));
    world.runs(&format!("curl -k {header} -H 'host: {private}' https://{other}/x"));
    world.run(&format!("curl -kL --location-trusted {header} 'https://{private}/away?to=http://{plain}/x'"));
    let refused = world.fails(&format!("curl -fkL {header} 'https://{private}/away?to=http://{unlisted}/x'"));
    assert!(refused.contains("403"), "{refused}");
    for line in world.seen().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["at"] == "private", line.to_string().contains(REAL), "{line}");
    }
    assert!(world.seen().contains("\"plain\"") && world.seen().contains("\"other\""));
    assert!(!world.seen().contains("\"unlisted\""));
    // A name that leads to this machine is not one to go to, listed or not.
    let near = world.place("near").replace("127.0.0.1", "localhost");
    let refused = world.fails(&format!("curl -sSf --noproxy '' -x http://127.0.0.1:3128 http://{near}/x"));
    assert!(refused.contains("403"), "{refused}");
    assert!(!world.seen().contains("\"near\""));
    world.fails(&format!("curl -sSf -m 5 --noproxy '*' https://{private}/x"));

    // Another environment's sandbox has nothing of it.
    world.client().output("env_create", &json!({ "slug": "other" })).unwrap();
    let ran = world.client().in_env("other").output("shell_run", &json!({ "command": "echo [$TOKEN]" }));
    assert_eq!(ran.unwrap()["stdout"], "[]\n");
    for (field, input) in [
        ("/hosts", json!({ "name": "A", "value": REAL, "hosts": [] })),
        ("/hosts", json!({ "name": "A", "value": REAL, "hosts": ["*"] })),
        ("/hosts", json!({ "name": "A", "value": REAL, "hosts": ["https://a.example/"] })),
        ("/value", json!({ "name": "A", "value": "short", "hosts": ["a.example"] })),
        ("/name", json!({ "name": "a", "value": REAL, "hosts": ["a.example"] })),
    ] {
        let refused = world.client().call("secret_set", &input).unwrap();
        assert_eq!((refused.status, &refused.body["field"]), (400, &json!(field)), "{refused:?}");
    }
}

#[test]
fn an_environment_holds_its_sandboxes_to_less_than_the_operator_allows_and_sees_where_they_went() {
    let world = World::start(&[("STEADING_SANDBOX_EGRESS_BYTES", "3000000")]);
    let (plain, other, unlisted) = (world.place("plain"), world.place("other"), world.place("unlisted"));
    let ask = |place: &str| {
        world.runs(&format!("curl -sS -m 20 -o /dev/null -w '%{{http_code}}' http://{place}/echo")).1
    };
    assert_eq!([ask(plain), ask(unlisted)], ["200", "403"]);
    world.hold_to(&json!([other, unlisted]));
    assert_eq!([ask(plain), ask(unlisted)], ["403", "403"]);
    let told = world.run(&format!("curl -sS http://{plain}/echo"));
    assert!(told.contains(&format!("of those the environment allows: {other}, {unlisted}")), "{told}");
    let shown = world.client().without_env().request("GET", "/v1/envs/default/egress").send().unwrap();
    assert_eq!(shown.json().unwrap(), json!({ "allow": [other, unlisted] }));
    world.hold_to(&json!([]));
    assert_eq!(ask(plain), "403");
    world.hold_to(&Value::Null);
    assert_eq!(ask(plain), "200");
    for (wrong, field) in [
        (json!({ "allow": ["a b"] }), "/allow"),
        (json!({ "deny": [] }), "/allow"),
        (json!({ "allow": null, "deny": [] }), "/deny"),
    ] {
        let put = world.client().without_env().request("PUT", "/v1/envs/default/egress");
        let refused = put.json(&wrong).send().unwrap();
        assert_eq!((refused.status, refused.json().unwrap()["field"] == field), (400, true), "{wrong}");
    }

    // What is more than a sandbox may have is cut, and said.
    let (code, _) = world
        .runs(&format!("curl -sSf http://{plain}/large | wc -c && curl -sSf http://{plain}/large | wc -c"));
    assert_eq!(code, 0, "the pipe ends well whatever comes through it");
    assert_eq!(ask(plain), "403");
    let logged = |query: Value| {
        let told = testkit::eventually(std::time::Duration::from_secs(30), || {
            let told = world.client().output("logs_query", &query).unwrap();
            (!told["entries"].as_array().unwrap().is_empty()).then_some(told)
        });
        told.unwrap_or_else(|| panic!("nothing is logged for {query}")).to_string()
    };
    logged(json!({ "level": "debug", "text": format!("a sandbox was connected to {plain} (") }));
    logged(json!({ "level": "warn", "text": format!("a sandbox was not let out to {unlisted}") }));
    logged(
        json!({ "level": "warn", "text": format!("a sandbox was cut off from {plain}: the sandbox has used all of its network bytes") }),
    );
}

#[test]
fn a_host_that_one_tenant_may_ask_is_none_of_the_others() {
    let directory = testkit::temporary().unwrap();
    let data = directory.path().join("data");
    let mut steading = require(Steading::launch().data_dir(&data).start());
    let builder = Neighbour::new(&steading, "builder").unwrap();
    assert!(steading.stop().is_some_and(|status| status.success()));

    // Its own loopback is what a sandbox asks without the proxy.
    let host = TcpListener::bind("127.0.0.9:0").unwrap();
    let place = host.local_addr().unwrap().to_string();
    // It ends with the test.
    std::thread::spawn(move || {
        for visitor in host.incoming() {
            let mut visitor = visitor.unwrap();
            let _ = visitor.read(&mut [0; 4096]);
            let _ =
                visitor.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nreally");
        }
    });
    let launch = Steading::launch().data_dir(&data).env("STEADING_SANDBOX_ORIGINS", &place);
    let steading =
        require(launch.env("STEADING_SANDBOX_ALLOW", format!("{}={place}", builder.tenant)).start());
    let ask = json!({ "command": format!("curl -s -m 20 http://{place}/") });
    let client = steading.client();
    let its =
        builder.request(&client, "POST", "/v1/tools/shell_run").json(&ask).send().unwrap().json().unwrap();
    assert_eq!(its["stdout"], "really", "{its}");
    let other = client.output("shell_run", &ask).unwrap();
    assert!(other["stdout"].as_str().unwrap().contains("sandbox.allow"), "{other}");
}

#[test]
fn a_private_address_is_refused_also_where_the_operator_has_listed_it() {
    let host = TcpListener::bind("127.0.0.9:0").unwrap();
    let place = host.local_addr().unwrap().to_string();
    let visits = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&visits);
    // It ends with the test.
    std::thread::spawn(move || {
        for visitor in host.incoming() {
            let mut visitor = visitor.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = visitor.read(&mut [0; 4096]);
            let _ =
                visitor.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nreally");
        }
    });
    let listed =
        [&place, "169.254.169.254:80", "10.0.0.1:80", "192.168.0.1:80", "[::1]:80", "[fd00:ec2::254]:80"];
    let launch = || Steading::launch().env("STEADING_SANDBOX_ALLOW", listed.join(","));
    let ask = |steading: &Steading, place: &str| {
        let command = format!("curl -gsS --noproxy '' -x http://127.0.0.1:3128 -m 20 http://{place}/");
        let ran = steading.client().output("shell_run", &json!({ "command": command })).unwrap();
        ran["stdout"].as_str().unwrap().to_owned()
    };
    let steading = require(launch().start());
    for place in listed {
        let told = ask(&steading, place);
        assert!(told.contains("is not at a public address"), "{place}: {told}");
    }
    assert!(ask(&steading, "192.168.0.2:80").contains("is not an allowed host"));
    assert_eq!(visits.load(std::sync::atomic::Ordering::SeqCst), 0);
    drop(steading);
    // The same request to the same address gets there where the operator answers for it.
    let steading = require(launch().env("STEADING_SANDBOX_ORIGINS", &place).start());
    assert_eq!(
        (ask(&steading, &place), visits.load(std::sync::atomic::Ordering::SeqCst)),
        ("really".to_owned(), 1)
    );
}
