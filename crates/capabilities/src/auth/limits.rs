//! The bounds of signing in.

use std::num::NonZeroU32;
use std::time::Duration;

/// How often something may be done: `burst` times at once, then once in each `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How often at once, after a rest.
    pub burst: NonZeroU32,
    /// How long until one more.
    pub every: Duration,
}

const fn rate(burst: u32, every: Duration) -> Rate {
    match NonZeroU32::new(burst) {
        Some(burst) => Rate { burst, every },
        None => panic!("a rate of nothing"),
    }
}

/// Bounds for one process. Whom a rate is for is said with it; environments never share one.
#[derive(Debug, Clone)]
pub struct AuthLimits {
    /// How long an access token lives.
    pub access: Duration,
    /// How often it is looked whether a session has expired that something lasts of.
    pub lasting: Duration,
    /// How long a session lives without being refreshed.
    pub session: Duration,
    /// Sessions of one user; the oldest end where there would be more.
    pub sessions: u32,
    /// Access tokens that are known again without asking the database.
    pub remembered: usize,
    /// Passwords that are hashed at once; each takes a core and 19 MiB.
    pub hashing: usize,
    /// How long a call waits until its password is hashed.
    pub hashing_wait: Duration,
    /// Wrong passwords for one address from one network, whether or not it has an account.
    pub wrong_passwords: Rate,
    /// The same from all networks together, but for those from which the password was right before.
    pub strangers_passwords: Rate,
    /// How long a mailed code or link is good for.
    pub code: Duration,
    /// How long a mailed invitation is good for.
    pub invitation: Duration,
    /// How long after signing in a user may change the account without the password.
    pub fresh: Duration,
    /// Mails to one address that are asked for from one network.
    pub mails: Rate,
    /// The same from all networks together, but for those from which a password or a code was right before.
    pub strangers_mails: Rate,
    /// Mails asked for from one network address.
    pub mails_from: Rate,
    /// Invitations to one address, whoever of the app's makers sends them.
    pub invitations: Rate,
    /// Invitations of one app: they go out in the name of the platform's mail server.
    pub invitations_of_app: Rate,
    /// Wrong codes for one address from one network.
    pub wrong_codes: Rate,
    /// The same from all networks together, but for those from which a code was right before.
    pub strangers_codes: Rate,
    /// Texts to one number that are asked for from one network.
    pub texts: Rate,
    /// The same from all networks together, but for those from which a code was right before.
    pub strangers_texts: Rate,
    /// Texts asked for from one network address.
    pub texts_from: Rate,
    /// Texts of one app to numbers that have an account, and as many to those that have none: each costs its makers money.
    pub texts_of_app: Rate,
    /// How long after the first factor the second may be shown.
    pub ticket: Duration,
    /// Wrong codes of one user's authenticator, wherever they come from.
    pub wrong_seconds: Rate,
    /// Sign-ups and log-ins from one network address.
    pub passwords: Rate,
    /// Ways to providers and back, and custom tokens, from one network address.
    pub others: Rate,
    /// Custom tokens of one person.
    pub customs: Rate,
    /// Anonymous sign-ins from one network address.
    pub anonymous: Rate,
    /// The same over days: each makes a user, who is kept for as long as a session lives.
    pub anonymous_users: Rate,
    /// Refreshes from one network address.
    pub refreshes: Rate,
    /// Addresses that each rate keeps in mind at once; beyond it those go who have the least to wait.
    pub minded: usize,
}

impl Default for AuthLimits {
    fn default() -> Self {
        const WRONG_PASSWORDS: Rate = rate(5, Duration::from_secs(30));
        const STRANGERS_PASSWORDS: Rate = rate(50, Duration::from_secs(30));
        const MAILS: Rate = rate(5, Duration::from_secs(120));
        const STRANGERS_MAILS: Rate = rate(20, Duration::from_secs(120));
        const MAILS_FROM: Rate = rate(60, Duration::from_secs(10));
        const INVITATIONS: Rate = rate(5, Duration::from_secs(3_600));
        // After the first, two hundred a day.
        const INVITATIONS_OF_APP: Rate = rate(200, Duration::from_secs(432));
        const WRONG_CODES: Rate = rate(10, Duration::from_secs(60));
        // At this pace one of the five codes that are good at once is guessed once in four years.
        const STRANGERS_CODES: Rate = rate(20, Duration::from_secs(600));
        const TEXTS: Rate = rate(3, Duration::from_secs(300));
        const STRANGERS_TEXTS: Rate = rate(6, Duration::from_secs(900));
        const TEXTS_FROM: Rate = rate(10, Duration::from_secs(60));
        // Some five thousand a day at most of either, whoever asks.
        const TEXTS_OF_APP: Rate = rate(100, Duration::from_secs(18));
        // Three codes are good at a time: at this pace one is guessed once in three years, by who has the first factor.
        const WRONG_SECONDS: Rate = rate(10, Duration::from_secs(300));
        const PASSWORDS: Rate = rate(60, Duration::from_millis(500));
        const OTHERS: Rate = rate(120, Duration::from_millis(500));
        // Their rows are kept until the tokens end, an hour at most.
        const CUSTOMS: Rate = rate(60, Duration::from_secs(30));
        // A thousand at once, as of a school, and some three thousand a day: 60 MB in the thirty days that they are kept.
        const ANONYMOUS_USERS: Rate = rate(1_000, Duration::from_secs(30));
        const OFTEN: Rate = rate(300, Duration::from_millis(50));
        Self {
            access: Duration::from_secs(15 * 60),
            lasting: Duration::from_secs(60),
            session: Duration::from_secs(30 * 24 * 60 * 60),
            sessions: 50,
            remembered: 16_384,
            hashing: std::thread::available_parallelism().map_or(2, usize::from),
            hashing_wait: Duration::from_secs(5),
            wrong_passwords: WRONG_PASSWORDS,
            strangers_passwords: STRANGERS_PASSWORDS,
            code: Duration::from_secs(10 * 60),
            invitation: Duration::from_secs(7 * 24 * 60 * 60),
            fresh: Duration::from_secs(10 * 60),
            mails: MAILS,
            strangers_mails: STRANGERS_MAILS,
            mails_from: MAILS_FROM,
            invitations: INVITATIONS,
            invitations_of_app: INVITATIONS_OF_APP,
            wrong_codes: WRONG_CODES,
            strangers_codes: STRANGERS_CODES,
            texts: TEXTS,
            strangers_texts: STRANGERS_TEXTS,
            texts_from: TEXTS_FROM,
            texts_of_app: TEXTS_OF_APP,
            ticket: Duration::from_secs(5 * 60),
            wrong_seconds: WRONG_SECONDS,
            passwords: PASSWORDS,
            others: OTHERS,
            customs: CUSTOMS,
            anonymous: OFTEN,
            anonymous_users: ANONYMOUS_USERS,
            refreshes: OFTEN,
            minded: 100_000,
        }
    }
}
