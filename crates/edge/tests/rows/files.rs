//! Files over HTTP: what is said of them, parts and conditions, and that nothing of them runs.

use serde_json::json;

use crate::ground::Ground;
use crate::told;

const PNG: &str = "\u{fffd}";

#[tokio::test]
async fn a_file_lives_from_put_to_delete() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let path = "/_/files/public/notes/caf%C3%A9%201.txt";
    let plain = [("content-type", "text/plain")];
    let made = ground.with("PUT", path, &session, &plain, "hello world").await;
    assert_eq!((made.status, made.header("location")), (201, path.to_owned()));
    let etag = made.header("etag");
    assert_eq!(
        (&made.json["path"], &made.json["size"], &made.json["content_type"], &made.json["etag"]),
        (&json!("notes/café 1.txt"), &json!(11), &json!("text/plain"), &json!(etag))
    );
    let got = ground.ask("GET", path, "", &[]).await;
    assert_eq!(
        (got.status, got.body.as_slice(), got.header("etag")),
        (200, &b"hello world"[..], etag.clone())
    );
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-length", "11"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-cache"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("content-disposition", "inline; filename=\"caf_ 1.txt\"; filename*=UTF-8''caf%C3%A9%201%2Etxt"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    let head = ground.ask("HEAD", path, "", &[]).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "11".to_owned()));
    let again = ground.with("PUT", path, &session, &plain, "another").await;
    assert_eq!(
        (again.status, again.header("location"), again.header("etag") == etag),
        (200, String::new(), false)
    );
    let gone = ground.ask("DELETE", path, &session, &[]).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    assert_eq!(told(&ground.ask("GET", path, &session, &[]).await), "404: there is no such file");
}

#[tokio::test]
async fn parts_and_conditions_are_answered_as_http_wants() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let path = "/_/files/public/a.txt";
    let plain = ("content-type", "text/plain");
    let made = ground.with("PUT", path, &session, &[plain], "0123456789").await;
    let etag = made.header("etag");
    let modified = ground.ask("GET", path, "", &[]).await.header("last-modified");
    for (headers, status, range, body) in [
        (vec![("range", "bytes=2-4")], 206, "bytes 2-4/10", "234"),
        (vec![("range", "bytes=-3")], 206, "bytes 7-9/10", "789"),
        (vec![("range", "bytes=8-")], 206, "bytes 8-9/10", "89"),
        (vec![("range", "bytes=10-")], 416, "bytes */10", ""),
        (vec![("range", "bytes=0-0,2-2")], 200, "", "0123456789"),
        (vec![("range", "bytes=2-4"), ("if-range", etag.as_str())], 206, "bytes 2-4/10", "234"),
        (vec![("range", "bytes=2-4"), ("if-range", "\"old\"")], 200, "", "0123456789"),
        (vec![("if-none-match", etag.as_str())], 304, "", ""),
        (vec![("if-none-match", "\"old\"")], 200, "", "0123456789"),
        (vec![("if-modified-since", modified.as_str())], 304, "", ""),
        (vec![("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT")], 200, "", "0123456789"),
        (vec![("if-none-match", "\"old\""), ("if-modified-since", modified.as_str())], 200, "", "0123456789"),
    ] {
        let got = ground.ask("GET", path, "", &headers).await;
        let body_of = String::from_utf8(got.body.clone()).unwrap();
        assert_eq!(
            (got.status, got.header("content-range").as_str(), body_of.as_str()),
            (status, range, body),
            "{headers:?}"
        );
    }
    let put = |condition: (&'static str, String)| {
        let (ground, session) = (&ground, &session);
        async move {
            let headers = [plain, (condition.0, condition.1.as_str())];
            ground.with("PUT", path, session, &headers, "new").await
        }
    };
    let there = put(("if-none-match", "*".to_owned())).await;
    assert_eq!(told(&there), "412 /if_none_match: there is a file at this path already");
    let stale = put(("if-match", "\"old\"".to_owned())).await;
    assert_eq!(told(&stale), "412 /if_match: the file has changed since it was read");
    let odd = put(("if-none-match", "\"x\"".to_owned())).await;
    assert_eq!(told(&odd), "400: a change takes no If-None-Match but *");
    assert_eq!(put(("if-match", etag)).await.status, 200);
}

#[tokio::test]
async fn whatever_could_run_is_a_download_that_may_load_nothing() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    for (path, kind) in [
        ("page.html", "text/html"),
        ("drawing.svg", "image/svg+xml"),
        ("feed.xml", "application/xml"),
        ("code.js", "text/javascript"),
        ("book.pdf", "application/octet-stream"),
        ("page", "application/xhtml+xml"),
    ] {
        let path = format!("/_/files/public/{path}");
        let headers = [("content-type", kind)];
        let body = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
        assert_eq!(ground.with("PUT", &path, &session, &headers, body).await.status, 201, "{path}");
        let got = ground.ask("GET", &path, "", &[]).await;
        assert!(got.header("content-disposition").starts_with("attachment; "), "{path}");
        assert_eq!(got.header("content-security-policy"), "sandbox; default-src 'none'");
        assert_eq!(
            (got.header("x-content-type-options"), got.header("content-type")),
            ("nosniff".into(), kind.into())
        );
    }
    let lie = [("content-type", "image/png")];
    let refused = ground.with("PUT", "/_/files/photos/a.png", &session, &lie, PNG).await;
    assert_eq!(told(&refused), "400 /content_type: the bytes are not image/png");
    let headers = [("content-type", "text/html")];
    let refused = ground.with("PUT", "/_/files/photos/a.png", &session, &headers, "<p>").await;
    assert_eq!(told(&refused), "400 /content_type: files of photos are not text/html");
}

#[tokio::test]
async fn a_path_that_leads_out_is_no_path() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let plain = [("content-type", "text/plain")];
    for path in [
        "..",
        "../x",
        "a/../../x",
        "%2e%2e/x",
        "a/%2E%2E/x",
        "a%2f..%2fx",
        "a%2Fb",
        "a%5c..%5cx",
        ".%2e/x",
        "a//b",
        "%00",
        "a/%00b",
        "",
        "a/.",
        "%c0%ae%c0%ae/x",
    ] {
        for method in ["PUT", "GET", "DELETE"] {
            let path = format!("/_/files/public/{path}");
            let reply = ground.with(method, &path, &session, &plain, "x").await;
            assert!(matches!(reply.status, 400 | 404), "{method} {path}: {}", reply.status);
        }
    }
    let listed = ground.ask("GET", "/_/files/public", "", &[]).await;
    assert_eq!(listed.json, json!({ "files": [] }));
}

#[tokio::test]
async fn a_link_opens_one_file_for_one_method() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let path = "/_/files/public/a.txt";
    let plain = [("content-type", "text/plain")];
    ground.with("PUT", path, &session, &plain, "text").await;
    let private = "/_/files/closed/a.txt";
    let refused = ground.send("POST", &format!("{private}/sign"), &session, json!({ "method": "get" })).await;
    assert_eq!(told(&refused), "404: there is no such file");
    let signed = ground
        .send("POST", &format!("{path}/sign"), &session, json!({ "method": "put", "max_size": 5 }))
        .await;
    let url = signed.json["url"].as_str().unwrap().to_owned();
    assert_eq!((signed.status, url.starts_with(&format!("{path}?token="))), (200, true));
    assert_eq!(ground.with("PUT", &url, "", &plain, "fives").await.status, 200);
    let large = ground.with("PUT", &url, "", &plain, "larger").await;
    assert_eq!(told(&large), "413: a file of public has at most 5 bytes");
    let not_valid = "403: the link is not valid (any more)";
    assert_eq!(told(&ground.ask("GET", &url, "", &[]).await), not_valid);
    let elsewhere = url.replace("a.txt", "b.txt");
    assert_eq!(told(&ground.with("PUT", &elsewhere, "", &plain, "x").await), not_valid);
    assert_eq!(ground.ask("DELETE", &url, "", &[]).await.status, 400, "a link removes nothing");
    assert_eq!(ground.ask("GET", path, "", &[]).await.body, b"fives");
}

#[tokio::test]
async fn only_what_there_is_can_be_asked() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    for (method, path, status) in [
        ("GET", "/_/files", 404),
        ("GET", "/_/files/nowhere", 404),
        ("GET", "/_/files/nowhere/a", 404),
        ("PUT", "/_/files/public", 405),
        ("PATCH", "/_/files/public/a", 405),
        ("POST", "/_/files/public/a", 404),
        ("POST", "/_/files/public/a/burn", 404),
        ("GET", "/_/files/public?prefx=a", 400),
        ("GET", "/_/files/public?limit=x", 400),
        ("GET", "/_/files/public?limit=1&limit=2", 400),
        ("GET", "/_/files/public/a?v=1", 400),
        ("GET", "/_/files/public/a?token=x&token=y", 400),
    ] {
        let reply = ground.ask(method, path, &session, &[]).await;
        assert_eq!(reply.status, status, "{method} {path}");
    }
    let wrong =
        ground.send("POST", "/_/files/public/a/move", &session, json!({ "to": "b", "replace": true })).await;
    assert_eq!(wrong.status, 400);
}
