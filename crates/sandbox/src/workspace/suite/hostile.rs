//! Trees and archives that somebody has made to do harm.

use std::io::{Cursor, Read, Write as _};
use std::sync::atomic::AtomicBool;

use tar::{Builder, EntryType, Header};

use super::super::archive::{self, LeftOut};
use super::super::manifest::{Archive, Entry, Manifest, What};
use super::super::restoring::restore;
use super::archives::Archives;
use super::*;

fn scanned(path: &Path, caps: &Caps) -> Result<Manifest, Error> {
    archive::scan(&Files::of(path.to_owned()), caps)
}

/// Tells another thread to end, also when this one fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn whatever_changes_places_while_it_is_read_nothing_outside_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (outside, tree) = (directory.path().join("outside"), directory.path().join("tree"));
    std::fs::create_dir_all(outside.join("d")).unwrap();
    std::fs::write(outside.join("d/f"), "never to be read").unwrap();
    let secret = kernel::BlobHash::of(b"never to be read");
    std::fs::create_dir_all(tree.join("real/d")).unwrap();
    std::fs::write(tree.join("real/d/f"), "may be read").unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    symlink(outside.join("d/f"), tree.join("real/d/file")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("real/d/pipe"), fifo, 0o644.into(), 0).unwrap();
    let done = AtomicBool::new(false);
    let exchange = |one: &str, other: &str| {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let _ = rustix::fs::renameat_with(
            rustix::fs::CWD,
            tree.join(one),
            rustix::fs::CWD,
            tree.join(other),
            flags,
        );
    };
    let (mut whole, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                exchange("real", "link");
                exchange("real/d/f", "real/d/pipe");
                exchange("real", "link");
                exchange("real/d/f", "real/d/file");
            }
        });
        let _done = Done(&done);
        let copies = directory.path().join("copies");
        for round in 0..400 {
            match scanned(&tree, &Caps::default()) {
                Ok(manifest) => {
                    let leaked = manifest
                        .entries
                        .iter()
                        .any(|entry| matches!(&entry.what, What::File { hash, .. } if *hash == secret));
                    assert!(!leaked, "{manifest:?}");
                    whole += 1;
                }
                Err(Error::Refused { .. } | Error::Io(..)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
            let to = copies.join(round.to_string());
            std::fs::create_dir_all(&to).unwrap();
            let open = beneath::root(&to).unwrap();
            let files = Files::of(tree.clone());
            let how = copying::How::Bytes;
            let _ = copying::merged(&files, std::os::fd::AsFd::as_fd(&open), how, &Caps::default(), u64::MAX);
            let copied = listing_of(&to);
            assert!(copied.values().all(|said| !said.contains("never")), "{copied:?}");
            removal::empty(&copies).unwrap();
        }
    });
    assert!(whole > 0, "{whole} whole, {refused} refused");
}

#[test]
fn what_is_too_much_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let said = |caps: Caps| scanned(directory.path(), &caps).unwrap_err().to_string();
    std::fs::create_dir(path("d")).unwrap();
    for number in 0..10 {
        std::fs::write(path(&format!("d/{number}")), "12345").unwrap();
    }
    let caps = Caps::default();
    assert_eq!(
        said(Caps { entries: 10, ..caps }),
        "/d: there are too many files, and at most 10 can be kept"
    );
    assert_eq!(said(Caps { path_bytes: 2, ..caps }), "/d: a path is too long, and at most 2 can be kept");
    assert_eq!(
        said(Caps { paths_bytes: 20, ..caps }),
        "/d: the paths are too long together, and at most 20 can be kept"
    );
    assert_eq!(said(Caps { file_bytes: 4, ..caps }), "/d/0: the file is too long, and at most 4 can be kept");
    assert_eq!(
        said(Caps { bytes: 12, ..caps }),
        "/d/2: the files are too long together, and at most 12 can be kept"
    );
    assert_eq!(
        scanned(directory.path(), &Caps { bytes: 50, entries: 11, ..caps }).unwrap().entries.len(),
        11
    );
    assert_eq!(said(Caps { seconds: 0, ..caps }), "the files could not be read within 0 seconds");
    let giant = std::fs::File::create(path("giant")).unwrap();
    giant.set_len(1 << 43).unwrap();
    assert_eq!(said(caps), "/giant: the file is too long, and at most 17179869184 can be kept");
    let error = kernel::Error::from(scanned(directory.path(), &caps).unwrap_err());
    assert_eq!(error.code(), Code::TooLarge);
}

#[test]
fn devices_pipes_and_sockets_are_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, directory.path().join(name), kind, 0o666.into(), device)
            .unwrap();
    };
    node("zero", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    node("disk", rustix::fs::FileType::BlockDevice, rustix::fs::makedev(7, 0));
    node("whiteout", rustix::fs::FileType::CharacterDevice, 0);
    node("pipe", rustix::fs::FileType::Fifo, 0);
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap());
    std::fs::write(directory.path().join("file"), "x").unwrap();
    let manifest = scanned(directory.path(), &Caps::default()).unwrap();
    let paths: Vec<&[u8]> = manifest.entries.iter().map(|entry| &*entry.path).collect();
    assert_eq!(paths, [b"file"]);
}

#[test]
fn caches_are_left_out_where_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    for kept in
        ["a/.npm", "a/node_modules/x", "a/node_modules/.cache", ".npm/_cacache", ".cache/pip", ".config"]
    {
        std::fs::create_dir_all(directory.path().join(kept)).unwrap();
        std::fs::write(directory.path().join(kept).join("f"), "x").unwrap();
    }
    let mut archives = Archives::default();
    let files = Files::of(directory.path().to_owned());
    let mut paths = |left_out| {
        let manifest = archives.keep(&files, None, left_out);
        let files = manifest.entries.into_iter().filter(|entry| matches!(entry.what, What::File { .. }));
        files.map(|entry| String::from_utf8(entry.path).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(paths(LeftOut::Caches), [".config/f", "a/.npm/f", "a/node_modules/x/f"]);
    assert_eq!(paths(LeftOut::Nothing).len(), 6);
}

fn file(path: &str, content: &[u8]) -> Entry {
    let hash = kernel::BlobHash::of(content);
    let what = What::File { size: content.len() as u64, hash, archive: 0, same_as: None, stamp: None };
    Entry { path: path.into(), mode: 0o644, modified: (0, 0), what }
}

fn entry(path: &str, what: What) -> Entry {
    Entry { path: path.into(), mode: 0, modified: (0, 0), what }
}

fn manifest(entries: Vec<Entry>) -> Manifest {
    Manifest { archives: vec![Archive { snapshot: WorkspaceSnapshotId::new(), bytes: 1 << 20 }], entries }
}

/// What is said of a manifest that is read.
fn judged(manifest: &Manifest, caps: &Caps) -> String {
    let mut bytes = Vec::new();
    manifest.write(&mut bytes).unwrap();
    Manifest::read(&mut &*bytes, caps).map_or_else(|error| error.to_string(), |_| "fine".to_owned())
}

#[test]
fn a_manifest_that_is_no_tree_is_refused() {
    let link = |target: &str| What::Link { target: target.into() };
    let same = |first: &str| What::File {
        size: 1,
        hash: kernel::BlobHash::of(b"x"),
        archive: 0,
        same_as: Some(first.into()),
        stamp: None,
    };
    let mut suid = file("a", b"x");
    suid.mode = 0o4755;
    let mut elsewhere = file("a", b"x");
    if let What::File { archive, .. } = &mut elsewhere.what {
        *archive = 1;
    }
    let long = "n".repeat(256);
    for (entries, said) in [
        (vec![file("../x", b"x")], "../x: it is no plain path"),
        (vec![file("/etc/x", b"x")], "/etc/x: it is no plain path"),
        (vec![file("a/../../x", b"x")], "a/../../x: it is no plain path"),
        (vec![file("./x", b"x")], "./x: it is no plain path"),
        (vec![file("", b"x")], ": it is no plain path"),
        (vec![file("a\0b", b"x")], "a\0b: it is no plain path"),
        (vec![file(&long, b"x")], "no plain path"),
        (vec![file("a/b", b"x")], "a/b: what it is in is no directory"),
        (vec![entry("a", link("/etc")), file("a/passwd", b"x")], "a/passwd: what it is in is no directory"),
        (vec![file("a", b"x"), file("a/b", b"x")], "a/b: what it is in is no directory"),
        (vec![file("a", b"x"), file("a", b"x")], "a: it is not in its place"),
        (vec![file("b", b"x"), file("a", b"x")], "a: it is not in its place"),
        (vec![suid], "a: its mode or its time is none"),
        (vec![elsewhere], "a: no archive has its content"),
        (vec![entry("a", link(""))], "a: it is a link to what no link can lead to"),
        (vec![entry("a", same("b"))], "a: it is not the file that it is said to be"),
        (vec![entry("a", same("../../etc/shadow"))], "a: it is not the file that it is said to be"),
        (vec![entry("a", same("a"))], "a: it is not the file that it is said to be"),
        (vec![file("a", b"y"), entry("b", same("a"))], "b: it is not the file that it is said to be"),
    ] {
        let judged = judged(&manifest(entries), &Caps::default());
        assert!(judged.ends_with(said), "{judged} / {said}");
    }
    let fine = vec![entry("a", link("/etc/passwd")), file("b", b"x"), entry("c", same("b"))];
    assert_eq!(judged(&manifest(fine), &Caps::default()), "fine");
    let many = manifest((100..120).map(|number| file(&number.to_string(), b"12345")).collect());
    let caps = Caps::default();
    for small in [
        Caps { entries: 19, ..caps },
        Caps { path_bytes: 2, ..caps },
        Caps { paths_bytes: 59, ..caps },
        Caps { file_bytes: 4, ..caps },
        Caps { bytes: 99, ..caps },
    ] {
        assert!(judged(&many, &small).contains("at most"), "{small:?}");
    }
}

#[test]
fn a_manifest_that_is_cut_or_changed_is_refused() {
    let mut bytes = Vec::new();
    manifest(vec![file("a", b"x"), file("b", b"y")]).write(&mut bytes).unwrap();
    let plain = zstd::decode_all(&*bytes).unwrap();
    let read = |plain: &[u8]| {
        let packed = zstd::encode_all(plain, 1).unwrap();
        Manifest::read(&mut &*packed, &Caps::default())
    };
    read(&plain).unwrap();
    // Without its last line's end it still says all.
    for cut in 0..plain.len() - 1 {
        assert!(read(&plain[..cut]).is_err(), "{cut}");
    }
    for cut in 0..bytes.len() {
        assert!(Manifest::read(&mut &bytes[..cut], &Caps::default()).is_err(), "{cut}");
    }
    let text = String::from_utf8(plain).unwrap();
    for (old, new) in [
        ("\"a\"", "\"b\""),
        ("420", "493"),
        ("\"format\":1", "\"format\":2"),
        ("\"kind\"", "\"extra\":1,\"kind\""),
    ] {
        assert!(text.contains(old));
        assert!(read(text.replacen(old, new, 1).as_bytes()).is_err(), "{old}");
    }
    // A line that never ends, from very little.
    let endless = zstd::encode_all(std::io::repeat(b'[').take(1 << 27), 1).unwrap();
    assert!(Manifest::read(&mut &*endless, &Caps::default()).is_err());
}

/// An archive that holds what `fill` puts into it.
fn packed(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    fill(&mut tar);
    zstd::encode_all(&*tar.into_inner().unwrap(), 1).unwrap()
}

fn add(tar: &mut Builder<Vec<u8>>, name: &[u8], kind: EntryType, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o6777);
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

/// What comes of restoring the files `a` and `d/b` from `bytes`.
fn restored(bytes: &[u8]) -> (Result<(), String>, BTreeMap<String, String>) {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("to");
    std::fs::create_dir(&to).unwrap();
    let wanted = manifest(vec![file("a", b"x"), entry("d", What::Directory), file("d/b", b"content")]);
    let bytes = bytes.to_vec();
    let mut open = move |_| Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read>);
    let done = restore(&wanted, &mut open, &Caps::default(), &to);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing beside it");
    let said = done.map_err(|error| {
        assert_eq!(error.code(), Code::Internal);
        std::error::Error::source(&error).unwrap().to_string()
    });
    (said, listing_of(&to))
}

#[test]
fn an_archive_gives_contents_and_nothing_else() {
    let right = |tar: &mut Builder<Vec<u8>>| {
        add(tar, b"a", EntryType::Regular, b"x");
        add(tar, b"d/b", EntryType::Regular, b"content");
    };
    let tree: BTreeMap<String, String> =
        [("a", "file 644 x"), ("d", "directory 0"), ("d/b", "file 644 content")]
            .map(|(path, said)| (path.to_owned(), said.to_owned()))
            .into();
    assert_eq!(restored(&packed(right)), (Ok(()), tree.clone()));
    // What nobody has asked for is passed over, whatever it is called.
    for name in ["../out", "/tmp/out", "d/../../out", "a/b", "other"] {
        let bytes = packed(|tar| {
            add(tar, name.as_bytes(), EntryType::Regular, b"out");
            right(tar);
            add(tar, b"a", EntryType::Regular, b"once more");
        });
        assert_eq!(restored(&bytes), (Ok(()), tree.clone()), "{name}");
    }
    // A link is not made, so nothing is written through it.
    let bytes = packed(|tar| {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "d", "/tmp").unwrap();
        right(tar);
    });
    assert_eq!(restored(&bytes), (Ok(()), tree));
    for kind in [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        let bytes = packed(|tar| {
            add(tar, b"n", kind, b"");
            right(tar);
        });
        let said = restored(&bytes).0.unwrap_err();
        assert!(said.contains("n: it is neither a file nor a directory nor a link"), "{kind:?} {said}");
    }
    for (first, second, said) in [
        (b"y".as_slice(), b"content".as_slice(), "a: its content is not what was written"),
        (b"x", b"CONTENT", "d/b: its content is not what was written"),
        (b"xx", b"content", "a: its content has another length"),
        (b"", b"content", "a: its content has another length"),
    ] {
        let bytes = packed(|tar| {
            add(tar, b"a", EntryType::Regular, first);
            add(tar, b"d/b", EntryType::Regular, second);
        });
        assert!(restored(&bytes).0.unwrap_err().ends_with(said));
    }
    let bytes = packed(|tar| add(tar, b"a", EntryType::Regular, b"x"));
    assert!(restored(&bytes).0.unwrap_err().ends_with("d/b: its content is missing"));
    let whole = packed(right);
    for cut in 0..whole.len() {
        restored(&whole[..cut]).0.unwrap_err();
    }
    restored(b"no archive").0.unwrap_err();
}

#[test]
fn an_archive_that_swells_is_cut_off() {
    // Much of nothing, in the name of a file, in a file that nobody asked for, and at the end.
    let long_name = |size: u64| {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let other = |size: u64| {
        let mut header = Header::new_gnu();
        header.set_path("other").unwrap();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    for (start, said) in [
        (long_name(1 << 27), "a path in it is too long"),
        (other(1 << 27), "the archive"),
        (other(1 << 62), "the archive"),
        (Vec::new(), "the archive"),
    ] {
        let mut packing = zstd::Encoder::new(Vec::new(), 1).unwrap();
        packing.write_all(&start).unwrap();
        std::io::copy(&mut std::io::repeat(0).take(1 << 27), &mut packing).unwrap();
        let refused = restored(&packing.finish().unwrap()).0.unwrap_err();
        assert!(refused.contains(said) || refused.contains("its content is missing"), "{refused}");
    }
}
