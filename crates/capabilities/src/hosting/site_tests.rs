//! What makes a site, what is refused and where, and what differs between two.

use bytes::Bytes;
use kernel::{EnvId, TenantId};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

struct Ground {
    _dir: TempDir,
    blobs: Blobs,
    sites: Sites,
    env: Env,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path()).unwrap();
        let sites = Sites::new(blobs.clone());
        Self { _dir: dir, blobs, sites, env: Env::for_upkeep(TenantId::new(), EnvId::new()) }
    }

    async fn prepare(&self, spec: Value) -> Result<Site> {
        self.sites.prepare(&self.env, serde_json::from_value(spec).unwrap()).await
    }

    async fn refusal(&self, spec: Value) -> String {
        let error = kernel::Error::from(self.prepare(spec).await.unwrap_err());
        format!("{:?}", error.under("/site")).replace('\0', "␀")
    }
}

#[tokio::test]
async fn content_of_every_form_becomes_a_blob() {
    let ground = Ground::new();
    let uploaded = ground.blobs.put(&ground.env, Bytes::from_static(b"uploaded")).await.unwrap();
    let site = ground
        .prepare(json!({
            "files": {
                "index.html": "<h1>hi</h1>",
                "a/b.png": { "base64": "iVBORw==" },
                "c.txt": { "sha256": uploaded },
            },
            "spa": true,
            "headers": { "/*": { "X-A": "b" } },
            "redirects": [{ "from": "/x", "to": "/y" }],
        }))
        .await
        .unwrap();
    expect_test::expect![[r#"
        {
          "files": {
            "a/b.png": {
              "sha256": "0f4636c78f65d3639ece5a064b5ae753e3408614a14fb18ab4d7540d2c248543",
              "size": 4,
              "content_type": "image/png"
            },
            "c.txt": {
              "sha256": "3cef1b245d4b2f37dadddcbadb76017d440ba283601228724c0cb2c07d35bed4",
              "size": 8,
              "content_type": "text/plain; charset=utf-8"
            },
            "index.html": {
              "sha256": "e7fbb6fbbf4ce294913eb62b53ff03a7546649cfdc0d824d9e3a2b4541502f7f",
              "size": 11,
              "content_type": "text/html; charset=utf-8"
            }
          },
          "spa": true,
          "headers": [
            {
              "for": "/*",
              "set": {
                "x-a": "b"
              }
            }
          ],
          "redirects": [
            {
              "from": "/x",
              "to": "/y",
              "status": 302
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&site).unwrap());
    assert_eq!(serde_json::from_value::<Site>(serde_json::to_value(&site).unwrap()).unwrap(), site);
    assert_eq!(site.bytes(), 11 + 4 + 8);
    for hash in site.blobs() {
        assert!(ground.blobs.read(&ground.env, hash).await.is_ok());
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_place() {
    let ground = Ground::new();
    let missing = BlobHash::of(b"never uploaded");
    let mut table = String::new();
    for spec in [
        json!({ "dir": "dist" }),
        json!({ "files": { "../a": "" } }),
        json!({ "files": { "/etc/a~b": "" } }),
        json!({ "files": { "a\u{0}": "" } }),
        json!({ "files": { "_/sdk.js": "" } }),
        json!({ "files": { "a".repeat(100_000): "" } }),
        json!({ "files": { "Readme.md": "", "README.md": "" } }),
        json!({ "files": { "é": "", "e\u{301}": "" } }),
        json!({ "files": { "A/b": "", "a/B": "" } }),
        json!({ "files": { "a": "", "a/b": "" } }),
        json!({ "files": { "a": "", "A/b/c": "" } }),
        json!({ "files": { "a": { "base64": "?" } } }),
        json!({ "files": { "a": { "sha256": "0" } } }),
        json!({ "files": { "a/b": { "sha256": missing } } }),
        json!({ "files": { "a": "" }, "spa": true }),
        json!({ "headers": { "/*": { "set-cookie": "a=b" } } }),
        json!({ "redirects": [{ "from": "a", "to": "/b" }] }),
    ] {
        table += &ground.refusal(spec).await;
        table += "\n";
    }
    expect_test::expect![[r#"
        invalid_input /site/dir: a directory cannot be read from here
        invalid_input /site/files/..~1a: the path "../a" is not allowed: it has a `.` or `..` segment
        invalid_input /site/files/~1etc~1a~0b: the path "/etc/a~b" is not allowed: it begins with a slash
        invalid_input /site/files/a␀: the path "a\0" is not allowed: it has a control character
        invalid_input /site/files/_~1sdk.js: the path "_/sdk.js" is not allowed: `_/` is reserved for the app's own interfaces
        invalid_input /site/files: the path "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…" is not allowed: it is longer than 512 bytes
        invalid_input /site/files/Readme.md: "README.md" and "Readme.md" differ only in case or in how they spell the same characters
        invalid_input /site/files/é: "e\u{301}" and "é" differ only in case or in how they spell the same characters
        invalid_input /site/files/a~1B: "A/b" and "a/B" differ only in case or in how they spell the same characters
        invalid_input /site/files/a~1b: "a" is a file, so "a/b" cannot lie below it
        invalid_input /site/files/A~1b~1c: "a" is a file, so "A/b/c" cannot lie below it
        invalid_input /site/files/a/base64: "a" is not valid base64
        invalid_input /site/files/a/sha256: "a" names a blob by something else than 64 lower-case hexadecimal digits
        invalid_input /site/files/a~1b/sha256: "a/b" names the blob 6c12e0672dc85c33136cb2d0eb0b8f531503fb7a050575f42507f0529e215497, which is not uploaded
        invalid_input /site/spa: spa is on, but there is no index.html to fall back to
        invalid_input /site/headers/~1*/set-cookie: the header set-cookie is set by the server and cannot be changed
        invalid_input /site/redirects/0/from: "a" does not begin with a slash
    "#]].assert_eq(&table);
}

#[tokio::test]
async fn a_site_over_its_limits_is_refused_before_anything_is_stored() {
    let ground = Ground::new();
    let sites = ground.sites.clone().with_limits(Limits { files: 2, file_bytes: 4, bytes: 6 });
    let ground = Ground { sites, ..ground };
    let mut table = String::new();
    for spec in [
        json!({ "files": { "a": "", "b": "", "c": "" } }),
        json!({ "files": { "a": "ok", "b/c": "12345" } }),
        json!({ "files": { "a": "1234", "b": "123" } }),
    ] {
        table += &ground.refusal(spec).await;
        table += "\n";
    }
    expect_test::expect![[r#"
        too_large /site/files: the site has 3 files; the limit is 2
        too_large /site/files/b~1c: "b/c" has 5 bytes; the limit is 4 for each file
        too_large /site/files: the site has more than 6 bytes in all
    "#]]
    .assert_eq(&table);
    assert!(!ground.blobs.has(&ground.env, BlobHash::of(b"ok")).await.unwrap());

    let uploaded = ground.blobs.put(&ground.env, Bytes::from_static(b"12345")).await.unwrap();
    let refused = ground.prepare(json!({ "files": { "a": { "sha256": uploaded } } })).await;
    assert!(matches!(refused, Err(Error::FileTooLarge { size: 5, limit: 4, .. })));
    let uploaded = ground.blobs.put(&ground.env, Bytes::from_static(b"1234")).await.unwrap();
    let refused = ground.prepare(json!({ "files": { "a": { "sha256": uploaded }, "b": "123" } })).await;
    assert!(matches!(refused, Err(Error::TooManyBytes { limit: 6, .. })));
}

#[tokio::test]
async fn a_blob_of_another_environment_is_not_uploaded() {
    let ground = Ground::new();
    let other = Env::for_upkeep(TenantId::new(), EnvId::new());
    let hash = ground.blobs.put(&other, Bytes::from_static(b"secret")).await.unwrap();
    let refused = ground.prepare(json!({ "files": { "a": { "sha256": hash } } })).await;
    assert!(matches!(refused, Err(Error::NotUploaded { .. })));
}

#[tokio::test]
async fn a_difference_says_what_a_deploy_changes() {
    let ground = Ground::new();
    let before = ground
        .prepare(json!({ "files": { "index.html": "a", "gone.txt": "", "same.txt": "s" } }))
        .await
        .unwrap();
    let after = ground
        .prepare(json!({
            "files": { "index.html": "ab", "new.txt": "abc", "same.txt": "s" },
            "spa": true,
            "redirects": [{ "from": "/x", "to": "/y" }],
        }))
        .await
        .unwrap();
    assert_eq!(
        serde_json::to_value(before.diff(&after)).unwrap(),
        json!({
            "added": ["new.txt"],
            "changed": ["index.html"],
            "removed": ["gone.txt"],
            "bytes": 5,
            "settings": ["spa", "redirects"],
        })
    );
    assert!(after.diff(&after).is_empty());
}
