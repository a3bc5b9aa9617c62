//! Previews in a browser: a link, a page that shows one in a frame, pages that want what is not theirs, and what is seen
//! while a sandbox wakes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use conformance_tests::{Place, Preview, browser};
use serde_json::{Value, json};
use testkit::{Chromium, SeaweedFs, Steading, eventually, require};

use crate::sandbox_preview::{SERVER, run, seen, served};

const PATIENCE: Duration = Duration::from_secs(90);

/// What the page inside says of itself.
fn told(page: &Chromium) -> Value {
    let told = eventually(PATIENCE, || page.text("h1").ok()?.strip_prefix("inside {").map(str::to_owned));
    serde_json::from_str(&format!("{{{}", told.unwrap_or_else(|| panic!("{:?}", page.source())))).unwrap()
}

#[test]
fn a_link_works_in_a_browser_and_in_a_frame_of_another_site_and_pages_learn_nothing_of_it() {
    let place = Place::new("preview-frame").unwrap();
    let preview = served(&place.client, &place.steading, 8000);
    let pass = preview.pass.clone().unwrap();
    let files =
        json!({ "index.html": "<!doctype html><link rel=icon href=data:,><title>builder</title><body>" });
    place.output("site_deploy", &json!({ "files": files })).unwrap();
    let learns_nothing = |told: &Value| {
        assert_eq!((&told["fetched"], &told["heard"]), (&json!(200), &json!("hello")), "{told}");
        assert_eq!(told["at"], format!("{}/", preview.origin));
        let all = told.to_string();
        assert!(!all.contains(&pass) && !all.contains("steading-preview"), "{told}");
    };
    browser(|page| {
        page.goto(&place.url)?;
        let framed = |link: &str| {
            page.evaluate(&format!(
                "return new Promise((done) => {{
                   addEventListener('message', (event) => done(event.data), {{ once: true }});
                   const frame = document.createElement('iframe');
                   frame.src = '{link}';
                   frame.onload = () => setTimeout(() => done('nothing'), 5000);
                   document.body.append(frame);
                 }});"
            ))
        };
        assert_eq!(framed(&preview.origin)?, json!("nothing"));
        learns_nothing(&framed(&preview.link)?);
        // It comes back without the link, there and at the top by a link of its own.
        learns_nothing(&framed(&preview.origin)?);
        page.goto(&preview.origin)?;
        assert_eq!(page.text("h1")?, "Private");
        page.goto(&preview.link)?;
        learns_nothing(&told(page));
        page.goto(&preview.origin)?;
        learns_nothing(&told(page));
        assert!(told(page)["cookie"] == "app=1", "{}", told(page));
        // Nor does a page get rid of it, or of what it stands for.
        page.evaluate(
            "for (const name of ['__Host-steading-preview', 'steading-preview'])
               for (const value of ['x', '; Max-Age=0']) document.cookie = `${name}=${value}; Secure; Path=/`;",
        )?;
        page.goto(&preview.origin)?;
        learns_nothing(&told(page));
        page.console()?;
        Ok(())
    })
    .unwrap();
    assert_eq!([&*pass, "steading-preview"].map(|text| seen(&place.client, text)), [0, 0]);
}

/// All that a page can make a browser ask of another host, each under a path that tells.
fn attack(page: &Chromium, target: &Preview) -> anyhow::Result<Value> {
    page.evaluate(&format!(
        "return (async () => {{
           const target = '{}';
           const loads = (tag, set) => new Promise((done) => {{
             const element = Object.assign(document.createElement(tag), set);
             element.onload = element.onerror = done;
             document.body.append(element);
           }});
           for (const mode of ['no-cors', 'cors'])
             await fetch(`${{target}}/stolen-${{mode}}`, {{ credentials: 'include', mode }}).catch(() => 0);
           await fetch(`${{target}}/stolen-send`, {{ credentials: 'include', mode: 'no-cors', method: 'POST', body: 'x' }})
             .catch(() => 0);
           await loads('script', {{ src: `${{target}}/stolen-script` }});
           await loads('img', {{ src: `${{target}}/stolen-image` }});
           const framed = loads('iframe', {{ name: 'posted', src: `${{target}}/framed` }});
           await framed;
           const form = Object.assign(document.createElement('form'), {{
             method: 'post', action: `${{target}}/stolen-form`, target: 'posted' }});
           document.body.append(form);
           const answered = new Promise((done) => document.querySelector('iframe').onload = done);
           form.submit();
           await answered;
           const socket = new WebSocket(`${{target.replace('http', 'ws')}}/stolen-socket`);
           return new Promise((done) => {{
             socket.onmessage = (event) => done(event.data);
             socket.onerror = () => done('refused');
           }});
         }})();",
        target.origin
    ))
}

#[test]
fn no_other_page_gets_a_private_preview_by_its_visitors_browser() {
    let place = Place::new("preview-attack").unwrap();
    let target = served(&place.client, &place.steading, 8000);
    // A server of somebody else, which everybody sees. Browsers take both for the same site.
    run(
        &place.client,
        "mkdir other && cp server.py other && (cd other && python3 server.py 8001 > log 2>&1 &)",
    );
    let other = json!({ "port": 8001, "public": true });
    let neighbour = Preview::of(&place.output("preview_open", &other).unwrap(), &place.steading).unwrap();
    let files =
        json!({ "index.html": "<!doctype html><link rel=icon href=data:,><title>evil</title><body>" });
    place.output("site_deploy", &json!({ "files": files })).unwrap();
    let all = ["no-cors", "cors", "send", "script", "image", "form", "socket"];
    browser(|page| {
        page.goto(&target.link)?;
        assert_eq!(told(page)["heard"], "hello");
        for attacker in [&place.url, &neighbour.origin] {
            run(&place.client, ": > seen");
            page.goto(attacker)?;
            assert_eq!(attack(page, &target)?, json!("refused"), "{attacker}");
            assert_eq!(seen(&place.client, "stolen"), 0, "{attacker}");
            // The cookie is there where browsers send it: whoever goes there gets there.
            let framed = u32::from(*attacker == neighbour.origin);
            assert_eq!(seen(&place.client, "/framed"), framed, "{attacker}");
        }
        // What is kept from them is what they would get.
        place.output("preview_open", &json!({ "port": 8000, "public": true }))?;
        for attacker in [&place.url, &neighbour.origin] {
            run(&place.client, ": > seen");
            page.goto(attacker)?;
            assert_eq!(attack(page, &target)?, json!("hello"), "{attacker}");
            for way in all {
                assert_eq!(seen(&place.client, &format!("/stolen-{way}")), 1, "{attacker}, {way}");
            }
            assert_eq!(seen(&place.client, "steading-preview"), 0);
        }
        page.console()?;
        Ok(())
    })
    .unwrap();
}

/// What lies between a server and its bucket, and lets nothing through while it is shut.
#[derive(Clone)]
struct Dam {
    address: String,
    is_open: Arc<(Mutex<bool>, Condvar)>,
}

impl Dam {
    fn before(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dam = Self {
            address: listener.local_addr().unwrap().to_string(),
            is_open: Arc::new((Mutex::new(true), Condvar::new())),
        };
        let (to, passing) = (to.to_owned(), dam.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(&to)) else { continue };
                for (mut from, mut into) in
                    [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
                {
                    let passing = passing.clone();
                    std::thread::spawn(move || {
                        let mut bytes = [0; 1 << 16];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            passing.wait();
                            if into.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        drop(into.shutdown(std::net::Shutdown::Both));
                    });
                }
            }
        });
        dam
    }

    fn wait(&self) {
        let (is_open, changed) = &*self.is_open;
        drop(changed.wait_while(is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
    }

    fn set(&self, open: bool) {
        *self.is_open.0.lock().unwrap() = open;
        self.is_open.1.notify_all();
    }
}

#[test]
fn a_visitor_wakes_a_sandbox_from_its_archive_and_sees_that_it_starts_meanwhile() {
    let seaweed = require(SeaweedFs::start());
    let mut launch = Steading::launch()
        .env("STEADING_SANDBOX_FREEZE_AFTER_S", "1")
        .env("STEADING_SANDBOX_PARK_AFTER_S", "2")
        .env("STEADING_SANDBOX_ARCHIVE_AFTER_S", "2");
    let mut dam = None;
    for (name, value) in seaweed.settings() {
        let through = value.strip_prefix("http://").map(|endpoint| dam.insert(Dam::before(endpoint)));
        launch = match through {
            Some(dam) => launch.env(name, format!("http://{}", dam.address)),
            None => launch.env(name, value),
        };
    }
    let (server, dam) = (require(launch.start()), dam.unwrap());
    let client = server.client().in_env("default");
    run(&client, "echo kept > kept");
    client.output("file_write", &json!({ "path": "server.py", "text": SERVER })).unwrap();
    let wanted = json!({ "port": 8000, "command": "python3 server.py 8000" });
    let shown = client.request("POST", "/v1/sandboxes/default/previews").json(&wanted);
    let preview = Preview::of(&shown.send().unwrap().json().unwrap(), &server).unwrap();
    let state = || {
        let shown = client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
        shown["state"].as_str().unwrap().to_owned()
    };
    // Who looks all the time does not keep it from there.
    let archived = eventually(PATIENCE, || (state() == "archived").then_some(()));
    assert!(archived.is_some(), "{}", server.log());
    dam.set(false);
    let program = preview.ask("GET", "/").send().unwrap();
    assert_eq!((program.status, program.header("retry-after")), (503, Some("1")));
    assert_eq!(program.text().unwrap(), "The sandbox is starting. This page opens by itself in a moment.\n");
    browser(|page| {
        page.goto(&preview.link)?;
        assert_eq!((page.text("h1")?, page.url()?), ("Starting".into(), format!("{}/", preview.origin)));
        // Strangers are told nothing of it.
        assert_eq!(preview.ask_as_stranger("GET", "/").send()?.status, 401);
        dam.set(true);
        // It asks again by itself, until its server is there.
        assert_eq!(told(page)["heard"], "hello");
        page.console()?;
        Ok(())
    })
    .unwrap();
    assert_eq!(run(&client, "cat kept"), "kept\n");
}
