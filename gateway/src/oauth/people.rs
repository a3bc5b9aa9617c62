//! Members who sign in with an address and a password, and those who take up an invitation.

use std::net::IpAddr;

use capabilities::auth::{Password, Tried};
use kernel::{Code, Error, KeyId, Result, Secret};

use super::{Door, too_often};

/// What somebody types who is a member.
pub struct Typed<'a> {
    /// The slug of the tenant.
    pub tenant: &'a str,
    /// Their address.
    pub email: &'a str,
    /// Their password.
    pub password: Secret,
}

impl Door {
    /// Whom an address and a password let in, or what is told them where they open nothing: the same for what is wrong and for
    /// whom there is not. Whoever has typed many wrong ones waits, and whoever is guessed at is left alone for a while.
    ///
    /// # Errors
    /// `rate_limited` after wrong ones, and what is wrong with the platform.
    pub async fn signed_in(&self, typed: Typed<'_>, source: Option<IpAddr>) -> Result<Result<KeyId, String>> {
        let tenant: String = typed.tenant.trim().chars().take(64).collect();
        let email: String = typed.email.trim().to_lowercase().chars().take(254).collect();
        let account = (tenant, email);
        if self.wrong_keys.is_over(source) || self.guesses.is_over_for(&account) {
            return Err(too_often());
        }
        let password = Password::typed(&typed.password)?;
        let known = self.control.members().known(&account.0, &account.1).await?;
        let (key, stored) = known.unzip();
        // Counted before it is tried, so that many at once are no more than one after the other.
        self.wrong_keys.count(source);
        self.guesses.count_for(account.clone());
        let tried = self.passwords.try_out(self.lane, password, stored).await?;
        let user = match (tried, key) {
            (Tried::Right | Tried::Outdated, Some(key)) => self.oauth().user(key, source).await?,
            _ => None,
        };
        if let Some(user) = user {
            self.wrong_keys.forgive_from(source);
            self.guesses.forgive(&account);
            return Ok(Ok(user.key.id));
        }
        tracing::warn!(from = ?source, tenant = account.0, "a password that is not good was typed at the sign-in page");
        Ok(Err("There is no member with this address and this password in that tenant.".to_owned()))
    }

    /// Takes up an invitation with a password: what stands for the member from then on.
    ///
    /// # Errors
    /// `unauthenticated` where the invitation is not good, `invalid_input` for the password or the name, `rate_limited` after
    /// invitations that were not good.
    pub async fn joined(
        &self,
        invitation: &Secret,
        name: Option<&str>,
        password: &Secret,
        source: Option<IpAddr>,
    ) -> Result<KeyId> {
        let (member, _) = self.invited(invitation, source).await?;
        let password = Password::chosen(password, member.email.as_deref())?;
        let stored = self.passwords.hash(self.lane, password).await?;
        self.control.members().join(invitation, name, &stored).await
    }

    /// Whom an invitation is for, and to which tenant.
    ///
    /// # Errors
    /// As [`Door::joined`].
    pub async fn invited(
        &self,
        invitation: &Secret,
        source: Option<IpAddr>,
    ) -> Result<(control::Member, control::Tenant)> {
        if self.wrong_keys.is_over(source) {
            return Err(too_often());
        }
        let found = match self.control.members().invited(invitation).await {
            // Before anything changes: who may not come from here takes nothing up.
            Ok((member, _)) if self.oauth().user(member.key, source).await?.is_none() => {
                Err(Error::new(Code::Unauthenticated, "the invitation is not good from this address")
                    .hint("open it in the network that the member is to work in"))
            }
            found => found,
        };
        if found.as_ref().is_err_and(|error| error.code() == Code::Unauthenticated) {
            self.wrong_keys.count(source);
        }
        found
    }
}
