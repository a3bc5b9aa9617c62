//! Why a sandbox does not get what it asked the network for, in words that whoever is in it can act on.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::policy::{Pattern, Policy, Target};
use crate::relay::{self, Body};

/// Carries a refusal's words where the body of an answer is not shown, as that to `CONNECT`.
const REFUSED: HeaderName = HeaderName::from_static("x-egress-refused");

/// Why a connection that was open is not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// The policy does not allow the host any more.
    #[error("the host is not allowed any more")]
    Denied,
    /// Nothing came or went for too long.
    #[error("nothing came or went for too long")]
    Idle,
    /// The sandbox has used all that it may.
    #[error("the sandbox has used all of its network bytes")]
    Spent,
}

/// Why there is no answer from outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is not one to a proxy.
    #[error("this is a proxy: send CONNECT host:port, or a request with an absolute http:// address")]
    NotForAProxy,
    /// The address has a name and a password in it.
    #[error("the address names a user: send the header authorization instead")]
    User,
    /// What is asked for is no host with a port.
    #[error("what is asked for is no host with a port")]
    Unreadable,
    /// The policy does not name it.
    #[error("{0} is not an allowed host")]
    NotAllowed(Target),
    /// It leads to addresses that are not the world's.
    #[error("{0} is not at a public address")]
    Private(Target),
    /// Nobody knows the name.
    #[error("{0} is not known by name")]
    Unknown(Target),
    /// Nobody is there.
    #[error("{0} cannot be reached")]
    Unreachable(Target),
    /// It takes too long.
    #[error("{0} does not answer in time")]
    Slow(Target),
    /// Its certificate is not one to trust.
    #[error("the certificate of {0} is not trusted")]
    Untrusted(Target),
    /// Inside a tunnel to one host another is named.
    #[error("the tunnel is to {0}, and what is sent in it names another host or none")]
    OtherHost(Target),
    /// A tunnel to this port carries HTTPS, or HTTP at port 80.
    #[error("what is sent in the tunnel to {0} is not what its port is for")]
    NotTls(Target),
    /// The connection broke while the answer was awaited.
    #[error("the connection to {0} broke")]
    Broken(Target),
    /// The connection was cut while the answer was awaited.
    #[error("the connection to {0} was cut: {1}")]
    Cut(Target, Cut),
    /// Too many requests.
    #[error("too many requests in a minute")]
    TooMany,
    /// No bytes are left.
    #[error("the sandbox has used all of its network bytes")]
    Spent,
}

impl Refusal {
    /// The place that was asked for, where there is one.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::NotAllowed(target)
            | Self::Private(target)
            | Self::Unknown(target)
            | Self::Unreachable(target)
            | Self::Slow(target)
            | Self::Untrusted(target)
            | Self::OtherHost(target)
            | Self::NotTls(target)
            | Self::Broken(target)
            | Self::Cut(target, _) => Some(target),
            Self::NotForAProxy | Self::User | Self::Unreadable | Self::TooMany | Self::Spent => None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotForAProxy | Self::User | Self::Unreadable => StatusCode::BAD_REQUEST,
            Self::NotAllowed(_)
            | Self::Private(_)
            | Self::NotTls(_)
            | Self::Spent
            | Self::Cut(_, Cut::Denied | Cut::Spent) => StatusCode::FORBIDDEN,
            Self::OtherHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Unknown(_) | Self::Unreachable(_) | Self::Untrusted(_) | Self::Broken(_) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Slow(_) | Self::Cut(_, Cut::Idle) => StatusCode::GATEWAY_TIMEOUT,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The answer that says so, in its status line, a header and its body: programs differ in what of it they show.
    pub(super) fn response(&self, policy: &Policy) -> Response<Body> {
        let mut text = format!("{self}\n");
        match self {
            Self::NotAllowed(_) | Self::Cut(_, Cut::Denied) => {
                let listed = |patterns: &[Pattern]| match patterns {
                    [] => "none".to_owned(),
                    some => some.iter().take(50).map(ToString::to_string).collect::<Vec<_>>().join(", "),
                };
                text.push_str(&format!("allowed hosts: {}\n", listed(&policy.allow)));
                if let Some(within) = &policy.within {
                    text.push_str(&format!("of those the environment allows: {}\n", listed(within)));
                }
                text.push_str(&format!("{}\n", policy.advice));
            }
            Self::Private(_) => {
                text.push_str("only the platform's operator can open places of its own network\n")
            }
            Self::Spent | Self::Cut(_, Cut::Spent) => text.push_str("a new sandbox begins with none used\n"),
            Self::TooMany | Self::Slow(_) | Self::Unreachable(_) | Self::Broken(_) => {
                text.push_str("try again in a moment\n");
            }
            Self::NotForAProxy
            | Self::User
            | Self::Unreadable
            | Self::Unknown(_)
            | Self::Untrusted(_)
            | Self::OtherHost(_)
            | Self::NotTls(_)
            | Self::Cut(_, Cut::Idle) => {}
        }
        let mut response = Response::new(relay::full(Bytes::from(text)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if *self == Self::TooMany {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("10"));
        }
        let line = self.to_string();
        if let Ok(value) = HeaderValue::from_str(&line) {
            headers.insert(REFUSED, value);
        }
        if let Ok(reason) = ReasonPhrase::try_from(line) {
            response.extensions_mut().insert(reason);
        }
        response
    }
}
