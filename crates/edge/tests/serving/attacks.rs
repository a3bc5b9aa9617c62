//! What those get who try something else than to visit a site.

use serde_json::{Value, json};

use crate::ground::Ground;

async fn ground() -> Ground {
    Ground::with(json!({ "files": { "index.html": "home", "a/b.txt": "b" } })).await
}

#[tokio::test]
async fn no_path_leads_out_of_the_site() {
    let ground = ground().await;
    for path in [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%2e%2e%2f%2e%2e%2fetc/passwd",
        "/%252e%252e/etc/passwd",
        "/..%5c..%5cwindows",
        "/a/../index.html",
        "/a/./b.txt",
        "//etc/passwd",
        "/a//b.txt",
        "/a%2fb.txt",
        "/a/b.txt%00",
        "/a/b.txt%00.html",
        "/%c0%ae%c0%ae/",
        "/%",
        "/a/b.txt%0d%0aX-A:%20b",
        "/..;/",
        "/main.db",
        "/blobs/",
    ] {
        let reply = ground.get(path, &[]).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.header("x-a"), None);
        assert!(reply.text().contains("no such page"), "{path}");
    }
}

#[tokio::test]
async fn a_site_is_only_read() {
    let ground = ground().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let reply = ground.ask(method, "shop.localhost", "/", &[("Content-Length", "0")]).await;
        assert_eq!((reply.status, reply.header("allow").as_deref()), (405, Some("GET, HEAD")), "{method}");
    }
    let reply = ground.raw(b"OPTIONS * HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(reply.status, 405);
}

#[tokio::test]
async fn the_apps_interfaces_are_never_the_sites() {
    let ground = Ground::with(json!({ "files": { "index.html": "home" }, "spa": true })).await;
    for path in ["/_/", "/_", "/_/nothing", "/%5f/db/todos", "/_/../index.html", "/_/%2e%2e"] {
        for method in ["GET", "POST"] {
            let reply = ground.ask(method, "shop.localhost", path, &[]).await;
            let mut problem: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(problem["request_id"].take(), json!(reply.header("x-request-id")), "{path}");
            assert_eq!(
                problem,
                json!({
                    "type": "about:blank",
                    "title": "There is no such thing",
                    "status": 404,
                    "code": "not_found",
                    "message": "there is no such interface of this app",
                    "hint": "/_/openapi.json lists what there is",
                    "request_id": null,
                })
            );
            assert_eq!(reply.status, 404);
            assert_eq!(reply.header("content-type").as_deref(), Some("application/problem+json"));
        }
    }
}

#[tokio::test]
async fn a_request_with_two_hosts_is_nobodys() {
    let ground = ground().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: shop.localhost\r\nHost: localhost\r\n",
        "GET / HTTP/1.1\r\nHost: shop.localhost\r\nHost: shop.localhost\r\n",
        "GET http://shop.localhost/ HTTP/1.1\r\nHost: localhost\r\n",
        "GET http://localhost/ HTTP/1.1\r\nHost: shop.localhost\r\n",
        "GET http://shop.localhost@localhost/ HTTP/1.1\r\nHost: shop.localhost\r\n",
        "GET / HTTP/1.1\r\nHost: shop.localhost@evil.example\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nX-Forwarded-Host: shop.localhost\r\nHost: localhost\r\n",
        "GET / HTTP/1.0\r\n",
    ] {
        let reply = ground.raw(format!("{request}Connection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(reply.status, 404, "{request}");
        assert!(reply.text().contains("Nothing here"), "{request}");
        assert_eq!(reply.header("x-release"), None);
    }
    let absolute = "GET http://shop.localhost/ HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(ground.raw(absolute.as_bytes()).await.text(), "home");
}

#[tokio::test]
async fn the_requests_own_id_and_release_are_not_believed() {
    let ground = ground().await;
    let reply = ground.get("/", &[("X-Request-Id", "mine"), ("X-Release", "9")]).await;
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
    assert_eq!(reply.header("x-release").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_redirect_cannot_be_turned_to_another_host() {
    let ground = Ground::with(json!({
        "files": { "index.html": "home", "docs/index.html": "docs" },
        "redirects": [{ "from": "/r/*", "to": "/:splat" }, { "from": "/n/:name/*", "to": "/:splat/:name" }],
    }))
    .await;
    for path in [
        "/r//evil.example",
        "/r/%2fevil.example",
        "/r/%5cevil.example",
        "/r/a%0d%0aLocation:%20x",
        "//docs",
        "/\\docs",
        "/n/evil.example",
        "/n/evil.example/",
        "/r/@evil.example",
        "/r/https://evil.example",
    ] {
        let location = ground.get(path, &[]).await.header("location").unwrap_or("/".into());
        assert!(location.starts_with('/') && !location.starts_with("//"), "{path}: {location}");
        assert!(!location.contains('\\'), "{path}: {location}");
    }
}
