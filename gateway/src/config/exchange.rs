//! The issuer whose signed tokens are exchanged for tokens of the platform, as settings.

use kernel::Networks;
use url::Url;

use super::Error;
use super::directory::{Issuer, is_near};
use super::value::{Kind, Value};

/// The issuer whose signed tokens are exchanged for tokens of the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Whose they are; none are exchanged where none is set.
    pub issuer: Issuer,
    /// Where its keys are.
    pub jwks_url: KeySet,
    /// Networks around the platform in which they may be.
    pub private: Networks,
}

impl Exchange {
    /// Refuses a half of what it takes.
    pub fn check(&self) -> Result<(), Error> {
        let (issuer, keys) = ("exchange.issuer", "exchange.jwks_url");
        match (self.issuer.0.is_some(), self.jwks_url.0.is_some()) {
            (true, false) => Err(Error::Alone { key: issuer, needs: keys }),
            (false, true) => Err(Error::Alone { key: keys, needs: issuer }),
            (false, false) if !self.private.is_empty() => {
                Err(Error::Alone { key: "exchange.private", needs: issuer })
            }
            _ => Ok(()),
        }
    }
}

/// Where somebody's keys are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(pub Option<Url>);

impl Value for KeySet {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let is_good = |url: &Url| {
            (url.scheme() == "https" || url.scheme() == "http" && is_near(url))
                && url.username().is_empty()
                && url.password().is_none()
                && url.fragment().is_none()
        };
        let url = Url::parse(text).ok().filter(is_good);
        url.map(|url| Self(Some(url)))
            .ok_or_else(|| "must be an address such as \"https://id.example.com/jwks.json\"".to_owned())
    }

    fn show(&self) -> String {
        self.0.as_ref().map(Url::to_string).unwrap_or_default()
    }
}
