//! Passwords: what makes one, and hashing them (Argon2id, RFC 9106) beside the threads that serve.

use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use kernel::{Code, EnvId, Error, Result, Secret};
use unicode_normalization::UnicodeNormalization as _;

use super::address::Address;
use super::turns::Turns;

/// What is hashed with: 19 MiB, two passes, one lane (OWASP Password Storage Cheat Sheet, 2024).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

const SALT: usize = 16;

/// Passwords of at least eight characters that everybody tries first, in lower case.
const COMMON: &str = include_str!("common.txt");

/// How many characters.
const SHORTEST: usize = 8;
const LONGEST: usize = 128;

/// A password in the one form in which it is hashed: compatibility-composed (NIST SP 800-63B §5.1.1.2), so that every
/// keyboard's way to write it is the same.
#[derive(Clone)]
pub struct Password(Secret);

impl Password {
    /// Reads a password that is to be set.
    ///
    /// # Errors
    /// `invalid_input` at `/password` for its length, where it is the address, or where everybody would try it.
    pub(super) fn new(typed: &Secret, address: Option<&Address>) -> Result<Self> {
        Self::chosen(typed, address.map(Address::as_str))
    }

    /// The same, by whoever has an address in lower case.
    ///
    /// # Errors
    /// `invalid_input` at `/password` for its length, where it is the address, or where everybody would try it.
    pub fn chosen(typed: &Secret, address: Option<&str>) -> Result<Self> {
        let password = Self::typed(typed)?;
        let text = password.0.expose();
        let refuse = |message: String| Err(Error::invalid("/password", message));
        if text.chars().count() < SHORTEST {
            return refuse(format!("a password has at least {SHORTEST} characters"));
        }
        if COMMON.lines().any(|common| common == text.to_lowercase()) {
            return refuse("this password is one of those that are tried first".to_owned());
        }
        if address.is_some_and(|address| text.trim().to_lowercase() == address) {
            return refuse("the password must not be the address".to_owned());
        }
        Ok(password)
    }

    /// Reads a password that is to be tried.
    ///
    /// # Errors
    /// `invalid_input` at `/password` where it is longer than any is.
    pub fn typed(typed: &Secret) -> Result<Self> {
        let long = || Error::invalid("/password", format!("a password has at most {LONGEST} characters"));
        if typed.expose().len() > 16 * LONGEST {
            return Err(long());
        }
        let text: String = typed.expose().nfkc().collect();
        if text.chars().count() > LONGEST { Err(long()) } else { Ok(Self(Secret::new(text))) }
    }
}

/// What trying a password has shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried {
    /// It is another one, or none is stored.
    Wrong,
    /// It is the one.
    Right,
    /// Right, and to be hashed again: what is stored was made with other parameters.
    Outdated,
}

/// Hashes passwords, a bounded number at once.
pub struct Passwords {
    turns: Turns,
    wait: Duration,
}

impl Passwords {
    /// Hashes at most so many at once; who has waited that long for a turn is told to come again.
    #[must_use]
    pub fn new(at_once: usize, wait: Duration) -> Self {
        Self { turns: Turns::new(at_once), wait }
    }

    /// What is stored of a password.
    ///
    /// # Errors
    /// `unavailable` where too many others are being hashed.
    pub async fn hash(&self, env: EnvId, password: Password) -> Result<Secret> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(Error::internal)?;
        self.work(env, move || {
            let hash = hasher()?.hash_password_with_salt(password.0.expose().as_bytes(), &salt);
            Ok(Secret::new(hash.map_err(failed)?.to_string()))
        })
        .await
    }

    /// Tries a password against what is stored. Where nothing is, the same work is done for nothing, so that the time
    /// it takes does not tell.
    ///
    /// # Errors
    /// As [`Passwords::hash`]; `internal` where what is stored cannot be read.
    pub async fn try_out(&self, env: EnvId, password: Password, stored: Option<Secret>) -> Result<Tried> {
        self.work(env, move || {
            let password = password.0.expose().as_bytes();
            let Some(stored) = stored else {
                let mut nothing = [0; Params::DEFAULT_OUTPUT_LEN];
                hasher()?.hash_password_into(password, &[0; SALT], &mut nothing).map_err(failed)?;
                return Ok(Tried::Wrong);
            };
            let stored = PasswordHash::new(stored.expose()).map_err(failed)?;
            match hasher()?.verify_password(password, &stored) {
                Ok(()) if is_current(&stored) => Ok(Tried::Right),
                Ok(()) => Ok(Tried::Outdated),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(Tried::Wrong),
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        env: EnvId,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let busy = || {
            Error::new(Code::Unavailable, "too many people sign in at this moment")
                .retry_after(Duration::from_secs(2))
                .hint("try again in a moment")
        };
        let turn = tokio::time::timeout(self.wait, self.turns.take(env, 1)).await.map_err(|_| busy())??;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            // The turn is over when the work is, also where nobody waits for it any more.
            drop(turn);
            done
        });
        done.await.map_err(Error::internal)?
    }
}

fn hasher() -> Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn is_current(stored: &PasswordHash) -> bool {
    let params = Params::try_from(stored)
        .is_ok_and(|p| (p.m_cost(), p.t_cost(), p.p_cost()) == (MEMORY_KIB, PASSES, LANES));
    params && stored.algorithm == Algorithm::Argon2id.ident() && stored.version == Some(Version::V0x13.into())
}

/// Whether trying a password against what is stored takes no more than a few of our own.
pub(super) fn is_harmless(stored: &str) -> bool {
    let cost =
        |p: Params| p.m_cost() <= 4 * MEMORY_KIB && p.t_cost() <= 4 * PASSES && p.p_cost() <= 4 * LANES;
    PasswordHash::new(stored).is_ok_and(|hash| Params::try_from(&hash).is_ok_and(cost))
}

/// The library's errors say nothing of a password; they are kept as words.
fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("hashing a password failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(2, Duration::from_secs(60))
    }

    fn env() -> EnvId {
        EnvId::new()
    }

    fn read(text: &str) -> Password {
        Password::typed(&Secret::new(text)).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_hashed_with_the_parameters_and_known_again() {
        let passwords = passwords();
        let hash = passwords.hash(env(), read("correct horse")).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        let tried =
            async |text: &str| passwords.try_out(env(), read(text), Some(hash.clone())).await.unwrap();
        assert_eq!(tried("correct horse").await, Tried::Right);
        assert_eq!(tried("correct horse ").await, Tried::Wrong);
        assert_eq!(passwords.try_out(env(), read("correct horse"), None).await.unwrap(), Tried::Wrong);
        let again = passwords.hash(env(), read("correct horse")).await.unwrap();
        assert_ne!(again, hash, "each has its own salt");
    }

    #[tokio::test]
    async fn other_parameters_are_noticed() {
        let older = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let hash = older.hash_password_with_salt("pass word".as_bytes(), &[7; SALT]).unwrap().to_string();
        let passwords = passwords();
        let tried =
            async |text: &str| passwords.try_out(env(), read(text), Some(Secret::new(&*hash))).await.unwrap();
        assert_eq!(tried("pass word").await, Tried::Outdated);
        assert_eq!(tried("pass Word").await, Tried::Wrong);
    }

    #[tokio::test]
    async fn every_way_to_write_a_password_is_the_same() {
        let passwords = passwords();
        let hash = passwords.hash(env(), read("se\u{301}same-ﬁn")).await.unwrap();
        assert_eq!(passwords.try_out(env(), read("sésame-fin"), Some(hash)).await.unwrap(), Tried::Right);
    }

    #[test]
    fn a_new_password_has_a_length_and_is_not_the_address() {
        let address = Address::parse("", "ada@example.org").unwrap();
        let refused = |text: &str| {
            let refused = Password::new(&Secret::new(text), Some(&address));
            refused.err().map(|error| error.message().to_owned())
        };
        assert_eq!(refused(&"é".repeat(8)), None);
        assert_eq!(refused(&"é".repeat(128)), None);
        assert_eq!(refused(&"é".repeat(7)).as_deref(), Some("a password has at least 8 characters"));
        assert_eq!(refused(&"é".repeat(129)).as_deref(), Some("a password has at most 128 characters"));
        assert_eq!(refused(&"e".repeat(1 << 20)).as_deref(), Some("a password has at most 128 characters"));
        let common = Some("this password is one of those that are tried first");
        for text in ["password", "Password1", "12345678", "qwertyuiop", "iloveyou"] {
            assert_eq!(refused(text).as_deref(), common, "{text}");
        }
        assert!(COMMON.lines().all(|line| line.len() >= SHORTEST && line == line.to_lowercase()));
        assert_eq!(refused(" Ada@example.org").as_deref(), Some("the password must not be the address"));
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_sent_away() {
        let passwords = Passwords::new(1, Duration::from_millis(1));
        let env = EnvId::new();
        let _turn = passwords.turns.take(env, 1).await.unwrap();
        let refused = passwords.hash(env, read("whatever")).await.unwrap_err();
        assert_eq!((refused.code(), refused.retry_after_secs()), (Code::Unavailable, Some(2)));
    }
}
