//! Archives whose releases and users say what no manifest may.

use super::*;

#[tokio::test]
async fn a_release_of_an_archive_comes_in_by_the_door_of_a_manifest() {
    let ground = Ground::new().await;
    for (path, value, told) in [
        (
            "auth.origins",
            json!(["null"]),
            "/auth/origins/0: an origin is scheme://host or scheme://host:port",
        ),
        ("auth.origins", json!(["https://B.example"]), "/auth: addresses are not written as they are kept"),
        ("auth.redirects", json!(["javascript:alert(1)"]), "/auth/redirects/0: "),
        ("auth.theme", json!({ "accent": "#fff;}body{" }), "/auth/theme/accent: a colour is"),
        ("auth.theme", json!({ "logo": "https://evil.example/x.png" }), "/auth/theme/logo: a logo is"),
        ("name", json!("x\r\nBcc: a@b.c"), "/name: the app's name is one line of visible characters"),
        ("backups", json!({ "every": "1d", "keep": 100_000 }), "/backups/keep: 1 to 100 backups can be kept"),
        ("lifecycle", json!({ "releases": { "keep": 100_000_000 } }), "/lifecycle/releases/keep: "),
        ("secrets", json!(["../x\n"]), "/secrets/0: this is not the name of a secret"),
        ("domains", json!(["EVIL.example.com"]), "/domains/0: a domain is not written as domains are kept"),
        ("domains", json!(["localhost"]), "/domains/0: \"localhost\" is not a full domain name"),
        ("site", json!({ "files": {} }), "/site: a site is kept beside the manifest"),
        ("evil", json!(1), "unknown field `evil`"),
        (
            "database.tables.todos.access",
            json!({ "list": "row.none == 1" }),
            "/database/tables/todos/access/list: ",
        ),
    ] {
        let (section, rest) =
            path.split_once('.').map_or((path, None), |(section, rest)| (section, Some(rest)));
        let tamper = match rest {
            None | Some("tables.todos.access") => {
                format!(
                    "UPDATE _steading_release SET manifest = json_set(manifest, '$.{path}', json('{value}'))"
                )
            }
            Some(rest) => format!(
                "UPDATE _steading_release SET manifest = json_set(manifest, '$.{section}', \
                 json('{{\"methods\":[],\"{rest}\":{value}}}'))"
            ),
        };
        let (_, imported) = ground.import(ground.archive(&[&tamper]).await).await;
        let refused = imported.expect_err(path);
        assert_eq!(refused.code(), kernel::Code::InvalidInput, "{path}: {refused}");
        let start = "the archive cannot be taken: release 1: ";
        let said = refused.message().strip_prefix(start).unwrap_or_else(|| panic!("{path}: {refused}"));
        assert!(said.contains(told), "{path}: {said}");
    }
    for (list, value, told) in [
        (
            "redirects",
            json!([{ "from": "/x", "to": "javascript:alert(1)", "status": 302 }]),
            "/site/redirects/0/to: ",
        ),
        (
            "headers",
            json!([{ "for": "/*", "set": { "x-a": "b\r\nset-cookie: c" } }]),
            "/site/headers/~1*/x-a: ",
        ),
    ] {
        let tamper =
            format!("UPDATE _steading_release SET site = json_set(site, '$.{list}', json('{value}'))");
        let (_, imported) = ground.import(ground.archive(&[&tamper]).await).await;
        let refused = imported.expect_err(list);
        assert!(refused.message().contains(told), "{list}: {refused}");
    }
    let user = "INSERT INTO _steading_user VALUES ('root', NULL, NULL, 'admin', '{}', 0, 0, NULL)";
    let (_, imported) = ground.import(ground.archive(&[user]).await).await;
    assert_eq!(
        imported.unwrap_err().message(),
        "the archive cannot be taken: the user \"root\": /id: this is not the id of a user"
    );
    for (column, value, told) in [
        ("path", "'../../x'", "/path: this is no path of a file"),
        (
            "content_type",
            "'text/html' || char(13, 10) || 'x: y'",
            "/content_type: the content type cannot be read",
        ),
        ("metadata", "'[1'", "/metadata: this is not written as it is kept"),
        ("bucket", "'../b'", "/bucket: "),
    ] {
        let row = "INSERT INTO _steading_object (id, bucket, path, size, content_type, etag, content) VALUES ('f1', 'b', 'a', 1, 'text/plain', '', '')";
        let tamper = format!("UPDATE _steading_object SET {column} = {value}");
        let (_, imported) = ground.import(ground.archive(&[row, &tamper]).await).await;
        let refused = imported.expect_err(column);
        let start = "the archive cannot be taken: the file \"f1\": ";
        let said = refused.message().strip_prefix(start).unwrap_or_else(|| panic!("{column}: {refused}"));
        assert!(said.starts_with(told), "{column}: {said}");
    }
}

#[tokio::test]
async fn an_archive_that_is_wrong_is_refused_though_its_sender_waits() {
    let ground = Ground::new().await;
    let begun = stream::iter([Ok(Bytes::from(vec![b'a'; 4_096]))]).chain(stream::pending());
    let importing = ground.snapshots.import(EnvId::new(), begun);
    let refused = tokio::time::timeout(std::time::Duration::from_secs(20), importing).await.unwrap();
    assert_eq!(refused.unwrap_err().code(), kernel::Code::InvalidInput);
}
