//! Files of an app from outside: what people store and see, what attackers try, and uploads that survive everything.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conformance_tests::{App, Person, Place, Reply, browser};
use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Steading, require};

/// A red dot.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";

fn manifest() -> Value {
    json!({
        "auth": { "methods": ["anonymous"] },
        "storage": { "buckets": {
            "photos": { "access": "public_read", "types": ["image/*"], "max_size": 2_000_000 },
            "private": { "access": "private", "max_size": 2_000_000_000_u64 },
            "closed": {},
        } },
        "site": { "files": { "index.html": "<!doctype html><title>Files</title>" } },
    })
}

fn place(name: &str) -> (Place, App) {
    let place = Place::new(name).unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let app = App::new(&place.url);
    (place, app)
}

fn put(person: &Person, path: &str, kind: &str, bytes: impl Into<Vec<u8>>) -> Reply {
    Reply::of(person.request("PUT", path).header("content-type", kind).body(bytes)).unwrap()
}

fn get(person: &Person, path: &str) -> Response {
    person.request("GET", path).send().unwrap()
}

#[test]
fn people_keep_files_that_others_see_or_do_not() {
    let (place, app) = place("files");
    let (ada, bob) = (app.stranger().unwrap(), app.stranger().unwrap());
    let dot = STANDARD.decode(PNG).unwrap();
    let made = put(&ada, "/_/files/photos/dots/red.png", "image/png", dot.clone());
    assert_eq!((made.status, made.header("location")), (201, Some("/_/files/photos/dots/red.png")));
    assert_eq!((&made.body["owner"], &made.body["size"]), (&json!(ada.id()), &json!(dot.len())));
    let seen = get(&app.visitor(), "/_/files/photos/dots/red.png");
    assert_eq!((seen.status, seen.body, seen.headers.len() > 5), (200, dot, true));
    assert_eq!(put(&ada, "/_/files/private/letter.txt", "text/plain", "dear diary").status, 201);
    for person in [&bob, &app.visitor()] {
        let hidden = person.ask("GET", "/_/files/private/letter.txt").unwrap();
        hidden.refuses(404, "not_found").unwrap();
        assert_eq!(person.ask("GET", "/_/files/private").unwrap().body, json!({ "files": [] }));
        person.ask("DELETE", "/_/files/photos/dots/red.png").unwrap().refuses(403, "forbidden").unwrap();
    }
    // The app's makers see what is there, and put things beside it.
    let listed = place.output("storage_list", &json!({ "bucket": "private" })).unwrap();
    assert_eq!(listed["files"][0]["path"], "letter.txt");
    let read = place.output("storage_get", &json!({ "bucket": "private", "path": "letter.txt" })).unwrap();
    assert_eq!((&read["text"], &read["owner"]), (&json!("dear diary"), &json!(ada.id())));
    let stored = json!({ "bucket": "photos", "path": "ours.png", "base64": PNG });
    assert_eq!(place.output("storage_put", &stored).unwrap()["created"], true);
    let signed = json!({ "bucket": "private", "path": "letter.txt", "method": "get" });
    let link = place.output("storage_sign", &signed).unwrap()["url"].as_str().unwrap().to_owned();
    assert_eq!(Request::get(&link).send().unwrap().text().unwrap(), "dear diary");
    let described = place.output("app_describe", &json!({})).unwrap();
    assert_eq!(described["buckets"]["photos"]["files"], 2);
    let small = get(&app.visitor(), "/_/files/photos/dots/red.png?w=1&format=webp");
    assert_eq!((small.status, small.header("content-type")), (200, Some("image/webp")));
    assert_eq!(&small.body[8..12], b"WEBP");
}

#[test]
fn attackers_of_files_are_refused_or_disarmed() {
    let (place, app) = place("raid");
    let (elsewhere, other) = self::place("elsewhere");
    let (ada, mallory) = (app.stranger().unwrap(), app.stranger().unwrap());
    put(&ada, "/_/files/private/a/secret.txt", "text/plain", "secret");
    let foreign = other.stranger().unwrap();
    let lost = app.visitor().with_token(foreign.token());
    lost.ask("GET", "/_/files/private/a/secret.txt").unwrap().refuses(401, "unauthenticated").unwrap();
    for path in [
        "/_/files/photos/../private/a/secret.txt",
        "/_/files/photos/%2e%2e/private/a/secret.txt",
        "/_/files/photos/..%2fprivate/a/secret.txt",
        "/_/files/photos/%2e%2e%2f%2e%2e%2f%2e%2e%2fcontrol.db",
        "/_/files/private/a%2fsecret.txt",
        "/_/files/private//a/secret.txt",
        "/_/files/private/a/./secret.txt",
        "/_/files/private/a/secret.txt%00.png",
        "/_/files/_steading_object/a",
        "/_/files/private/A/SECRET.TXT",
        "/_/files/closed/a/secret.txt",
    ] {
        for person in [&mallory, &app.visitor()] {
            let reply = person.ask("GET", path).unwrap();
            assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
            assert!(!reply.body.to_string().contains("secret\""), "{path}: {reply:?}");
        }
    }
    // A link of another app, of another file, of another method, one that was changed.
    let path = "/_/files/private/a/secret.txt";
    let link = ada.send("POST", &format!("{path}/sign"), &json!({ "method": "get" })).unwrap();
    let link = link.body["url"].as_str().unwrap().to_owned();
    let (_, token) = link.split_once("?token=").unwrap();
    assert_eq!(get(&app.visitor(), &link).text().unwrap(), "secret");
    other.visitor().ask("GET", &link).unwrap().refuses(403, "forbidden").unwrap();
    put(&ada, "/_/files/private/b.txt", "text/plain", "also secret");
    let forged = [
        format!("/_/files/private/b.txt?token={token}"),
        format!("/_/files/photos/a/secret.txt?token={token}"),
        format!("{path}?token={}", &token[1..]),
        format!("{path}?token={}A", &token[..token.len() - 1]),
        format!("{path}?token={}.{}", "e30", token.split_once('.').unwrap().1),
        format!("{path}?token="),
    ];
    for forged in forged {
        app.visitor().ask("GET", &forged).unwrap().refuses(403, "forbidden").unwrap();
    }
    put(&app.visitor(), &link, "text/plain", "overwritten").refuses(403, "forbidden").unwrap();
    mallory
        .send("POST", &format!("{path}/sign"), &json!({ "method": "get" }))
        .unwrap()
        .refuses(404, "not_found")
        .unwrap();
    // A page that is called a picture; a page that is called one, in a bucket that takes all.
    let page = "<!doctype html><script>document.title = 'run'</script>";
    put(&mallory, "/_/files/photos/x.png", "image/png", page).refuses(400, "invalid_input").unwrap();
    put(&mallory, "/_/files/photos/x.html", "text/html", page).refuses(400, "invalid_input").unwrap();
    put(
        &mallory,
        "/_/files/photos/x.svg",
        "image/svg+xml",
        "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    );
    let seen = get(&app.visitor(), "/_/files/photos/x.svg");
    assert!(seen.header("content-disposition").unwrap().starts_with("attachment"));
    assert_eq!(seen.header("content-security-policy"), Some("sandbox; default-src 'none'"));
    assert_eq!(seen.header("x-content-type-options"), Some("nosniff"));
    // More than there may be, announced or not.
    let large = vec![0; 2_000_001];
    put(&ada, "/_/files/photos/large.gif", "image/gif", large).refuses(413, "too_large").unwrap();
    // Other pages may not read along.
    let cross = Reply::of(app.request("GET", path).header("origin", "https://evil.example")).unwrap();
    cross.refuses(403, "forbidden").unwrap();
    // A platform key opens files where it says so.
    let key = |scopes: Value| {
        let body = json!({ "name": "server", "env": place.slug, "scopes": scopes });
        let made = place.client.clone().without_env().request("POST", "/v1/keys").json(&body).send().unwrap();
        made.json().unwrap()["key"].as_str().unwrap().to_owned()
    };
    let server = app.visitor().with_token(&key(json!(["storage:read", "storage:write"])));
    assert_eq!(get(&server, path).text().unwrap(), "secret");
    let rows_only = app.visitor().with_token(&key(json!(["db:read", "db:write"])));
    rows_only.ask("GET", path).unwrap().refuses(403, "forbidden").unwrap();
    drop(elsewhere);
}

#[test]
fn a_page_uploads_lists_and_shows_files_and_nothing_in_them_runs() {
    let (place, _) = place("page");
    let script = format!(
        "return (async () => {{
            const {{ createClient }} = await import('/_/sdk.js');
            const app = createClient();
            await app.auth.anonymous();
            const bytes = Uint8Array.from(atob('{PNG}'), (c) => c.charCodeAt(0));
            const photos = app.files('photos'), own = app.files('private');
            await photos.upload('a b/dot.png', new Blob([bytes], {{ type: 'image/png' }}), {{ metadata: {{ title: 'Pünkt' }} }});
            const shown = await new Promise((done, failed) => {{
                const image = new Image();
                image.onload = () => done([image.naturalWidth, image.naturalHeight]);
                image.onerror = () => failed(new Error('not shown'));
                image.src = photos.url('a b/dot.png', {{ w: 40, h: 20, fit: 'cover' }});
            }});
            const large = new Blob([new Uint8Array(9_000_000).fill(7)]);
            const steps = [];
            const stored = await own.upload('large.bin', large, {{ onProgress: ({{ sent }}) => steps.push(sent) }});
            const back = await (await own.download('large.bin')).arrayBuffer();
            const whole = new Uint8Array(back).every((byte) => byte === 7) && back.byteLength === large.size;
            const link = await own.sign('large.bin', {{ expiresIn: 60 }});
            const head = await fetch(link, {{ method: 'HEAD' }});
            await own.move('large.bin', 'moved.bin');
            const listed = await own.list();
            await own.remove('moved.bin');
            const refused = await own.download('../photos/dot.png').catch((error) => error.name);
            const meta = (await photos.list({{ prefix: 'a b/' }})).files[0].metadata.title;
            const twice = await photos.upload('a b/dot.png', new Blob([bytes], {{ type: 'image/png' }}), {{ ifAbsent: true }})
                .catch((error) => error.status);
            return [shown, steps, stored.size, whole, head.status, listed.files.map((file) => file.path), refused, meta, twice];
        }})()"
    );
    let ran = browser(|browser| {
        browser.goto(&place.url)?;
        browser.evaluate(&script)
    });
    assert_eq!(
        ran.unwrap(),
        json!([
            [40, 20],
            [0, 8_388_608, 9_000_000],
            9_000_000,
            true,
            200,
            ["moved.bin"],
            "TypeError",
            "Pünkt",
            412
        ])
    );
}

/// One upload by tus, over connections that are cut.
struct Tus<'a> {
    person: &'a Person,
    address: String,
    place: String,
}

impl<'a> Tus<'a> {
    fn begin(person: &'a Person, address: &str, path: &str, length: u64) -> Self {
        let said = format!("bucket {},path {}", STANDARD.encode("private"), STANDARD.encode(path));
        let begun = person.request("POST", "/_/uploads").header("tus-resumable", "1.0.0");
        let begun = begun.header("upload-length", &length.to_string()).header("upload-metadata", &said);
        let begun = Reply::of(begun).unwrap();
        assert_eq!((begun.status, begun.header("tus-resumable")), (201, Some("1.0.0")), "{begun:?}");
        assert!(begun.header("upload-expires").is_some());
        let place = begun.header("location").unwrap().to_owned();
        Self { person, address: address.to_owned(), place }
    }

    /// How many bytes are there.
    fn offset(&self) -> u64 {
        let asked = self.person.request("HEAD", &self.place).header("tus-resumable", "1.0.0");
        let asked = asked.send().unwrap();
        assert_eq!(asked.status, 200, "{asked:?}");
        asked.header("upload-offset").unwrap().parse().unwrap()
    }

    /// Begins to send everything from `offset` on, and sends `bytes` of it.
    fn send(&self, offset: u64, length: u64, bytes: u64) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = self.person.app.url().trim_start_matches("http://").to_owned();
        let head = format!(
            "PATCH {} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ntus-resumable: 1.0.0\r\nupload-offset: {offset}\r\n\
             content-type: application/offset+octet-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.place,
            self.person.token(),
            length - offset
        );
        stream.write_all(head.as_bytes()).unwrap();
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let chunk: Vec<u8> = (at..end.min(at + 65_536)).map(byte).collect();
            stream.write_all(&chunk).unwrap();
            at += chunk.len() as u64;
        }
        stream
    }

    /// Sends what is missing behind `offset`, in pieces of bounded size, and reads the answer.
    fn finish(&self, offset: u64, length: u64) -> String {
        let mut answer = String::new();
        self.send(offset, length, length - offset).read_to_string(&mut answer).unwrap();
        answer
    }
}

/// What the file has at that place.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

/// Reads the file in parts and holds them against what was sent.
fn whole(person: &Person, path: &str, length: u64) {
    const PART: u64 = 8 << 20;
    for start in (0..length).step_by(PART as usize) {
        let end = length.min(start + PART);
        let part = person.request("GET", path).header("range", &format!("bytes={start}-{}", end - 1));
        let part = part.send().unwrap();
        assert_eq!(part.status, 206);
        assert!(part.body.iter().zip(start..end).all(|(got, at)| *got == byte(at)), "from {start}");
        assert_eq!(part.body.len() as u64, end - start);
    }
}

/// Waits until bytes have been taken in.
fn arrived(tus: &Tus<'_>, more_than: u64) -> u64 {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let offset = tus.offset();
        if offset > more_than {
            return offset;
        }
        assert!(Instant::now() < until, "nothing arrives");
    }
}

#[test]
fn an_upload_survives_cut_connections_and_a_killed_server() {
    let mut steading = require(Steading::start());
    steading.client().output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let url = |steading: &Steading| {
        format!("http://default.localhost:{}", steading.authority().rsplit_once(':').unwrap().1)
    };
    let ada = App::new(&url(&steading)).stranger().unwrap();
    const LENGTH: u64 = 6_000_000;
    let tus = Tus::begin(&ada, steading.authority(), "big.bin", LENGTH);
    // The connection is cut in the middle.
    drop(tus.send(0, LENGTH, 2_000_000));
    let offset = arrived(&tus, 0);
    // The server is killed in the middle; the address stays the same.
    let cut = tus.send(offset, LENGTH, 1_500_000);
    let offset = arrived(&tus, offset);
    let cut_again = tus.send(offset, LENGTH, 1_000_000);
    steading.kill();
    steading = steading.restart().unwrap();
    drop((cut, cut_again));
    let offset = tus.offset();
    assert!(offset > 0 && offset < LENGTH, "{offset}");
    // Somebody else does not find it.
    let bob = App::new(&url(&steading)).stranger().unwrap();
    let stolen = bob.request("HEAD", &tus.place).header("tus-resumable", "1.0.0").send().unwrap();
    assert_eq!(stolen.status, 404);
    let answer = tus.finish(offset, LENGTH);
    assert!(
        answer.starts_with("HTTP/1.1 204 ") && answer.contains("content-location: /_/files/private/big.bin"),
        "{answer}"
    );
    whole(&ada, "/_/files/private/big.bin", LENGTH);
    assert_eq!(tus.offset(), LENGTH, "who has not heard the answer finds it whole");
}

#[test]
fn the_protocol_of_uploads_is_kept() {
    let (_place, app) = place("tus");
    let ada = app.stranger().unwrap();
    let asked = Reply::of(app.request("OPTIONS", "/_/uploads")).unwrap();
    assert_eq!(
        (
            asked.status,
            asked.header("tus-version"),
            asked.header("tus-extension"),
            asked.header("tus-checksum-algorithm")
        ),
        (
            204,
            Some("1.0.0"),
            Some("creation,creation-with-upload,expiration,termination,checksum"),
            Some("sha1,sha256")
        )
    );
    let unversioned = Reply::of(ada.request("POST", "/_/uploads").header("upload-length", "1")).unwrap();
    assert_eq!((unversioned.status, unversioned.header("tus-version")), (412, Some("1.0.0")));
    let said = format!("bucket {},filename {}", STANDARD.encode("private"), STANDARD.encode("a.txt"));
    let begin = |length: &str, said: &str| {
        let request = ada.request("POST", "/_/uploads").header("tus-resumable", "1.0.0");
        request.header("upload-length", length).header("upload-metadata", said)
    };
    for (length, said) in [
        ("", said.as_str()),
        ("-1", &said),
        ("1.5", &said),
        ("5", ""),
        ("5", "bucket !!!"),
        ("5", "bucket cHJpdmF0ZQ=="),
    ] {
        Reply::of(begin(length, said)).unwrap().refuses(400, "invalid_input").unwrap();
    }
    let whole = begin("5", &said).header("content-type", "application/offset+octet-stream").body("hello");
    let whole = Reply::of(whole).unwrap();
    assert_eq!((whole.status, whole.header("upload-offset")), (201, Some("5")));
    assert_eq!(get(&ada, "/_/files/private/a.txt").text().unwrap(), "hello");
    let begun = Reply::of(begin("5", &said)).unwrap();
    let place = begun.header("location").unwrap();
    let patch = |offset: &str, checksum: &str, body: &str| {
        let request =
            ada.request("PATCH", place).header("tus-resumable", "1.0.0").header("upload-offset", offset);
        let request = request.header("content-type", "application/offset+octet-stream").body(body.as_bytes());
        let request = if checksum.is_empty() { request } else { request.header("upload-checksum", checksum) };
        Reply::of(request).unwrap()
    };
    assert_eq!(patch("1", "", "x").status, 409);
    assert_eq!(patch("0", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "wor").status, 460);
    assert_eq!(patch("0", "md5 AAAA", "wor").status, 400);
    let wrong = ada.request("PATCH", place).header("tus-resumable", "1.0.0").header("upload-offset", "0");
    assert_eq!(Reply::of(wrong.header("content-type", "text/plain").body("wor")).unwrap().status, 415);
    assert_eq!(patch("0", "sha1 nRZBY4scFDq0MEu9yZvrMzCbpOw=", "wor").status, 460);
    assert_eq!(patch("0", "", "wor").header("upload-offset"), Some("3"));
    let tail =
        ada.request("POST", place).header("x-http-method-override", "PATCH").header("tus-resumable", "1.0.0");
    let tail = tail
        .header("upload-offset", "3")
        .header("content-type", "application/offset+octet-stream")
        .body("ld");
    assert_eq!(Reply::of(tail).unwrap().header("upload-offset"), Some("5"));
    assert_eq!(get(&ada, "/_/files/private/a.txt").text().unwrap(), "world");
    let begun = Reply::of(begin("5", &said)).unwrap();
    let end = |place: &str| {
        Reply::of(ada.request("DELETE", place).header("tus-resumable", "1.0.0")).unwrap().status
    };
    let place = begun.header("location").unwrap();
    assert_eq!((end(place), end(place)), (204, 404));
}

#[test]
#[ignore = "soak: a gigabyte, for minutes, and three of them on the disk"]
fn soak_a_gigabyte_arrives_whole_over_three_cut_connections_in_little_memory() {
    const LENGTH: u64 = 1 << 30;
    let steading = require(Steading::start());
    steading.client().output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let (_, port) = steading.authority().rsplit_once(':').unwrap();
    let ada = App::new(&format!("http://default.localhost:{port}")).stranger().unwrap();
    let tus = Tus::begin(&ada, steading.authority(), "giga.bin", LENGTH);
    let idle = steading.rss().unwrap();
    let most = std::sync::atomic::AtomicU64::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let now = steading.rss().unwrap_or_default();
                most.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut offset = 0;
        for cut in 1..=3 {
            drop(tus.send(offset, LENGTH, LENGTH * cut / 4 - offset));
            offset = arrived(&tus, offset);
        }
        let answer = tus.finish(offset, LENGTH);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    });
    let over = most.into_inner().saturating_sub(idle) >> 20;
    whole(&ada, "/_/files/private/giga.bin", LENGTH);
    assert!(over <= 40, "{over} MB over idle");
}
