//! Who opens a WebSocket of a function or a service from a page, which can send no header with it: a ticket in the address says
//! it, once.

use capabilities::realtime::is_ticket;
use http::header::{AUTHORIZATION, ORIGIN};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use kernel::{Code, Env, Error, Result};
use percent_encoding::percent_decode_str;

use crate::data::is_upgrade;
use crate::{Data, functions};

/// The parameter of the address that has it; neither the function nor a log sees it.
const TICKET: &str = "_ticket";

/// In the extensions of a request that has shown one: the page that it is of was let in when it was given the ticket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown;

/// Makes of a request that shows a ticket what it would be if it could have sent the token. The ticket is spent.
///
/// # Errors
/// `unauthenticated` where it does not hold; `invalid_input` where there are two, or a header too, and where no WebSocket is
/// asked for.
pub(crate) fn redeem(data: &Data, env: &Env, parts: &mut Parts) -> Result<()> {
    let Some(query) = parts.uri.query() else { return Ok(()) };
    // The data plane's own has a parameter of its own.
    if Data::takes(parts.uri.path()) && !functions::takes(parts.uri.path()) {
        return Ok(());
    }
    let (tickets, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| shown(pair).is_some());
    let ticket = match tickets[..] {
        [] => return Ok(()),
        [pair] => shown(pair).unwrap_or_default(),
        _ => return Err(Error::invalid(format!("/{TICKET}"), "is given twice")),
    };
    let origin = parts.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let token = data.realtime.redeem(env, origin, ticket)?;
    if !is_upgrade(parts) {
        return Err(Error::invalid(format!("/{TICKET}"), "a ticket opens a WebSocket and nothing else")
            .hint("send the token in the Authorization header"));
    }
    if parts.headers.contains_key(AUTHORIZATION) {
        let message = "send a ticket or an Authorization header, not both";
        return Err(Error::invalid(format!("/{TICKET}"), message));
    }
    parts.uri = without(&parts.uri, &rest)?;
    if let Some(token) = token {
        let mut header =
            HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(Error::internal)?;
        header.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, header);
    }
    parts.extensions.insert(Shown);
    Ok(())
}

/// The ticket that a part of a query is. What else is called so is the function's.
fn shown(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=')?;
    let is_it = name == TICKET || name.contains('%') && percent_decode_str(name).eq(TICKET.bytes());
    Some(value).filter(|value| is_it && is_ticket(value))
}

/// The same address with what is left of its query.
fn without(uri: &Uri, rest: &[&str]) -> Result<Uri> {
    let unreadable = || Error::new(Code::InvalidInput, "the address cannot be read");
    let path = match rest {
        [] => uri.path().to_owned(),
        rest => format!("{}?{}", uri.path(), rest.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse::<PathAndQuery>().map_err(|_| unreadable())?);
    Uri::from_parts(parts).map_err(|_| unreadable())
}
