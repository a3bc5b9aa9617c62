//! Entity tags, conditional and partial requests (RFC 9110 §8.8.3, §13 and §14).

use std::ops::Range;

use http::HeaderMap;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use kernel::BlobHash;

use crate::coding::Coding;

/// What part of a file is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// These bytes, which lie within it and are at least one.
    Bytes(Range<u64>),
    /// Bytes that it does not have.
    Beyond,
}

/// The strong tag of a blob in a coding: each coding has its own, for its bytes are others.
pub(crate) fn etag(hash: BlobHash, coding: Coding) -> String {
    match coding.name() {
        None => format!("\"{hash}\""),
        Some(name) => format!("\"{hash}-{name}\""),
    }
}

/// Whether the client has the representation with this tag (`If-None-Match`, by weak comparison).
pub(crate) fn client_has(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|line| {
        line.to_str().unwrap_or_default().split(',').any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
        })
    })
}

/// What part a `GET` of `size` bytes wants. Several ranges at once, and what is not understood, count as the
/// whole; so does a range of a representation with another tag than `etag` (`If-Range`).
pub(crate) fn part(headers: &HeaderMap, size: u64, etag: &str) -> Part {
    let mut lines = headers.get_all(RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Part::Whole };
    if let Some(condition) = headers.get(IF_RANGE)
        && condition.as_bytes() != etag.as_bytes()
    {
        return Part::Whole;
    }
    line.to_str().ok().and_then(|range| read_range(range, size)).unwrap_or(Part::Whole)
}

fn read_range(text: &str, size: u64) -> Option<Part> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let bytes = match (first, last) {
        ("", last) => {
            let count = number(last)?;
            size.saturating_sub(count)..size
        }
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(if bytes.is_empty() { Part::Beyond } else { Part::Bytes(bytes) })
}

/// A number without sign; one that is too large for anything is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 40 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn asked(range: &str) -> Part {
        let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_str(range).unwrap())]);
        part(&headers, 10, "\"a\"")
    }

    #[test]
    fn a_range_is_the_bytes_it_names() {
        for (range, expected) in [
            ("bytes=0-0", Part::Bytes(0..1)),
            ("bytes=2-4", Part::Bytes(2..5)),
            ("Bytes = 2-4", Part::Bytes(2..5)),
            ("bytes=5-", Part::Bytes(5..10)),
            ("bytes=0-99", Part::Bytes(0..10)),
            ("bytes=9-18446744073709551615", Part::Bytes(9..10)),
            ("bytes=0-99999999999999999999999", Part::Bytes(0..10)),
            ("bytes=-3", Part::Bytes(7..10)),
            ("bytes=-99", Part::Bytes(0..10)),
            ("bytes=10-", Part::Beyond),
            ("bytes=10-12", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=4-2", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=1--2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
        ] {
            assert_eq!(asked(range), expected, "{range}");
        }
    }

    #[test]
    fn a_part_of_another_version_is_not_given() {
        let with = |condition: &'static str| {
            let range = (RANGE, HeaderValue::from_static("bytes=0-1"));
            let headers = HeaderMap::from_iter([range, (IF_RANGE, HeaderValue::from_static(condition))]);
            part(&headers, 10, "\"a\"")
        };
        assert_eq!(with("\"a\""), Part::Bytes(0..2));
        for other in ["\"b\"", "W/\"a\"", "a", "Wed, 21 Oct 2015 07:28:00 GMT", ""] {
            assert_eq!(with(other), Part::Whole, "{other}");
        }
    }

    #[test]
    fn a_tag_the_client_has_is_found_in_any_form() {
        for (line, has) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(line))]);
            assert_eq!(client_has(&headers, "\"a\""), has, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(range in "(bytes=)?[0-9,-]{0,24}", size in 0_u64..100) {
            let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_str(&range).unwrap())]);
            if let Part::Bytes(bytes) = part(&headers, size, "") {
                prop_assert!(bytes.start < bytes.end && bytes.end <= size);
            }
        }
    }
}
