//! The model that functions ask, as settings.

use url::Url;

use super::Error;
use super::value::{Hidden, Kind, OrZero, Text, Value};

/// The model that functions ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Where its provider is; there is no model where none is set.
    pub base_url: BaseUrl,
    /// What the provider calls it.
    pub name: Text,
    /// What proves to the provider who asks.
    pub api_key: Hidden,
    /// The most tokens of one environment on a day.
    pub tokens_of_env: OrZero,
    /// What its template adds to a request, in tokens.
    pub template_tokens: OrZero,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            base_url: BaseUrl(None),
            name: Text::default(),
            api_key: Hidden::default(),
            tokens_of_env: OrZero(1_000_000),
            template_tokens: OrZero(128),
        }
    }
}

impl Model {
    /// Refuses a half of what it takes.
    pub fn check(&self) -> Result<(), Error> {
        let (there, named) = (self.base_url.0.is_some(), !self.name.0.is_empty());
        let (base_url, name) = ("model.base_url", "model.name (STEADING_MODEL)");
        match (there, named, self.api_key.0.is_some()) {
            (true, false, _) => Err(Error::Alone { key: base_url, needs: name }),
            (false, true, _) => Err(Error::Alone { key: name, needs: base_url }),
            (false, _, true) => Err(Error::Alone { key: "model.api_key", needs: base_url }),
            _ => Ok(()),
        }
    }
}

/// The address of a provider, with a path or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(pub Option<Url>);

impl Value for BaseUrl {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let plain = |url: &Url| {
            matches!(url.scheme(), "http" | "https")
                && url.host_str().is_some_and(|host| !host.is_empty())
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        };
        let url = text.parse().ok().filter(plain);
        let wrong = "must be an address such as \"https://api.example.com/v1\", without a user and a query";
        url.map(|url| Self(Some(url))).ok_or_else(|| wrong.to_owned())
    }

    fn show(&self) -> String {
        self.0.as_ref().map(Url::to_string).unwrap_or_default()
    }
}
