//! Requests for mail: taken at once whoever asks for whom, and worked off beside the answer.

use std::sync::Arc;
use std::time::Duration;

use kernel::{Code, Env, Error, Result, Secret, UserId};

use super::account::{Key, Stored, settle};
use super::address::Address;
use super::codes::{self, New, Purpose};
use super::letters::{News, Sender};
use super::redirects::allowed;
use super::sessions;
use super::throttle::network;
use super::{Asking, Auth, Inner};
use crate::database::{Durability, Role, Writer};
use crate::mail::{self, Letter};
use crate::places::Place;
use crate::rows::SignUp;
use crate::snapshots;

/// A code that somebody wants mailed.
#[derive(Debug)]
pub(super) struct Wanted {
    pub purpose: Purpose,
    pub email: Address,
    /// Who asks, and in which session: whose address it becomes, for `Change`; else who is here without an account.
    pub user: Option<(UserId, String)>,
    /// What is stored of the password that the account gets; for `SignUp`.
    pub password: Option<Secret>,
    /// Where the link leads on to, checked.
    pub redirect: Option<String>,
    /// What the app is called.
    pub app: Option<String>,
    /// The domain of the app's own that was asked.
    pub domain: Option<String>,
    /// Who may make an account.
    pub signup: SignUp,
    /// Where it waits.
    pub _place: Place,
}

/// What is to be done about a letter after the commit.
pub(super) enum Outgoing {
    /// It is sent.
    Sent(Letter),
    /// It is in the outbox, which is told.
    Kept,
}

impl Auth {
    /// A request that may be made: its redirect checked, with a place to wait, and counted. Nothing that could refuse it
    /// comes after that, or it would count without a mail.
    pub(super) async fn wanted(
        &self,
        asking: &Asking<'_>,
        purpose: Purpose,
        email: Address,
        redirect: Option<&str>,
    ) -> Result<Wanted> {
        let redirect = match redirect {
            Some(wanted) => {
                let app = self.0.post.url(asking.env, asking.domain.into()).await?;
                Some(allowed(wanted, &app, &asking.settings.redirects)?)
            }
            None => None,
        };
        let place = self.0.place(asking.env)?;
        self.0.throttles.mails_from.admit(asking.client())?;
        let network = network(asking.client);
        self.0.throttles.mails.admit(asking.env.id(), email.clone(), network)?;
        let (app, signup) = (asking.settings.name.clone(), asking.settings.signup);
        let domain = asking.domain.map(str::to_owned);
        Ok(Wanted {
            purpose,
            email,
            user: None,
            password: None,
            redirect,
            app,
            domain,
            signup,
            _place: place,
        })
    }
}

impl Inner {
    /// Works a request off beside the answer, which is the same for every address.
    pub(super) fn request(self: &Arc<Self>, env: &Env, wanted: Wanted) {
        let (inner, of) = (Arc::clone(self), env.clone());
        beside(env, async move { inner.fulfil(&of, &wanted).await });
    }

    /// A place for a request that is to be worked off.
    ///
    /// # Errors
    /// `unavailable` where too many of the environment wait.
    pub(super) fn place(&self, env: &Env) -> Result<Place> {
        self.requests.take(env.id()).ok_or_else(|| {
            Error::new(Code::Unavailable, "too many codes are asked for at this moment")
                .retry_after(Duration::from_secs(5))
                .hint("try again in a moment")
        })
    }

    async fn fulfil(&self, env: &Env, wanted: &Wanted) -> Result<()> {
        let sender = self.sender(env, wanted.app.as_deref(), wanted.domain.as_deref().into()).await?;
        let mut db = self.databases.writer(env).await?;
        db.begin(Durability::Normal).await?;
        let letter = self.write(&mut db, env, wanted, &sender).await;
        let letter = settle(db, letter).await?;
        self.dispatch(env, letter);
        Ok(())
    }

    /// Writes the letter. Nobody gets one by guessing, and the same is written down for those who get none: a code that
    /// nobody is told, so that what follows takes as long.
    async fn write(
        &self,
        db: &mut Writer,
        env: &Env,
        wanted: &Wanted,
        sender: &Sender,
    ) -> Result<Option<Outgoing>> {
        let email = &wanted.email;
        let found = Key::Email(email).find_in(db).await?;
        let life = self.limits.code;
        let redirect = wanted.redirect.as_deref();
        let password = wanted.password.as_ref();
        let user = match &wanted.user {
            Some((user, session)) if sessions::is_open(db, *user, session).await? => Some(*user),
            // It has ended meanwhile, and what it has asked for with it.
            Some(_) if wanted.purpose == Purpose::Change => return Ok(None),
            _ => None,
        };
        let new = New { purpose: wanted.purpose, email, user, password, redirect, life };
        let mailed = codes::make(db, env, &new).await?;
        let code = || Some(sender.code(email, wanted.purpose, &mailed, redirect, life));
        let disabled = found.as_ref().is_some_and(|found| found.account.disabled);
        let letter = match (wanted.purpose, &found) {
            _ if disabled => None,
            (Purpose::SignIn, None) => {
                if wanted.signup == SignUp::Open {
                    code()
                } else {
                    None
                }
            }
            (Purpose::SignIn, Some(_)) | (Purpose::Reset, Some(_)) => code(),
            (Purpose::Reset, None) | (Purpose::Invite | Purpose::Phone, _) => None,
            (Purpose::SignUp, Some(Stored { account, .. })) if account.email_verified => {
                Some(sender.news(email, News::HasAccount))
            }
            (Purpose::SignUp, _) | (Purpose::Change, None) => code(),
            (Purpose::Change, Some(found)) if user == Some(found.account.id) => code(),
            (Purpose::Change, Some(_)) => Some(sender.news(email, News::HasAccount)),
        };
        self.keep(db, letter).await
    }

    /// Keeps a letter that no server sends, with the transaction that is its reason: where none is set, and in a branch,
    /// whose users are copies of people who know nothing of it. What is still to be done about it.
    pub(super) async fn keep(&self, db: &mut Writer, letter: Option<Letter>) -> Result<Option<Outgoing>> {
        let Some(letter) = letter else { return Ok(None) };
        if !self.post.is_local() && !self.is_branch(db).await? {
            return Ok(Some(Outgoing::Sent(letter)));
        }
        mail::keep(db, &letter).await?;
        Ok(Some(Outgoing::Kept))
    }

    /// Whether the environment is another's branch.
    pub(super) async fn is_branch(&self, db: &mut Writer) -> Result<bool> {
        let sql = "SELECT 1 FROM _steading_state WHERE key = ?1";
        Ok(!db.run(Role::Platform, sql, &[snapshots::STATE.into()]).await?.rows.is_empty())
    }

    /// Sends a letter, or says that it is in the outbox; to be called after the commit.
    pub(super) fn dispatch(&self, env: &Env, letter: Option<Outgoing>) {
        match letter {
            Some(Outgoing::Kept) => self.post.tell(env),
            Some(Outgoing::Sent(letter)) => self.post.send(env, letter),
            None => {}
        }
    }
}

/// Works something off beside the answer; its place is its own to keep.
pub(super) fn beside(env: &Env, work: impl Future<Output = Result<()>> + Send + 'static) {
    let env = env.id();
    tokio::spawn(async move {
        if let Err(error) = work.await {
            tracing::error!(env.id = %env, error = error.chain(), "a code that was asked for is not sent");
        }
    });
}
