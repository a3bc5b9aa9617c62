//! How single settings are read from text and shown.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use kernel::{Networks, Secret};
use sandbox::egress::Target;
use sandbox::workspace::templates::Template;
use url::Url;

/// The TOML type of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// Text in quotes.
    Text,
    /// A list of texts in quotes; in a variable, with commas between them.
    List,
}

/// A type that a setting can have.
pub(super) trait Value: Sized {
    /// Its TOML type.
    const KIND: Kind;
    /// From text; the error completes "‹key› …".
    fn read(text: &str) -> Result<Self, String>;
    /// As text that reads back.
    fn show(&self) -> String;
}

impl Value for bool {
    const KIND: Kind = Kind::Bool;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_number {
    ($($kind:ty),+) => {$(
        impl Value for $kind {
            const KIND: Kind = Kind::Integer;

            fn read(text: &str) -> Result<Self, String> {
                match text.replace('_', "").parse() {
                    Ok(0) | Err(_) => Err(format!("must be a whole number from 1 to {}", <$kind>::MAX)),
                    Ok(number) => Ok(number),
                }
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

whole_number!(u32, u64, usize);

/// A whole number of which 0 is one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrZero(pub u64);

impl Value for OrZero {
    const KIND: Kind = Kind::Integer;

    fn read(text: &str) -> Result<Self, String> {
        let number = text.replace('_', "").parse();
        number.map(Self).map_err(|_| format!("must be a whole number up to {}", u64::MAX))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Value for SocketAddr {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        let spelled = text.replacen("localhost:", "127.0.0.1:", 1);
        spelled.parse().map_err(|_| "must be an address and a port, such as \"127.0.0.1:8787\"".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<SocketAddr> {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { SocketAddr::read(text).map(Some) }
    }

    fn show(&self) -> String {
        self.map(|address| address.to_string()).unwrap_or_default()
    }
}

impl Value for Option<PathBuf> {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        Ok(Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty()))
    }

    fn show(&self) -> String {
        self.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// IP addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<IpAddr>);

/// Addresses with ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Servers(pub Vec<SocketAddr>);

macro_rules! list {
    ($kind:ident, $example:literal) => {
        impl Value for $kind {
            const KIND: Kind = Kind::Text;

            fn read(text: &str) -> Result<Self, String> {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let read: Result<_, _> = parts.map(str::parse).collect();
                read.map($kind).map_err(|_| concat!("must be addresses such as ", $example).to_owned())
            }

            fn show(&self) -> String {
                self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            }
        }
    };
}

list!(Addresses, "\"203.0.113.7, 2001:db8::7\"");
list!(Servers, "\"192.0.2.53:53\"");

/// Hosts with ports whose addresses the operator vouches for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vouched(pub Vec<Target>);

impl Value for Vouched {
    const KIND: Kind = Kind::List;

    fn read(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(Self).map_err(|e| format!("is wrong: {e}"))
    }

    fn show(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// An address for mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact(pub String);

impl Value for Option<Contact> {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        let plain = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
        match text {
            "" => Ok(None),
            text if plain && !text.contains([' ', ':', ',', '?']) => Ok(Some(Contact(text.to_owned()))),
            _ => Err("must be an address such as \"admin@example.com\"".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map(|contact| contact.0.clone()).unwrap_or_default()
    }
}

/// The directory that is asked where nothing is said.
#[expect(clippy::expect_used, reason = "a constant, which every test parses")]
pub(super) fn lets_encrypt() -> Url {
    Url::parse("https://acme-v02.api.letsencrypt.org/directory").expect("a constant URL")
}

/// The directory of an ACME server, which speaks HTTPS only (RFC 8555 §6.1).
impl Value for Url {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.host().is_some());
        url.ok_or_else(|| "must be an address that begins with \"https://\"".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("must be a path".to_owned()) } else { Ok(text.into()) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// An address other programs are told to use: no path, since tools and apps have theirs.
impl Value for Option<Url> {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = || "must be an address such as \"https://cloud.example.com\", without a path".to_owned();
        let url: Url = text.parse().map_err(|_| wrong())?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if plain { Ok(Some(url)) } else { Err(wrong()) }
    }

    fn show(&self) -> String {
        self.as_ref().map(Url::to_string).unwrap_or_default()
    }
}

/// A domain, with a port or without.
impl Value for Option<String> {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        if port_fits && name.split('.').all(label) {
            Ok(Some(text.to_owned()))
        } else {
            Err("must be a domain in lower case, such as \"apps.example.com\" or \"localhost:8787\""
                .to_owned())
        }
    }

    fn show(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

/// A database URL. It is never shown: it may hold a password.
impl Value for Option<Secret> {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Some(Secret::new(text)));
        }
        Err("must start with \"postgres://\"".to_owned())
    }

    fn show(&self) -> String {
        String::new()
    }
}

impl Value for Networks {
    const KIND: Kind = Kind::List;

    fn read(text: &str) -> Result<Self, String> {
        let networks = text.split(',').map(str::trim).filter(|network| !network.is_empty());
        Self::of(networks).map_err(|wrong| {
            format!(
                "must be a list of networks such as \"10.0.0.0/8\" or \"fd00::/8\", and {wrong:?} is none"
            )
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A mail server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailServer(pub Option<Url>);

impl Value for MailServer {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wrong = || {
            "must be an address such as \"smtp://mail.example.com:587\" or \"smtps://mail.example.com\", \
                        without a user"
                .to_owned()
        };
        let url: Url = text.parse().map_err(|_| wrong())?;
        let plain = matches!(url.scheme(), "smtp" | "smtps")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if plain { Ok(Self(Some(url))) } else { Err(wrong()) }
    }

    fn show(&self) -> String {
        self.0.as_ref().map(Url::to_string).unwrap_or_default()
    }
}

/// The address that mail comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(pub Option<String>);

impl Value for Sender {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self(None)),
            text if capabilities::mail::is_sender(text) => Ok(Self(Some(text.to_owned()))),
            _ => Err("must be an email address such as \"no-reply@example.com\"".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone().unwrap_or_default()
    }
}

/// A text; empty where none is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl Value for Text {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A secret, which is never shown; none where the text is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hidden(pub Option<Secret>);

impl Value for Hidden {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self((!text.is_empty()).then(|| Secret::new(text))))
    }

    fn show(&self) -> String {
        String::new()
    }
}

impl Value for Template {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        Self::from_name(text).ok_or_else(|| format!("must be one of {}", names()))
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl Value for $name {
            const KIND: Kind = Kind::Text;

            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", [$($text),+].join(", "))),
                }
            }

            fn show(&self) -> String {
                match self { $(Self::$variant => $text,)+ }.to_owned()
            }
        }
    };
}

choice! {
    /// How severe a log line must be.
    Level {
        /// What failed.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// What happens, a line per call.
        Info = "info",
        /// How it happens.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// Where certificates come from that nobody gave.
    TlsMode {
        /// The local authority.
        LocalCa = "local_ca",
        /// A public authority.
        Acme = "acme",
        /// None but those in files.
        Files = "files",
    }
}

choice! {
    /// How a public authority is shown that a host is here.
    AcmeChallenge {
        /// One way, and when it does not work the other.
        Any = "any",
        /// A text on port 80.
        Http01 = "http-01",
        /// A handshake on port 443.
        TlsAlpn01 = "tls-alpn-01",
    }
}

choice! {
    /// How a log line looks.
    Format {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
