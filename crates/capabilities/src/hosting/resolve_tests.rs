//! Which file answers which path, and that no path leads out of the site.

use proptest::prelude::*;

use super::*;
use crate::hosting::SiteFile;
use kernel::BlobHash;

fn site(paths: &[&str]) -> Site {
    let file = |path: &str| {
        let content =
            SiteFile { sha256: BlobHash::of(path.as_bytes()), size: 1, content_type: "text/plain".into() };
        (path.parse().unwrap(), content)
    };
    Site { files: paths.iter().map(|path| file(path)).collect(), ..Site::default() }
}

fn answer(site: &Site, raw: &str) -> String {
    let Some(path) = RequestPath::parse(raw) else { return "refused".into() };
    match site.resolve(&path) {
        Found::File { path, .. } => path.to_string(),
        Found::Redirect { location, status } => format!("{} {location}", status.as_u16()),
        Found::NotFound { page: Some((path, _)) } => format!("404 {path}"),
        Found::NotFound { page: None } => "404".into(),
    }
}

fn table(site: &Site, raws: &[&str]) -> String {
    raws.iter().map(|raw| format!("{raw} -> {}\n", answer(site, raw))).collect()
}

#[test]
fn clean_urls_lead_to_the_file_that_is_meant() {
    let site = site(&[
        "index.html",
        "about.html",
        "docs/index.html",
        "docs/a b.html",
        "both.html",
        "both/index.html",
        "app.js",
        "404.html",
        "docs/404.html",
        "über/index.html",
    ]);
    let raws = [
        "/",
        "/index.html",
        "/about",
        "/about.html",
        "/about/",
        "/docs",
        "/docs/",
        "/docs/index.html",
        "/docs/a%20b",
        "/docs/a%20b/",
        "/both",
        "/both/",
        "/app.js",
        "/app.js/",
        "/app",
        "/About",
        "/none",
        "/docs/none",
        "/docs/none/",
        "/docs/x/y",
        "/%C3%BCber",
        "/u%CC%88ber/",
        "/docs%2F",
        "/docs/%2e%2e/",
    ];
    expect_test::expect![[r#"
        / -> index.html
        /index.html -> index.html
        /about -> about.html
        /about.html -> about.html
        /about/ -> 308 /about
        /docs -> 308 /docs/
        /docs/ -> docs/index.html
        /docs/index.html -> docs/index.html
        /docs/a%20b -> docs/a b.html
        /docs/a%20b/ -> 308 /docs/a%20b
        /both -> both.html
        /both/ -> both/index.html
        /app.js -> app.js
        /app.js/ -> 308 /app.js
        /app -> 404 404.html
        /About -> 404 404.html
        /none -> 404 404.html
        /docs/none -> 404 docs/404.html
        /docs/none/ -> 404 docs/404.html
        /docs/x/y -> 404 docs/404.html
        /%C3%BCber -> 308 /%C3%BCber/
        /u%CC%88ber/ -> über/index.html
        /docs%2F -> refused
        /docs/%2e%2e/ -> refused
    "#]]
    .assert_eq(&table(&site, &raws));
}

#[test]
fn a_single_page_app_answers_pages_but_not_missing_assets() {
    let site = Site { spa: true, ..site(&["index.html", "app.js", "404.html"]) };
    let raws = ["/", "/todos/7", "/todos/", "/app.js", "/gone.js", "/a/gone.css", "/v1.2/page", "/v1.2/"];
    expect_test::expect![[r#"
        / -> index.html
        /todos/7 -> index.html
        /todos/ -> index.html
        /app.js -> app.js
        /gone.js -> 404 404.html
        /a/gone.css -> 404 404.html
        /v1.2/page -> index.html
        /v1.2/ -> 404 404.html
    "#]]
    .assert_eq(&table(&site, &raws));
}

#[test]
fn a_redirect_comes_before_a_file() {
    let rules = serde_json::json!([{ "from": "/a.html", "to": "/b.html", "status": 301 }]);
    let redirects = serde_json::from_value(rules).unwrap();
    let site = Site { redirects, ..site(&["a.html", "b.html"]) };
    expect_test::expect![[r#"
        /a.html -> 301 /b.html
        /a -> a.html
        /b.html -> b.html
    "#]]
    .assert_eq(&table(&site, &["/a.html", "/a", "/b.html"]));
}

#[test]
fn a_site_without_files_has_nothing() {
    assert_eq!(answer(&Site::default(), "/"), "404");
    assert_eq!(answer(&Site { spa: true, ..Site::default() }, "/a"), "404");
}

#[test]
fn tricks_are_refused() {
    for raw in [
        "",
        "a",
        "*",
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/.",
        "/..",
        "/../",
        "/../a",
        "/a/../b",
        "/a/..",
        "/./a",
        "/%2e%2e/a",
        "/%2E%2E%2Fa",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/..%5c..%5c",
        "/a%00",
        "/a%0d%0ab",
        "/a%7f",
        "/%",
        "/%2",
        "/%zz",
        "/%c0%ae%c0%ae/",
        "/%ff",
        "/%ed%a0%80",
        "/C:/a",
        "/a./b",
        "/.../a",
        "/a%20",
    ] {
        assert_eq!(RequestPath::parse(raw), None, "{raw}");
    }
    let long = format!("/{}", "a".repeat(513));
    assert_eq!(RequestPath::parse(&long), None);
}

#[test]
fn escapes_are_read_once() {
    let once = RequestPath::parse("/%252e%252e/%252f").unwrap();
    assert_eq!(once.as_str(), "/%2e%2e/%2f");
}

#[test]
fn the_apps_own_interfaces_are_recognized_however_they_are_written() {
    for raw in ["/_/", "/_", "/_/db/x", "/%5f/db", "/%5F/"] {
        assert!(RequestPath::parse(raw).unwrap().is_reserved(), "{raw}");
    }
    for raw in ["/_a", "/a/_/b", "/__/", "/%255f/"] {
        assert!(!RequestPath::parse(raw).unwrap().is_reserved(), "{raw}");
    }
}

proptest! {
    #[test]
    fn nothing_outside_the_site_is_ever_found(raw in "/?[a-c./%25eEfF\\\\_0-9]{0,24}") {
        let site = Site { spa: true, ..site(&["index.html", "a.html", "a/b.html", "b/index.html", "404.html"]) };
        let Some(path) = RequestPath::parse(&raw) else { return Ok(()) };
        match site.resolve(&path) {
            Found::File { path, file } | Found::NotFound { page: Some((path, file)) } => {
                prop_assert_eq!(site.files.get(path), Some(file));
            }
            Found::Redirect { location, .. } => {
                prop_assert!(location.starts_with('/') && !location.starts_with("//"), "{}", location);
            }
            Found::NotFound { page: None } => {}
        }
    }

    #[test]
    fn a_decoded_path_holds_no_trick(raw in any::<String>()) {
        for raw in [raw.clone(), format!("/{raw}")] {
            if let Some(path) = RequestPath::parse(&raw) {
                let text = path.as_str();
                prop_assert!(text.starts_with('/'));
                prop_assert!(!text.contains("//") && !text.contains('\\'));
                prop_assert!(!text.chars().any(char::is_control));
                prop_assert!(text.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }

    #[test]
    fn every_file_answers_under_its_own_encoded_path(text in "[a-z%&ü #?.]{1,12}(/[a-z%&ü #?.]{1,12}){0,2}") {
        let Ok(path) = text.parse::<SitePath>() else { return Ok(()) };
        let site = site(&[path.as_str()]);
        prop_assert_eq!(answer(&site, &format!("/{}", encode(path.as_str()))), path.to_string());
    }

    #[test]
    fn a_path_reads_back_as_itself(text in any::<String>()) {
        if let Ok(path) = text.parse::<SitePath>() {
            prop_assert_eq!(path.as_str().parse::<SitePath>(), Ok(path.clone()));
            let written = serde_json::to_string(&path).unwrap();
            prop_assert_eq!(serde_json::from_str::<SitePath>(&written).unwrap(), path);
        }
    }
}
