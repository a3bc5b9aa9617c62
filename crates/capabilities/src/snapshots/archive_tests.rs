//! Archives that somebody else has made: each is refused, and nothing lies outside of the directory.

use std::path::Path;

use kernel::{BlobHash, Timestamp};
use serde_json::{Value, json};

use super::{Index, Most, read, write};

const MOST: Most = Most { database: 1_000, bytes: 2_000, files: 10 };

/// One entry of a tar: its type, its path as it is written, its content.
struct Raw<'a>(u8, &'a str, &'a [u8]);

fn tar(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for Raw(kind, path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[156] = *kind;
        header.set_size(content.len() as u64);
        header.set_mode(0o777);
        if matches!(kind, b'1' | b'2') {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn item(path: &str, content: &[u8]) -> Value {
    json!({ "path": path, "bytes": content.len(), "sha256": BlobHash::of(content) })
}

fn index(files: Value) -> Vec<u8> {
    let index = json!({
        "format": "steading-environment", "version": 1, "created_at": "2026-01-01T00:00:00Z", "slug": "s",
        "release": 0, "secrets": [], "files": files,
    });
    index.to_string().into_bytes()
}

/// What becomes of an archive, and what lies in the directory above after it.
fn told(archive: &[u8]) -> (String, usize) {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("in");
    std::fs::create_dir(&directory).unwrap();
    let told = match read(archive, &directory, MOST) {
        Ok(_) => "taken".to_owned(),
        Err(refused) => refused.to_string(),
    };
    (told, std::fs::read_dir(above.path()).unwrap().count())
}

#[test]
fn what_is_written_is_read_and_every_byte_of_it_counts() {
    let from = tempfile::tempdir().unwrap();
    let blob = BlobHash::of(b"a blob").to_string();
    let key = uuid::Uuid::now_v7().simple().to_string();
    for (path, content) in
        [("main.db", "database"), (&format!("blobs/{blob}"), "a blob"), (&format!("files/{key}"), "a file")]
    {
        std::fs::create_dir_all(from.path().join(path).parent().unwrap()).unwrap();
        std::fs::write(from.path().join(path), content).unwrap();
    }
    let index =
        Index::of(from.path(), &[], Timestamp::now(), "slug".to_owned(), 3, vec!["KEY".to_owned()]).unwrap();
    let mut archive = Vec::new();
    write(&index, |item| std::fs::File::open(from.path().join(&item.path)), &mut archive).unwrap();
    let to = tempfile::tempdir().unwrap();
    assert_eq!(read(archive.as_slice(), to.path(), MOST).unwrap(), index);
    let content = |path: &str| std::fs::read_to_string(to.path().join(path)).unwrap();
    assert_eq!(content("main.db"), "database");
    assert_eq!(content(&format!("blobs/{blob}")), "a blob");
    assert_eq!(content(&format!("files/{key}")), "a file");
    // Whatever is turned over is noticed, but for what stands around the content: names of owners, times, padding.
    for at in (0..archive.len()).filter(|at| at % 512 < 8 && *at < archive.len() - 1_024) {
        let mut turned = archive.clone();
        turned[at] ^= 1;
        if turned[at] != archive[at] && at % 512 < 6 {
            assert_ne!(told(&turned).0, "taken", "byte {at}");
        }
    }
    let all = archive.len();
    for end in [0, 1, 511, 512, 513, all / 2, all - 1_024, all - 512, all - 1] {
        assert_ne!(told(&archive[..end]).0, "taken", "cut at {end}");
    }
    let with = |more: &[u8]| told(&[archive.as_slice(), more].concat()).0;
    assert_eq!(with(&[0; 20 * 512]), "taken", "some programs fill the last record");
    let zeros = [0; 40 * 512];
    for more in [&b"x"[..], &[b'x'; 1_000], &[0; 100], &zeros, &[&zeros[..512], &[1][..]].concat()] {
        assert_ne!(with(more), "taken", "{} bytes more", more.len());
    }
}

#[test]
fn hostile_archives_are_refused() {
    let database = item("main.db", b"x");
    let with = |more: Value| index(json!([database, more]));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("no tar", vec![7; 4_096]),
        ("no index", tar(&[Raw(b'0', "main.db", b"x")])),
        ("traversal", tar(&[Raw(b'0', "steading.json", &with(item("../out", b"x")))])),
        ("absolute", tar(&[Raw(b'0', "steading.json", &with(item("/tmp/out", b"x")))])),
        ("below", tar(&[Raw(b'0', "steading.json", &with(item("files/../../out", b"x")))])),
        ("other", tar(&[Raw(b'0', "steading.json", &with(item("logs/1.ndjson", b"x")))])),
        ("key", tar(&[Raw(b'0', "steading.json", &with(item("files/main.db", b"x")))])),
        ("twice", tar(&[Raw(b'0', "steading.json", &index(json!([database, database])))])),
        ("no database", tar(&[Raw(b'0', "steading.json", &index(json!([])))])),
        (
            "bomb",
            tar(&[Raw(
                b'0',
                "steading.json",
                &index(json!([{ "path": "main.db", "bytes": u64::MAX, "sha256": BlobHash::of(b"") }])),
            )]),
        ),
        (
            "bombs",
            tar(&[Raw(
                b'0',
                "steading.json",
                &with(
                    json!({ "path": format!("blobs/{}", BlobHash::of(b"")), "bytes": u64::MAX, "sha256": BlobHash::of(b"") }),
                ),
            )]),
        ),
        ("symlink index", tar(&[Raw(b'2', "steading.json", b"")])),
        ("symlink", tar(&[Raw(b'0', "steading.json", &index(json!([database]))), Raw(b'2', "main.db", b"")])),
        (
            "hard link",
            tar(&[Raw(b'0', "steading.json", &index(json!([database]))), Raw(b'1', "main.db", b"")]),
        ),
        ("device", tar(&[Raw(b'0', "steading.json", &index(json!([database]))), Raw(b'3', "main.db", b"")])),
        (
            "directory",
            tar(&[Raw(b'0', "steading.json", &index(json!([database]))), Raw(b'5', "main.db", b"")]),
        ),
        ("long name", tar(&[Raw(b'L', "././@LongLink", &[b'a'; 4_096])])),
        ("pax", tar(&[Raw(b'x', "pax", b"20 path=../../out\n")])),
        (
            "other name",
            tar(&[Raw(b'0', "steading.json", &index(json!([database]))), Raw(b'0', "../main.db", b"x")]),
        ),
        (
            "other content",
            tar(&[Raw(b'0', "steading.json", &index(json!([database]))), Raw(b'0', "main.db", b"y")]),
        ),
        (
            "longer",
            tar(&[Raw(b'0', "steading.json", &index(json!([database]))), Raw(b'0', "main.db", b"xx")]),
        ),
        ("missing", tar(&[Raw(b'0', "steading.json", &index(json!([database])))])),
        (
            "more",
            tar(&[
                Raw(b'0', "steading.json", &index(json!([database]))),
                Raw(b'0', "main.db", b"x"),
                Raw(b'0', "more", b"x"),
            ]),
        ),
        (
            "other field",
            tar(&[Raw(b'0', "steading.json", br#"{"format":"steading-environment","owner":"x"}"#)]),
        ),
    ];
    for (name, archive) in cases {
        let (told, above) = told(&archive);
        assert_ne!(told, "taken", "{name}");
        assert_eq!(above, 1, "{name}: {told}");
    }
    let good = tar(&[Raw(b'0', "steading.json", &index(json!([database]))), Raw(b'0', "main.db", b"x")]);
    assert_eq!(told(&good).0, "taken");
    assert!(!Path::new("/tmp/out").exists());
}
