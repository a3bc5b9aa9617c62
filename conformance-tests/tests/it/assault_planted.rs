//! Secrets planted wherever the platform keeps some, and beside it on the machine: a hostile program in a sandbox looks
//! for them in all that it can reach. It finds what is planted inside, so it can look.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::{Client, Steading, Unavailable, built_binary, eventually, require, temporary};

const SEARCH: &str = include_str!("assault_search.py");

/// A secret of this run.
fn mark(place: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    format!("mark-{place}-{now:x}-{}", std::process::id())
}

/// Tells `text` to whoever connects, until the program ends.
fn tell(text: &str, accept: impl Fn() -> io::Result<Box<dyn io::Write>> + Send + 'static) {
    let text = text.to_owned();
    thread::spawn(move || {
        while let Ok(mut stream) = accept() {
            // Whoever has gone has gone.
            let _ = stream.write_all(text.as_bytes());
        }
    });
}

/// A server that has these secrets in its environment, in a file that it has open, and in its files.
fn armed(directory: &Path, variable: &str, inherited: &str) -> Steading {
    let binary = require(built_binary().ok_or(Unavailable::NotBuilt));
    let at = |name: &str| directory.join(name);
    fs::write(at("inherited"), inherited).unwrap();
    let start = format!("#!/bin/sh\nexec {} \"$@\" 9< {}\n", binary.display(), at("inherited").display());
    fs::write(at("start"), start).unwrap();
    fs::set_permissions(at("start"), fs::Permissions::from_mode(0o755)).unwrap();
    require(
        Steading::launch()
            .binary(at("start"))
            .data_dir(at("data"))
            .env("STEADING_MODEL_BASE_URL", "http://127.0.0.1:9/v1")
            .env("STEADING_MODEL", "small")
            .env("STEADING_MODEL_API_KEY", variable)
            .env("STEADING_STORAGE_S3_SECRET_KEY", variable)
            .start(),
    )
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a key into the keyring of the user that everything here is of.
fn keep_in_kernel(text: &str) {
    let script = "import ctypes, sys\nkey = sys.argv[1].encode()\n\
                  sys.exit(ctypes.CDLL(None).syscall(248, b'user', b'planted', key, len(key), -4) < 0)";
    assert!(Command::new("python3").args(["-c", script, text]).status().unwrap().success());
}

/// What the hostile program finds: pairs of a place and the number of a needle, and how often it has looked where.
fn search(client: &Client, since: u64, port: u16, name: &str, needles: &[&str]) -> Value {
    let backwards: Vec<String> = needles.iter().map(|needle| needle.chars().rev().collect()).collect();
    let command = format!(
        "cd /workspace; (python3 search.py {since} {port} {name} {} 9< /dev/null > found.new 2> failed; mv found.new found) &",
        backwards.join(" ")
    );
    client.output("shell_run", &json!({ "command": command })).unwrap();
    // It looks at a great many things.
    let wait =
        "for i in $(seq 200); do [ -e found ] && cat failed >&2 && exec cat found; sleep 0.1; done; exit 1";
    let look = json!({ "command": wait });
    let ran = eventually(Duration::from_secs(600), || {
        let ran = client.output("shell_run", &look).unwrap();
        (ran["exit_code"] == 0).then_some(ran)
    });
    let ran = ran.expect("the search does not end");
    assert_eq!(ran["stderr"], "", "{ran}");
    serde_json::from_str(ran["stdout"].as_str().unwrap()).unwrap()
}

#[test]
fn a_program_that_searches_all_it_can_reach_finds_no_secret_of_the_platform() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - 60;
    let directory = temporary().unwrap();
    let [variable, inherited, value, row, file, public, told, kernel] =
        ["variable", "inherited", "value", "row", "file", "public", "told", "kernel"].map(mark);
    let steading = armed(directory.path(), &variable, &inherited);
    let client = steading.client();
    client.output("secret_set", &json!({ "name": "TOKEN", "value": value })).unwrap();
    let table = json!({ "database": { "tables": { "notes": { "columns": { "title": "text!" } } } } });
    client.output("app_apply", &json!({ "manifest": table })).unwrap();
    let insert = json!({ "sql": "INSERT INTO notes (title) VALUES (?)", "params": [row] });
    client.output("db_execute", &insert).unwrap();
    // Files that any user of this machine may read.
    let data = &steading.ready().data_dir;
    let beside = [
        data.join("planted"),
        data.join("sandboxes/planted"),
        Path::new("/tmp").join(&public),
        Path::new("/dev/shm").join(&public),
    ];
    fs::create_dir_all(data.join("sandboxes")).unwrap();
    for (path, text) in beside.iter().zip([&file, &file, &public, &public]) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    keep_in_kernel(&kernel);
    // Servers of this machine that ask nobody who they are.
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = port.local_addr().unwrap().port();
    tell(&told, move || port.accept().map(|(stream, _)| Box::new(stream) as Box<dyn io::Write>));
    let name = format!("planted-{}", std::process::id());
    let abstract_socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    tell(&told, move || abstract_socket.accept().map(|(stream, _)| Box::new(stream) as Box<dyn io::Write>));
    let socket = UnixListener::bind(data.join("planted.sock")).unwrap();
    tell(&told, move || socket.accept().map(|(stream, _)| Box::new(stream) as Box<dyn io::Write>));
    let key = steading.ready().key.clone();
    let master = fs::read(data.join("keys/master")).unwrap();
    assert_eq!(master.len(), 32);
    let master_text = STANDARD.encode(&master);

    client.output("file_write", &json!({ "path": "search.py", "text": SEARCH })).unwrap();
    // The same for what is planted inside, once in each place.
    let inside = mark("inside");
    let (first, rest) = inside.split_at(6);
    let plant = format!(
        "umask 077; m={first}; m=${{m}}{rest}; printf %s $m > planted; printf %s $m > /dev/shm/planted; printf %s $m > /tmp/planted
         (MARK=$m exec -a sleeper sleep 4000 >/dev/null 2>&1 &)
         (exec 9< /tmp/planted; rm /tmp/planted; exec -a holder sleep 4000 >/dev/null 2>&1 &)
         cat > serve.py <<'END'
import socket, threading
def tell(server):
    text = open('/workspace/planted', 'rb').read()
    while True:
        stream = server.accept()[0]
        try: stream.sendall(text)
        except OSError: pass
        stream.close()
port, name = socket.socket(), socket.socket(socket.AF_UNIX)
port.bind(('127.0.0.1', 4711)); name.bind('\\0inside')
for server in [port, name]:
    server.listen(9); threading.Thread(target=tell, args=[server]).start()
END
         (python3 serve.py >/dev/null 2>&1 &)
         for i in $(seq 600); do (: < /dev/tcp/127.0.0.1/4711) 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
    );
    let planted = client.output("shell_run", &json!({ "command": plant, "timeout_s": 120 })).unwrap();
    assert_eq!(planted["exit_code"], 0, "{planted}");

    let [inside_bytes, master_bytes] = [inside.as_bytes(), &master].map(|it| format!("bytes:{}", digits(it)));
    let master_digits = digits(&master);
    let needles = [
        &inside,
        &inside_bytes,
        &variable,
        &inherited,
        &value,
        &row,
        &file,
        &public,
        &told,
        &kernel,
        &key,
        &master_bytes,
        &master_digits,
        &master_text,
    ]
    .map(String::as_str);
    let found = search(&client, since, number, &name, &needles);
    for path in &beside[2..] {
        fs::remove_file(path).unwrap();
    }
    let all = found["found"].as_array().unwrap();
    let (own, others): (Vec<_>, Vec<_>) = all.iter().partition(|found| found[1] == 0 || found[1] == 1);
    assert!(own.contains(&&json!(["file", 1])), "what is planted inside is not found by its bytes: {found}");
    let own: Vec<&str> = own.iter().filter_map(|found| found[0].as_str()).collect();
    for place in ["abstract socket", "descriptor", "environ", "file", "port"] {
        assert!(own.contains(&place), "what is planted inside is not found in {place}: {found}");
    }
    let names: Vec<_> =
        others.iter().map(|found| (&found[0], needles[found[1].as_u64().unwrap() as usize])).collect();
    assert!(names.is_empty(), "{names:?}");
    for place in ["key", "memory of another", "kernel", "way out", "root", "device", "cmdline"] {
        let looked = found["tried"][place].as_u64().unwrap_or(0);
        assert!(looked > 0 || place == "key", "nobody has looked at {place}: {found}");
    }
}
