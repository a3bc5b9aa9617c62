//! Content codings (RFC 9110 §8.4): which one a client wants, which files gain by one, and the coding itself.

use async_compression::Level;
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder};
use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use tokio::io::AsyncWriteExt;

/// The codings that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Brotli,
}

/// Below this many bytes a coding saves nothing worth it.
const WORTH_IT: u64 = 256;
/// What is coded while somebody waits for it: above these, a little less to send takes many times the work.
const BROTLI_LEVEL: Level = Level::Precise(4);
const GZIP_LEVEL: Level = Level::Precise(4);

impl Coding {
    /// The one the client likes best, the smaller one where it has no preference (RFC 9110 §12.5.3).
    pub(crate) fn negotiate(headers: &HeaderMap) -> Self {
        let (mut brotli, mut gzip, mut others) = (None, None, None);
        for line in headers.get_all(ACCEPT_ENCODING) {
            for item in line.to_str().unwrap_or_default().split(',') {
                let (name, parameter) = item.split_once(';').unwrap_or((item, "q=1"));
                let quality = quality(parameter);
                match name.trim().to_ascii_lowercase().as_str() {
                    "br" => brotli = quality,
                    "gzip" | "x-gzip" => gzip = quality,
                    "*" => others = quality,
                    _ => {}
                }
            }
        }
        let wanted = |named: Option<f32>| named.or(others).unwrap_or(0.0);
        let (brotli, gzip) = (wanted(brotli), wanted(gzip));
        if brotli > 0.0 && brotli >= gzip {
            Coding::Brotli
        } else if gzip > 0.0 {
            Coding::Gzip
        } else {
            Coding::Identity
        }
    }

    /// The value of `Content-Encoding`.
    pub(crate) const fn name(self) -> Option<&'static str> {
        match self {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Brotli => Some("br"),
        }
    }

    /// The bytes in this coding. Works for as long as it takes: call it where blocking is allowed.
    pub(crate) fn encode(self, bytes: &[u8]) -> std::io::Result<Bytes> {
        // Writing to memory is always ready, so nothing is waited for.
        futures::executor::block_on(async {
            match self {
                Coding::Identity => Ok(Bytes::copy_from_slice(bytes)),
                Coding::Gzip => {
                    let mut encoder = GzipEncoder::with_quality(Vec::new(), GZIP_LEVEL);
                    encoder.write_all(bytes).await?;
                    encoder.shutdown().await?;
                    Ok(encoder.into_inner().into())
                }
                Coding::Brotli => {
                    let mut encoder = BrotliEncoder::with_quality(Vec::new(), BROTLI_LEVEL);
                    encoder.write_all(bytes).await?;
                    encoder.shutdown().await?;
                    Ok(encoder.into_inner().into())
                }
            }
        })
    }
}

/// Whether a file of this type and size is sent in a coding. Images, sound, film, archives and WOFF2 are
/// compressed in themselves.
pub(crate) fn pays(content_type: &str, size: u64) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim_end();
    let known = [
        "application/json",
        "application/wasm",
        "application/xml",
        "application/rtf",
        "application/vnd.ms-fontobject",
        "font/ttf",
        "font/otf",
        "image/x-icon",
        "image/bmp",
    ];
    size >= WORTH_IT
        && (essence.starts_with("text/")
            || essence.ends_with("+json")
            || essence.ends_with("+xml")
            || known.contains(&essence))
}

fn quality(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    let value: f32 = value.trim().parse().ok()?;
    (name.trim().eq_ignore_ascii_case("q") && (0.0..=1.0).contains(&value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_client_gets_what_it_likes_best() {
        for (accepts, expected) in [
            ("", Coding::Identity),
            ("gzip, deflate, br, zstd", Coding::Brotli),
            ("gzip, deflate", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("GZIP;q=0.5, Br ; Q=0.4", Coding::Gzip),
            ("br;q=0, gzip", Coding::Gzip),
            ("br;q=0.000, gzip;q=0", Coding::Identity),
            ("*", Coding::Brotli),
            ("*, br;q=0", Coding::Gzip),
            ("*;q=0", Coding::Identity),
            ("identity", Coding::Identity),
            ("identity;q=0", Coding::Identity),
            ("br;q=2", Coding::Identity),
            ("br;q=NaN, brx, zstd", Coding::Identity),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepts))]);
            assert_eq!(Coding::negotiate(&headers), expected, "{accepts}");
        }
        assert_eq!(Coding::negotiate(&HeaderMap::new()), Coding::Identity);
    }

    #[test]
    fn text_pays_and_what_is_compressed_does_not() {
        for content_type in ["text/html; charset=utf-8", "image/svg+xml", "application/manifest+json"] {
            assert!(pays(content_type, 256) && !pays(content_type, 255), "{content_type}");
        }
        for content_type in
            ["image/png", "video/mp4", "font/woff2", "application/zip", "application/octet-stream"]
        {
            assert!(!pays(content_type, 10_000), "{content_type}");
        }
    }
}
