//! What says who is let in at this moment, and goes back to no other.

use super::*;
use crate::database::{Durability, Role};

#[tokio::test]
async fn a_token_that_was_used_stays_used_after_a_return() {
    let ground = Ground::new().await;
    let snapshot = ground.snapshots.take(&ground.env, NewSnapshot::default()).await.unwrap();
    let used = "INSERT INTO _steading_oauth VALUES ('u', 'used', '{}', 9e15)";
    let mut db = ground.databases.writer(&ground.env).await.unwrap();
    db.begin(Durability::Normal).await.unwrap();
    db.run(Role::Platform, used, &[]).await.unwrap();
    db.commit().await.unwrap();
    drop(db);
    ground.snapshots.restore(&ground.env, &snapshot.snapshot.to_string()).await.unwrap();
    assert_eq!(ground.read(&ground.env, "SELECT id FROM _steading_oauth").await, [[json!("u")]]);
}
