//! Files of a workspace asked for from outside while what runs inside turns their names into links, pipes and other
//! things: nobody is led to a file of the host, waits for what never comes, or changes what lies beside the workspace.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::http::Response;
use testkit::{Client, Steading, eventually, require};

use super::app_sandbox_abuse::{on_host, says};

/// What a file of the host holds that is nobody's business inside.
const MARK: &str = "a-mark-that-only-the-host-has";

/// Longer than any of these requests takes that waits for nothing.
const LONG: Duration = Duration::from_secs(20);

/// Changes what names mean, all the time: `d` is a directory or a link to one of the host, `f` a file, a link to a file
/// of the host, or a pipe, `c` a link to itself or a directory.
const FLIP: &str = r#"
import ctypes, itertools, os, sys
secret = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def exchange(a, b):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), 2) != 0:
        # Somebody outside has moved or removed one of them: it is there again.
        make()
def ensure(path, how):
    if not os.path.lexists(path):
        try: how(path)
        except OSError: pass
def plain(path):
    with open(path, "w") as file: file.write("plain\n")
def full(path):
    os.mkdir(path)
    plain(path + "/mark")
def make():
    ensure("d", full)
    ensure("d1", lambda path: os.symlink(secret, path))
    ensure("f", plain)
    ensure("f1", lambda path: os.symlink(secret + "/mark", path))
    ensure("f2", os.mkfifo)
    ensure("c", lambda path: os.symlink("c", path))
    ensure("c1", full)
make()
for turn in itertools.count():
    exchange("d", "d1")
    exchange("f", "f1" if turn % 2 else "f2")
    exchange("c", "c1")
    if turn % 64 == 0:
        make()
    if turn == 1000:
        os.close(os.open("flipping", os.O_CREAT | os.O_WRONLY))
"#;

struct Stage {
    steading: Steading,
    client: Client,
    /// The directory of the host with the mark, and the workspace as it lies on the host.
    secret: tempfile::TempDir,
    workspace: std::path::PathBuf,
}

impl Stage {
    fn new() -> Self {
        let steading = require(Steading::start());
        let client = steading.client().in_env("default");
        let secret = testkit::temporary().unwrap();
        // Everybody on the host could read it.
        fs::set_permissions(secret.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        fs::write(secret.path().join("mark"), MARK).unwrap();
        says(&client, "touch here");
        let below = steading.ready().data_dir.join("sandboxes/workspaces");
        let workspace = on_host(&below, "here").unwrap().parent().unwrap().to_owned();
        Self { steading, client, secret, workspace }
    }

    fn files(&self, method: &str, rest: &str) -> testkit::http::Request {
        self.client.request(method, &format!("/v1/sandboxes/default/files{rest}"))
    }

    /// Sends it, and holds that its answer is one, in time, without the mark.
    fn answer(&self, request: testkit::http::Request, what: &str) -> Response {
        let began = Instant::now();
        let answer = request.send().unwrap();
        assert!(began.elapsed() < LONG, "{what} took {:?}", began.elapsed());
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!body.contains(MARK), "{what}: {body}");
        assert!(answer.status < 500, "{what}: {} {body}", answer.status);
        answer
    }
}

/// Whether somebody who reads without care finds the mark. It does not wait for a pipe, as one without any care would.
fn naive(path: &Path) -> bool {
    let mut read = String::new();
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.and_then(|mut file| file.read_to_string(&mut read)).is_ok() && read == MARK
}

#[test]
fn no_race_of_names_leads_out_of_the_workspace() {
    const ROUNDS: usize = 40;
    let stage = Stage::new();
    let (client, secret) = (&stage.client, stage.secret.path().display().to_string());
    let beside = stage.workspace.parent().unwrap().join("beside");
    fs::write(&beside, "stays").unwrap();
    client.output("file_write", &json!({ "path": "flip.py", "text": FLIP })).unwrap();
    says(client, &format!("(python3 flip.py {secret} > /dev/null 2>&1 &)"));
    let flipping = eventually(LONG, || stage.workspace.join("flipping").exists().then_some(()));
    assert!(flipping.is_some(), "nothing is flipped");
    // Who reads there without care is led to the host's file, at once.
    for name in ["d/mark", "f"] {
        let led = eventually(LONG, || naive(&stage.workspace.join(name)).then_some(()));
        assert!(led.is_some(), "{name}: the race is none");
    }
    let (whole, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (stage, whole, refused) = (&stage, &whole, &refused);
            let count = move |answer: Response| {
                if answer.status < 300 { whole } else { refused }.fetch_add(1, SeqCst)
            };
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    for path in ["f", "d/mark", "c/mark", "d/../f"] {
                        count(stage.answer(stage.files("GET", &format!("?path={path}")), path));
                        count(stage.answer(stage.files("GET", &format!("/stat?path={path}")), path));
                    }
                    for path in ["d/new", "f", "c/new"] {
                        let put = stage.files("PUT", &format!("?path={path}")).body("written");
                        count(stage.answer(put, path));
                    }
                    count(stage.answer(stage.files("GET", "/list?path=d"), "list"));
                    count(stage.answer(stage.files("GET", "/list?depth=4"), "list all"));
                    let search = stage.files("POST", "/search").json(&json!({ "line": "mark|plain" }));
                    count(stage.answer(search, "search"));
                    let name = format!("moved-{worker}-{round}");
                    for (from, to) in
                        [("d/mark", name.clone()), ("f", name.clone()), (&*name, "d/mark".into())]
                    {
                        let moved = json!({ "from": from, "to": to });
                        count(stage.answer(stage.files("POST", "/move").json(&moved), from));
                    }
                    for path in ["d/mark", "c/new", "f"] {
                        count(
                            stage
                                .answer(stage.files("DELETE", &format!("?path={path}&recursive=true")), path),
                        );
                    }
                    if round % 8 == 0 {
                        count(stage.answer(stage.files("DELETE", "?path=d&recursive=true"), "all of d"));
                    }
                }
            });
        }
    });
    let (whole, refused) = (whole.load(SeqCst), refused.load(SeqCst));
    assert!(whole > ROUNDS * 4 && refused > ROUNDS * 4, "{whole} were answered, {refused} refused");
    says(client, "pkill -f '[f]lip.py'; echo alive > alive");
    // Nothing of the host was written, moved or removed.
    let left: Vec<_> =
        fs::read_dir(stage.secret.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(
        (left, fs::read_to_string(stage.secret.path().join("mark")).unwrap()),
        (vec!["mark".into()], MARK.to_owned())
    );
    assert_eq!(fs::read_to_string(&beside).unwrap(), "stays");
    // Nothing of it is in what was written inside by way of a move or a copy.
    let kept = format!("grep -rlI --devices=skip '{MARK}' . || echo none");
    assert_eq!(says(client, &kept), "none\n");
    fs::remove_file(beside).unwrap();
    drop(stage.steading);
}

#[test]
fn deep_wide_and_sparse_trees_and_strange_names_are_answered() {
    let stage = Stage::new();
    let make = "import os
os.mkdir('deep'); os.chdir('deep')
for level in range(900):
    os.mkdir('d'); os.chdir('d')
open('bottom', 'w').close()
os.chdir('/workspace')
os.mkdir('wide')
for number in range(5000):
    open(f'wide/{number}', 'w').close()
os.truncate(os.open('sparse', os.O_CREAT | os.O_RDWR), 1 << 30)
with open(b'\\xff\\xfe strange \\n name', 'w') as file: file.write('strange')
";
    stage.client.output("file_write", &json!({ "path": "make.py", "text": make })).unwrap();
    says(&stage.client, "python3 make.py");
    let ok = |request: testkit::http::Request, what: &str| {
        let answer = stage.answer(request, what);
        assert_eq!(answer.status, 200, "{what}: {:?}", answer.text());
        answer
    };
    assert_eq!(ok(stage.files("GET", "/stat?path=sparse"), "stat").json().unwrap()["size"], 1_u64 << 30);
    let end = format!("?path=sparse&offset={}&limit=1000", (1_u64 << 30) - 3);
    assert_eq!(ok(stage.files("GET", &end), "the end").body, [0; 3]);
    assert_eq!(ok(stage.files("GET", "?path=sparse&limit=4096"), "the begin").body, [0; 4096]);
    let listed = ok(stage.files("GET", "/list?path=wide&limit=100"), "wide").json().unwrap();
    assert_eq!((listed["files"].as_array().unwrap().len(), &listed["more"]), (100, &json!(true)));
    let listed = ok(stage.files("GET", "/list"), "strange").json().unwrap();
    assert!(listed["files"].as_array().unwrap().len() >= 6, "{listed}");
    for asked in [json!({ "name": "bottom" }), json!({ "line": "strange" })] {
        ok(stage.files("POST", "/search").json(&asked), "search");
    }
    for (levels, most) in [(900, 200), (4000, 499)] {
        let path = format!("?path=deep/{}bottom", "d/".repeat(levels));
        assert!(stage.answer(stage.files("GET", &path), "deep").status <= most, "{levels}");
    }
    for (path, least) in [("deep", 200), ("wide", 200), ("sparse", 200)] {
        let gone = stage.answer(stage.files("DELETE", &format!("?path={path}&recursive=true")), path);
        assert_eq!(gone.status / 100 * 100, least, "{path}: {:?}", gone.text());
    }
    assert_eq!(says(&stage.client, "ls -d deep wide sparse 2>/dev/null || echo gone"), "gone\n");
    ok(stage.files("GET", "/stat?path=make.py"), "stat");
}

#[test]
fn a_tree_too_deep_to_be_weighed_ends_its_sandbox_and_can_be_removed() {
    let stage = Stage::new();
    // What does the same again goes on where it was ended.
    let make =
        "import os\nfor level in range(4000):\n  if not os.path.isdir('d'): os.mkdir('d')\n  os.chdir('d')\n";
    stage.client.output("file_write", &json!({ "path": "make.py", "text": make })).unwrap();
    // It may be ended before it is done.
    drop(stage.client.output("shell_run", &json!({ "command": "python3 make.py", "timeout_s": 300 })));
    let shown = || stage.client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    let ended = eventually(3 * LONG, || (shown()["ended"] == "over_quota").then_some(()));
    assert!(ended.is_some(), "{}", shown());
    let gone = eventually(3 * LONG, || {
        let began = Instant::now();
        let status = stage.files("DELETE", "?path=d&recursive=true").send().unwrap().status;
        assert!(began.elapsed() < LONG, "it took {:?}", began.elapsed());
        // It may be ended again meanwhile, with fewer levels each time.
        [204, 404].contains(&status).then_some(())
    });
    assert!(gone.is_some(), "{}", shown());
    assert_eq!(says(&stage.client, "ls"), "here\nmake.py\n");
}
