//! What is mailed, word for word.

use std::time::Duration;

use kernel::{Env, Result, Secret};

use super::Inner;
use super::account::Account;
use super::address::Address;
use super::codes::{Mailed, Purpose};
use crate::mail::{At, Letter};
use crate::releases::is_title;

/// The app that a letter speaks for.
pub(super) struct Sender {
    /// What it is called.
    pub name: String,
    /// Its address, without a slash at its end.
    pub url: String,
}

/// What has happened to an account, for its owner to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Somebody wants an account with an address that has one.
    HasAccount,
    /// The password was set or changed.
    Password,
    /// Another address is the account's from now on.
    Moved,
    /// The account was removed.
    Gone,
    /// There is a second factor from now on.
    Guarded,
    /// There is another passkey.
    Passkey,
    /// There is no second factor any more.
    Unguarded,
    /// Somebody else's word opens the account from now on.
    Linked,
    /// A way in is one no more.
    Unlinked,
}

impl Inner {
    /// Who speaks for the app that calls itself `name`, at one of its addresses.
    pub(super) async fn sender(&self, env: &Env, name: Option<&str>, at: At<'_>) -> Result<Sender> {
        Ok(Sender::new(name, self.post.url(env, at).await?))
    }
}

impl Sender {
    /// Of the app at `url`, by the name it gives itself.
    fn new(name: Option<&str>, url: String) -> Self {
        let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host);
        // A release of an archive may have come from anywhere.
        let name = name.filter(|name| is_title(name)).unwrap_or(host).to_owned();
        Self { name, url }
    }

    /// The letter with a code and a link, good for `life`.
    pub fn code(
        &self,
        to: &Address,
        purpose: Purpose,
        mailed: &Mailed,
        redirect: Option<&str>,
        life: Duration,
    ) -> Letter {
        let Self { name, url } = self;
        let (subject, what, kind) = match purpose {
            Purpose::SignIn => (format!("Sign in to {name}"), format!("sign in to {name}"), "link"),
            Purpose::SignUp => (
                format!("Confirm your address for {name}"),
                format!("confirm your address for {name}"),
                // Our page asks for the password again; others know one kind of link to sign in with.
                if redirect.is_none_or(|to| to.starts_with('/')) { "signup" } else { "link" },
            ),
            Purpose::Reset => {
                (format!("Reset your password for {name}"), format!("set a new password for {name}"), "reset")
            }
            Purpose::Change => (
                format!("Confirm your new address for {name}"),
                format!("use this address for {name}"),
                "email",
            ),
            Purpose::Invite | Purpose::Phone => {
                (format!("You are invited to {name}"), format!("sign in to {name}"), "link")
            }
        };
        // Another origin's page has no part in our sign-in page: it gets the link's token, and takes it from there.
        let page = match redirect {
            Some(path) if path.starts_with('/') => {
                let path: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
                format!("{url}/_/auth/ui?to={path}#")
            }
            Some(elsewhere) => format!("{elsewhere}#auth_"),
            None => format!("{url}/_/auth/ui#"),
        };
        let link = format!("{page}{kind}={}", mailed.link.expose());
        let time = words(life);
        let text = if purpose == Purpose::Invite {
            format!(
                "Hello,\n\nyou are invited to {name}. To {what}, open\n\n    {link}\n\n\
                 The link works once, within {time}. If you expect no invitation, leave this mail alone.\n\n{name}\n{url}\n"
            )
        } else {
            format!(
                "Hello,\n\nto {what}, enter this code where you asked for it:\n\n    {}\n\nor open\n\n    {link}\n\n\
                 Either works once, within {time}. If you did not ask for this, leave this mail alone, and show the \
                 code to nobody.\n\n{name}\n{url}\n",
                mailed.code.expose()
            )
        };
        self.letter(to, subject, text)
    }

    /// The text with a code, good for `life`. Its last line lets a phone fill the code in on the app's own pages alone
    /// (Origin-bound one-time codes).
    pub fn text(&self, code: &Secret, life: Duration) -> Secret {
        let Self { name, url } = self;
        let (code, time) = (code.expose(), words(life));
        let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host);
        let host = host.split_once(':').map_or(host, |(host, _)| host);
        Secret::new(format!(
            "{code} is your code for {name}. It works once, within {time}. Show it to nobody.\n\n@{host} #{code}"
        ))
    }

    /// The letter that tells the owner of an account what has happened.
    pub fn news(&self, to: &Address, news: News) -> Letter {
        let Self { name, url } = self;
        let (subject, text) = match news {
            News::HasAccount => (
                format!("You have an account at {name}"),
                format!(
                    "somebody asked for an account at {name} with this address, which has one already. If that was \
                     you, sign in, or ask for a new password there. If not, there is nothing to do: nobody but you \
                     was told."
                ),
            ),
            News::Password => (
                format!("Your password at {name} has changed"),
                format!(
                    "the password of your account at {name} was set a moment ago, and all other sessions have ended. \
                     If that was not you, ask for a new password there at once."
                ),
            ),
            News::Moved => (
                format!("Your address at {name} has changed"),
                format!(
                    "your account at {name} has another address from now on, and mail to this one opens it no more. \
                     If that was not you, write to those who run {name}."
                ),
            ),
            News::Gone => (
                format!("Your account at {name} is gone"),
                format!(
                    "your account at {name} was removed a moment ago, as asked for there. If that was not you, write to \
                     those who run {name}."
                ),
            ),
            News::Guarded => (
                format!("Two steps to sign in at {name}"),
                format!(
                    "an authenticator was added to your account at {name} a moment ago, and all other sessions have \
                     ended. If that was not you, write to those who run {name}."
                ),
            ),
            News::Passkey => (
                format!("A passkey for {name}"),
                format!(
                    "a passkey was added to your account at {name} a moment ago, and opens it. If that was not you, \
                     remove it there at once, and write to those who run {name}."
                ),
            ),
            News::Unguarded => (
                format!("One step to sign in at {name}"),
                format!(
                    "the authenticator of your account at {name} was removed a moment ago, and signing in takes no \
                     second step any more. If that was not you, set a new password there at once, and an authenticator."
                ),
            ),
            News::Linked => (
                format!("Another way to sign in at {name}"),
                format!(
                    "another way to sign in was linked with your account at {name} a moment ago, and opens it. If that \
                     was not you, unlink it there at once, and write to those who run {name}."
                ),
            ),
            News::Unlinked => (
                format!("A way to sign in at {name} is gone"),
                format!(
                    "a way to sign in was taken away from your account at {name} a moment ago, and opens it no more. If \
                     that was not you, set a new password there at once."
                ),
            ),
        };
        self.letter(to, subject, format!("Hello,\n\n{text}\n\n{name}\n{url}\n"))
    }

    /// The same to the user of an account, where the address was confirmed.
    ///
    /// # Errors
    /// The account's address cannot be read.
    pub fn news_of(&self, account: &Account, news: News) -> Result<Option<Letter>> {
        let email = account.email.as_deref().filter(|_| account.email_verified);
        email.map(|email| Ok(self.news(&Address::parse("/email", email)?, news))).transpose()
    }

    fn letter(&self, to: &Address, subject: String, text: String) -> Letter {
        Letter { to: to.as_str().to_owned(), from: self.name.clone(), subject, text: Secret::new(text) }
    }
}

fn words(life: Duration) -> String {
    let (count, unit) = match life.as_secs() {
        seconds @ 0..=119 => (seconds, "second"),
        seconds @ 120..=7_199 => (seconds / 60, "minute"),
        seconds @ 7_200..=172_799 => (seconds / 3_600, "hour"),
        seconds => (seconds / 86_400, "day"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}
