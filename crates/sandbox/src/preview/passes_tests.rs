//! Passes and cookies of previews: what is good for what, and what is not.

use http::Request;

use super::*;

const HOST_OF_IT: &str = "5173-x.preview.test";

fn labels() -> Labels {
    Labels::new(&[7; 32])
}

fn asked(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(path).header("host", HOST_OF_IT);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// The value of the cookie that comes of a link.
fn cookie(labels: &Labels, sandbox: SandboxId, port: u16, now: Timestamp) -> String {
    let all = labels.cookies(sandbox, port, Scheme::Https, now);
    let text = all[0].to_str().unwrap();
    text.split_once('=').unwrap().1.split_once(';').unwrap().0.to_owned()
}

#[test]
fn a_pass_lets_in_for_a_day_and_its_cookie_for_a_week() {
    let (labels, sandbox) = (labels(), SandboxId::new());
    let now = Timestamp::parse("2026-01-01T10:20:30Z").unwrap();
    let pass = labels.pass(sandbox, 5173, now);
    assert_eq!(pass, labels.pass(sandbox, 5173, now.plus(Duration::from_secs(60))), "the same for a while");
    let end = Timestamp::parse("2026-01-02T11:00:00Z").unwrap();
    let just_before = end.minus(Duration::from_micros(1));
    let link = asked("GET", &format!("/a?b=1&steading-preview={pass}"), &[]);
    let sent = asked("GET", "/a", &[("steading-preview", &pass)]);
    for by in [&link, &sent] {
        for (at, entry) in [(now, Entry::Pass(end)), (just_before, Entry::Pass(end)), (end, Entry::Stranger)]
        {
            assert_eq!(labels.entry(sandbox, 5173, by, at), entry);
        }
    }
    let end = Timestamp::parse("2026-01-08T11:00:00Z").unwrap();
    let value = cookie(&labels, sandbox, 5173, now);
    for name in ["__Host-steading-preview", "steading-preview"] {
        let kept = asked("GET", "/", &[("cookie", &format!("a=1; {name}={value}"))]);
        assert_eq!(labels.entry(sandbox, 5173, &kept, now), Entry::Cookie(end));
        assert_eq!(labels.entry(sandbox, 5173, &kept, end), Entry::Stranger);
    }
    // A pass comes first, and what is no good beside it does not matter.
    let both = [
        ("cookie", &*format!("__Host-steading-preview={value}; steading-preview=x")),
        ("steading-preview", "x"),
    ];
    assert_eq!(labels.entry(sandbox, 5173, &asked("GET", "/", &both), now), Entry::Cookie(end));
    let path = format!("/?steading-preview=x&steading-preview={pass}");
    assert!(matches!(labels.entry(sandbox, 5173, &asked("GET", &path, &both), now), Entry::Pass(_)));
}

#[test]
fn nothing_else_lets_in() {
    let (labels, sandbox, now) = (labels(), SandboxId::new(), Timestamp::now());
    let (pass, kept) = (labels.pass(sandbox, 5173, now), cookie(&labels, sandbox, 5173, now));
    let mut wrong = vec![
        String::new(),
        "x".to_owned(),
        labels.pass(sandbox, 5174, now),
        labels.pass(SandboxId::new(), 5173, now),
        Labels::new(&[8; 32]).pass(sandbox, 5173, now),
        cookie(&labels, sandbox, 5174, now),
        cookie(&labels, SandboxId::new(), 5173, now),
        labels.label(sandbox, 5173),
        URL_SAFE_NO_PAD.encode([&[0xFF; 4][..], &URL_SAFE_NO_PAD.decode(&pass).unwrap()[4..]].concat()),
    ];
    for good in [&pass, &kept] {
        wrong.extend([good[1..].to_owned(), good[..good.len() - 1].to_owned(), format!("{good}A")]);
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            wrong.push(String::from_utf8(bytes).unwrap());
        }
    }
    let tried = |text: &str| {
        [
            asked("GET", &format!("/?steading-preview={text}"), &[]),
            asked("GET", "/", &[("steading-preview", text)]),
            asked(
                "GET",
                "/",
                &[("cookie", &format!("__Host-steading-preview={text}; steading-preview={text}"))],
            ),
        ]
    };
    for text in &wrong {
        for by in tried(text) {
            assert_eq!(labels.entry(sandbox, 5173, &by, now), Entry::Stranger, "{text} {by:?}");
        }
    }
    // What is good in one place is nothing in the other.
    let [query, header, _] = tried(&kept);
    let [_, _, cookie] = tried(&pass);
    for by in
        [query, header, cookie, asked("GET", "/", &[("cookie", &format!("x__Host-steading-preview={kept}"))])]
    {
        assert_eq!(labels.entry(sandbox, 5173, &by, now), Entry::Stranger, "{by:?}");
    }
}

#[test]
fn the_cookie_works_for_its_own_pages_and_for_whoever_goes_there() {
    let (labels, sandbox, now) = (labels(), SandboxId::new(), Timestamp::now());
    let kept = format!("__Host-steading-preview={}", cookie(&labels, sandbox, 5173, now));
    let entry = |method: &str, headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().copied().chain([("cookie", kept.as_str())]).collect();
        labels.entry(sandbox, 5173, &asked(method, "/", &headers), now)
    };
    let own = format!("https://{HOST_OF_IT}");
    let navigates = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    let to = |dest| [navigates[0], navigates[1], ("sec-fetch-dest", dest)];
    for (method, headers) in [
        ("GET", &[][..]),
        ("POST", &[("origin", &*own)]),
        ("GET", &[("origin", &own.to_ascii_uppercase()), ("upgrade", "websocket")]),
        ("GET", &[("sec-fetch-site", "same-origin")]),
        ("POST", &[("sec-fetch-site", "same-origin"), ("origin", "null")]),
        ("GET", &[("sec-fetch-site", "none")]),
        ("GET", &to("document")),
        ("HEAD", &to("iframe")),
    ] {
        assert!(matches!(entry(method, headers), Entry::Cookie(_)), "{method} {headers:?}");
    }
    for (method, headers) in [
        ("GET", &[("origin", "https://evil.test")][..]),
        ("GET", &[("origin", "null"), ("upgrade", "websocket")]),
        ("GET", &[("origin", "https://6000-y.preview.test"), ("upgrade", "websocket")]),
        ("GET", &[("origin", &*own), ("origin", "https://evil.test")]),
        ("GET", &[("origin", &format!("{own}.evil.test"))]),
        ("GET", &[("origin", HOST_OF_IT)]),
        ("GET", &[("sec-fetch-site", "cross-site")]),
        ("GET", &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")]),
        (
            "GET",
            &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "websocket"), ("upgrade", "websocket")],
        ),
        ("GET", &[("sec-fetch-site", "new"), ("origin", &*own)]),
        ("POST", &to("document")),
        ("GET", &to("object")),
        ("GET", &to("script")),
        ("GET", &[to("document")[0], to("document")[1], to("document")[2], ("upgrade", "websocket")]),
    ] {
        assert_eq!(entry(method, headers), Entry::Anothers, "{method} {headers:?}");
    }
}

#[test]
fn a_browser_goes_on_at_the_same_address_without_the_pass() {
    let html = ("accept", "text/html,*/*;q=0.8");
    let on = |path: &str| onwards(&asked("GET", path, &[html]));
    for (path, expected) in [
        ("/?steading-preview=x", "/"),
        ("/a/b?c=%26&steading-preview=x&d", "/a/b?c=%26&d"),
        ("/a?steading%2Dpreview=x&&", "/a?&"),
        ("/a?steading-preview", "/a"),
        ("//evil.test/?steading-preview=x", "/.//evil.test/"),
        ("/\\evil.test/?steading-preview=x", "/./\\evil.test/"),
        ("http://5173-x.preview.test?steading-preview=x", "/"),
    ] {
        assert_eq!(on(path).as_deref(), Some(expected), "{path}");
    }
    for path in ["/", "/a?b=steading-preview", "/steading-preview=x", "/?steading-previews=x", "/?x"] {
        assert_eq!(on(path), None, "{path}");
        assert_eq!(without_pass(path), path);
    }
    let path = "/?steading-preview=x";
    for (method, headers) in
        [("POST", &[html][..]), ("GET", &[("accept", "*/*")]), ("GET", &[html, ("upgrade", "websocket")])]
    {
        assert_eq!(onwards(&asked(method, path, headers)), None, "{method} {headers:?}");
    }
}

#[test]
fn cookies_are_this_hosts_and_no_scripts() {
    let now = Timestamp::parse("2026-01-01T10:20:30Z").unwrap();
    let all = labels().cookies(SandboxId::new(), 1, Scheme::Http, now);
    let attributes: Vec<_> = all
        .iter()
        .map(|cookie| {
            let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").unwrap();
            (pair.split_once('=').unwrap().0, attributes)
        })
        .collect();
    assert_eq!(
        attributes,
        [
            (
                "__Host-steading-preview",
                "Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=None; Partitioned"
            ),
            ("steading-preview", "Path=/; Max-Age=604800; HttpOnly; SameSite=Lax"),
        ]
    );
}
