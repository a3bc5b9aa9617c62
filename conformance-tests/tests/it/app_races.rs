//! Attacks by doing things at the same moment: of those who want the same, one gets it.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use conformance_tests::{Attack, Person, Reply, Scene, Session};
use serde_json::json;

use crate::app_todo::LIST;

/// What comes of doing something so many times at once.
fn at_once(times: usize, act: impl Fn(usize) -> anyhow::Result<Reply> + Sync) -> anyhow::Result<Vec<Reply>> {
    let barrier = std::sync::Barrier::new(times);
    std::thread::scope(|scope| {
        let (act, barrier) = (&act, &barrier);
        let threads: Vec<_> = (0..times)
            .map(|n| {
                scope.spawn(move || {
                    barrier.wait();
                    act(n)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn of_status(replies: &[Reply], status: u16) -> Vec<&Reply> {
    replies.iter().filter(|reply| reply.status == status).collect()
}

const RACES: &[Attack] = &[
    Attack {
        name: "change one version of a row many times",
        attempt: |scene| {
            let path = format!("/_/db/todos/{}", scene.own_id());
            for _ in 0..5 {
                let etag = scene.mallory.ask("GET", &path)?.header("etag").context("no etag")?.to_owned();
                let replies = at_once(8, |n| {
                    let request = scene.mallory.request("PATCH", &path).header("if-match", &etag);
                    Reply::of(request.json(&json!({ "n": n })))
                })?;
                let won = of_status(&replies, 200);
                ensure!(won.len() == 1, "{} of 8 changed the same version: {replies:?}", won.len());
                for lost in replies.iter().filter(|reply| reply.status != 200) {
                    lost.refuses(412, "conflict")?;
                }
                let now = scene.mallory.ask("GET", &path)?;
                ensure!(now.body == won[0].body, "another than the winner's: {now:?}");
            }
            Ok(())
        },
    },
    Attack {
        name: "remove one row many times",
        attempt: |scene| {
            let row = scene.mallory.create("todos", &json!({ "title": "to be removed" }))?;
            let path = format!("/_/db/todos/{}", row["id"].as_str().unwrap_or_default());
            let replies = at_once(8, |_| scene.mallory.ask("DELETE", &path))?;
            ensure!(of_status(&replies, 204).len() == 1, "not one: {replies:?}");
            ensure!(of_status(&replies, 404).len() == 7, "not the others: {replies:?}");
            Ok(())
        },
    },
    Attack {
        name: "make batches that fail beside others that do not",
        attempt: |scene| {
            let own = json!({ "do": "create", "on": "todos", "new": { "title": "of a batch" } });
            let others = json!({ "do": "delete", "on": "todos", "id": scene.target() });
            let replies = at_once(8, |n| {
                let operations = if n % 2 == 0 { json!([own, own]) } else { json!([own, own, others]) };
                scene.mallory.send("POST", "/_/batch", &json!({ "operations": operations }))
            })?;
            let (made, refused) = (of_status(&replies, 200), of_status(&replies, 404));
            ensure!((made.len(), refused.len()) == (4, 4), "not half of them: {replies:?}");
            let rows = scene.mallory.list("todos", &[("where", "title == \"of a batch\"")])?;
            let ids: Vec<&str> = made
                .iter()
                .flat_map(|reply| reply.body["results"].as_array().into_iter().flatten())
                .filter_map(|result| result["row"]["id"].as_str())
                .collect();
            ensure!(ids.len() == 8, "not two of each: {made:?}");
            rows.lists(&ids)
        },
    },
    Attack {
        name: "sign up with one address many times",
        attempt: |scene| {
            let email = format!("race-{}@example.com", scene.mallory.id());
            let body = |n: usize| json!({ "email": email, "password": format!("the long word of {n}") });
            let replies = at_once(6, |n| scene.app.auth("signup", &body(n)))?;
            let won: Vec<usize> = (0..6).filter(|n| replies[*n].status == 201).collect();
            ensure!(won.len() == 1, "{} accounts of one address: {replies:?}", won.len());
            for lost in replies.iter().filter(|reply| reply.status != 201) {
                lost.refuses(409, "conflict")?;
            }
            let owner = scene.app.auth("login", &body(won[0]))?;
            ensure!(owner.body["user"]["id"] == replies[won[0]].body["user"]["id"], "another: {owner:?}");
            scene.app.auth("login", &body((won[0] + 1) % 6))?.refuses(401, "unauthenticated")
        },
    },
    Attack {
        name: "become several accounts at once",
        attempt: |scene| {
            let stranger = scene.app.stranger()?;
            let body = |n: usize| {
                let email = format!("many-{n}-{}@example.com", stranger.id());
                json!({ "email": email, "password": "a word that is long enough" })
            };
            let replies = at_once(4, |n| stranger.send("POST", "/_/auth/signup", &body(n)))?;
            let upgraded: Vec<&Reply> =
                replies.iter().filter(|reply| reply.body["user"]["id"] == stranger.id()).collect();
            ensure!(upgraded.len() == 1, "{} accounts of one person: {replies:?}", upgraded.len());
            for lost in replies.iter().filter(|reply| reply.status != 201) {
                ensure!([401, 409].contains(&lost.status), "{lost:?}");
            }
            Ok(())
        },
    },
    Attack {
        name: "refresh while logging out",
        attempt: |scene| {
            for _ in 0..5 {
                let person = scene.app.stranger()?;
                let session = person.session.clone().context("a session")?;
                let replies = at_once(6, |n| {
                    if n == 0 {
                        person.send("POST", "/_/auth/logout", &json!({}))
                    } else {
                        scene.app.auth("refresh", &json!({ "refresh_token": session.refresh }))
                    }
                })?;
                ends(scene, &person)?;
                for reply in of_status(&replies, 200) {
                    let session = Some(Session::of(&reply.body)?);
                    ends(scene, &Person { app: scene.app.clone(), session })?;
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "write while the rules are made stricter",
        attempt: |scene| {
            let mut stricter = (LIST.manifest)();
            let notices = &mut stricter["database"]["tables"]["notices"];
            notices["access"] = json!({ "list": "true", "get": "true", "delete": "row.owner == auth.uid" });
            let shut = AtomicBool::new(false);
            let made = std::thread::scope(|scope| {
                let writers: Vec<_> = (0..4).map(|_| scope.spawn(|| writes(scene, &shut))).collect();
                let applied = scene.place.output("app_apply", &json!({ "manifest": stricter }));
                shut.store(true, Ordering::SeqCst);
                let made = writers.into_iter().map(|writer| writer.join().unwrap());
                let made = made.sum::<anyhow::Result<usize>>();
                applied.and(made)
            })?;
            let count = json!({
                "sql": "SELECT count(*) FROM notices WHERE owner = ?1", "params": [scene.mallory.id()],
            });
            let count = scene.place.output("db_query", &count)?;
            ensure!(count["rows"] == json!([[made]]), "{made} were made, there are {count}");
            scene.place.output("app_apply", &json!({ "manifest": (LIST.manifest)() }))?;
            Ok(())
        },
    },
];

/// Makes rows until the rules refuse it, and tells how many; from `shut` on they must.
fn writes(scene: &Scene, shut: &AtomicBool) -> anyhow::Result<usize> {
    for made in 0.. {
        let late = shut.load(Ordering::SeqCst);
        let reply = scene.mallory.send("POST", "/_/db/notices", &json!({ "text": "while it is open" }))?;
        if reply.status == 201 && !late {
            continue;
        }
        reply.refuses(403, "forbidden")?;
        return Ok(made);
    }
    unreachable!("it counts without end")
}

/// Holds that nothing of a session opens anything any more.
fn ends(scene: &Scene, person: &Person) -> anyhow::Result<()> {
    person.ask("GET", "/_/auth/me")?.refuses(401, "unauthenticated")?;
    let refresh = person.session.as_ref().map(|session| session.refresh.clone()).unwrap_or_default();
    scene.app.auth("refresh", &json!({ "refresh_token": refresh }))?.refuses(401, "unauthenticated")
}

#[test]
fn of_those_who_want_the_same_at_once_one_gets_it() {
    LIST.withstands(RACES).unwrap();
}
