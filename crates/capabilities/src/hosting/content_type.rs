//! Which content type a file has, by its extension alone.

/// The content type of the file at `path`. What is not known is a download; all text is UTF-8.
pub(crate) fn of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = match name.rsplit_once('.') {
        Some((_, extension)) => extension.to_ascii_lowercase(),
        None if name == "apple-app-site-association" => return "application/json".into(),
        None => return "application/octet-stream".into(),
    };
    let essence = match extension.as_str() {
        "js" | "mjs" | "cjs" => "text/javascript",
        "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "ico" => "image/x-icon",
        "xml" => "application/xml",
        "rss" => "application/rss+xml",
        "atom" => "application/atom+xml",
        "jxl" => "image/jxl",
        "yaml" | "yml" => "text/yaml",
        "toml" => "text/plain",
        other => mime_guess::from_ext(other).first_raw().unwrap_or("application/octet-stream"),
    };
    if essence.starts_with("text/") { format!("{essence}; charset=utf-8") } else { essence.into() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_types_of_the_web() {
        let names = [
            "index.html",
            "a.htm",
            "a.css",
            "a.js",
            "a.mjs",
            "a.json",
            "a.map",
            "a.webmanifest",
            "a.svg",
            "a.png",
            "a.JPG",
            "a.webp",
            "a.avif",
            "a.gif",
            "a.ico",
            "a.woff2",
            "a.ttf",
            "a.wasm",
            "a.txt",
            "a.md",
            "a.xml",
            "a.pdf",
            "a.mp4",
            "a.webm",
            "a.mp3",
            "a.zip",
            "a.csv",
            "a.unknown",
            "LICENSE",
            ".well-known/apple-app-site-association",
            "b.d/a",
        ];
        let table: String = names.iter().map(|name| format!("{name} {}\n", super::of(name))).collect();
        expect_test::expect![[r#"
            index.html text/html; charset=utf-8
            a.htm text/html; charset=utf-8
            a.css text/css; charset=utf-8
            a.js text/javascript; charset=utf-8
            a.mjs text/javascript; charset=utf-8
            a.json application/json
            a.map application/json
            a.webmanifest application/manifest+json
            a.svg image/svg+xml
            a.png image/png
            a.JPG image/jpeg
            a.webp image/webp
            a.avif image/avif
            a.gif image/gif
            a.ico image/x-icon
            a.woff2 font/woff2
            a.ttf font/ttf
            a.wasm application/wasm
            a.txt text/plain; charset=utf-8
            a.md text/markdown; charset=utf-8
            a.xml application/xml
            a.pdf application/pdf
            a.mp4 video/mp4
            a.webm video/webm
            a.mp3 audio/mpeg
            a.zip application/zip
            a.csv text/csv; charset=utf-8
            a.unknown application/octet-stream
            LICENSE application/octet-stream
            .well-known/apple-app-site-association application/json
            b.d/a application/octet-stream
        "#]]
        .assert_eq(&table);
    }
}
