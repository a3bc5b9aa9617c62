//! What visitors of a site get.

use capabilities::logs::{Level, Source};
use serde_json::json;

use crate::ground::{Ground, decode};

const LONG: &str = "abcdefghijklmnopqrstuvwxyz0123456789";

fn long_text() -> String {
    LONG.repeat(100)
}

#[tokio::test]
async fn a_page_arrives_with_what_a_browser_needs_to_know() {
    let ground = Ground::with(json!({ "files": { "index.html": "<h1>hi</h1>" } })).await;
    expect_test::expect![[r#"
        200
        accept-ranges: bytes
        cache-control: no-cache
        connection: close
        content-length: 11
        content-type: text/html; charset=utf-8
        etag: "e7fbb6fbbf4ce294913eb62b53ff03a7546649cfdc0d824d9e3a2b4541502f7f"
        x-content-type-options: nosniff
        x-release: 1

        <h1>hi</h1>"#]]
    .assert_eq(&ground.get("/", &[]).await.whole());
    let id = ground.get("/", &[]).await.header("x-request-id").unwrap();
    assert!(id.starts_with("req_"), "{id}");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let ground = Ground::with(json!({ "files": { "a.txt": long_text() } })).await;
    for coding in ["identity", "br"] {
        let accepts = [("Accept-Encoding", coding)];
        let get = ground.get("/a.txt", &accepts).await;
        let head = ground.ask("HEAD", "shop.localhost", "/a.txt", &accepts).await;
        assert_eq!(head.body, b"");
        assert_eq!(get.header("content-length"), Some(get.body.len().to_string()));
        assert_eq!(format!("{}{}", head.whole(), String::from_utf8_lossy(&get.body)), get.whole());
    }
}

#[tokio::test]
async fn head_by_itself_codes_nothing() {
    let ground = Ground::with(json!({ "files": { "a.txt": long_text() } })).await;
    let br = [("Accept-Encoding", "br")];
    let head = async || ground.ask("HEAD", "shop.localhost", "/a.txt", &br).await;
    let first = head().await;
    assert_eq!(first.header("content-encoding"), None);
    assert_eq!(first.header("content-length"), Some(long_text().len().to_string()));
    let plain = first.header("etag").unwrap();
    assert_eq!(ground.get("/a.txt", &br).await.header("content-encoding").as_deref(), Some("br"));
    assert_eq!(head().await.header("content-encoding").as_deref(), Some("br"));
    // Who was given it as it is has it.
    let again = ground.get("/a.txt", &[br[0], ("If-None-Match", &plain)]).await;
    assert_eq!((again.status, again.header("etag")), (304, Some(plain)));
}

#[tokio::test]
async fn a_file_the_client_has_is_not_sent_again() {
    let ground = Ground::with(json!({ "files": { "a.txt": long_text() } })).await;
    let first = ground.get("/a.txt", &[("Accept-Encoding", "br")]).await;
    let etag = first.header("etag").unwrap();
    let again = ground
        .get("/a.txt", &[("Accept-Encoding", "br"), ("If-None-Match", &format!("\"x\", W/{etag}"))])
        .await;
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(etag.clone())));
    assert_eq!(again.header("vary").as_deref(), Some("accept-encoding"));
    assert_eq!(again.header("cache-control").as_deref(), Some("no-cache"));
    let other_coding = ground.get("/a.txt", &[("If-None-Match", &etag)]).await;
    assert_eq!(other_coding.status, 200);

    ground.release(json!({ "files": { "a.txt": "new" } })).await;
    let changed = ground.get("/a.txt", &[("Accept-Encoding", "br"), ("If-None-Match", &etag)]).await;
    assert_eq!((changed.status, changed.text()), (200, "new"));
    assert_eq!(changed.header("x-release").as_deref(), Some("2"));
}

#[tokio::test]
async fn each_coding_is_the_same_file_under_its_own_tag() {
    let text = long_text();
    let ground = Ground::with(json!({ "files": { "a.txt": text, "a.png": text, "small.txt": "a" } })).await;
    let mut tags = Vec::new();
    for (accepts, coding) in [("gzip, br", Some("br")), ("gzip", Some("gzip")), ("br;q=0", None)] {
        for _ in 0..2 {
            let reply = ground.get("/a.txt", &[("Accept-Encoding", accepts)]).await;
            assert_eq!(reply.header("content-encoding").as_deref(), coding);
            assert_eq!(reply.header("vary").as_deref(), Some("accept-encoding"));
            match coding {
                Some(coding) => {
                    assert!(reply.body.len() < 200, "{}", reply.body.len());
                    assert_eq!(decode(coding, &reply.body).await, text);
                }
                None => assert_eq!(reply.text(), text),
            }
            tags.push(reply.header("etag").unwrap());
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 3, "{tags:?}");
    for path in ["/a.png", "/small.txt"] {
        let reply = ground.get(path, &[("Accept-Encoding", "gzip, br")]).await;
        assert_eq!((reply.header("content-encoding"), reply.header("vary")), (None, None), "{path}");
    }
}

#[tokio::test]
async fn a_range_is_a_part_of_the_file_as_it_is() {
    let text = long_text();
    let ground = Ground::with(json!({ "files": { "a.txt": text } })).await;
    let etag = ground.get("/a.txt", &[]).await.header("etag").unwrap();
    let ask = async |headers: &[(&str, &str)]| {
        let mut all = vec![("Accept-Encoding", "br")];
        all.extend_from_slice(headers);
        ground.get("/a.txt", &all).await
    };
    let part = ask(&[("Range", "bytes=10-19")]).await;
    assert_eq!((part.status, part.text()), (206, &text[10..20]));
    assert_eq!(part.header("content-range").as_deref(), Some("bytes 10-19/3600"));
    assert_eq!(part.header("content-length").as_deref(), Some("10"));
    assert_eq!(part.header("content-encoding"), None);
    assert_eq!(part.header("etag"), Some(etag.clone()));

    assert_eq!(ask(&[("Range", "bytes=-5")]).await.text(), &text[3595..]);
    assert_eq!(ask(&[("Range", "bytes=0-3"), ("If-Range", &etag)]).await.status, 206);
    for whole in [
        [("Range", "bytes=0-3"), ("If-Range", "\"other\"")],
        [("Range", "bytes=0-3,5-6"), ("X-A", "b")],
        [("Range", "pages=1-2"), ("X-A", "b")],
    ] {
        let reply = ask(&whole).await;
        assert_eq!(
            (reply.status, reply.header("content-encoding").as_deref()),
            (200, Some("br")),
            "{whole:?}"
        );
    }
    let beyond = ask(&[("Range", "bytes=3600-")]).await;
    assert_eq!((beyond.status, beyond.body.len()), (416, 0));
    assert_eq!(beyond.header("content-range").as_deref(), Some("bytes */3600"));
    assert_eq!(ask(&[("Range", "bytes=0-3"), ("If-None-Match", &etag)]).await.status, 304);
    let head = ground.ask("HEAD", "shop.localhost", "/a.txt", &[("Range", "bytes=0-3")]).await;
    assert_eq!((head.status, head.header("content-length").as_deref()), (200, Some("3600")));
}

#[tokio::test]
async fn a_large_file_is_streamed_whole_and_in_parts() {
    let ground = Ground::new().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let hash = ground.blobs.put(&ground.env, bytes.clone().into()).await.unwrap();
    ground
        .release(json!({ "files": { "film.mp4": { "sha256": hash }, "big.txt": { "sha256": hash } } }))
        .await;
    for path in ["/film.mp4", "/big.txt"] {
        let whole = ground.get(path, &[("Accept-Encoding", "br")]).await;
        assert_eq!((whole.status, whole.header("content-length").as_deref()), (200, Some("3000000")));
        assert!(whole.body == bytes);
    }
    let part = ground.get("/film.mp4", &[("Range", "bytes=1000000-2999999")]).await;
    assert_eq!(part.status, 206);
    assert!(part.body == bytes[1_000_000..]);
    let head = ground.ask("HEAD", "shop.localhost", "/film.mp4", &[]).await;
    assert_eq!((head.header("content-length").as_deref(), head.body.len()), (Some("3000000"), 0));
}

#[tokio::test]
async fn a_damaged_file_is_never_sent_as_if_it_were_whole() {
    let ground = Ground::with(json!({ "files": { "index.html": "hello" } })).await;
    ground.damage(b"hello", b"jello");
    let reply = ground.get("/", &[]).await;
    assert_eq!(reply.status, 500);
    assert!(!reply.text().contains("jello"));
    assert_eq!(ground.log().await[0].level, Level::Error);

    let bytes = vec![7_u8; 3_000_000];
    let hash = ground.blobs.put(&ground.env, bytes.clone().into()).await.unwrap();
    ground.release(json!({ "files": { "a.bin": { "sha256": hash } } })).await;
    let mut other = bytes.clone();
    other[1_500_000] = 8;
    ground.damage(&bytes, &other);
    assert!(ground.get("/a.bin", &[]).await.body.len() < bytes.len());
}

#[tokio::test]
async fn addresses_lead_to_pages_as_people_write_them() {
    let ground = Ground::with(json!({
        "files": { "index.html": "home", "about.html": "about", "docs/index.html": "docs", "404.html": "lost" },
        "redirects": [
            { "from": "/old", "to": "/about", "status": 301 },
            { "from": "/blog/:slug", "to": "/posts/:slug#top" },
            { "from": "/out/*", "to": "https://a.example/:splat?from=us", "status": 307 },
        ],
    }))
    .await;
    for (path, status, told) in [
        ("/about", 200, "about"),
        ("/docs/", 200, "docs"),
        ("/docs", 308, "/docs/"),
        ("/docs?a=b", 308, "/docs/?a=b"),
        ("/about/", 308, "/about"),
        ("/old?x=1", 301, "/about?x=1"),
        ("/blog/hi?x", 302, "/posts/hi?x#top"),
        ("/out/a/b?x=1", 307, "https://a.example/a/b?from=us"),
        ("/none", 404, "lost"),
    ] {
        let reply = ground.get(path, &[]).await;
        let location = reply.header("location");
        assert_eq!((reply.status, location.as_deref().unwrap_or(reply.text())), (status, told), "{path}");
        assert_eq!(reply.header("cache-control").as_deref(), Some("no-cache"), "{path}");
    }
    let lost = ground.get("/none", &[("If-None-Match", "*"), ("Range", "bytes=0-1")]).await;
    assert_eq!((lost.status, lost.header("etag")), (404, None));
}

#[tokio::test]
async fn a_single_page_app_gets_its_page_everywhere() {
    let ground = Ground::with(json!({ "files": { "index.html": "app", "a.js": "1" }, "spa": true })).await;
    assert_eq!(ground.get("/todos/7", &[]).await.text(), "app");
    assert_eq!(ground.get("/gone.js", &[]).await.status, 404);
}

#[tokio::test]
async fn fingerprinted_names_are_kept_for_ever_and_pages_never() {
    let files = json!({ "index.html": "a", "assets/index-BxYz12ab.js": "b", "app.3f9a2c1b.css": "c" });
    let ground = Ground::with(json!({ "files": files })).await;
    let keep = async |path: &str| ground.get(path, &[]).await.header("cache-control").unwrap();
    assert_eq!(keep("/").await, "no-cache");
    assert_eq!(keep("/assets/index-BxYz12ab.js").await, "public, max-age=31536000, immutable");
    assert_eq!(keep("/app.3f9a2c1b.css").await, "public, max-age=31536000, immutable");
    assert_eq!(keep("/assets/index-BxYz99zz.js").await, "no-cache");
}

#[tokio::test]
async fn a_site_sets_its_own_headers_but_keeps_no_absence_for_a_year() {
    let ground = Ground::with(json!({
        "files": { "index.html": "a", "assets/a.js": "b" },
        "headers": {
            "/*": { "X-Frame-Options": "DENY", "X-A": "1" },
            "/assets/*": { "Cache-Control": "max-age=60", "X-A": "2" },
            "/only.html": { "X-B": "never" },
        },
    }))
    .await;
    let told = async |path: &str| {
        let reply = ground.get(path, &[]).await;
        ["x-frame-options", "x-a", "x-b", "cache-control"].map(|name| reply.header(name).unwrap_or_default())
    };
    assert_eq!(told("/").await, ["DENY", "1", "", "no-cache"]);
    assert_eq!(told("/assets/a.js").await, ["DENY", "2", "", "max-age=60"]);
    assert_eq!(told("/assets/gone.js").await, ["DENY", "2", "", "no-cache"]);
}

#[tokio::test]
async fn a_preview_shows_its_release_and_asks_not_to_be_found() {
    let ground = Ground::with(json!({ "files": { "index.html": "one" } })).await;
    ground.release(json!({ "files": { "index.html": "two" } })).await;
    let live = ground.get("/", &[]).await;
    assert_eq!((live.text(), live.header("x-robots-tag")), ("two", None));
    let preview = ground.ask("GET", "1--shop.localhost", "/", &[]).await;
    assert_eq!(preview.text(), "one");
    assert_eq!(preview.header("x-release").as_deref(), Some("1"));
    assert_eq!(preview.header("x-robots-tag").as_deref(), Some("noindex"));
}

#[tokio::test]
async fn nobody_can_tell_a_missing_app_from_one_without_a_release() {
    let ground = Ground::with(json!({ "files": { "index.html": "a" } })).await;
    let missing = ground.ask("GET", "nobody.localhost", "/", &[]).await.whole();
    expect_test::expect![[r#"
        404
        cache-control: no-cache
        connection: close
        content-length: 365
        content-security-policy: default-src 'none'; style-src 'unsafe-inline'
        content-type: text/html; charset=utf-8
        referrer-policy: no-referrer
        x-content-type-options: nosniff

        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width">
        <title>Nothing here</title>
        <style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto 0;padding:0 1.5rem}h1{font-size:1.5rem}</style>
        <h1>Nothing here</h1>
        <p>There is no site at this address.</p>
        </html>
    "#]].assert_eq(&missing);
    for host in
        ["empty.localhost", "9--shop.localhost", "1--nobody.localhost", "sh_op.localhost", "a.b.localhost"]
    {
        assert_eq!(ground.ask("GET", host, "/", &[]).await.whole(), missing, "{host}");
    }
    for (method, path) in [("POST", "/"), ("GET", "/_/db/a"), ("GET", "/%2e%2e/")] {
        for host in ["nobody.localhost", "empty.localhost"] {
            assert_eq!(ground.ask(method, host, path, &[]).await.whole(), missing, "{method} {host}{path}");
        }
    }
}

#[tokio::test]
async fn a_release_without_a_site_has_nothing_to_see() {
    let ground = Ground::new().await;
    ground.serve(Default::default());
    let reply = ground.get("/", &[]).await;
    assert_eq!((reply.status, reply.header("x-release").as_deref()), (404, Some("1")));
    assert!(reply.text().contains("Nothing here"));
}

#[tokio::test]
async fn a_part_of_the_platform_that_is_away_is_said_without_detail() {
    let ground = Ground::new().await;
    let reply = ground.ask("GET", "broken.localhost", "/", &[]).await;
    assert_eq!(reply.status, 503);
    assert!(!reply.text().contains("control plane"));
}

#[tokio::test]
async fn every_request_is_one_log_entry_without_its_query() {
    let ground = Ground::with(json!({ "files": { "index.html": "a" } })).await;
    let reply = ground.get("/?token=secret", &[]).await;
    ground.ask("POST", "shop.localhost", "/x", &[]).await;
    let log = ground.log().await;
    let said: Vec<_> = log.iter().map(|entry| entry.message.as_str()).collect();
    assert_eq!(said, ["POST /x 405", "GET / 200"]);
    let entry = &log[1];
    assert_eq!((entry.level, entry.source), (Level::Info, Source::Edge));
    assert_eq!(entry.request_id, reply.header("x-request-id"));
    let mut fields = serde_json::Value::from(entry.fields.clone());
    assert!(fields["duration_ms"].take().is_number());
    assert_eq!(
        fields,
        json!({ "method": "GET", "path": "/", "status": 200, "duration_ms": null, "release": 1 })
    );
}
