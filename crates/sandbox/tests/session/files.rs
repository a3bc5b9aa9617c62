//! Work with files, on trees that mean well and on trees that do not.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use hand::wire::{Cause, Failure};
use rustix::fs::{Mode, OFlags};
use sandbox::session::{
    Among, Change, Completeness, Contents, Entry, Error, Existing, FileKind, Found, Search, Searched,
    TreeCaps, Write,
};

use crate::inside::{Inside, LONG, eventually};

/// Why something was refused.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (Cause, String) {
    match result {
        Err(Error::Refused(Failure { cause, message })) => (cause, message),
        other => panic!("{other:?}"),
    }
}

fn cause<T: std::fmt::Debug>(result: Result<T, Error>) -> Cause {
    refused(result).0
}

async fn write(inside: &Inside, path: &str, content: &[u8]) -> Result<(), Error> {
    inside.session.files().write(path, content, content.len() as u64, Write::default()).await
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("in time")
}

/// Makes a pipe that nobody will ever open.
fn pipe(inside: &Inside, name: &str) {
    let made = std::process::Command::new("mkfifo").arg(inside.home().join(name)).status().expect("mkfifo");
    assert!(made.success());
}

#[tokio::test]
async fn what_was_written_is_read_whole_and_in_parts() {
    let inside = Inside::start().await;
    let files = inside.session.files();
    let content: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    write(&inside, "a/b/c.bin", &content).await.expect("a file");
    assert!(std::fs::read(inside.home().join("a/b/c.bin")).expect("a file") == content);
    let (entry, all) = files.read("a/b/c.bin", 0, 5_000_000).await.expect("a file");
    assert!(all == content);
    let expected = Entry {
        path: "a/b/c.bin".to_owned(),
        kind: FileKind::File,
        size: 4_000_000,
        modified_ms: entry.modified_ms,
        mode: 0o644,
        target: None,
    };
    assert_eq!(entry, expected);
    let (_, part) = files.read("a/b/c.bin", 3_999_990, 100).await.expect("a file");
    assert_eq!(part, content[3_999_990..]);
    let (_, part) = files.read("a/b/c.bin", 1_234, 77).await.expect("a file");
    assert_eq!(part, content[1_234..1_311]);
    assert_eq!(files.read("a/b/c.bin", 9_000_000, 10).await.expect("a file").1, b"");
    let path = inside.home().join("a/b/c.bin");
    assert_eq!(files.read(path.to_str().expect("UTF-8"), 0, 4).await.expect("a file").1, content[..4]);
    write(&inside, "empty", b"").await.expect("a file");
    assert_eq!(files.read("empty", 0, 10).await.expect("a file").1, b"");
}

#[tokio::test]
async fn a_file_is_replaced_as_a_whole_and_keeps_its_permissions_or_is_left_alone() {
    let inside = Inside::start().await;
    let files = inside.session.files();
    let how = Write { mode: Some(0o751), existing: Existing::Refuse };
    files.write("f", &b"one"[..], 3, how).await.expect("a file");
    assert_eq!(cause(files.write("f", &b"two"[..], 3, how).await), Cause::Exists);
    write(&inside, "f", b"three").await.expect("a file");
    let entry = files.stat("f").await.expect("a file");
    assert_eq!((entry.size, entry.mode), (5, 0o751));
    // Content that ends early changes nothing and leaves nothing.
    assert_eq!(cause(files.write("f", &b"short"[..], 1_000, Write::default()).await), Cause::Invalid);
    let (_, content) = files.read("f", 0, 100).await.expect("a file");
    assert_eq!(content, b"three");
    // So does content that is never all there.
    let (near, _far) = tokio::io::duplex(10);
    let writing = files.write("f", near, 1_000, Write::default());
    assert!(tokio::time::timeout(Duration::from_millis(200), writing).await.is_err());
    assert_eq!(files.read("f", 0, 100).await.expect("a file").1, b"three");
    let wrong = Write { mode: Some(0o4755), existing: Existing::Replace };
    assert_eq!(cause(files.write("g", &b""[..], 0, wrong).await), Cause::Invalid);
}

#[tokio::test]
async fn a_link_is_written_through_and_nothing_else_is() {
    let inside = Inside::start().await;
    write(&inside, "real", b"1").await.expect("a file");
    symlink("real", inside.home().join("link")).expect("a link");
    write(&inside, "link", b"22").await.expect("a file");
    assert_eq!(std::fs::read(inside.home().join("real")).expect("a file"), b"22");
    assert!(std::fs::symlink_metadata(inside.home().join("link")).expect("a link").is_symlink());
    std::fs::create_dir(inside.home().join("dir")).expect("a directory");
    pipe(&inside, "pipe");
    for path in ["dir", "pipe", "/dev/null", "", "/", "x/"] {
        assert_eq!(cause(in_time(write(&inside, path, b"x")).await), Cause::Invalid, "{path:?}");
    }
    assert_eq!(cause(write(&inside, "real/below", b"x").await), Cause::Exists);
}

#[tokio::test]
async fn what_is_no_regular_file_is_not_opened() {
    let inside = Inside::start().await;
    let files = inside.session.files();
    pipe(&inside, "pipe");
    symlink("pipe", inside.home().join("to-pipe")).expect("a link");
    symlink("loop", inside.home().join("loop")).expect("a link");
    std::fs::create_dir(inside.home().join("dir")).expect("a directory");
    let cases = [
        ("pipe", Cause::Invalid, "pipe: it is no regular file"),
        ("to-pipe", Cause::Invalid, "to-pipe: it is no regular file"),
        ("/dev/zero", Cause::Invalid, "/dev/zero: it is no regular file"),
        ("dir", Cause::Invalid, "dir: it is a directory"),
        ("loop", Cause::Invalid, "loop: Too many levels"),
        ("missing", Cause::NotFound, "missing: No such file"),
        ("nul\0", Cause::Invalid, ""),
    ];
    for (path, expected, words) in cases {
        let (cause, message) = refused(in_time(files.read(path, 0, 10)).await);
        assert!(cause == expected && message.starts_with(words), "{path:?}: {cause:?} {message}");
    }
    assert_eq!(files.stat("pipe").await.expect("a pipe").kind, FileKind::Other);
    let link = files.stat("to-pipe").await.expect("a link");
    assert_eq!((link.kind, link.target.as_deref()), (FileKind::Link, Some("pipe")));
}

#[tokio::test]
async fn lists_are_in_order_as_deep_and_as_long_as_asked() {
    let inside = Inside::start().await;
    let files = inside.session.files();
    for path in ["t/b/2", "t/b/1", "t/a", "t/c/x/y/z"] {
        write(&inside, path, b"").await.expect("a file");
    }
    let list = async |depth, limit| {
        let (entries, completeness) = files.list("t", depth, limit).await.expect("a directory");
        (entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>().join(" "), completeness)
    };
    assert_eq!(list(1, 100).await, ("a b c".to_owned(), Completeness::Whole));
    assert_eq!(list(2, 100).await, ("a b c b/1 b/2 c/x".to_owned(), Completeness::Whole));
    assert_eq!(list(9, 100).await, ("a b c b/1 b/2 c/x c/x/y c/x/y/z".to_owned(), Completeness::Whole));
    assert_eq!(list(9, 4).await, ("a b c b/1".to_owned(), Completeness::More));
    assert_eq!(list(1, 3).await, ("a b c".to_owned(), Completeness::Whole));
    assert_eq!(cause(files.list("t/a", 1, 10).await), Cause::Invalid);
    assert_eq!(cause(files.list("none", 1, 10).await), Cause::NotFound);
    assert_eq!(cause(files.list("t", 0, 10).await), Cause::Invalid);
}

#[tokio::test]
async fn things_are_made_moved_and_removed() {
    let inside = Inside::start().await;
    let files = inside.session.files();
    files.make_directory("d/e").await.expect("a directory");
    files.make_directory("d/e").await.expect("it is there");
    write(&inside, "d/e/f", b"x").await.expect("a file");
    assert_eq!(cause(files.make_directory("d/e/f").await), Cause::Exists);
    files.rename("d/e", "n/m", Existing::Refuse).await.expect("a place");
    assert_eq!(files.read("n/m/f", 0, 9).await.expect("a file").1, b"x");
    write(&inside, "o", b"y").await.expect("a file");
    assert_eq!(cause(files.rename("o", "n/m/f", Existing::Refuse).await), Cause::Exists);
    files.rename("o", "n/m/f", Existing::Replace).await.expect("a place");
    assert_eq!(files.read("n/m/f", 0, 9).await.expect("a file").1, b"y");
    assert_eq!(cause(files.rename("none", "x", Existing::Replace).await), Cause::NotFound);
    assert_eq!(cause(files.remove("n", Contents::Refuse).await), Cause::Exists);
    std::fs::create_dir(inside.home().join("kept")).expect("a directory");
    symlink("../kept", inside.home().join("n/link")).expect("a link");
    std::fs::write(inside.home().join("kept/file"), "").expect("a file");
    files.remove("n", Contents::Remove).await.expect("it goes");
    assert!(inside.home().join("kept/file").exists(), "a link was followed");
    assert_eq!(cause(files.remove("n", Contents::Remove).await), Cause::NotFound);
}

#[tokio::test]
async fn hostile_trees_are_walked_without_waiting_or_running_out() {
    let inside = Inside::start().await;
    let files = inside.session.files();
    let home = inside.home();
    // Deeper than a path can say.
    std::fs::create_dir(home.join("deep")).expect("a directory");
    let mut directory =
        std::os::fd::OwnedFd::from(std::fs::File::open(home.join("deep")).expect("a directory"));
    let name = "a-long-name-for-a-directory";
    for _ in 0..1_000 {
        rustix::fs::mkdirat(&directory, name, Mode::RWXU).expect("a directory");
        directory =
            rustix::fs::openat(&directory, name, OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    }
    drop(directory);
    std::fs::write(home.join(OsStr::from_bytes(b"no\xFFtext")), "needle").expect("a file");
    pipe(&inside, "pipe");
    std::fs::create_dir(home.join("sly")).expect("a directory");
    pipe(&inside, "sly/.gitignore");
    std::fs::write(home.join("sly/in"), "needle").expect("a file");
    let sparse = std::fs::File::create(home.join("sparse")).expect("a file");
    sparse.set_len(1 << 40).expect("a hole");
    symlink("/", home.join("root")).expect("a link");
    let (entries, _) = in_time(files.list(".", 5_000, 100_000)).await.expect("a directory");
    assert!(entries.len() > 100, "{}", entries.len());
    assert!(entries.iter().any(|entry| entry.path == "no\u{FFFD}text"));
    let search = Search {
        path: ".".to_owned(),
        name: None,
        line: Some("needle".to_owned()),
        among: Among::Tracked,
        limit: 100,
    };
    let searched = in_time(files.search(search.clone())).await.expect("a search");
    assert_eq!(
        searched.found,
        [Found::Line { path: "no\u{FFFD}text".to_owned(), number: 1, text: "needle".to_owned() }]
    );
    let all = in_time(files.search(Search { among: Among::All, ..search })).await.expect("a search");
    assert_eq!(all.found.len(), 2, "{all:?}");
    let (entry, bytes) = in_time(files.read("sparse", 1 << 39, 10)).await.expect("a file");
    assert_eq!((entry.size, bytes), (1 << 40, vec![0; 10]));
    in_time(files.remove("deep", Contents::Remove)).await.expect("it goes");
}

#[tokio::test]
async fn a_search_finds_names_and_lines_and_knows_what_is_ignored() {
    let inside = Inside::start().await;
    let files = inside.session.files();
    let long = format!("{}fn here{}", "x".repeat(5_000), "y".repeat(5_000));
    for (path, text) in [
        ("s/src/main.rs", "fn main() {\n    other();\n}\n\nfn other() {}"),
        ("s/src/lib.rs", "// nothing"),
        ("s/src/data.bin", "fn\0"),
        ("s/target/out.rs", "fn out() {}"),
        ("s/.gitignore", "target/\n"),
        ("s/.git/config", "fn git"),
        ("s/.hidden.rs", "fn hidden"),
        ("s/long.txt", &long),
    ] {
        write(&inside, path, text.as_bytes()).await.expect("a file");
    }
    let base = Search { path: "s".to_owned(), name: None, line: None, among: Among::Tracked, limit: 100 };
    let search = async |search: Search| files.search(search).await.expect("a search");
    let paths = |searched: &Searched| -> String {
        let path = |found: &Found| match found {
            Found::File { path } => path.clone(),
            Found::Line { path, number, .. } => format!("{path}:{number}"),
            Found::End { .. } => "END".to_owned(),
        };
        searched.found.iter().map(path).collect::<Vec<_>>().join(" ")
    };
    let names = Search { name: Some("*.rs".to_owned()), ..base.clone() };
    assert_eq!(paths(&search(names.clone()).await), ".hidden.rs src/lib.rs src/main.rs");
    assert_eq!(
        paths(&search(Search { among: Among::All, ..names.clone() }).await),
        ".hidden.rs src/lib.rs src/main.rs target/out.rs"
    );
    assert_eq!(
        paths(&search(Search { name: Some("/src/*.rs".to_owned()), ..base.clone() }).await),
        "src/lib.rs src/main.rs"
    );
    let lines = Search { line: Some(r"^fn \w+".to_owned()), ..base.clone() };
    let found = search(lines.clone()).await;
    assert_eq!(paths(&found), ".hidden.rs:1 src/main.rs:1 src/main.rs:5");
    assert_eq!((found.files, found.skipped, found.completeness), (5, 1, Completeness::Whole));
    assert_eq!(
        found.found[2],
        Found::Line { path: "src/main.rs".to_owned(), number: 5, text: "fn other() {}".to_owned() }
    );
    let few = search(Search { limit: 2, ..lines.clone() }).await;
    assert_eq!((paths(&few).as_str(), few.completeness), (".hidden.rs:1 src/main.rs:1", Completeness::More));
    let both = Search { name: Some("*.rs".to_owned()), line: Some("other".to_owned()), ..base.clone() };
    assert_eq!(paths(&search(both).await), "src/main.rs:2 src/main.rs:5");
    let cut = search(Search { line: Some("fn here".to_owned()), ..base.clone() }).await;
    let [Found::Line { text, .. }] = cut.found.as_slice() else { panic!("{cut:?}") };
    assert!(text.len() <= 400 && text.contains("fn here"), "{text}");
    let one =
        search(Search { path: "s/src/main.rs".to_owned(), line: Some("main".to_owned()), ..base.clone() })
            .await;
    assert_eq!(paths(&one), "s/src/main.rs:1");
    for wrong in [
        Search { line: Some("(".to_owned()), ..base.clone() },
        Search { name: Some("[".to_owned()), ..base.clone() },
        Search { limit: 0, ..base.clone() },
    ] {
        assert_eq!(cause(files.search(wrong).await), Cause::Invalid);
    }
    assert_eq!(cause(files.search(Search { path: "none".to_owned(), ..base }).await), Cause::NotFound);
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let inside = Inside::start().await;
    let files = inside.session.files();
    write(&inside, "w/old/f", b"").await.expect("a file");
    std::fs::create_dir_all(inside.home().join("w/node_modules/x")).expect("a directory");
    let mut watch = files.watch("w").await.expect("a watch");
    let root = inside.home().join("w");
    std::fs::write(root.join("node_modules/x/y"), "").expect("a file");
    std::fs::write(root.join("a"), "x").expect("a file");
    let mut until = async |last: Change| {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            seen.push(
                tokio::time::timeout(LONG, watch.change())
                    .await
                    .unwrap_or_else(|_| panic!("{seen:?}"))
                    .expect("a change"),
            );
        }
        seen
    };
    let of = |text: &str| text.to_owned();
    assert_eq!(until(Change::Modified(of("a"))).await, [Change::Created(of("a")), Change::Modified(of("a"))]);
    std::fs::rename(root.join("a"), root.join("old/b")).expect("a file");
    let moved = until(Change::Created(of("old/b"))).await;
    assert!(moved.contains(&Change::Removed(of("a"))), "{moved:?}");
    // What is in a new directory is seen however quickly it came.
    std::fs::create_dir_all(root.join("new/er/est")).expect("a directory");
    std::fs::write(root.join("new/er/est/f"), "").expect("a file");
    until(Change::Created(of("new/er/est/f"))).await;
    std::fs::remove_file(root.join("new/er/est/f")).expect("a file");
    until(Change::Removed(of("new/er/est/f"))).await;
    // A directory that was moved has another path.
    std::fs::rename(root.join("new"), root.join("newer")).expect("a directory");
    until(Change::Created(of("newer"))).await;
    std::fs::write(root.join("newer/er/g"), "").expect("a file");
    until(Change::Created(of("newer/er/g"))).await;
    assert_eq!(cause(files.watch("w/old/f").await), Cause::Invalid);
    let processes = inside.session.stats().await.expect("stats").commands;
    drop(watch);
    eventually("nothing is watched", || true).await;
    while inside.session.stats().await.expect("stats").commands >= processes {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn work_is_done_as_the_user_of_commands_and_what_that_one_may_not_is_said() {
    let inside = Inside::start_as(1000).await;
    let files = inside.session.files();
    write(&inside, "own", b"x").await.expect("a file");
    inside.session.activate(Default::default(), Some(&kernel::Secret::new("token"))).await.expect("a token");
    let ran = inside.bash("id -u; id -G; stat -c '%u %g %a' own run/token; seq 1 100000").await;
    assert!(ran.stdout.head.starts_with("1000\n1000\n1000 1000 644\n1000 1000 400\n1\n2\n"), "{ran:?}");
    let spilled = std::fs::metadata(ran.stdout.file.expect("a file")).expect("a file");
    assert_eq!((spilled.uid(), spilled.mode() & 0o777), (1000, 0o600));
    std::fs::write(inside.home().join("locked"), "x").expect("a file");
    std::fs::set_permissions(inside.home().join("locked"), Permissions::from_mode(0o000))
        .expect("permissions");
    assert_eq!(cause(files.read("locked", 0, 1).await), Cause::Denied);
    assert_eq!(cause(write(&inside, "/etc/new", b"x").await), Cause::Denied);
    assert_eq!(cause(files.remove("/etc/passwd", Contents::Remove).await), Cause::Denied);
    assert_eq!(cause(files.make_directory("/etc/new").await), Cause::Denied);
    assert_eq!(cause(files.list("/root", 1, 10).await), Cause::Denied);
}

/// All files below a directory.
async fn tree(inside: &Inside, path: &str, caps: TreeCaps) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut tree = inside.session.files().tree(path, caps).await?;
    let mut all = Vec::new();
    while let Some((path, content)) = tree.file().await? {
        all.push((path, content.to_vec()));
    }
    Ok(all)
}

#[tokio::test]
async fn a_tree_is_read_whole_in_its_order_or_refused_before_any_of_it_comes() {
    let inside = Inside::start().await;
    let large: Vec<u8> = (0..=255).cycle().take(500_000).collect();
    let files: [(&str, &[u8]); 6] = [
        ("b", b"two"),
        ("a.txt", b""),
        ("d/large", &large),
        ("d/line\nbreak", b"\n{}\n"),
        ("c/x", b"x"),
        ("d/e/f", b"f"),
    ];
    for (path, content) in files {
        write(&inside, &format!("site/{path}"), content).await.expect("a file");
    }
    std::fs::create_dir(inside.home().join("site/empty")).expect("a directory");
    let caps = TreeCaps { files: 6, file_bytes: 500_000, bytes: 500_009 };
    let all = in_time(tree(&inside, "site", caps)).await.expect("a tree");
    let order = ["a.txt", "b", "c/x", "d/large", "d/line\nbreak", "d/e/f"];
    assert_eq!(all.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), order);
    for (path, content) in files {
        assert!(all.iter().any(|(it, found)| it == path && found == content), "{path}");
    }
    for caps in [
        TreeCaps { files: 5, ..caps },
        TreeCaps { file_bytes: 499_999, ..caps },
        TreeCaps { bytes: 500_008, ..caps },
    ] {
        let (cause, message) = refused(in_time(tree(&inside, "site", caps)).await);
        assert!(cause == Cause::Invalid && message.contains("at most"), "{message}");
    }
    assert_eq!(cause(in_time(tree(&inside, "none", caps)).await), Cause::NotFound);
    assert_eq!(cause(in_time(tree(&inside, "site/b", caps)).await), Cause::Invalid);
    symlink("/etc/passwd", inside.home().join("site/z")).expect("a link");
    assert!(refused(in_time(tree(&inside, "site", caps)).await).1.contains("it is a link"));
    std::fs::remove_file(inside.home().join("site/z")).expect("removed");
    pipe(&inside, "site/z");
    assert!(refused(in_time(tree(&inside, "site", caps)).await).1.contains("it is no file"));
}
