//! Who asks users for their consent: clients that are known, that have registered, or that a document describes. All are
//! public: none has a secret (RFC 6749 §2.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::{Host, Url};

use super::{OAuth, Refused};
use crate::vault::{mac, mac_begins_with};

/// The command line's own.
pub const COMMAND_LINE: &str = "steading-cli";
/// What Claude Code calls itself by. What its document says is known here, so that it is let in without a network.
pub const CLAUDE_CODE: &str = "https://claude.ai/oauth/claude-code-client-metadata";

const REGISTERED: &str = "stead_client_";
const PURPOSE: &[u8] = b"client";
const TAG: usize = 16;
/// A client's id is what it has said of itself, and stands in addresses and tokens.
const MAX_METADATA: usize = 1_200;
const MAX_REDIRECTS: usize = 10;
const MAX_REDIRECT: usize = 500;
const MAX_NAME: usize = 80;
const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Addresses that browsers run or read from.
const UNSAFE: [&str; 14] = [
    "javascript",
    "data",
    "vbscript",
    "file",
    "filesystem",
    "blob",
    "about",
    "view-source",
    "ftp",
    "ws",
    "wss",
    "mailto",
    "tel",
    "intent",
];

/// A client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// What it calls itself by.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Where users may be sent back to.
    pub redirects: Vec<String>,
    /// Whether it may ask as a device.
    pub device: bool,
}

/// What a client has said of itself, in its id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    n: String,
    r: Vec<String>,
    d: bool,
}

impl Client {
    /// A client that this program knows.
    #[must_use]
    pub fn pinned(id: &str) -> Option<Self> {
        let (name, redirects, device) = match id {
            COMMAND_LINE => ("The command line of Steading", vec![], true),
            CLAUDE_CODE => {
                ("Claude Code", vec!["http://localhost/callback", "http://127.0.0.1/callback"], false)
            }
            _ => return None,
        };
        let redirects = redirects.into_iter().map(str::to_owned).collect();
        Some(Self { id: id.to_owned(), name: name.to_owned(), redirects, device })
    }

    /// The address of the document that describes the client of this id, where its id is one (OAuth Client ID Metadata
    /// Document).
    #[must_use]
    pub fn document(id: &str) -> Option<Url> {
        let url = Url::parse(id).ok()?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let is_one = url.scheme() == "https" && is_plain && url.path().len() > 1 && id.len() <= MAX_REDIRECT;
        // Written as it is read: no other spelling is the same client.
        (is_one && url.as_str() == id).then_some(url)
    }

    /// The client that a document describes, which has to be the one of this id.
    ///
    /// # Errors
    /// `invalid_client` where it is another's, or cannot be used.
    pub fn described(id: &str, document: &Value) -> Result<Self, Refused> {
        if document["client_id"].as_str() != Some(id) {
            return Err(Refused::Client("the document at the client_id is not this client's".into()));
        }
        if !matches!(document["token_endpoint_auth_method"].as_str(), None | Some("none")) {
            return Err(Refused::Client(
                "the client wants to prove itself: only public ones are known here".into(),
            ));
        }
        Self::said(id.to_owned(), document)
    }

    /// Whether users may be sent back there. A program on the user's machine takes whatever port is free (RFC 8252 §7.3).
    #[must_use]
    pub fn allows(&self, redirect: &str) -> bool {
        if redirect_of(redirect).is_err() {
            return false;
        }
        let any_port = |text: &str| {
            let mut url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && is_loopback(url))?;
            url.set_port(None).ok()?;
            Some(url)
        };
        self.redirects.iter().any(|known| {
            known == redirect || any_port(known).is_some_and(|known| any_port(redirect) == Some(known))
        })
    }

    /// From what it says of itself (RFC 7591 §2).
    fn said(id: String, said: &Value) -> Result<Self, Refused> {
        let wrong = |what: &str| Refused::Redirect(what.to_owned());
        let listed = said["redirect_uris"].as_array().map(Vec::as_slice).unwrap_or_default();
        let device =
            said["grant_types"].as_array().is_some_and(|types| types.iter().any(|one| one == DEVICE));
        if listed.len() > MAX_REDIRECTS || (listed.is_empty() && !device) {
            return Err(wrong("redirect_uris must list one to ten addresses"));
        }
        let mut redirects = Vec::new();
        for one in listed {
            let one = one.as_str().ok_or_else(|| wrong("redirect_uris must be texts"))?;
            redirect_of(one).map_err(|why| wrong(&why))?;
            redirects.push(one.to_owned());
        }
        let name = said["client_name"].as_str().unwrap_or_default();
        let name: String = name.chars().filter(|c| is_shown(*c)).take(MAX_NAME).collect();
        let name = name.trim();
        let name = if name.is_empty() { "A client without a name" } else { name }.to_owned();
        Ok(Self { id, name, redirects, device })
    }
}

/// A letter that is what it looks like, and moves nothing around it.
fn is_shown(c: char) -> bool {
    let moves =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !moves
}

/// An address that users may be sent back to; why not, otherwise.
fn redirect_of(text: &str) -> Result<Url, String> {
    let shown: String = text.chars().take(64).collect();
    let url = Url::parse(text).map_err(|e| format!("{shown:?} is no address: {e}"))?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if text.len() > MAX_REDIRECT || !plain || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!(
            "{shown:?} cannot be sent back to: it is too long, or has a user, a fragment or a space"
        ));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(format!("{shown:?} must be https: http is for the user's own machine")),
        scheme if UNSAFE.contains(&scheme) => Err(format!("{shown:?} cannot be sent back to")),
        _ => Ok(url),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

impl OAuth<'_> {
    /// Registers a client (RFC 7591). Nothing is kept: what it says of itself is its id, signed.
    ///
    /// # Errors
    /// `invalid_redirect_uri` or `invalid_client_metadata`.
    pub fn register(&self, said: &Value) -> Result<Client, Refused> {
        let mut client = Client::said(String::new(), said)?;
        let Client { name, redirects, device, .. } = &client;
        let said = Said { n: name.clone(), r: redirects.clone(), d: *device };
        let said = serde_json::to_vec(&said).map_err(kernel::Error::internal)?;
        if said.len() > MAX_METADATA {
            return Err(Refused::Metadata(format!(
                "it says more than {MAX_METADATA} bytes: list fewer redirect_uris"
            )));
        }
        let tag = mac(self.key(), &[PURPOSE, &said]);
        let (said, tag) = (URL_SAFE_NO_PAD.encode(said), URL_SAFE_NO_PAD.encode(&tag[..TAG]));
        client.id = format!("{REGISTERED}{said}.{tag}");
        Ok(client)
    }

    /// A client that has registered here.
    #[must_use]
    pub fn registered(&self, id: &str) -> Option<Client> {
        let (said, tag) = id.strip_prefix(REGISTERED)?.split_once('.')?;
        let (said, tag) = (URL_SAFE_NO_PAD.decode(said).ok()?, URL_SAFE_NO_PAD.decode(tag).ok()?);
        if tag.len() != TAG || !mac_begins_with(self.key(), &[PURPOSE, &said], &tag) {
            return None;
        }
        let Said { n: name, r: redirects, d: device } = serde_json::from_slice(&said).ok()?;
        Some(Client { id: id.to_owned(), name, redirects, device })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn client(redirects: &[&str]) -> Result<Client, Refused> {
        Client::said("c".to_owned(), &json!({ "redirect_uris": redirects, "client_name": "  A\u{202e}\nb " }))
    }

    #[test]
    fn a_program_on_the_users_machine_takes_any_port_and_nothing_else_differs() {
        let claude = Client::pinned(CLAUDE_CODE).unwrap();
        for good in
            ["http://localhost/callback", "http://localhost:3118/callback", "http://127.0.0.1:1/callback"]
        {
            assert!(claude.allows(good), "{good}");
        }
        for bad in [
            "https://localhost:3118/callback",
            "http://localhost:3118/callback/",
            "http://localhost:3118/callback?a=b",
            "http://localhost:3118/callback#a",
            "http://user@localhost:3118/callback",
            "http://localhost.evil.example:3118/callback",
            "http://localhost:3118/other",
            "http://[::1]:3118/callback",
            "http://evil.example/callback",
            "//localhost/callback",
            "javascript:alert(1)",
            "",
        ] {
            assert!(!claude.allows(bad), "{bad}");
        }
        let web = client(&["https://app.example/cb"]).unwrap();
        assert!(web.allows("https://app.example/cb") && !web.allows("https://app.example:444/cb"));
        assert_eq!(web.name, "Ab");
    }

    #[test]
    fn users_are_sent_to_no_address_that_runs_or_is_plain() {
        for good in
            ["https://a.example/x?y=z", "http://[::1]/cb", "cursor://anysphere.cursor/cb", "com.example:/cb"]
        {
            assert!(client(&[good]).is_ok(), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            "data:text/html,x",
            "JavaScript:x",
            "http://a.example/",
            "https://a#b",
            "x",
            "",
        ] {
            assert!(matches!(client(&[bad]), Err(Refused::Redirect(_))), "{bad}");
        }
        assert!(client(&[]).is_err() && client(&["https://a/"; 11]).is_err());
    }

    #[test]
    fn a_document_is_at_one_spelling_of_an_address_and_says_whose_it_is() {
        let id = "https://app.example/client.json";
        assert!(Client::document(id).is_some());
        for bad in [
            "http://app.example/client.json",
            "https://app.example/",
            "https://app.example",
            "https://APP.example/client.json",
            "https://app.example:443/client.json",
            "https://app.example/a/../client.json",
            "https://u@app.example/client.json",
            "https://app.example/client.json#x",
            "steading-cli",
        ] {
            assert!(Client::document(bad).is_none(), "{bad}");
        }
        let document = json!({ "client_id": id, "redirect_uris": ["https://app.example/cb"] });
        assert!(Client::described(id, &document).is_ok());
        assert!(Client::described("https://other.example/x", &document).is_err());
        let proven = json!({ "client_id": id, "redirect_uris": ["https://app.example/cb"],
            "token_endpoint_auth_method": "private_key_jwt" });
        assert!(Client::described(id, &proven).is_err());
    }
}
