//! Recovery codes: what lets somebody in who has lost the second factor, each once.

use data_encoding::BASE32_NOPAD;
use kernel::{Error, Result, Secret, UserId};

use super::token::{self, hexadecimal, random};
use crate::database::{Role, Writer};

/// How many somebody gets.
const MANY: usize = 10;

/// As many random bytes, so that nobody guesses one, nor finds it from its hash.
const BYTES: usize = 10;

/// How many characters stand together.
const GROUP: usize = 4;

/// Gives a user new codes; those from before are worth nothing. They are known nowhere else.
pub(super) async fn renew(db: &mut Writer, user: UserId) -> Result<Vec<Secret>> {
    forget(db, user).await?;
    let mut codes = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        let plain = BASE32_NOPAD.encode(&random::<BYTES>()?).to_lowercase();
        let sql = "INSERT INTO _steading_recovery (user, code) VALUES (?1, ?2)";
        db.run(Role::Platform, sql, &[user.to_string().into(), hash(user, &plain).into()]).await?;
        let groups: Vec<&str> =
            plain.as_bytes().chunks(GROUP).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        codes.push(Secret::new(groups.join("-")));
    }
    Ok(codes)
}

/// A code as it was typed, in the form that is hashed.
///
/// # Errors
/// `invalid_input` at `/recovery_code`.
pub(super) fn typed(code: &Secret) -> Result<Secret> {
    let length = BASE32_NOPAD.encode_len(BYTES);
    let signs = code.expose().chars().filter(|c| !c.is_whitespace() && *c != '-').take(length + 1);
    let plain: String = signs.map(|c| c.to_ascii_lowercase()).collect();
    if plain.len() == length && plain.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(Secret::new(plain));
    }
    Err(Error::invalid("/recovery_code", format!("a recovery code has {length} letters and digits")))
}

/// Uses a code up; whether it was one.
pub(super) async fn spend(db: &mut Writer, user: UserId, code: &Secret) -> Result<bool> {
    let sql = "DELETE FROM _steading_recovery WHERE user = ?1 AND code = ?2";
    let params = [user.to_string().into(), hash(user, code.expose()).into()];
    Ok(db.run(Role::Platform, sql, &params).await?.changed == 1)
}

/// No code of the user is worth anything any more.
pub(super) async fn forget(db: &mut Writer, user: UserId) -> Result<()> {
    db.run(Role::Platform, "DELETE FROM _steading_recovery WHERE user = ?1", &[user.to_string().into()])
        .await?;
    Ok(())
}

/// What is stored. It holds for this user alone, wherever the user's rows go.
fn hash(user: UserId, plain: &str) -> String {
    hexadecimal(&token::hash(format!("recovery\n{user}\n{plain}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed_and_nothing_else_is() {
        for good in ["abcd-efgh-ijkl-2345", " ABCDefgh ijkl2345\n", "a-b-c-d-efghijkl2345"] {
            assert_eq!(typed(&Secret::new(good)).unwrap().expose(), "abcdefghijkl2345", "{good}");
        }
        for bad in ["", "abcd", "abcd-efgh-ijkl-23456", "abcd-efgh-ijkl-234é", &"a".repeat(1 << 20)] {
            assert!(typed(&Secret::new(bad)).is_err(), "{bad:.40}");
        }
    }
}
