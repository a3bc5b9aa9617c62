//! The scopes that clients ask for: three words that stand for many, or the platform's own names.

use kernel::{Scope, Scopes};

use super::Refused;

/// A word for many scopes, with what a user is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub name: &'static str,
    /// What it allows.
    pub about: &'static str,
    scopes: &'static [Scope],
}

/// The words there are.
pub const WORDS: [Word; 3] = [
    Word {
        name: "read",
        about: "See everything in the environment: its app, rows, users, files and logs",
        scopes: &[Scope::AppRead, Scope::DbRead, Scope::AuthRead, Scope::StorageRead, Scope::LogsRead],
    },
    Word {
        name: "write",
        about: "Change it: deploy releases, functions and sites, change and delete rows, users and files, set secrets, \
                call functions",
        scopes: &[
            Scope::AppWrite,
            Scope::DbWrite,
            Scope::AuthWrite,
            Scope::StorageWrite,
            Scope::FunctionWrite,
            Scope::FunctionInvoke,
            Scope::SiteWrite,
            Scope::SecretWrite,
            Scope::ResourceDelete,
        ],
    },
    Word { name: "sandbox", about: "Run commands in its sandboxes", scopes: &[Scope::SandboxUse] },
];

/// What a client gets that does not say.
pub const USUAL: &str = "read write";
/// Asked for by clients that want refresh tokens, which all of them get.
const OFFLINE: &str = "offline_access";

/// Scopes as a client asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(Vec<&'static str>);

impl Words {
    /// What a text asks for; the usual where it asks for nothing.
    ///
    /// # Errors
    /// `invalid_scope` for a word that is none.
    pub fn read(text: &str) -> Result<Self, Refused> {
        let mut words = Vec::new();
        for asked in text.split(' ').filter(|word| !word.is_empty() && *word != OFFLINE) {
            let scope = || Scopes::of_environment().iter().find(|scope| scope.as_str() == asked);
            let known = WORDS.iter().find(|word| word.name == asked).map(|word| word.name);
            let known = known.or_else(|| scope().map(Scope::as_str)).ok_or_else(|| {
                let asked: String = asked.chars().take(64).collect();
                Refused::Scope(format!("{asked:?} is no scope: ask for {}", Self::all()))
            })?;
            if !words.contains(&known) {
                words.push(known);
            }
        }
        if words.is_empty() { Self::read(USUAL) } else { Ok(Self(words)) }
    }

    /// All words, as metadata lists them.
    #[must_use]
    pub fn all() -> String {
        WORDS.map(|word| word.name).join(" ")
    }

    /// The scopes that they stand for.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        let scopes = self.0.iter().flat_map(|name| match WORDS.iter().find(|word| word.name == *name) {
            Some(word) => word.scopes.to_vec(),
            None => name.parse().into_iter().collect(),
        });
        scopes.collect()
    }

    /// Those that `other` has too.
    ///
    /// # Errors
    /// `invalid_scope` where none is left.
    pub fn of(&self, other: &Words) -> Result<Self, Refused> {
        let both: Vec<_> = self.0.iter().copied().filter(|word| other.0.contains(word)).collect();
        if both.is_empty() {
            Err(Refused::Scope("nothing of this was consented to".into()))
        } else {
            Ok(Self(both))
        }
    }

    /// Whether all of them are in `other`.
    #[must_use]
    pub fn are_in(&self, other: &Words) -> bool {
        self.0.iter().all(|word| other.0.contains(word))
    }

    /// Each with what a user is told of it.
    pub fn told(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let about =
            |name: &'static str| WORDS.iter().find(|word| word.name == name).map_or(name, |word| word.about);
        self.0.iter().map(move |name| (*name, about(name)))
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_all_that_an_environment_allows_and_each_scope_is_in_one() {
        let all = Words::read(&Words::all()).unwrap();
        assert_eq!(all.scopes(), Scopes::of_environment());
        assert_eq!(WORDS.iter().map(|word| word.scopes.len()).sum::<usize>(), all.scopes().iter().count());
    }

    #[test]
    fn what_is_asked_for_is_read_and_nothing_else() {
        let read = |text: &str| Words::read(text).map(|words| words.to_string());
        assert_eq!(read("").unwrap(), "read write");
        assert_eq!(read("offline_access db:read  read db:read").unwrap(), "db:read read");
        for wrong in ["key:admin", "tenant:admin", "READ", "read,write", "<script>"] {
            assert!(matches!(read(wrong), Err(Refused::Scope(_))), "{wrong}");
        }
        let (some, all) = (Words::read("write read").unwrap(), Words::read("read sandbox").unwrap());
        assert_eq!(some.of(&all).unwrap().to_string(), "read");
        assert!(some.of(&Words::read("sandbox").unwrap()).is_err() && !some.are_in(&all));
    }
}
