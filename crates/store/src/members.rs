//! People of tenants: who they are, what they are there, and the key that each acts by.

use kernel::{KeyId, MemberId, Role, Secret, TenantId, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe};

use crate::keys::insert as insert_key;
use crate::rows::{hex, number, parsed, text, text_or_null, time, time_or_null};
use crate::{Key, Result, Store};

/// Who vouches for somebody, and what they are called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// The issuer.
    pub issuer: String,
    /// Its name for them, which it gives to nobody else.
    pub subject: String,
}

/// One person of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// The tenant.
    pub tenant: TenantId,
    /// The key that they act by, since they joined or their role changed.
    pub key: KeyId,
    /// What they are called.
    pub name: String,
    /// Their address, in lower case.
    pub email: Option<String>,
    /// What they are there.
    pub role: Role,
    /// Who vouches for them, where they have no password.
    pub vouched: Option<Vouched>,
    /// When the invitation ends that they have not taken up.
    pub invited_until: Option<Timestamp>,
    /// When they were added.
    pub created: Timestamp,
    /// When they first joined.
    pub joined: Option<Timestamp>,
    /// When they last did something, to about a minute.
    pub last_used: Option<Timestamp>,
}

/// A key that a member is to act by, and the SHA-256 that its row has: of a value that nobody is told.
#[derive(Debug)]
pub struct MemberKey {
    /// The row.
    pub key: Key,
    /// What would be the hash of its value.
    pub hash: [u8; 32],
}

/// What an insertion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// The row is written.
    Made,
    /// A member of the tenant has that address, or that name of that issuer.
    Taken,
    /// The tenant has as many as it may have.
    Full,
}

/// What is to be different of a member, who acts by another key from then on.
#[derive(Debug, Default)]
pub struct Renewal<'a> {
    /// What they are called.
    pub name: Option<&'a str>,
    /// What they are.
    pub role: Option<Role>,
    /// What is stored of the password that they have set.
    pub password: Option<&'a Secret>,
    /// Who vouches for them.
    pub vouched: Option<&'a Vouched>,
    /// The hash of the invitation that they take up: it has to be theirs, and good.
    pub invitation: Option<[u8; 32]>,
    /// Whether the tenant may be left without an owner.
    pub last_owner: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// It is done.
    Done,
    /// They are no member any more, have changed meanwhile, or the invitation is not good.
    Gone,
    /// The tenant would have no owner.
    LastOwner,
}

const COLUMNS: &str = "SELECT id, tenant, key, name, email, role, issuer, subject, invited_until, created, joined, \
    (SELECT last_used FROM keys WHERE keys.id = members.key) AS last_used FROM members WHERE ";

/// The members.
pub struct Members<'a>(pub(crate) &'a Store);

impl Members<'_> {
    /// Adds a member with its key, and the hash of an invitation where there is one. A tenant has at most `most`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn insert(
        &self,
        member: &Member,
        MemberKey { key, hash }: &MemberKey,
        invitation: Option<[u8; 32]>,
        most: u32,
    ) -> Result<Joining> {
        let mut write = self.0.begin_write().await?;
        lock(write.connection(), member.tenant).await?;
        let there = sqlx::query("SELECT COUNT(*) AS n FROM members WHERE tenant = $1")
            .bind(member.tenant.to_string())
            .fetch_one(write.connection())
            .await?;
        if number(&there, "n")? >= i64::from(most) {
            return Ok(Joining::Full);
        }
        if !insert_key(&mut write, key, hash).await? {
            return Ok(Joining::Taken);
        }
        let done = sqlx::query(
            "INSERT INTO members (id, tenant, key, name, email, role, issuer, subject, invitation, invited_until, \
             created, joined) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
        )
        .bind(member.id.to_string())
        .bind(member.tenant.to_string())
        .bind(key.id.to_string())
        .bind(member.name.as_str())
        .bind(member.email.as_deref())
        .bind(member.role.as_str())
        .bind(member.vouched.as_ref().map(|by| by.issuer.as_str()))
        .bind(member.vouched.as_ref().map(|by| by.subject.as_str()))
        .bind(invitation.as_ref().map(|hash| hex(hash)))
        .bind(member.invited_until.map(Timestamp::as_micros))
        .bind(member.created.as_micros())
        .bind(member.joined.map(Timestamp::as_micros))
        .execute(write.connection())
        .await?;
        if done.rows_affected() != 1 {
            return Ok(Joining::Taken);
        }
        write.commit().await?;
        Ok(Joining::Made)
    }

    /// One member of a tenant.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, tenant: TenantId, id: MemberId) -> Result<Option<Member>> {
        self.one("tenant = $1 AND id = $2", &[&tenant.to_string(), &id.to_string()]).await
    }

    /// The one who acts by a key.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn by_key(&self, key: KeyId) -> Result<Option<Member>> {
        self.one("key = $1", &[&key.to_string()]).await
    }

    /// The one of a tenant whom an issuer calls so.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn by_subject(&self, tenant: TenantId, by: &Vouched) -> Result<Option<Member>> {
        let of = "tenant = $1 AND issuer = $2 AND subject = $3";
        self.one(of, &[&tenant.to_string(), &by.issuer, &by.subject]).await
    }

    /// The one of a tenant with an address in lower case.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn by_email(&self, tenant: TenantId, email: &str) -> Result<Option<Member>> {
        self.one("tenant = $1 AND email = $2", &[&tenant.to_string(), email]).await
    }

    /// The one whom an invitation is for, where it is good at `now`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn by_invitation(&self, hash: &[u8; 32], now: Timestamp) -> Result<Option<Member>> {
        let found = self.one("invitation = $1", &[&hex(hash)]).await?;
        Ok(found.filter(|member| member.invited_until.is_some_and(|until| now < until)))
    }

    /// What is stored of a member's password, where they have set one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn password(&self, id: MemberId) -> Result<Option<Secret>> {
        let row = sqlx::query("SELECT password FROM members WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.0.reader())
            .await?;
        let stored = row.as_ref().map(|row| text_or_null(row, "password")).transpose()?.flatten();
        Ok(stored.map(Secret::new))
    }

    /// At most `limit` members of a tenant added after `after`, oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, tenant: TenantId, after: Option<MemberId>, limit: u32) -> Result<Vec<Member>> {
        let rows =
            sqlx::query(AssertSqlSafe(format!("{COLUMNS}tenant = $1 AND id > $2 ORDER BY id LIMIT $3")))
                .bind(tenant.to_string())
                .bind(after.map(|id| id.to_string()).unwrap_or_default())
                .bind(i64::from(limit))
                .fetch_all(self.0.reader())
                .await?;
        rows.iter().map(read).collect()
    }

    /// Puts another invitation in place of the one there may be; `false` where there is no such member, or another vouches
    /// for them.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn invite(
        &self,
        tenant: TenantId,
        id: MemberId,
        invitation: &[u8; 32],
        until: Timestamp,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = sqlx::query(
            "UPDATE members SET invitation = $3, invited_until = $4 WHERE tenant = $1 AND id = $2 AND issuer IS NULL",
        )
        .bind(tenant.to_string())
        .bind(id.to_string())
        .bind(hex(invitation))
        .bind(until.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Changes a member, who acts by another key from then on: the one before ends, with all that stands on it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn renew(
        &self,
        member: &Member,
        MemberKey { key, hash }: &MemberKey,
        change: &Renewal<'_>,
    ) -> Result<Renewed> {
        let mut write = self.0.begin_write().await?;
        write.tell(&member.key.to_string()).await?;
        lock(write.connection(), member.tenant).await?;
        if change.role.is_some_and(|role| role != Role::Owner)
            && !change.last_owner
            && is_last_owner(write.connection(), member).await?
        {
            return Ok(Renewed::LastOwner);
        }
        let taken_up = change.invitation.as_ref().map(|hash| hex(hash));
        let done = sqlx::query(
            "UPDATE members SET key = $3, name = COALESCE($4, name), role = COALESCE($5, role), \
             password = COALESCE($6, password), issuer = COALESCE($7, issuer), subject = COALESCE($8, subject), \
             invitation = CASE WHEN $9 IS NULL THEN invitation END, \
             invited_until = CASE WHEN $9 IS NULL THEN invited_until END, \
             joined = CASE WHEN $9 IS NULL AND $7 IS NULL THEN joined ELSE COALESCE(joined, $10) END \
             WHERE id = $1 AND key = $2 AND ($9 IS NULL OR (invitation = $9 AND invited_until > $10))",
        )
        .bind(member.id.to_string())
        .bind(member.key.to_string())
        .bind(key.id.to_string())
        .bind(change.name)
        .bind(change.role.map(Role::as_str))
        .bind(change.password.map(Secret::expose))
        .bind(change.vouched.map(|by| by.issuer.as_str()))
        .bind(change.vouched.map(|by| by.subject.as_str()))
        .bind(taken_up)
        .bind(key.created.as_micros())
        .execute(write.connection())
        .await?;
        if done.rows_affected() != 1 || !insert_key(&mut write, key, hash).await? {
            return Ok(Renewed::Gone);
        }
        end(write.connection(), member.key, key.created).await?;
        write.commit().await?;
        Ok(Renewed::Done)
    }

    /// Removes a member: the key that they act by ends, with all that stands on it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, member: &Member, last_owner: bool, now: Timestamp) -> Result<Renewed> {
        let mut write = self.0.begin_write().await?;
        write.tell(&member.key.to_string()).await?;
        lock(write.connection(), member.tenant).await?;
        if !last_owner && is_last_owner(write.connection(), member).await? {
            return Ok(Renewed::LastOwner);
        }
        let done = sqlx::query("DELETE FROM members WHERE id = $1 AND key = $2")
            .bind(member.id.to_string())
            .bind(member.key.to_string())
            .execute(write.connection())
            .await?;
        if done.rows_affected() != 1 {
            return Ok(Renewed::Gone);
        }
        end(write.connection(), member.key, now).await?;
        write.commit().await?;
        Ok(Renewed::Done)
    }

    async fn one(&self, of: &str, values: &[&str]) -> Result<Option<Member>> {
        let mut query = sqlx::query(AssertSqlSafe(format!("{COLUMNS}{of}")));
        for value in values {
            query = query.bind((*value).to_owned());
        }
        let row = query.fetch_optional(self.0.reader()).await?;
        row.as_ref().map(read).transpose()
    }
}

/// Who changes the members of a tenant takes turns here.
async fn lock(connection: &mut AnyConnection, tenant: TenantId) -> Result<()> {
    sqlx::query("UPDATE tenants SET state = state WHERE id = $1")
        .bind(tenant.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

async fn is_last_owner(connection: &mut AnyConnection, member: &Member) -> Result<bool> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM members WHERE id = $2 AND role = 'owner' AND joined IS NOT NULL) AS it, \
         (SELECT COUNT(*) FROM members WHERE tenant = $1 AND id <> $2 AND role = 'owner' AND joined IS NOT NULL) AS others",
    )
    .bind(member.tenant.to_string())
    .bind(member.id.to_string())
    .fetch_one(connection)
    .await?;
    Ok(number(&row, "it")? == 1 && number(&row, "others")? == 0)
}

async fn end(connection: &mut AnyConnection, key: KeyId, now: Timestamp) -> Result<()> {
    for ends in [
        "UPDATE keys SET revoked = $2 WHERE id = $1 AND revoked IS NULL",
        "UPDATE runs SET revoked = $2 WHERE root = $1 AND revoked IS NULL",
    ] {
        sqlx::query(ends).bind(key.to_string()).bind(now.as_micros()).execute(&mut *connection).await?;
    }
    Ok(())
}

fn read(row: &AnyRow) -> Result<Member> {
    let by = (text_or_null(row, "issuer")?, text_or_null(row, "subject")?);
    let vouched = match by {
        (Some(issuer), Some(subject)) => Some(Vouched { issuer, subject }),
        _ => None,
    };
    Ok(Member {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        key: parsed(row, "key")?,
        name: text(row, "name")?,
        email: text_or_null(row, "email")?,
        role: parsed(row, "role")?,
        vouched,
        invited_until: time_or_null(row, "invited_until")?,
        created: time(row, "created")?,
        joined: time_or_null(row, "joined")?,
        last_used: time_or_null(row, "last_used")?,
    })
}
