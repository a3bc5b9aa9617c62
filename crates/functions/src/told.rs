//! What a process is told of a request, in headers that nobody but the platform sets.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::Result;
use crate::host::Asking;

/// What headers of the platform's own begin with.
const OURS: &str = "steading-fn-";

/// Takes out what nobody but the platform says.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Says what a function is told of a request.
pub(crate) fn address(asking: &mut Asking, within: Duration) -> Result<()> {
    let text = |text: &str| HeaderValue::from_str(text).map_err(kernel::Error::internal);
    let said = [
        ("steading-fn-kind", Some(asking.kind.as_str())),
        ("steading-fn-request", Some(asking.id.as_str())),
        ("steading-fn-url", asking.url.as_deref()),
        ("steading-fn-caller", asking.caller.as_deref()),
        ("steading-fn-trigger", asking.trigger.as_deref()),
    ];
    let headers = asking.request.headers_mut();
    for (name, value) in said {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), text(value)?);
        }
    }
    headers.insert("steading-fn-deadline", HeaderValue::from(within.as_millis() as u64));
    Ok(())
}

/// Says what a service is told of a request, in headers that nobody but the platform sets: none that begins so comes in.
pub(crate) fn introduce(asking: &mut Asking) -> Result<()> {
    let text = |text: &str| HeaderValue::from_str(text).map_err(kernel::Error::internal);
    let caller = asking.caller.as_deref().unwrap_or(r#"{"kind":"anonymous"}"#);
    let said = [("steading-caller", caller), ("steading-request", &asking.id)];
    for (name, value) in said {
        asking.request.headers_mut().insert(HeaderName::from_static(name), text(value)?);
    }
    Ok(())
}
