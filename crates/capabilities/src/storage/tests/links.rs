//! Signed links: what they open, and everything that they do not.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::storage::{Lent, LinkMethod, Sign};

fn wanted(method: LinkMethod, bucket: &str, path: &str) -> Sign {
    Sign {
        bucket: bucket.to_owned(),
        path: path.to_owned(),
        method,
        expires_in: None,
        max_size: None,
        content_type: None,
    }
}

const REFUSED: &str = "403 forbidden: the link is not valid (any more)";

impl Ground {
    async fn sign(&self, guest: &Guest, sign: Sign) -> Result<String> {
        Ok(self.storage.sign(guest, sign).await?.token.expose().to_owned())
    }

    async fn lent(&self, token: &str, method: LinkMethod, bucket: &str, path: &str) -> Result<Lent> {
        self.storage.lent(&self.env, token, method, bucket, path).await
    }

    /// A user who is in the database.
    async fn known(&self) -> Guest {
        let guest = self.user();
        let mut db = self.databases.writer(&self.env).await.unwrap();
        db.begin(crate::database::Durability::Normal).await.unwrap();
        let sql = "INSERT INTO _steading_user (id, role, claims, disabled, created_at) \
                   VALUES (?1, 'user', '{}', 0, 0)";
        let id = guest.subject().uid().unwrap();
        db.run(crate::database::Role::Platform, sql, &[id.into()]).await.unwrap();
        db.commit().await.unwrap();
        guest
    }

    async fn platform(&self, sql: &str) {
        let mut db = self.databases.writer(&self.env).await.unwrap();
        db.begin(crate::database::Durability::Normal).await.unwrap();
        db.run(crate::database::Role::Platform, sql, &[]).await.unwrap();
        db.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_link_lends_its_makers_rights_to_one_method_on_one_path() {
    let ground = Ground::new().await;
    let ada = ground.known().await;
    ground.put(&ada, "own", "a/b.txt", b"text").await.unwrap();
    let token = ground.sign(&ada, wanted(LinkMethod::Get, "own", "a/b.txt")).await.unwrap();
    let lent = ground.lent(&token, LinkMethod::Get, "own", "a/b.txt").await.unwrap();
    assert_eq!(lent, Lent { guest: ada.clone(), max_size: None, content_type: None });
    assert_eq!(ground.read(&lent.guest, "own", "a/b.txt").await.unwrap(), b"text");
    for (method, bucket, path) in [
        (LinkMethod::Put, "own", "a/b.txt"),
        (LinkMethod::Get, "open", "a/b.txt"),
        (LinkMethod::Get, "own", "a/c.txt"),
        (LinkMethod::Get, "own", "a/b.txt2"),
        (LinkMethod::Get, "own", "b.txt"),
    ] {
        assert_eq!(told(ground.lent(&token, method, bucket, path).await), REFUSED, "{bucket} {path}");
    }
}

#[tokio::test]
async fn a_link_that_was_tampered_with_opens_nothing() {
    let ground = Ground::new().await;
    let ada = ground.known().await;
    ground.put(&ada, "own", "a", b"text").await.unwrap();
    let token = ground.sign(&ada, wanted(LinkMethod::Get, "own", "a")).await.unwrap();
    let (claims, mac) = token.split_once('.').unwrap();
    let read: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let mut forged =
        vec![String::new(), ".".to_owned(), claims.to_owned(), format!("{claims}."), format!(".{mac}")];
    for (key, value) in [
        ("method", json!("put")),
        ("path", json!("b")),
        ("bucket", json!("open")),
        ("exp", json!(i64::MAX)),
        ("by", json!("maker")),
        ("max", json!(1)),
    ] {
        let mut changed = read.clone();
        changed[key] = value;
        forged.push(format!("{}.{mac}", URL_SAFE_NO_PAD.encode(changed.to_string())));
    }
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        forged.push(String::from_utf8(bytes).unwrap());
    }
    for token in forged {
        assert_eq!(told(ground.lent(&token, LinkMethod::Get, "own", "a").await), REFUSED, "{token}");
    }
    // The same token in another environment.
    let other = Env::for_upkeep(ground.env.tenant(), EnvId::new());
    ground.databases.create(other.id()).await.unwrap();
    assert_eq!(told(ground.storage.lent(&other, &token, LinkMethod::Get, "own", "a").await), REFUSED);
}

#[tokio::test]
async fn a_link_ends_with_its_time_and_with_its_maker() {
    let ground = Ground::new().await;
    let ada = ground.known().await;
    ground.put(&ada, "own", "a", b"text").await.unwrap();
    let short = Sign { expires_in: Some(Duration::from_secs(1)), ..wanted(LinkMethod::Get, "own", "a") };
    let token = ground.sign(&ada, short).await.unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while ground.lent(&token, LinkMethod::Get, "own", "a").await.is_ok() {
        assert!(tokio::time::Instant::now() < until, "it has not ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let token = ground.sign(&ada, wanted(LinkMethod::Get, "own", "a")).await.unwrap();
    ground.platform("UPDATE _steading_user SET disabled = 1").await;
    assert_eq!(told(ground.lent(&token, LinkMethod::Get, "own", "a").await), REFUSED);
    for life in [Duration::ZERO, Duration::from_secs(7 * 24 * 60 * 60 + 1)] {
        let sign = Sign { expires_in: Some(life), ..wanted(LinkMethod::Get, "own", "a") };
        assert_eq!(
            told(ground.sign(&ada, sign).await),
            "400 invalid_input /expires_in: a link lives 1 to 604800 seconds"
        );
    }
}

#[tokio::test]
async fn nobody_lends_what_they_do_not_have() {
    let ground = Ground::new().await;
    let (ada, bob) = (ground.known().await, ground.known().await);
    ground.put(&ada, "own", "a", b"text").await.unwrap();
    let get = |guest: Guest| {
        let sign = wanted(LinkMethod::Get, "own", "a");
        let storage = ground.storage.clone();
        async move { told(storage.sign(&guest, sign).await) }
    };
    for guest in [bob.clone(), ground.visitor()] {
        assert_eq!(get(guest).await, "404 not_found: there is no such file");
    }
    assert_eq!(
        told(ground.sign(&ground.visitor(), wanted(LinkMethod::Put, "own", "b")).await),
        "403 forbidden: the rules of own do not allow this create"
    );
    assert_eq!(
        told(ground.sign(&bob, wanted(LinkMethod::Put, "closed", "b")).await),
        "403 forbidden: the rules of closed do not allow this create"
    );
    let sign = Sign {
        max_size: Some(10),
        content_type: Some("image/png".to_owned()),
        ..wanted(LinkMethod::Put, "own", "b")
    };
    let token = ground.sign(&bob, sign).await.unwrap();
    let lent = ground.lent(&token, LinkMethod::Put, "own", "b").await.unwrap();
    assert_eq!(lent, Lent { guest: bob, max_size: Some(10), content_type: Some("image/png".to_owned()) });
    // What the rules say by then is what holds.
    ground.buckets(json!({ "own": {} }));
    assert_eq!(
        told(ground.put(&lent.guest, "own", "b", b"x").await),
        "403 forbidden: the rules of own do not allow this create"
    );
}
