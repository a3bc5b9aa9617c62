//! Attacks by sessions that should be over: stolen, spent, ended, and of people who may not come in any more.

use anyhow::{Context, ensure};
use conformance_tests::{App, Attack, Person, Reply, Scene, Session};
use serde_json::{Value, json};

use crate::app_todo::LIST;

fn refresh(app: &App, token: &str) -> anyhow::Result<Reply> {
    app.auth("refresh", &json!({ "refresh_token": token }))
}

/// The session after this one.
fn refreshed(app: &App, session: &Session) -> anyhow::Result<Session> {
    let reply = refresh(app, &session.refresh)?;
    ensure!(reply.status == 200, "no session: {reply:?}");
    let next = Session::of(&reply.body)?;
    ensure!(next.user == session.user, "of another: {reply:?}");
    ensure!(next.refresh != session.refresh, "the same token again: {reply:?}");
    Ok(next)
}

fn holds(app: &App, session: &Session) -> anyhow::Result<bool> {
    let person = Person { app: app.clone(), session: Some(session.clone()) };
    let reply = person.ask("GET", "/_/auth/me")?;
    match reply.status {
        200 => ensure!(reply.body["id"] == session.user.as_str(), "of another: {reply:?}"),
        _ => reply.refuses(401, "unauthenticated")?,
    }
    // Every route says the same of a session.
    let listed = person.list("todos", &[])?.status;
    ensure!(listed == reply.status, "me says {}, todos {listed}", reply.status);
    Ok(reply.status == 200)
}

/// Holds that nothing of a session is good for anything.
fn over(scene: &Scene, session: &Session) -> anyhow::Result<()> {
    ensure!(!holds(&scene.app, session)?, "the access token still holds");
    scene.refused(&refresh(&scene.app, &session.refresh)?, 401, "unauthenticated")
}

fn session_of(person: &Person) -> anyhow::Result<Session> {
    person.session.clone().context("a session")
}

const THEFT: &[Attack] = &[
    Attack {
        name: "use a stolen refresh token after its owner",
        attempt: |scene| {
            let stolen = session_of(&scene.alice)?;
            let second = refreshed(&scene.app, &stolen)?;
            let third = refreshed(&scene.app, &second)?;
            scene.refused(&refresh(&scene.app, &stolen.refresh)?, 401, "unauthenticated")?;
            for session in [&stolen, &second, &third] {
                over(scene, session)?;
            }
            Ok(())
        },
    },
    Attack {
        name: "use a stolen refresh token before its owner",
        attempt: |scene| {
            let session = session_of(&scene.app.stranger()?)?;
            let thief = refreshed(&scene.app, &session)?;
            scene.refused(&refresh(&scene.app, &session.refresh)?, 401, "unauthenticated")?;
            over(scene, &thief)?;
            over(scene, &session)
        },
    },
    Attack {
        name: "use one refresh token many times at once",
        attempt: |scene| {
            for _ in 0..8 {
                let session = session_of(&scene.app.stranger()?)?;
                let replies: Vec<Reply> = std::thread::scope(|scope| {
                    let threads: Vec<_> =
                        (0..8).map(|_| scope.spawn(|| refresh(&scene.app, &session.refresh))).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect::<anyhow::Result<_>>()
                })?;
                let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
                ensure!(won.len() <= 1, "{} of 8 got a session", won.len());
                for reply in lost {
                    scene.refused(reply, 401, "unauthenticated")?;
                }
                // The others have shown a token that was spent: whoever won has lost it, too.
                over(scene, &session)?;
                for reply in won {
                    over(scene, &Session::of(&reply.body)?)?;
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "guess the token after a known one",
        attempt: |scene| {
            let session = session_of(&scene.app.stranger()?)?;
            let other = session_of(&scene.app.stranger()?)?;
            let half = session.refresh.len() / 2;
            let mixed = format!("{}{}", &session.refresh[..half], &other.refresh[half..]);
            scene.refused(&refresh(&scene.app, &mixed)?, 401, "unauthenticated")?;
            // What was mixed in is nobody's fault, and the other's session goes on.
            refreshed(&scene.app, &other)?;
            Ok(())
        },
    },
    Attack {
        name: "send refresh tokens that are none",
        attempt: |scene| {
            let bodies =
                [json!({}), json!({ "refresh_token": null }), json!({ "refresh_token": [1] }), json!([])];
            for body in bodies {
                let reply = scene.app.auth("refresh", &body)?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| body.to_string())?;
            }
            let session = session_of(&scene.mallory)?;
            let body = json!({ "refresh_token": session.refresh, "user": scene.alice.id() });
            scene.refused(&scene.app.auth("refresh", &body)?, 400, "invalid_input")?;
            ensure!(holds(&scene.app, &session)?, "a refused request has ended the session");
            Ok(())
        },
    },
];

fn log_out(scene: &Scene, session: &Session, body: &Value) -> anyhow::Result<()> {
    let person = Person { app: scene.app.clone(), session: Some(session.clone()) };
    let reply = person.send("POST", "/_/auth/logout", body)?;
    ensure!(reply.status == 204, "not logged out: {reply:?}");
    Ok(())
}

const SECRETS: &[Attack] = &[Attack {
    name: "read what is stored of passwords and tokens",
    attempt: |scene| {
        let email = format!("{}@example.com", scene.mallory.id());
        let person = scene.app.sign_up(&email, "a word that is long enough")?;
        let session = session_of(&person)?;
        for table in ["_steading_user", "_steading_session", "main._steading_user", "\"_STEADING_USER\""] {
            for sql in [format!("SELECT * FROM {table}"), format!("SELECT count(*) FROM {table}")] {
                let answer = scene.place.client.call("db_query", &json!({ "sql": sql }))?;
                ensure!((400..500).contains(&answer.status), "{sql}: {answer:?}");
            }
            for sql in [format!("DELETE FROM {table}"), format!("UPDATE {table} SET role = 'admin'")] {
                let answer = scene.place.client.call("db_execute", &json!({ "sql": sql }))?;
                ensure!((400..500).contains(&answer.status), "{sql}: {answer:?}");
            }
        }
        // Nor does any tool tell them.
        for (tool, input) in [
            ("auth_users", json!({})),
            ("auth_users", json!({ "user": email })),
            ("app_describe", json!({})),
            ("logs_query", json!({ "limit": 50 })),
        ] {
            let told = scene.place.output(tool, &input)?.to_string();
            for secret in ["$argon2", "a word that is long", &session.refresh, &session.access] {
                ensure!(!told.contains(secret), "{tool} tells {secret}: {told}");
            }
        }
        let log = scene.place.steading.log();
        for secret in ["a word that is long", &session.refresh, &session.access] {
            ensure!(!log.contains(secret), "the log tells {secret}");
        }
        ensure!(holds(&scene.app, &session)?, "the session has ended");
        Ok(())
    },
}];

const ENDS: &[Attack] = &[
    Attack {
        name: "go on after logging out",
        attempt: |scene| {
            let (one, other) = (session_of(&scene.app.stranger()?)?, session_of(&scene.alice)?);
            // It is known, and remembered.
            ensure!(holds(&scene.app, &one)? && holds(&scene.app, &one)?, "no session");
            log_out(scene, &one, &json!({}))?;
            over(scene, &one)?;
            let again = Person { app: scene.app.clone(), session: Some(one) };
            let reply = again.send("POST", "/_/auth/logout", &json!({}))?;
            scene.refused(&reply, 401, "unauthenticated")?;
            ensure!(holds(&scene.app, &other)?, "somebody else was logged out");
            Ok(())
        },
    },
    Attack {
        name: "go on after logging out after a refresh",
        attempt: |scene| {
            let first = session_of(&scene.app.stranger()?)?;
            let second = refreshed(&scene.app, &first)?;
            log_out(scene, &second, &json!({}))?;
            over(scene, &second)?;
            over(scene, &first)
        },
    },
    Attack {
        name: "go on elsewhere after logging out everywhere",
        attempt: |scene| {
            let email = format!("{}@example.com", scene.mallory.id());
            let here = scene.app.sign_up(&email, "a word that is long enough")?;
            let there = session_of(&scene.app.login(&email, "a word that is long enough")?)?;
            let third = session_of(&scene.app.login(&email, "a word that is long enough")?)?;
            log_out(scene, &third, &json!({}))?;
            ensure!(holds(&scene.app, &there)?, "the other sessions ended, too");
            log_out(scene, &session_of(&here)?, &json!({ "everywhere": true }))?;
            for session in [session_of(&here)?, there, third] {
                over(scene, &session)?;
            }
            let back = scene.app.login(&email, "a word that is long enough")?;
            ensure!(back.id() == here.id(), "not the same person");
            Ok(())
        },
    },
    Attack {
        name: "go on after being shut out",
        attempt: |scene| {
            let email = format!("out-{}@example.com", scene.mallory.id());
            let person = scene.app.sign_up(&email, "a word that is long enough")?;
            let row = person.create("todos", &json!({ "title": "of somebody shut out" }))?;
            let session = session_of(&person)?;
            ensure!(holds(&scene.app, &session)?, "no session");
            let set = |disabled: bool| {
                scene.place.output("auth_user_set", &json!({ "user": person.id(), "disabled": disabled }))
            };
            set(true)?;
            over(scene, &session)?;
            let credentials = json!({ "email": email, "password": "a word that is long enough" });
            let refused = scene.app.auth("login", &credentials)?;
            scene.tells_nothing(&refused)?;
            ensure!([401, 403].contains(&refused.status), "let in: {refused:?}");
            set(false)?;
            let back = scene.app.login(&email, "a word that is long enough")?;
            back.list("todos", &[])?.lists(&[row["id"].as_str().unwrap_or_default()])?;
            // What was ended stays so.
            ensure!(!holds(&scene.app, &session)?, "an ended session has come back");
            back.ask("DELETE", &format!("/_/db/todos/{}", row["id"].as_str().unwrap_or_default()))?;
            Ok(())
        },
    },
    Attack {
        name: "keep a role that was taken away",
        attempt: |scene| {
            let person = scene.app.stranger()?;
            let me = |role: &str| -> anyhow::Result<()> {
                scene.place.output("auth_user_set", &json!({ "user": person.id(), "role": role }))?;
                let reply = person.ask("GET", "/_/auth/me")?;
                ensure!(reply.status == 401 || reply.body["role"] == role, "still {reply:?}");
                Ok(())
            };
            me("admin")?;
            me("user")
        },
    },
];

#[test]
fn a_stolen_refresh_token_ends_its_whole_family() {
    LIST.withstands(THEFT).unwrap();
}

#[test]
fn passwords_and_tokens_are_told_to_nobody() {
    LIST.withstands(SECRETS).unwrap();
}

#[test]
fn a_session_that_has_ended_opens_nothing_at_once() {
    LIST.withstands(ENDS).unwrap();
}
