//! Members of tenants: invited, let in, given another role, removed. Each acts by a key of its own that nobody is told; who
//! signs in stands on its id. Another role or password is another key, so that visits, consents and tokens of before end.

use std::sync::Arc;
use std::time::Duration;

use kernel::{Caller, Code, Error, KeyId, MemberId, Principal, Result, Role, Scope, Secret, Timestamp};
use store::{
    Joining, Key, KeyKind, Member, MemberKey, Renewal, Renewed, Store, Tenant, TenantState, Vouched,
};

use crate::credentials::{self, Credentials, hash};
use crate::environments::check_text;

/// What an invitation begins with.
const INVITATION: &str = "stead_join_";
/// How long one is good.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const MAX_NAME: usize = 100;
/// RFC 5321 §4.5.3.1.3, without the angle brackets.
const MAX_EMAIL: usize = 254;
const MAX_PAGE: u32 = 100;
/// So many members has a tenant at most.
const MOST: u32 = 10_000;

/// Who is to be a member.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// Their address.
    pub email: String,
    /// What they are called; the address, where nothing is said.
    pub name: Option<String>,
    /// What they are to be.
    pub role: Role,
}

/// Somebody whom a directory has vouched for.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The directory, and what they are called there.
    pub by: Vouched,
    /// What they are called.
    pub name: Option<String>,
    /// Their address, where the directory says that it is theirs.
    pub email: Option<String>,
    /// What they are, as the directory has it at this moment.
    pub role: Role,
}

/// A member and the way in, which is shown once.
#[derive(Debug, Clone)]
pub struct Invited {
    /// Who is invited.
    pub member: Member,
    /// What takes the invitation up.
    pub invitation: Secret,
}

/// The members of all tenants.
pub struct Members {
    pub(crate) store: Store,
    pub(crate) credentials: Arc<Credentials>,
}

impl Members {
    /// Invites somebody to the caller's tenant.
    ///
    /// # Errors
    /// `forbidden` for who does not manage members, or may less than the role; `conflict` where that address is a member's;
    /// `invalid_input` naming the field.
    pub async fn invite(&self, caller: &Caller, new: NewMember) -> Result<Invited> {
        let email = address(&new.email)?;
        check_text("/name", "name", new.name.as_deref(), MAX_NAME)?;
        manages(caller)?;
        gives(caller, new.role)?;
        let invitation = credentials::generate(INVITATION).map_err(Error::internal)?;
        let name = new.name.unwrap_or_else(|| email.clone());
        let key = self.key(caller, &name, new.role).await?;
        let member = Member {
            id: MemberId::new(),
            tenant: caller.tenant,
            key: key.key.id,
            name,
            email: Some(email),
            role: new.role,
            vouched: None,
            invited_until: Some(key.key.created.plus(LIFETIME)),
            created: key.key.created,
            joined: None,
            last_used: None,
        };
        self.insert(&member, &key, Some(hash(invitation.expose()))).await?;
        Ok(Invited { member, invitation })
    }

    /// Another invitation for a member: the one before is good no more. Who takes it up sets another password.
    ///
    /// # Errors
    /// As [`Members::invite`]; `not_found`; `conflict` where a directory vouches for the member.
    pub async fn invite_again(&self, caller: &Caller, id: MemberId) -> Result<Invited> {
        manages(caller)?;
        let member = self.found(caller, id).await?;
        gives(caller, member.role)?;
        self.reaches(caller, &member).await?;
        if member.vouched.is_some() {
            return Err(Error::new(
                Code::Conflict,
                "a directory vouches for this member, who has no password here",
            )
            .hint("they sign in through the directory"));
        }
        let invitation = credentials::generate(INVITATION).map_err(Error::internal)?;
        let until = Timestamp::now().plus(LIFETIME);
        let is_done =
            self.store.members().invite(caller.tenant, id, &hash(invitation.expose()), until).await?;
        if !is_done {
            return Err(missing(id));
        }
        Ok(Invited { member: Member { invited_until: Some(until), ..member }, invitation })
    }

    /// At most `limit` (1 to 100) members of the caller's tenant added after `after`, oldest first.
    ///
    /// # Errors
    /// `forbidden` for who does not manage members; `invalid_input` where the limit is out of range.
    pub async fn list(&self, caller: &Caller, after: Option<MemberId>, limit: u32) -> Result<Vec<Member>> {
        reads(caller)?;
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit must be 1 to {MAX_PAGE}")));
        }
        Ok(self.store.members().list(caller.tenant, after, limit).await?)
    }

    /// Gives a member another role. Whatever they have open ends: they sign in again.
    ///
    /// # Errors
    /// As [`Members::invite`]; `not_found`; `conflict` where the tenant would have no owner, for anybody but the operator.
    pub async fn change(&self, caller: &Caller, id: MemberId, role: Role) -> Result<Member> {
        manages(caller)?;
        let member = self.found(caller, id).await?;
        gives(caller, role)?;
        gives(caller, member.role)?;
        self.reaches(caller, &member).await?;
        if member.role == role {
            return Ok(member);
        }
        let key = self.successor(&member, &member.name, role).await?;
        let last_owner = caller.principal == Principal::Operator;
        let change = Renewal { role: Some(role), last_owner, ..Renewal::default() };
        self.renew(&member, &key, &change).await?;
        self.found(caller, id).await
    }

    /// Removes a member. When this returns, nothing opens anything that stands on them.
    ///
    /// # Errors
    /// As [`Members::change`].
    pub async fn remove(&self, caller: &Caller, id: MemberId) -> Result<()> {
        manages(caller)?;
        let member = self.found(caller, id).await?;
        gives(caller, member.role)?;
        self.reaches(caller, &member).await?;
        let last_owner = caller.principal == Principal::Operator;
        let done = self.store.members().remove(&member, last_owner, Timestamp::now()).await?;
        self.settled(&member, done)
    }

    /// Whom an invitation is for, and to which tenant.
    ///
    /// # Errors
    /// `unauthenticated` where it is not good (any more).
    pub async fn invited(&self, invitation: &Secret) -> Result<(Member, Tenant)> {
        let now = Timestamp::now();
        let found = match credentials::is_well_formed(INVITATION, invitation.expose()) {
            true => self.store.members().by_invitation(&hash(invitation.expose()), now).await?,
            false => None,
        };
        let member = found.ok_or_else(stale)?;
        let tenant = self.store.tenants().find(&member.tenant.to_string()).await?;
        let tenant = tenant.filter(|tenant| tenant.state == TenantState::Active).ok_or_else(stale)?;
        Ok((member, tenant))
    }

    /// Takes an invitation up, with what is stored of the member's password. What they had open before ends.
    ///
    /// # Errors
    /// As [`Members::invited`]; `invalid_input` for the name.
    pub async fn join(&self, invitation: &Secret, name: Option<&str>, password: &Secret) -> Result<KeyId> {
        check_text("/name", "name", name, MAX_NAME)?;
        let (member, _) = self.invited(invitation).await?;
        let key = self.successor(&member, name.unwrap_or(&member.name), member.role).await?;
        let taken_up = Some(hash(invitation.expose()));
        let change = Renewal { name, password: Some(password), invitation: taken_up, ..Renewal::default() };
        match self.renew(&member, &key, &change).await {
            // Somebody else has taken it up a moment ago.
            Err(error) if error.code() == Code::Conflict => Err(stale()),
            done => done.map(|()| key.key.id),
        }
    }

    /// What stands for the member with this address of an active tenant, and what is stored of their password; `None` where
    /// there is none who could sign in so.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn known(&self, tenant: &str, email: &str) -> Result<Option<(KeyId, Secret)>> {
        let tenant = self.store.tenants().find(tenant).await?;
        let Some(tenant) = tenant.filter(|tenant| tenant.state == TenantState::Active) else {
            return Ok(None);
        };
        let Ok(email) = address(email) else { return Ok(None) };
        let members = self.store.members();
        let Some(member) = members.by_email(tenant.id, &email).await? else { return Ok(None) };
        if member.vouched.is_some() {
            return Ok(None);
        }
        Ok(members.password(member.id).await?.map(|stored| (member.key, stored)))
    }

    /// Lets somebody in whom a directory vouches for, as what the directory says they are: makes them a member, or changes the
    /// one they are. Whoever was invited by the same address becomes the directory's.
    ///
    /// # Errors
    /// `forbidden` where the tenant is not active or is full.
    pub async fn arrive(&self, tenant: &Tenant, arrival: &Arrival) -> Result<KeyId> {
        if tenant.state != TenantState::Active {
            return Err(crate::environments::suspended());
        }
        let members = self.store.members();
        // Another gateway may let the same one in at this moment.
        for _ in 0..3 {
            let found = match members.by_subject(tenant.id, &arrival.by).await? {
                Some(found) => Some(found),
                None => match arrival.email.as_deref().map(address).transpose()? {
                    Some(email) => members.by_email(tenant.id, &email).await?,
                    None => None,
                },
            };
            let Some(member) = found else {
                if let Some(key) = self.add(tenant, arrival).await? {
                    return Ok(key);
                }
                continue;
            };
            let is_known = member.vouched.as_ref() == Some(&arrival.by);
            if member.vouched.is_some() && !is_known {
                return Err(Error::new(
                    Code::Forbidden,
                    "another account of the directory has this address here",
                )
                .hint("ask an owner of the tenant to remove the member who has it"));
            }
            if is_known && member.role == arrival.role {
                return Ok(member.key);
            }
            let key = self.successor(&member, &member.name, arrival.role).await?;
            let change = Renewal {
                role: Some(arrival.role),
                vouched: Some(&arrival.by),
                // The directory says who owns it.
                last_owner: true,
                ..Renewal::default()
            };
            match members.renew(&member, &key, &change).await? {
                Renewed::Done => {
                    self.credentials.revoked(member.key);
                    return Ok(key.key.id);
                }
                Renewed::Gone | Renewed::LastOwner => {}
            }
        }
        Err(Error::new(Code::Conflict, "somebody changes this member at this moment").hint("sign in again"))
    }

    /// The member who acts by a key.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_key(&self, key: KeyId) -> Result<Option<Member>> {
        Ok(self.store.members().by_key(key).await?)
    }

    async fn add(&self, tenant: &Tenant, arrival: &Arrival) -> Result<Option<KeyId>> {
        let name = arrival.name.as_deref().or(arrival.email.as_deref()).unwrap_or(&arrival.by.subject);
        let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        let key = new_key(tenant.id, &name, arrival.role, None, None)?;
        let member = Member {
            id: MemberId::new(),
            tenant: tenant.id,
            key: key.key.id,
            name,
            email: arrival.email.as_deref().map(address).transpose()?,
            role: arrival.role,
            vouched: Some(arrival.by.clone()),
            invited_until: None,
            created: key.key.created,
            joined: Some(key.key.created),
            last_used: None,
        };
        match self.store.members().insert(&member, &key, None, MOST).await? {
            Joining::Made => Ok(Some(key.key.id)),
            Joining::Taken => Ok(None),
            Joining::Full => Err(full()),
        }
    }

    async fn insert(&self, member: &Member, key: &MemberKey, invitation: Option<[u8; 32]>) -> Result<()> {
        match self.store.members().insert(member, key, invitation, MOST).await? {
            Joining::Made => Ok(()),
            Joining::Full => Err(full()),
            Joining::Taken => Err(Error::new(Code::Conflict, "a member of the tenant has this address")
                .field("/email")
                .hint("GET /v1/members shows who; POST /v1/members/{member}/invitation invites them again")),
        }
    }

    /// A key for a member whom the caller adds: good where the caller's own is.
    async fn key(&self, caller: &Caller, name: &str, role: Role) -> Result<MemberKey> {
        let maker = self.store.keys().get(caller.credential).await?;
        new_key(caller.tenant, name, role, maker.and_then(|key| key.cidrs), None)
    }

    /// The next key of a member: good where the one before was, and of the same line.
    async fn successor(&self, member: &Member, name: &str, role: Role) -> Result<MemberKey> {
        let before = self.store.keys().get(member.key).await?;
        let (cidrs, line) = before.map_or((None, None), |key| (key.cidrs, Some(key.lineage)));
        new_key(member.tenant, name, role, cidrs, line)
    }

    async fn renew(&self, member: &Member, key: &MemberKey, change: &Renewal<'_>) -> Result<()> {
        let done = self.store.members().renew(member, key, change).await?;
        self.settled(member, done)
    }

    fn settled(&self, member: &Member, done: Renewed) -> Result<()> {
        self.credentials.revoked(member.key);
        match done {
            Renewed::Done => Ok(()),
            Renewed::Gone => Err(Error::new(Code::Conflict, "the member was changed a moment ago")
                .hint("look at GET /v1/members, and try again")),
            Renewed::LastOwner => Err(Error::new(Code::Conflict, "the tenant would have no owner")
                .hint("make somebody else an owner first")),
        }
    }

    /// That the caller is good wherever the member is: who is bound to networks lets nobody act from others.
    async fn reaches(&self, caller: &Caller, member: &Member) -> Result<()> {
        let keys = self.store.keys();
        let Some(own) = keys.get(caller.credential).await?.and_then(|key| key.cidrs) else { return Ok(()) };
        let theirs = keys.get(member.key).await?.and_then(|key| key.cidrs);
        if theirs.is_some_and(|theirs| theirs.names() == own.names()) {
            return Ok(());
        }
        Err(Error::new(
            Code::Forbidden,
            "the credential is good in some networks alone, and the member in others",
        )
        .hint("use a credential that is good everywhere"))
    }

    async fn found(&self, caller: &Caller, id: MemberId) -> Result<Member> {
        self.store.members().get(caller.tenant, id).await?.ok_or_else(|| missing(id))
    }
}

fn new_key(
    tenant: kernel::TenantId,
    name: &str,
    role: Role,
    cidrs: Option<kernel::Networks>,
    line: Option<KeyId>,
) -> Result<MemberKey> {
    let unknown = credentials::generate(credentials::TENANT).map_err(Error::internal)?;
    let key = crate::keys::row(KeyKind::Member, tenant, None, name.to_owned(), role.scopes());
    let key = Key { cidrs, lineage: line.unwrap_or(key.lineage), ..key };
    Ok(MemberKey { key, hash: hash(unknown.expose()) })
}

/// An address in the form in which it is kept.
fn address(text: &str) -> Result<String> {
    let refuse = |message: &str| Err(Error::invalid("/email", message).hint("give it as name@example.com"));
    let text = text.trim();
    if text.len() > MAX_EMAIL {
        return refuse("an address has at most 254 characters");
    }
    let is_sign = |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[],;:\\\"".contains(c);
    match text.split_once('@') {
        Some((name, domain))
            if !name.is_empty()
                && !domain.is_empty()
                && !domain.contains('@')
                && text.chars().all(is_sign) =>
        {
            Ok(text.to_lowercase())
        }
        _ => refuse("this is no address"),
    }
}

/// That the caller may see who is a member.
fn reads(caller: &Caller) -> Result<()> {
    if !caller.scopes.contains(Scope::KeyAdmin) {
        return Err(lacks(Scope::KeyAdmin));
    }
    if caller.env.is_some() {
        return Err(Error::new(
            Code::Forbidden,
            "members are of a tenant, and the credential is of one environment",
        )
        .hint("use a credential of the tenant"));
    }
    Ok(())
}

/// That the caller may change who is.
fn manages(caller: &Caller) -> Result<()> {
    reads(caller)?;
    if !caller.principal.is_root() {
        return Err(Error::new(Code::Forbidden, "a minted token cannot change who is a member")
            .hint("use a key with key:admin, or sign in as an owner"));
    }
    if caller.expires.is_some() {
        return Err(Error::new(Code::Forbidden, "a key that ends makes no members, who would outlive it")
            .hint("use a key without an end, or sign in as an owner"));
    }
    Ok(())
}

/// That the caller may all that somebody of this role may.
fn gives(caller: &Caller, role: Role) -> Result<()> {
    let wanted: Vec<Scope> = role.scopes().iter().collect();
    match caller.scopes.missing(&wanted) {
        None => Ok(()),
        Some(scope) => Err(Error::new(
            Code::Forbidden,
            format!("the role {role} has {scope}, which the credential lacks"),
        )
        .field("/role")
        .hint("who makes or changes a member may do all that they may: sign in as an owner, or make a key with this scope")),
    }
}

fn lacks(scope: Scope) -> Error {
    Error::new(Code::Forbidden, format!("the credential lacks the scope {scope}"))
        .hint("use a credential that carries it, or ask who made this one")
}

fn missing(id: MemberId) -> Error {
    Error::not_found(format!("member \"{id}\"")).hint("GET /v1/members lists them")
}

fn full() -> Error {
    Error::new(Code::Forbidden, format!("a tenant has at most {MOST} members"))
        .hint("remove some who are there no more")
}

fn stale() -> Error {
    Error::new(Code::Unauthenticated, "the invitation is not good, or not any more")
        .hint("ask who sent it for another: it is good once, for seven days")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Scopes;

    #[test]
    fn addresses_are_kept_in_one_form() {
        assert_eq!(address(" Ada@Example.COM ").unwrap(), "ada@example.com");
        for bad in
            ["", "ada", "@x", "a@", "a@b@c", "a b@c", "a@\nb", "<a@b>", &format!("{}@x", "a".repeat(254))]
        {
            assert_eq!(address(bad).unwrap_err().pointer(), Some("/email"), "{bad:?}");
        }
    }

    #[test]
    fn no_credential_gives_a_role_that_may_more() {
        let caller =
            |scopes: Scopes| Caller::new(Principal::Key, kernel::TenantId::new(), KeyId::new(), scopes);
        for role in Role::ALL {
            assert!(gives(&caller(role.scopes()), *role).is_ok());
            for scope in role.scopes().iter() {
                let refused = gives(&caller(Role::Owner.scopes().without(scope)), *role).unwrap_err();
                assert!(refused.message().contains(scope.as_str()));
            }
        }
    }
}
