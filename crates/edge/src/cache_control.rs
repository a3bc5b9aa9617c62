//! How long a file may be kept: for ever where its name changes with its content, else not unasked.

/// For files whose name has a fingerprint of their content (RFC 8246).
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Kept, but asked for each time; the answer is mostly a 304.
pub(crate) const ASK_FIRST: &str = "no-cache";

/// Directories that build tools fill with fingerprinted files.
const BUILT: &[&str] = &[
    "_app",
    "_astro",
    "_next",
    "_nuxt",
    "assets",
    "build",
    "chunks",
    "css",
    "dist",
    "immutable",
    "js",
    "static",
];

/// The `Cache-Control` of the file at `path`.
pub(crate) fn of(path: &str, content_type: &str) -> &'static str {
    if !content_type.starts_with("text/html") && has_fingerprint(path) { FOR_EVER } else { ASK_FIRST }
}

/// Whether the name has a fingerprint: hexadecimal digits anywhere (`app.3f9a2c1b.js`), or in a build tool's
/// directory the eight base64url characters that Vite, Rollup and Astro write (`assets/index-BxYz12ab.js`).
/// A fingerprint that is overlooked costs a question; a name that is taken for one keeps old content for a
/// year. So digits alone (a date) and letters alone (a word) do not count.
fn has_fingerprint(path: &str) -> bool {
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some((stem, _)) = name.strip_suffix(".map").unwrap_or(name).rsplit_once('.') else { return false };
    if stem.split(['.', '-', '_', '~']).any(is_hex_fingerprint) {
        return true;
    }
    let built = directories.split('/').any(|directory| BUILT.contains(&directory));
    let Some(start) = stem.len().checked_sub(8) else { return false };
    let (Some(before), Some(last)) = (stem.get(..start), stem.get(start..)) else { return false };
    built
        && before.ends_with(['-', '.'])
        && last.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && last.bytes().any(|b| b.is_ascii_digit())
        && last.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_hex_fingerprint(text: &str) -> bool {
    (8..=64).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprinted_name_is_kept_for_ever() {
        for path in [
            "app.3f9a2c1b.js",
            "app.3f9a2c1b.js.map",
            "main.3f9a2c1b.chunk.css",
            "img/logo-0123456789abcdef.png",
            "0a1b2c3d4e5f6071.woff2",
            "assets/index-BxYz12ab.js",
            "assets/index-B_x-12aZ.css",
            "_astro/page.CkQ3mHp9.css",
        ] {
            assert_eq!(of(path, "text/javascript"), FOR_EVER, "{path}");
        }
    }

    #[test]
    fn any_other_name_is_asked_for() {
        for path in [
            "app.js",
            "sw.js",
            "3f9a2c1b",
            "photo-20240101.jpg",
            "notes-deadbeef.txt",
            "jquery-migration.js",
            "index-BxYz12ab.js",
            "assets/index-Settings.js",
            "assets/index-settings.js",
            "assets/über-BxYz1ü.js",
            "assets/a.js",
            "3f9a2c1b/app.js",
        ] {
            assert_eq!(of(path, "text/javascript"), ASK_FIRST, "{path}");
        }
        assert_eq!(of("a.3f9a2c1b.html", "text/html; charset=utf-8"), ASK_FIRST);
    }
}
