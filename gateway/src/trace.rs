//! Whose trace a request is part of, where it says so (W3C Trace Context), for the log. The header itself goes on to functions as it
//! came.

use http::HeaderMap;
use tracing::Span;

/// How many characters the parts of a header have, with hyphens between: version, trace, parent, flags.
const PARTS: [usize; 4] = [2, 32, 16, 2];

/// A span with the trace's id; none where a request is part of no trace.
pub fn span(headers: &HeaderMap) -> Span {
    match id(headers) {
        Some(id) => tracing::info_span!("request", trace.id = id),
        None => Span::none(),
    }
}

/// The trace's id, of the one header that is as it has to be.
fn id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let mut parts = value.to_str().ok()?.split('-');
    let [version, trace, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let fits =
        [version, trace, parent, flags].iter().zip(PARTS).all(|(part, n)| part.len() == n && is_hex(part));
    let says_something = |part: &str| part.bytes().any(|byte| byte != b'0');
    // Later versions may have more after it; there is no version ff.
    let ends = if version == "00" { parts.next().is_none() } else { version != "ff" };
    (fits && ends && says_something(trace) && says_something(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_is_known_by_a_header_that_is_whole() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("traceparent", value.parse().unwrap());
            }
            id(&headers).map(str::to_owned)
        };
        let whole = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(of(&[&whole]).as_deref(), Some(TRACE));
        assert_eq!(of(&[&format!("01-{TRACE}-00f067aa0ba902b7-01-more")]).as_deref(), Some(TRACE));
        for wrong in [
            String::new(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("{whole}-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}0-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(of(&[&wrong]), None, "{wrong}");
        }
        assert_eq!((of(&[]), of(&[&whole, &whole])), (None, None));
    }
}
