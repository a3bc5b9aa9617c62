//! What nobody comes back for: sessions and codes that have expired, and people whose last one has and who have no way
//! to come back.

use std::time::Duration;

use kernel::{Code, Env, Error, Result, Timestamp};

use super::account::settle;
use super::{Auth, tickets};
use crate::database::{Role, Writer};

/// The sessions that ended before `?1`.
const EXPIRED: &str = "FROM _steading_session WHERE expires_at <= ?1";

/// Nobody can sign in as them any more. Their rows stay: they may be of use to others.
const GONE: &str = "DELETE FROM _steading_user WHERE email IS NULL AND coalesce(last_seen_at, created_at) <= ?1 \
    AND id NOT IN (SELECT user FROM _steading_session) AND id NOT IN (SELECT user FROM _steading_identity) \
    AND id NOT IN (SELECT user FROM _steading_passkey)";

/// Codes and links that nobody has used in time, and ways to providers that nobody came back from.
const UNUSED: [&str; 2] = [
    "DELETE FROM _steading_code WHERE expires_at <= ?1",
    "DELETE FROM _steading_oauth WHERE expires_at <= ?1",
];

/// That there are less than `most` rows in a table of what nobody may come back for.
///
/// # Errors
/// `unavailable`.
pub(super) async fn few(db: &mut Writer, table: &str, most: u64) -> Result<()> {
    let found = db.run(Role::Platform, &format!("SELECT count(*) FROM {table}"), &[]).await?.rows;
    let count = found.first().and_then(|row| row.first()?.as_u64());
    if count.is_some_and(|count| count < most) {
        return Ok(());
    }
    Err(Error::new(Code::Unavailable, "too many are signing in at this moment")
        .retry_after(Duration::from_secs(60))
        .hint("try again in some minutes"))
}

impl Auth {
    /// Removes expired sessions and codes, and anonymous users who have none and have not been seen for as long as a session
    /// lives; how many users.
    ///
    /// # Errors
    /// The environment's database fails.
    pub async fn tidy(&self, env: &Env) -> Result<u64> {
        let now = Timestamp::now().as_micros();
        let any = format!(
            "SELECT 1 {EXPIRED} UNION ALL SELECT 1 FROM _steading_code WHERE expires_at <= ?1 \
             UNION ALL SELECT 1 FROM _steading_oauth WHERE expires_at <= ?1 \
             UNION ALL SELECT 1 FROM _steading_ticket WHERE expires_at <= ?1 LIMIT 1"
        );
        if self.0.databases.platform_query(env, &any, &[now.into()]).await?.is_empty() {
            return Ok(0);
        }
        let lifetime = i64::try_from(self.0.limits.session.as_micros()).unwrap_or(i64::MAX);
        let mut db = self.0.begin(env).await?;
        let removed = async {
            db.run(Role::Platform, &format!("DELETE {EXPIRED}"), &[now.into()]).await?;
            for unused in UNUSED.into_iter().chain([tickets::EXPIRED]) {
                db.run(Role::Platform, unused, &[now.into()]).await?;
            }
            let gone = db.run(Role::Platform, GONE, &[now.saturating_sub(lifetime).into()]).await?;
            Ok(gone.changed)
        }
        .await;
        settle(db, removed).await
    }
}
