//! Attacks on accounts: finding out whose there are, guessing passwords, and taking them over.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use conformance_tests::{Attack, Reply, Scene};
use serde_json::json;

use crate::app_todo::LIST;

const PASSWORD: &str = "a word that is long enough";

fn login(scene: &Scene, email: &str, password: &str) -> anyhow::Result<Reply> {
    scene.app.auth("login", &json!({ "email": email, "password": password }))
}

/// What an answer says, without what differs from call to call.
fn said(reply: &Reply) -> String {
    let per_call = ["date", "x-request-id", "content-length"];
    let headers: Vec<_> =
        reply.headers.iter().filter(|(name, _)| !per_call.contains(&name.as_str())).collect();
    let mut body = reply.body.clone();
    body.as_object_mut().map(|fields| fields.remove("request_id"));
    format!("{} {headers:?} {body}", reply.status)
}

/// The time that the work takes where nothing else gets in its way.
fn least(times: Vec<Duration>) -> f64 {
    times.into_iter().min().unwrap_or_default().as_secs_f64()
}

const ENUMERATION: &[Attack] = &[
    Attack {
        name: "tell by a login's answer who has an account",
        attempt: |scene| {
            let known = format!("{}@example.com", scene.alice.id());
            scene.app.sign_up(&known, PASSWORD)?;
            let wrong = login(scene, &known, "a word that is wrong")?;
            let nobody = login(scene, "nobody@example.com", "a word that is wrong")?;
            scene.refused(&wrong, 401, "unauthenticated")?;
            ensure!(said(&wrong) == said(&nobody), "they differ:\n{}\n{}", said(&wrong), said(&nobody));
            Ok(())
        },
    },
    Attack {
        name: "tell by a login's time who has an account",
        attempt: |scene| {
            let mut times = [Vec::new(), Vec::new()];
            for n in 0..7 {
                // Each address is tried once, so that none is held back for too many tries.
                let known = format!("time-{n}-{}@example.com", scene.alice.id());
                scene.app.sign_up(&known, PASSWORD)?;
                let unknown = format!("nobody-{n}@example.com");
                for (times, email) in times.iter_mut().zip([&known, &unknown]) {
                    let began = Instant::now();
                    let reply = login(scene, email, "a word that is wrong")?;
                    times.push(began.elapsed());
                    scene.refused(&reply, 401, "unauthenticated")?;
                }
            }
            let [known, unknown] = times.map(least);
            let ratio = unknown / known;
            // Without a hash to compute, an unknown address would be answered many times faster.
            ensure!((0.5..2.0).contains(&ratio), "known {known:.4} s, unknown {unknown:.4} s");
            Ok(())
        },
    },
    Attack {
        name: "log in with what is not a password",
        attempt: |scene| {
            let known = format!("odd-{}@example.com", scene.alice.id());
            scene.app.sign_up(&known, PASSWORD)?;
            let bodies = [
                json!({ "email": known }),
                json!({ "email": known, "password": null }),
                json!({ "email": known, "password": true }),
                json!({ "email": known, "password": { "$ne": "" } }),
                json!({ "email": known, "password": [PASSWORD] }),
                json!({ "email": { "$ne": null }, "password": PASSWORD }),
                json!({ "email": [known], "password": PASSWORD }),
                json!({ "email": known, "password": PASSWORD, "role": "admin" }),
                json!({ "email": known, "password": PASSWORD, "id": scene.alice.id() }),
            ];
            for body in bodies {
                let reply = scene.app.auth("login", &body)?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| body.to_string())?;
            }
            for (email, password) in [
                ("%", PASSWORD),
                ("' OR 1=1 --", PASSWORD),
                (known.as_str(), ""),
                (known.as_str(), "' OR 1=1 --"),
                (&known.replace('@', "\u{ff20}"), PASSWORD),
                (&format!("{known}\0"), PASSWORD),
            ] {
                let reply = login(scene, email, password)?;
                scene.tells_nothing(&reply)?;
                ensure!([400, 401].contains(&reply.status), "{email} {password}: {reply:?}");
            }
            let long = login(scene, &known, &"x".repeat(100_000))?;
            ensure!([400, 401, 413].contains(&long.status), "{long:?}");
            // The same address in other cases is the same account, not a second one.
            let reply = login(scene, &known.to_uppercase(), PASSWORD)?;
            ensure!([200, 401].contains(&reply.status), "{reply:?}");
            let second = json!({ "email": known.to_uppercase(), "password": PASSWORD });
            let second = scene.app.auth("signup", &second)?;
            ensure!((400..500).contains(&second.status), "a second account: {second:?}");
            Ok(())
        },
    },
];

const TAKEOVER: &[Attack] = &[
    Attack {
        name: "sign up with what the app decides by itself",
        attempt: |scene| {
            for (field, value) in [
                ("role", json!("admin")),
                ("id", json!(scene.alice.id())),
                ("anonymous", json!(false)),
                ("disabled", json!(false)),
                ("claims", json!({ "admin": true })),
            ] {
                let body = json!({ "email": "new@example.com", "password": PASSWORD, field: value });
                let reply = scene.app.auth("signup", &body)?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| field)?;
                let reply = scene.app.auth("anonymous", &json!({ field: value }))?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| field)?;
            }
            Ok(())
        },
    },
    Attack {
        name: "take over an account by signing up again",
        attempt: |scene| {
            let email = format!("mine-{}@example.com", scene.alice.id());
            let owner = scene.app.sign_up(&email, PASSWORD)?;
            let row = owner.create("todos", &json!({ "title": "of the owner" }))?;
            let body = json!({ "email": email, "password": "a word of the attacker" });
            // Without a session, and with an anonymous one, which would become that account.
            for attacker in [scene.app.visitor(), scene.app.stranger()?] {
                let reply = attacker.send("POST", "/_/auth/signup", &body)?;
                scene.tells_nothing(&reply)?;
                ensure!((400..500).contains(&reply.status), "signed up: {reply:?}");
                ensure!(!reply.body.to_string().contains(owner.id()), "tells whose it is: {reply:?}");
            }
            scene.refused(&login(scene, &email, "a word of the attacker")?, 401, "unauthenticated")?;
            let again = scene.app.login(&email, PASSWORD)?;
            ensure!(again.id() == owner.id(), "another: {again:?}");
            let path = format!("/_/db/todos/{}", row["id"].as_str().unwrap_or_default());
            ensure!(again.ask("DELETE", &path)?.status == 204, "the row is not there");
            Ok(())
        },
    },
    Attack {
        name: "give an account that is one another address",
        attempt: |scene| {
            let email = format!("one-{}@example.com", scene.alice.id());
            let person = scene.app.sign_up(&email, PASSWORD)?;
            let other = format!("two-{}@example.com", scene.alice.id());
            let body = json!({ "email": other, "password": "a word of the attacker" });
            let reply = person.send("POST", "/_/auth/signup", &body)?;
            ensure!(reply.body["user"]["id"] != person.id(), "the account has changed: {reply:?}");
            scene.app.login(&email, PASSWORD)?;
            Ok(())
        },
    },
    Attack {
        name: "passwords that are too short, and addresses that are none",
        attempt: |scene| {
            for password in ["", "short", "1234567"] {
                let body = json!({ "email": "short@example.com", "password": password });
                scene.refused(&scene.app.auth("signup", &body)?, 400, "invalid_input")?;
            }
            for email in
                ["", "x", "@", "a@", "@b", "a b@example.com", "a@b@example.com", "a@example.com\r\nx: y"]
            {
                let body = json!({ "email": email, "password": PASSWORD });
                let reply = scene.app.auth("signup", &body)?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| email)?;
            }
            Ok(())
        },
    },
];

const GUESSING: &[Attack] = &[Attack {
    name: "guess a password by trying",
    attempt: |scene| {
        let email = format!("{}@example.com", scene.alice.id());
        let owner = scene.app.sign_up(&email, PASSWORD)?;
        let mut stopped = None;
        for guess in 0..50 {
            let reply = login(scene, &email, &format!("guess number {guess}"))?;
            if reply.status == 429 {
                stopped = Some((guess, reply));
                break;
            }
            scene.refused(&reply, 401, "unauthenticated")?;
        }
        let (guesses, reply) = stopped.context("50 guesses, and nothing stopped them")?;
        ensure!(guesses <= 20, "{guesses} guesses before the first was stopped");
        scene.refused(&reply, 429, "rate_limited")?;
        let wait: u64 = reply.header("retry-after").context("how long?")?.parse()?;
        ensure!((1..=3_600).contains(&wait), "wait for {wait} s");
        // An address without an account is held back just so: that, too, would tell.
        let mut unknown = 0_usize;
        while login(scene, "nobody@example.com", &format!("guess number {unknown}"))?.status == 401 {
            unknown += 1;
            ensure!(unknown < 50, "50 guesses, and nothing stopped them");
        }
        // Where the machine is slow, one more is forgiven meanwhile.
        ensure!(unknown.abs_diff(guesses) <= 2, "{guesses} for one that is known, {unknown} for unknown");
        // Whoever is signed in stays so, and others sign in meanwhile.
        let me = owner.ask("GET", "/_/auth/me")?;
        ensure!(me.body["id"] == owner.id(), "the owner was shut out: {me:?}");
        let other = format!("other-{email}");
        scene.app.sign_up(&other, PASSWORD)?;
        ensure!(login(scene, &other, PASSWORD)?.status == 200, "others were shut out");
        // By no header one becomes another.
        let body = json!({ "email": email, "password": "one more guess" });
        for header in ["x-forwarded-for", "x-real-ip", "forwarded", "cf-connecting-ip", "true-client-ip"] {
            let request = scene.app.request("POST", "/_/auth/login").header(header, "203.0.113.7");
            scene.refused(&Reply::of(request.json(&body))?, 429, "rate_limited").with_context(|| header)?;
        }
        let upper = json!({ "email": email.to_uppercase(), "password": "one more guess" });
        let reply = scene.app.auth("login", &upper)?;
        ensure!([401, 429].contains(&reply.status), "{reply:?}");
        Ok(())
    },
}];

const METHODS: &[Attack] = &[Attack {
    name: "sign in by a way that is not on",
    attempt: |scene| {
        let manifest = json!({ "auth": { "methods": ["anonymous"] } });
        scene.place.output("app_apply", &json!({ "manifest": manifest }))?;
        let body = json!({ "email": "new@example.com", "password": PASSWORD });
        for route in ["signup", "login"] {
            scene.refused(&scene.app.auth(route, &body)?, 403, "forbidden")?;
            scene.refused(
                &scene.mallory.send("POST", &format!("/_/auth/{route}"), &body)?,
                403,
                "forbidden",
            )?;
        }
        scene.place.output("app_apply", &json!({ "manifest": { "auth": { "methods": [] } } }))?;
        scene.refused(&scene.app.auth("anonymous", &json!({}))?, 403, "forbidden")?;
        for (route, body) in [
            ("otp", json!({ "email": "new@example.com" })),
            ("password/forgot", json!({ "email": "new@example.com" })),
        ] {
            scene.refused(&scene.app.auth(route, &body)?, 403, "forbidden").with_context(|| route)?;
        }
        let start = scene.app.visitor().ask("GET", "/_/auth/oauth/google/start")?;
        scene.refused(&start, 403, "forbidden")?;
        for route in ["admin", "users", "token", "otp/verify/x", "password/x"] {
            scene.refused(&scene.app.auth(route, &json!({}))?, 404, "not_found").with_context(|| route)?;
        }
        let back = json!({ "auth": { "methods": ["anonymous", "password"], "origins": ["https://friend.example"] } });
        scene.place.output("app_apply", &json!({ "manifest": back }))?;
        Ok(())
    },
}];

#[test]
fn nobody_finds_out_who_has_an_account() {
    LIST.withstands(ENUMERATION).unwrap();
}

#[test]
fn no_account_is_taken_over() {
    LIST.withstands(TAKEOVER).unwrap();
}

#[test]
fn guesses_are_held_back_and_their_victim_is_not() {
    LIST.withstands(GUESSING).unwrap();
}

#[test]
fn a_way_to_sign_in_that_is_not_on_is_closed() {
    LIST.withstands(METHODS).unwrap();
}
