//! Handing letters to a mail server (RFC 5321), encrypted except on this machine.

use std::time::Duration;

use kernel::{Code, Error, Result, Secret};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use url::{Host, Url};
use uuid::Uuid;

use super::Letter;

/// How long the server may take over one step.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mail server, and as whom to use it.
#[derive(Debug, Clone)]
pub struct Server {
    /// `smtps://host[:465]` is encrypted from the start, `smtp://host[:587]` from STARTTLS on, which the server must
    /// offer; on this machine it need not.
    pub url: Url,
    /// The address that letters come from.
    pub from: String,
    /// The name to sign in with, where the server wants one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

/// Whether letters can come from this address.
#[must_use]
pub fn is_sender(text: &str) -> bool {
    text.is_ascii() && text.parse::<Address>().is_ok()
}

pub(super) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Address,
}

/// Why a letter was not taken, without what the letter says.
pub(super) struct Failure {
    /// Whether another try would end the same way.
    pub lasts: bool,
    pub why: String,
}

impl Smtp {
    pub fn new(server: &Server) -> Result<Self> {
        let unusable = |what: &str| Error::new(Code::InvalidInput, format!("the mail settings: {what}"));
        let from = server.from.parse().map_err(|_| unusable("from is no email address"))?;
        let host = server.url.host_str().ok_or_else(|| unusable("the server has no host"))?;
        let host = host.trim_matches(['[', ']']);
        let tls =
            || TlsParameters::new(host.to_owned()).map_err(|e| unusable("TLS cannot be set up").source(e));
        let (tls, port) = match server.url.scheme() {
            "smtps" => (Tls::Wrapper(tls()?), 465),
            "smtp" if is_here(&server.url) => (Tls::Opportunistic(tls()?), 25),
            "smtp" => (Tls::Required(tls()?), 587),
            _ => return Err(unusable("the server is smtp://… or smtps://…")),
        };
        let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(server.url.port().unwrap_or(port))
            .tls(tls)
            .timeout(Some(PATIENCE));
        let builder = match (&server.user, &server.password) {
            (Some(user), Some(password)) => {
                builder.credentials(Credentials::new(user.clone(), password.expose().to_owned()))
            }
            (None, None) => builder,
            _ => return Err(unusable("user and password go together")),
        };
        Ok(Self { transport: builder.build(), from })
    }

    pub async fn send(&self, letter: &Letter) -> Result<(), Failure> {
        let message = self.message(letter).map_err(|why| Failure { lasts: true, why })?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            // The server's own words may repeat the address or the text.
            Err(error) => Err(Failure {
                lasts: error.is_permanent() || error.is_client(),
                why: match error.status() {
                    Some(code) => format!("the mail server answers {code}"),
                    None if error.is_timeout() => "the mail server does not answer in time".to_owned(),
                    None if error.is_tls() => "no encrypted connection to the mail server".to_owned(),
                    None if error.is_client() => "the mail server does not offer what is needed".to_owned(),
                    None => "the mail server cannot be reached".to_owned(),
                },
            }),
        }
    }

    fn message(&self, letter: &Letter) -> Result<Message, String> {
        let to: Address = letter.to.parse().map_err(|_| "mail cannot go to this address".to_owned())?;
        let id = format!("<{}@{}>", Uuid::new_v4(), self.from.domain());
        let message = Message::builder()
            .from(Mailbox::new(Some(line(&letter.from)), self.from.clone()))
            .to(Mailbox::new(None, to))
            .subject(line(&letter.subject))
            .message_id(Some(id))
            // Nobody's absence is to be answered to us (RFC 3834 §5).
            .header(Automatic)
            .header(ContentType::TEXT_PLAIN);
        message.body(letter.text.expose().to_owned()).map_err(|_| "the mail cannot be written".to_owned())
    }
}

#[derive(Clone)]
struct Automatic;

impl lettre::message::header::Header for Automatic {
    fn name() -> lettre::message::header::HeaderName {
        lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> lettre::message::header::HeaderValue {
        lettre::message::header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A text as one line of a header.
fn line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(100).collect();
    text.trim().to_owned()
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        // The url crate knows the hosts of few schemes; of others it gives a name.
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        Server {
            url: url.parse().unwrap(),
            from: "no-reply@example.org".to_owned(),
            user: None,
            password: None,
        }
    }

    #[tokio::test]
    async fn what_others_type_never_becomes_a_header() {
        let smtp = Smtp::new(&server("smtp://127.0.0.1:2525")).unwrap();
        let letter = |to: &str| Letter {
            to: to.to_owned(),
            from: "Shop\r\nBcc: x@example.org".to_owned(),
            subject: "Hello\nX-Evil: 1".to_owned(),
            text: Secret::new("text\r\n"),
        };
        let message = smtp.message(&letter("ada@example.org")).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> = head
            .lines()
            .filter(|l| !l.starts_with([' ', '\t']))
            .map(|l| l.split(':').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "From",
                "To",
                "Subject",
                "Message-ID",
                "Auto-Submitted",
                "Content-Type",
                "Content-Transfer-Encoding",
                "Date",
            ],
            "{text}"
        );
        for bad in ["a@b.c\r\nBcc: x@example.org", "a@b.c,x@example.org", "<a@b.c>", "", "a b@c.d"] {
            assert!(smtp.message(&letter(bad)).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn only_this_machine_is_spoken_to_in_the_clear() {
        for here in ["smtp://127.0.0.1:25", "smtp://localhost", "smtp://[::1]:2525"] {
            assert!(is_here(&here.parse().unwrap()), "{here}");
        }
        for there in ["smtp://mail.example.org", "smtp://127.0.0.1.example.org", "smtp://10.0.0.1:25"] {
            assert!(!is_here(&there.parse().unwrap()), "{there}");
        }
        assert!(Smtp::new(&server("http://127.0.0.1")).is_err());
        let half = Server { user: Some("ada".to_owned()), ..server("smtp://127.0.0.1") };
        assert!(Smtp::new(&half).is_err());
    }
}
