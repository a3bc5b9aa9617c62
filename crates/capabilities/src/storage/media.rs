//! Media types of files: what is declared, whether the bytes agree, and what a browser may show in place.

use kernel::{Error, Result};

use crate::hosting;

/// The longest content type, in bytes.
const LONGEST: usize = 200;

/// How many bytes at the beginning of a file tell what it is.
pub(super) const HEAD: usize = 64;

/// The content type that is declared, in small letters; that of the path's extension where none is.
///
/// # Errors
/// `invalid_input` at `/content_type`.
pub(super) fn declared(given: Option<&str>, path: &str) -> Result<String> {
    let given = given.map(str::trim).unwrap_or_default();
    // What programs say of a body when nobody has told them what it is.
    if given.is_empty() || essence(given) == "application/x-www-form-urlencoded" {
        return Ok(hosting::content_type(path));
    }
    let wrong = |why: &str| Error::invalid("/content_type", why);
    let (kind, parameters) = given.split_once(';').map_or((given, None), |(kind, rest)| (kind, Some(rest)));
    let kind = kind.trim().to_ascii_lowercase();
    let printable = given.bytes().all(|b| (b' '..=b'~').contains(&b));
    if given.len() > LONGEST || !printable || !is_type(&kind) {
        return Err(wrong("the content type cannot be read").hint("write it like image/png"));
    }
    if kind.starts_with("multipart/") {
        return Err(wrong("a form is no file").hint("send the bytes of the file as the body"));
    }
    Ok(parameters.map_or_else(|| kind.clone(), |rest| format!("{kind}; {}", rest.trim())))
}

/// The type without its parameters.
pub(super) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Whether this is a content type, or all of a kind: `image/*`.
pub(super) fn is_pattern(text: &str) -> bool {
    let small = !text.bytes().any(|b| b.is_ascii_uppercase());
    small && text.len() <= LONGEST && (is_type(text) || text.strip_suffix("/*").is_some_and(is_token))
}

/// Whether a content type is of that pattern.
pub(super) fn matches(pattern: &str, content_type: &str) -> bool {
    let essence = essence(content_type);
    match pattern.strip_suffix("/*") {
        Some(kind) => essence.split('/').next() == Some(kind),
        None => essence == pattern,
    }
}

fn is_type(text: &str) -> bool {
    text.split_once('/').is_some_and(|(kind, of)| is_token(kind) && is_token(of))
}

/// A token (RFC 9110 §5.6.2), without what patterns are made of.
fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// Refuses bytes that are not what a type says whose bytes begin with something fixed: pictures, and PDF.
///
/// # Errors
/// `invalid_input` at `/content_type`.
pub(super) fn agree(content_type: &str, head: &[u8]) -> Result<()> {
    let essence = essence(content_type);
    let agrees = match essence {
        "image/png" => head.starts_with(b"\x89PNG\r\n\x1a\n"),
        "image/jpeg" => head.starts_with(b"\xff\xd8\xff"),
        "image/gif" => head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a"),
        "image/webp" => head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP"),
        "image/avif" => head.get(4..8) == Some(b"ftyp") && is_brand(head, b"avif", b"avis"),
        "image/heic" | "image/heif" => head.get(4..8) == Some(b"ftyp"),
        "image/bmp" => head.starts_with(b"BM"),
        "image/tiff" => head.starts_with(b"II*\0") || head.starts_with(b"MM\0*"),
        "image/x-icon" | "image/vnd.microsoft.icon" => head.starts_with(b"\0\0\x01\0"),
        "application/pdf" => head.starts_with(b"%PDF-"),
        _ => true,
    };
    if agrees {
        return Ok(());
    }
    Err(Error::invalid("/content_type", format!("the bytes are not {essence}"))
        .hint("send the content type that the file has"))
}

fn is_brand(head: &[u8], one: &[u8; 4], other: &[u8; 4]) -> bool {
    head.get(8..).unwrap_or_default().chunks_exact(4).any(|brand| brand == one || brand == other)
}

/// Whether a browser that opens a file of this type by itself shows it and runs nothing of it. All else is a download.
pub(super) fn is_shown(content_type: &str) -> bool {
    let essence = essence(content_type);
    matches!(
        essence,
        "image/png"
            | "image/jpeg"
            | "image/gif"
            | "image/webp"
            | "image/avif"
            | "image/bmp"
            | "image/x-icon"
            | "image/vnd.microsoft.icon"
            | "text/plain"
    ) || essence.starts_with("audio/")
        || essence.starts_with("video/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &str) -> String {
        match declared(Some(given), "a.txt") {
            Ok(kind) => kind,
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn a_type_is_as_declared_or_as_the_path_says() {
        assert_eq!(of("Image/PNG"), "image/png");
        assert_eq!(of(" text/HTML ;charset=UTF-8"), "text/html; charset=UTF-8");
        for unsaid in ["", "application/x-www-form-urlencoded; charset=utf-8"] {
            assert_eq!(of(unsaid), "text/plain; charset=utf-8");
        }
        assert_eq!(declared(None, "a/b.JPG").unwrap(), "image/jpeg");
        let long = format!("text/{}", "a".repeat(200));
        for wrong in ["image", "image/", "/png", "image/*", "a b/c", "a/b\r\nx: y", "é/a", &long] {
            assert_eq!(of(wrong), "the content type cannot be read", "{wrong}");
        }
        assert_eq!(of("multipart/form-data; boundary=x"), "a form is no file");
    }

    #[test]
    fn patterns_take_what_they_name() {
        for (pattern, is) in [
            ("image/png", true),
            ("image/*", true),
            ("*/*", false),
            ("*", false),
            ("Image/png", false),
            ("image/png; q=1", false),
            ("", false),
        ] {
            assert_eq!(is_pattern(pattern), is, "{pattern}");
        }
        assert!(matches("image/*", "image/png") && matches("text/plain", "text/plain; charset=utf-8"));
        assert!(!matches("image/*", "imagex/png") && !matches("image/png", "image/pngx"));
    }

    #[test]
    fn bytes_of_another_kind_are_refused_where_the_type_can_be_told() {
        let html = b"<script>alert(1)</script>";
        for kind in ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "application/pdf"] {
            assert!(agree(kind, html).is_err(), "{kind}");
            assert!(agree(kind, b"").is_err(), "{kind}");
        }
        assert!(agree("image/png", b"\x89PNG\r\n\x1a\nrest").is_ok());
        assert!(agree("image/avif", b"\0\0\0\x20ftypavif").is_ok());
        assert!(agree("image/webp", b"RIFF\0\0\0\0WEBPVP8 ").is_ok());
        assert!(agree("text/html", html).is_ok());
    }

    #[test]
    fn what_could_run_is_never_shown() {
        for kind in [
            "text/html",
            "text/html; charset=utf-8",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "application/xml",
            "text/javascript",
            "application/pdf",
            "application/octet-stream",
            "image/unknown",
            "text/css",
        ] {
            assert!(!is_shown(kind), "{kind}");
        }
        assert!(is_shown("image/png") && is_shown("video/mp4") && is_shown("text/plain; charset=utf-8"));
    }
}
