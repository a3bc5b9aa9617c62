//! The client for browsers, as every app serves it.

use crate::ground::{Ground, decode};

const CLIENT: &str = concat!(
    include_str!("../../src/data/sdk.js"),
    include_str!("../../src/data/sdk_auth.js"),
    include_str!("../../src/data/sdk_oauth.js"),
    include_str!("../../src/data/sdk_files.js"),
    include_str!("../../src/data/sdk_live.js")
);
const TYPES: &str = concat!(
    include_str!("../../src/data/sdk.d.ts"),
    include_str!("../../src/data/sdk_auth.d.ts"),
    include_str!("../../src/data/sdk_oauth.d.ts"),
    include_str!("../../src/data/sdk_files.d.ts"),
    include_str!("../../src/data/sdk_live.d.ts")
);

#[tokio::test]
async fn every_app_serves_the_client_and_its_types_without_a_session() {
    let ground = Ground::with(serde_json::json!({ "files": {} })).await;
    for (path, content_type, text) in [
        ("/_/sdk.js", "text/javascript; charset=utf-8", CLIENT),
        ("/_/sdk.d.ts", "text/plain; charset=utf-8", TYPES),
    ] {
        let plain = ground.get(path, &[]).await;
        assert_eq!((plain.status, plain.text()), (200, text), "{path}");
        let header = |name: &str| plain.header(name).unwrap_or_default();
        assert_eq!(
            [
                header("content-type"),
                header("cache-control"),
                header("vary"),
                header("x-content-type-options")
            ],
            [content_type, "no-cache", "accept-encoding", "nosniff"],
            "{path}"
        );
        let head = ground.ask("HEAD", "shop.localhost", path, &[]).await;
        assert_eq!(
            (head.status, head.body.len(), head.header("etag")),
            (200, 0, plain.header("etag")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_client_is_sent_in_the_coding_that_is_asked_for_and_once_only() {
    let ground = Ground::with(serde_json::json!({ "files": {} })).await;
    let mut tags = Vec::new();
    for coding in ["identity", "gzip", "br"] {
        let coded = ground.get("/_/sdk.js", &[("accept-encoding", coding)]).await;
        let named = coded.header("content-encoding");
        assert_eq!(named.as_deref(), Some(coding).filter(|coding| *coding != "identity"));
        if named.is_some() {
            assert!(coded.body.len() < CLIENT.len() / 2, "{coding}: {} bytes", coded.body.len());
            assert_eq!(decode(coding, &coded.body).await, CLIENT, "{coding}");
        }
        let etag = coded.header("etag").unwrap();
        let again = ground.get("/_/sdk.js", &[("accept-encoding", coding), ("if-none-match", &etag)]).await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(etag.clone())));
        assert!(!tags.contains(&etag), "two codings have one tag");
        tags.push(etag);
    }
}

#[tokio::test]
async fn the_client_is_only_read() {
    let ground = Ground::with(serde_json::json!({ "files": {} })).await;
    for method in ["POST", "PUT", "DELETE"] {
        let refused = ground.ask(method, "shop.localhost", "/_/sdk.js", &[]).await;
        assert_eq!(
            (refused.status, refused.header("allow").as_deref()),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
}

#[tokio::test]
async fn any_page_may_load_the_client_and_no_cache_takes_one_pages_answer_for_anothers() {
    let ground = Ground::with(serde_json::json!({ "files": {} })).await;
    let origin = [("origin", "https://elsewhere.example")];
    let other = ground.get("/_/sdk.js", &origin).await;
    assert_eq!(
        (other.status, other.header("access-control-allow-origin").as_deref()),
        (200, Some("https://elsewhere.example"))
    );
    assert!(other.whole().to_lowercase().contains("vary: origin"), "{}", other.whole());
}
