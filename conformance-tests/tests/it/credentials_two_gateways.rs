//! Two gateways on one control plane: what one of them ends opens nothing at the other within a second.

use std::time::{Duration, Instant};

use conformance_tests::home_beside;
use serde_json::{Value, json};
use testkit::{Client, Fsync, Postgres, Steading, eventually, require};

const PATIENCE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(1);

fn post(client: &Client, path: &str, body: &Value) -> Value {
    let made = client.request("POST", path).json(body).send().unwrap();
    assert!([200, 201].contains(&made.status), "{path}: {:?}", made.text());
    made.json().unwrap()
}

fn opens(client: &Client) -> u16 {
    client.request("GET", "/v1/tools").send().unwrap().status
}

/// How long the credential still opens something after now.
fn until_refused(client: &Client) -> Duration {
    let began = Instant::now();
    let refused = eventually(PATIENCE, || (opens(client) == 401).then_some(()));
    assert!(refused.is_some(), "it is never refused");
    began.elapsed()
}

#[test]
fn what_one_gateway_ends_opens_nothing_at_the_other_within_a_second() {
    let postgres = require(Postgres::start(Fsync::Off));
    let launch = || Steading::launch().env("STEADING_DATABASE_URL", postgres.url("postgres"));
    let one = require(launch().start());
    let other = home_beside(&one).unwrap();
    let two = require(launch().data_dir(other.path()).start());
    let (here, there) = (one.client(), two.client());
    let at = |gateway: &Client, made: &Value, member: &str| {
        gateway.clone().with_key(made[member].as_str().unwrap()).without_env()
    };
    let wanted = json!({ "env": "default", "scopes": ["db:read"], "expires_in": 600 });
    let mut slowest = Duration::ZERO;
    for _ in 0..4 {
        let key = post(&here.clone().without_env(), "/v1/keys", &json!({ "name": "k" }));
        let (key_here, key_there) = (at(&here, &key, "key"), at(&there, &key, "key"));
        let parent = post(&key_here, "/v1/credentials", &wanted);
        let child = post(&at(&here, &parent, "token"), "/v1/credentials", &wanted);
        let (parent_there, child_there) = (at(&there, &parent, "token"), at(&there, &child, "token"));
        // In the other's memory, all three.
        assert_eq!([&key_there, &parent_there, &child_there].map(opens), [200; 3]);
        let path = format!("/v1/credentials/{}", parent["id"].as_str().unwrap());
        assert_eq!(here.request("DELETE", &path).send().unwrap().status, 200);
        slowest = slowest.max(until_refused(&child_there));
        assert_eq!(opens(&parent_there), 401);
        assert_eq!(opens(&key_there), 200);
        let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
        assert_eq!(here.clone().without_env().request("DELETE", &path).send().unwrap().status, 200);
        slowest = slowest.max(until_refused(&key_there));
    }
    assert!(slowest <= SOON, "{slowest:?}");

    // Another key signs here: what it signs is good there at once, and what was signed before still is.
    let before = post(&here, "/v1/credentials", &wanted);
    for _ in 0..2 {
        post(&here, "/v1/signing-keys/rotate", &json!({}));
        let after = post(&here, "/v1/credentials", &wanted);
        let good = || (opens(&at(&there, &after, "token")) == 200).then_some(());
        assert!(eventually(SOON, good).is_some());
        assert_eq!(opens(&at(&there, &before, "token")), 200);
    }
    let back = post(&there, "/v1/credentials", &wanted);
    assert_eq!(opens(&at(&here, &back, "token")), 200);

    // Who cannot ask whether it still holds lets nobody in, a second later.
    let known = at(&there, &before, "token");
    assert_eq!(opens(&known), 200);
    drop(postgres);
    let began = Instant::now();
    while began.elapsed() < SOON {
        opens(&known);
    }
    assert_eq!(opens(&known), 503);
}
