//! What a mailed code or link opens: a session, a new password, another address.

use std::sync::Arc;

use kernel::{Code, Env, Error, Result, Secret};

use super::account::{self, Key, settle};
use super::address::Address;
use super::codes::{self, DIGITS, Purpose, Spent};
use super::factors::{Guard, Presence};
use super::guesses::Guess;
use super::letters::{News, Sender};
use super::password::{Password, Tried};
use super::recognized::Known;
use super::requests::{Outgoing, Wanted};
use super::sessions::{self, Of};
use super::sign_in::{Alone, Before, Reads, Who, taken};
use super::throttle::network;
use super::{Asking, Auth, Inner, Profile, SignIn, whole};
use crate::database::{Role, Writer};
use crate::rows::Method;

/// What somebody shows who has read a mail.
#[derive(Debug, Clone)]
pub enum Shown {
    /// The code, and the address that it was mailed to.
    Code {
        /// The address.
        email: String,
        /// The code.
        code: Secret,
    },
    /// What the link ends with.
    Link(Secret),
}

impl Shown {
    /// The address that is said beside the code.
    fn email(&self) -> Result<Option<Address>> {
        match self {
            Shown::Code { email, .. } => Address::parse("/email", email).map(Some),
            Shown::Link(_) => Ok(None),
        }
    }
}

/// What a mail has opened.
#[derive(Debug, Clone)]
pub struct Entered {
    /// A session, or what is still to be shown for it.
    pub signed_in: SignIn,
    /// Where the link leads on to, checked when it was asked for.
    pub redirect: Option<String>,
}

/// The one answer to whatever is wrong with a code or a link.
pub(super) fn wrong() -> Error {
    Error::new(Code::Unauthenticated, "the code is wrong, or not valid any more").hint("ask for another mail")
}

/// The code as it was mailed; people may type blanks between the digits.
pub(super) fn typed(code: &Secret) -> Result<String> {
    let digits: String =
        code.expose().chars().filter(|c| !c.is_whitespace() && *c != '-').take(DIGITS + 1).collect();
    if digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(digits);
    }
    Err(Error::invalid("/code", format!("a code has {DIGITS} digits")))
}

/// What was shown, in its form.
enum Proof {
    Code { email: Address, code: String },
    Link(Secret),
}

impl Proof {
    fn read(shown: &Shown) -> Result<Self> {
        Ok(match shown {
            Shown::Code { email, code } => {
                Proof::Code { email: Address::parse("/email", email)?, code: typed(code)? }
            }
            Shown::Link(link) if link.expose().len() > 200 => return Err(wrong()),
            Shown::Link(link) => Proof::Link(link.clone()),
        })
    }

    async fn spend(&self, db: &mut Writer, env: &Env, purposes: &[Purpose]) -> Result<Option<Spent>> {
        match self {
            Proof::Code { email, code } => codes::by_code(db, env, email, code, purposes).await,
            Proof::Link(link) => codes::by_link(db, env, link, purposes).await,
        }
    }
}

impl Auth {
    /// Mails a code and a link to sign in with. Nothing tells whether the address has an account. With the access token of
    /// an anonymous user the link makes an account of that user.
    ///
    /// # Errors
    /// `forbidden` where the app does not list the method; `invalid_input` at `/email` or `/redirect`; `rate_limited`;
    /// `unavailable`.
    pub async fn ask_code(
        &self,
        asking: &Asking<'_>,
        token: Option<&Secret>,
        email: &str,
        redirect: Option<&str>,
    ) -> Result<()> {
        asking.by(Method::Otp)?;
        let email = Address::parse("/email", email)?;
        let before = match token {
            Some(token) => Before::of(&*self.0.known(asking.env, token).await?),
            None => None,
        };
        let wanted = self.wanted(asking, Purpose::SignIn, email, redirect).await?;
        self.0.request(asking.env, Wanted { user: before.map(Before::into_asker), ..wanted });
        Ok(())
    }

    /// Mails a code and a link to set a new password with. Nothing tells whether the address has an account.
    ///
    /// # Errors
    /// As [`Auth::ask_code`].
    pub async fn forgot(&self, asking: &Asking<'_>, email: &str, redirect: Option<&str>) -> Result<()> {
        asking.by(Method::Password)?;
        let email = Address::parse("/email", email)?;
        let wanted = self.wanted(asking, Purpose::Reset, email, redirect).await?;
        self.0.request(asking.env, wanted);
        Ok(())
    }

    /// Opens a session for who shows what was mailed to sign in, to confirm an address, or to invite. With the access
    /// token of an anonymous user, and an address without an account, it is that user who gets it; by a link only the one
    /// who has asked for it. With the `password` that was signed up with, an account that is made by this has it, whatever
    /// others have typed for the address; by a link without it, it has none.
    ///
    /// # Errors
    /// `unauthenticated` with the same words for whatever is wrong; `invalid_input` at `/email`, `/code` or `/password`;
    /// `rate_limited`.
    pub async fn verify(
        &self,
        asking: &Asking<'_>,
        token: Option<&Secret>,
        shown: &Shown,
        password: Option<&Secret>,
    ) -> Result<Entered> {
        let before = match token {
            Some(token) => Before::of(&*self.0.known(asking.env, token).await?),
            None => None,
        };
        let on = |method| asking.settings.methods.contains(&method);
        let purposes = [
            (Purpose::SignIn, on(Method::Otp)),
            (Purpose::SignUp, on(Method::Password)),
            (Purpose::Invite, true),
        ];
        let purposes = purposes.into_iter().filter(|(_, on)| *on).map(|(purpose, _)| purpose).collect();
        let password =
            password.map(|password| Password::new(password, shown.email()?.as_ref())).transpose()?;
        self.enter(asking, shown, purposes, before, password).await
    }

    /// Sets a new password for who shows what was mailed for it; all sessions end. Then another is opened, once the
    /// second factor was shown where there is one.
    ///
    /// # Errors
    /// As [`Auth::verify`], and `invalid_input` at `/password`.
    pub async fn reset(&self, asking: &Asking<'_>, shown: &Shown, password: &Secret) -> Result<Entered> {
        asking.by(Method::Password)?;
        let password = Password::new(password, shown.email()?.as_ref())?;
        self.enter(asking, shown, vec![Purpose::Reset], None, Some(password)).await
    }

    async fn enter(
        &self,
        asking: &Asking<'_>,
        shown: &Shown,
        purposes: Vec<Purpose>,
        before: Option<Before>,
        password: Option<Password>,
    ) -> Result<Entered> {
        self.0.throttles.passwords.admit(asking.client())?;
        let proof = Proof::read(shown)?;
        let guess = self.guess(asking, &proof)?;
        let password = match password {
            Some(password) => Some(self.0.passwords.hash(asking.env.id(), password).await?),
            None => None,
        };
        let (inner, env) = (Arc::clone(&self.0), asking.env.clone());
        let (signup, how) = (asking.settings.signup, asking.how("mail"));
        let (name, domain) = (asking.settings.name.clone(), asking.domain.map(str::to_owned));
        // Anybody may have asked for a link, and sent it on or had it mailed to somebody else.
        let by_link = matches!(proof, Proof::Link(_));
        let outcome = whole(async move {
            let mut db = inner.begin(&env).await?;
            let entered = async {
                // That a code was wrong is to be kept, while a refusal after it is not.
                let Some(spent) = proof.spend(&mut db, &env, &purposes).await? else { return Ok(None) };
                let reset = spent.purpose == Purpose::Reset;
                let alone = if reset { Alone::Yes } else { Alone::No };
                let letter = match reset {
                    true => {
                        let sender = inner.sender(&env, name.as_deref(), domain.as_deref().into()).await?;
                        inner.keep(&mut db, Some(sender.news(&spent.email, News::Password))).await?
                    }
                    false => None,
                };
                let before = before.filter(|before| !by_link || spent.user == Some(before.user()));
                let password = match spent.purpose {
                    Purpose::SignUp if by_link => password,
                    Purpose::Reset | Purpose::SignUp => password.or(spent.password),
                    Purpose::SignIn | Purpose::Change | Purpose::Invite | Purpose::Phone => None,
                };
                let reads = Reads { email: spent.email, before, password, signup, alone };
                let opened = inner.signed_in(&mut db, &env, Who::Reads(reads), &how).await?;
                Ok(Some((opened, spent.redirect, letter)))
            }
            .await;
            let Some((opened, redirect, letter)) = settle(db, entered).await? else { return Ok(None) };
            inner.dispatch(&env, letter);
            Ok(Some(Entered { signed_in: inner.announce(&env, opened), redirect }))
        })
        .await?;
        let entered = outcome.ok_or_else(wrong)?;
        self.right(asking, guess);
        Ok(entered)
    }

    /// Counts a code that is tried as wrong, until it was right. A link is not guessed.
    fn guess(&self, asking: &Asking<'_>, proof: &Proof) -> Result<Option<(Guess, Address)>> {
        let Proof::Code { email, .. } = proof else { return Ok(None) };
        let network = network(asking.client);
        let guess = self.0.throttles.codes.admit(asking.env.id(), email.clone(), network)?;
        Ok(Some((guess, email.clone())))
    }

    fn right(&self, asking: &Asking<'_>, guess: Option<(Guess, Address)>) {
        let Some((guess, email)) = guess else { return };
        self.0.throttles.codes.give_back(&guess);
        self.0.throttles.codes.familiar(asking.env.id(), email, network(asking.client));
    }

    /// Sets another password for the user of an access token, who knows the `current` one or has signed in a moment ago;
    /// the other sessions end.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold, or the current password is wrong; `forbidden` where it is
    /// needed; `invalid_input` at `/password`; `conflict` where the user has no address; `rate_limited`.
    pub async fn change_password(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        current: Option<&Secret>,
        password: &Secret,
    ) -> Result<()> {
        asking.by(Method::Password)?;
        let (session, email) = self.owner(asking, token, current).await?;
        let password = Password::new(password, Some(&email))?;
        let password = self.0.passwords.hash(asking.env.id(), password).await?;
        let (inner, env, name) = (Arc::clone(&self.0), asking.env.clone(), asking.settings.name.clone());
        let domain = asking.domain.map(str::to_owned);
        whole(async move {
            let sender = inner.sender(&env, name.as_deref(), domain.as_deref().into()).await?;
            let mut db = inner.begin(&env).await?;
            let changed = async {
                let (id, mut user) = session_user(&mut db, &session).await?;
                user.password = Some(password);
                account::put(&mut db, &user).await?;
                sessions::end(&mut db, user.account.id, Of::Others(&id)).await?;
                let letter = user.account.email_verified.then(|| sender.news(&email, News::Password));
                Ok((user.account.id, inner.keep(&mut db, letter).await?))
            }
            .await;
            let (user, letter) = settle(db, changed).await?;
            inner.recognized.forget(|other| other.is_of_user(env.id(), user) && other.session != session);
            inner.dispatch(&env, letter);
            Ok(())
        })
        .await
    }

    /// Mails a code and a link to the address that the user of an access token wants to have. For the address that the
    /// account has nobody need be there in person: it is how it is confirmed.
    ///
    /// # Errors
    /// As [`Auth::change_password`], but at `/email`.
    pub async fn ask_email(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        current: Option<&Secret>,
        email: &str,
    ) -> Result<()> {
        let email = Address::parse("/email", email)?;
        let known = self.0.known(asking.env, token).await?;
        let user = Some((known.profile.id, known.session.clone()));
        if known.profile.email.as_deref() == Some(email.as_str()) {
            // Nothing changes hands: who reads the mail of the account's own address shows that it is theirs.
        } else if known.profile.email.is_some() || known.profile.anonymous {
            self.owner(asking, token, current).await?;
        } else {
            // Somebody whom others vouch for has no password to show.
            known.admitted(asking.settings.mfa)?;
            self.0.present(asking, &known, &Presence::Fresh).await?;
        }
        let wanted = self.wanted(asking, Purpose::Change, email, None).await?;
        self.0.request(asking.env, Wanted { user, ..wanted });
        Ok(())
    }

    /// Gives the user of an access token, who has asked for it, the new address that its mail was read at. The address
    /// before is told.
    ///
    /// # Errors
    /// As [`Auth::verify`]; `unauthenticated` also where somebody else has asked, and the link is still good then;
    /// `conflict` where the address has another account by now.
    pub async fn verify_email(
        &self,
        asking: &Asking<'_>,
        token: Option<&Secret>,
        shown: &Shown,
    ) -> Result<Profile> {
        // Who presses a link in a mail need not be who has asked for it: their press gives nobody else their address.
        let other = || {
            Error::new(Code::Unauthenticated, "this is for the user who has asked for the new address")
                .hint("sign in as that user, then show the code or open the link again")
        };
        let known = self.0.known(asking.env, token.ok_or_else(other)?).await?;
        self.0.throttles.passwords.admit(asking.client())?;
        let proof = Proof::read(shown)?;
        let guess = self.guess(asking, &proof)?;
        let (inner, env, name) = (Arc::clone(&self.0), asking.env.clone(), asking.settings.name.clone());
        let domain = asking.domain.map(str::to_owned);
        let (by, by_link) = (known.profile.id, matches!(proof, Proof::Link(_)));
        let outcome = whole(async move {
            let sender = inner.sender(&env, name.as_deref(), domain.as_deref().into()).await?;
            let mut db = inner.begin(&env).await?;
            let moved = async {
                let Some(spent) = proof.spend(&mut db, &env, &[Purpose::Change]).await? else {
                    return Ok(None);
                };
                if by_link && spent.user != Some(by) {
                    return Err(other());
                }
                inner.moved(&mut db, spent, by, &sender).await
            }
            .await;
            let Some((profile, letter)) = settle(db, moved).await? else { return Ok(None) };
            inner.recognized.forget(|other| other.is_of_user(env.id(), profile.id));
            inner.dispatch(&env, letter);
            Ok(Some(profile))
        })
        .await?;
        let profile = outcome.ok_or_else(wrong)?;
        self.right(asking, guess);
        Ok(profile)
    }

    /// That the user of an access token is there in person: by the password, or by having signed in a moment ago. The
    /// session, and the user's address.
    pub(super) async fn owner(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        current: Option<&Secret>,
    ) -> Result<(String, Address)> {
        let (env, inner) = (asking.env, &self.0);
        let known = inner.known(env, token).await?;
        known.admitted(asking.settings.mfa)?;
        let Some(email) = &known.profile.email else {
            return Err(Error::new(Code::Conflict, "this user has no address yet").hint("sign up first"));
        };
        let email = Address::parse("/email", email)?;
        let guard = Guard::find(&inner.databases, env, known.profile.id).await?;
        match current {
            Some(current) => inner.knows(asking, &known, current).await?,
            None => inner.present(asking, &known, &Presence::Fresh).await?,
        }
        if !guard.asks(asking.settings.mfa).is_empty() {
            // Where there is a second factor the password is not enough.
            inner.present(asking, &known, &Presence::Fresh).await?;
        }
        Ok((known.session.clone(), email))
    }
}

/// What is said to who is to show the password.
pub(super) fn not_in_person() -> Error {
    Error::new(Code::Forbidden, "this needs the password, or to have signed in a moment ago")
        .hint("send it as `current`, or sign in again")
}

impl Inner {
    /// That the user of a session knows the password.
    ///
    /// # Errors
    /// `forbidden` at `/current` where it is wrong, or there is none; `invalid_input` there; `rate_limited`.
    pub(super) async fn knows(&self, asking: &Asking<'_>, known: &Known, current: &Secret) -> Result<()> {
        let (env, inner) = (asking.env, self);
        let Some(email) = &known.profile.email else { return Err(not_in_person()) };
        let email = Address::parse("/email", email)?;
        inner.throttles.passwords.admit(asking.client())?;
        let network = network(asking.client);
        let guess = inner.throttles.guesses.admit(env.id(), email.clone(), network)?;
        let current = Password::typed(current).map_err(|e| e.field("/current"))?;
        let stored =
            Key::Id(known.profile.id).find(&inner.databases, env).await?.and_then(|user| user.password);
        match inner.passwords.try_out(env.id(), current, stored).await {
            Ok(Tried::Right | Tried::Outdated) => {
                inner.throttles.guesses.give_back(&guess);
                Ok(())
            }
            Ok(Tried::Wrong) => {
                Err(Error::new(Code::Forbidden, "the current password is wrong").field("/current"))
            }
            Err(error) => {
                inner.throttles.guesses.give_back(&guess);
                Err(error)
            }
        }
    }

    /// Whether the user has signed in a moment ago.
    pub(super) async fn is_fresh(&self, env: &Env, session: &str) -> Result<bool> {
        let since = kernel::Timestamp::now().minus(self.limits.fresh).as_micros();
        let sql = "SELECT 1 FROM _steading_session WHERE id = ?1 AND created_at > ?2";
        Ok(!self.databases.platform_query(env, sql, &[session.into(), since.into()]).await?.is_empty())
    }

    async fn moved(
        &self,
        db: &mut Writer,
        spent: Spent,
        by: kernel::UserId,
        sender: &Sender,
    ) -> Result<Option<(Profile, Option<Outgoing>)>> {
        // The code of another user is none.
        let Some(user) = spent.user.filter(|user| *user == by) else { return Ok(None) };
        let found = Key::Id(user).find_in(db).await?.filter(|user| !user.account.disabled);
        let Some(mut user) = found else { return Ok(None) };
        let other = Key::Email(&spent.email).find_in(db).await?;
        if other.is_some_and(|other| other.account.id != user.account.id) {
            return Err(taken());
        }
        let before = user.account.email.replace(spent.email.as_str().to_owned());
        account::put(db, &user).await?;
        account::confirm(db, &mut user.account).await?;
        let before = before.filter(|before| before != spent.email.as_str());
        let before = before.map(|before| Address::parse("/email", &before)).transpose()?;
        if let Some(before) = &before {
            codes::forget(db, before).await?;
        }
        let letter = self.keep(db, before.map(|before| sender.news(&before, News::Moved))).await?;
        Ok(Some((user.account.profile(), letter)))
    }
}

/// A session that is still there, and its user.
pub(super) async fn session_user(db: &mut Writer, session: &str) -> Result<(String, account::Stored)> {
    let sql = "SELECT user FROM _steading_session WHERE id = ?1";
    let found = db.run(Role::Platform, sql, &[session.into()]).await?.rows;
    let user = found.first().and_then(|row| row.first()?.as_str()?.parse().ok());
    let user = match user {
        Some(user) => Key::Id(user).find_in(db).await?,
        None => None,
    };
    let user = user.filter(|user| !user.account.disabled).ok_or_else(super::refused)?;
    Ok((session.to_owned(), user))
}
