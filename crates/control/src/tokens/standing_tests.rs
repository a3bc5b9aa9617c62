//! No child exceeds its parent, whatever chain of requests made it.

use std::net::IpAddr;
use std::time::Duration;

use kernel::{EnvId, Held, KeyId, Networks, Scope, Scopes, TenantId, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{Key, KeyKind};

use super::Standing;
use crate::tokens::{NewToken, child};

const TOOLS: [&str; 4] = ["db_query", "db_execute", "storage_get", "logs_query"];
const NETWORKS: [&str; 6] = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "127.0.0.0/8", "::/0"];
const ADDRESSES: [&str; 5] = ["10.1.2.3", "10.1.9.9", "10.9.9.9", "127.0.0.1", "::1"];

/// What somebody asks for.
#[derive(Debug, Clone)]
struct Asked {
    scopes: Scopes,
    tools: Option<Vec<String>>,
    args: Option<Value>,
    source: Option<Networks>,
    seconds: u64,
}

fn rule() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4i64).prop_map(|most| json!({ "max": most })),
        (0..4i64).prop_map(|only| json!({ "const": only })),
        prop::collection::vec(0..4i64, 1..3).prop_map(|all| json!({ "enum": all })),
        "[ab]{1,2}".prop_map(|begin| json!({ "prefix": begin })),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let scopes = prop::sample::subsequence(Scope::ALL.to_vec(), 1..Scope::ALL.len());
    let tools = prop::sample::subsequence(TOOLS.to_vec(), 1..=TOOLS.len());
    let args = prop::collection::btree_map(prop::sample::select(TOOLS.to_vec()), rule(), 1..3);
    let source = prop::sample::subsequence(NETWORKS.to_vec(), 1..3);
    (scopes, prop::option::of(tools), prop::option::of(args), prop::option::of(source), 1..200u64).prop_map(
        |(scopes, tools, args, source, seconds)| Asked {
            scopes: scopes.into_iter().collect(),
            tools: tools.map(|tools| tools.into_iter().map(str::to_owned).collect()),
            args: args.map(|args| {
                args.into_iter().map(|(tool, rule)| (tool.to_owned(), json!({ "/v": rule }))).collect()
            }),
            source: source.map(|names| Networks::of(names.into_iter()).unwrap()),
            seconds,
        },
    )
}

fn root(tenant: TenantId, asked: &Asked, now: Timestamp) -> Key {
    let id = KeyId::new();
    Key {
        id,
        tenant,
        env: None,
        kind: KeyKind::Tenant,
        name: "root".to_owned(),
        scopes: asked.scopes,
        created: now,
        expires: Some(now.plus(Duration::from_secs(asked.seconds))),
        revoked: None,
        last_used: None,
        cidrs: asked.source.clone(),
        rotated_to: None,
        lineage: id,
        suspended: false,
    }
}

/// Everything that a credential lets pass, tried out.
fn passes(standing: &Standing, now: Timestamp) -> Vec<String> {
    let mut all: Vec<String> = standing.scopes.iter().map(|scope| scope.to_string()).collect();
    for address in ADDRESSES {
        let address: IpAddr = address.parse().unwrap();
        if standing.source.as_ref().is_none_or(|networks| networks.have(address)) {
            all.push(format!("from {address}"));
        }
    }
    let values = (-1..5i64)
        .map(Value::from)
        .chain(["a", "ab", "b", "ba"].map(Value::from))
        .chain([json!(null), json!(1.5)]);
    for value in values {
        for tool in TOOLS {
            if standing.held.admits(tool, &json!({ "v": value })).is_ok() {
                all.push(format!("{tool} {value}"));
            }
        }
    }
    all.extend(
        TOOLS
            .iter()
            .filter(|tool| standing.held.admits(tool, &json!({})).is_ok())
            .map(|tool| format!("{tool} {{}}")),
    );
    all.extend(standing.held.is_free().then(|| "what is no tool".to_owned()));
    let lives =
        |seconds: &u64| standing.ends.is_none_or(|ends| ends > now.plus(Duration::from_secs(*seconds)));
    all.extend((0..200).filter(lives).map(|second| format!("at {second} s")));
    all
}

#[test]
fn no_child_has_more_rules_than_a_row_gives_back() {
    let (tenant, env, now) = (TenantId::new(), EnvId::new(), Timestamp::now());
    let all = Scopes::all();
    let first = Asked { scopes: all, tools: None, args: None, source: None, seconds: 60 };
    let key = root(tenant, &first, now);
    let new = |args: Value| NewToken {
        env,
        scopes: all,
        held: Held::read(None, Some(&args)).unwrap(),
        source: None,
        expires_in: Duration::from_secs(30),
        run: None,
    };
    let long = |letter: &str| json!({ "db_query": { "/sql": { "const": letter.repeat(5_000) } } });
    let many = |letter: &str| {
        let places = (0..40)
            .map(|n| (format!("/{letter}{n}"), json!({ "max": 1 })))
            .collect::<serde_json::Map<_, _>>();
        json!({ "db_query": places })
    };
    for (one, two) in [(long("a"), long("b")), (many("a"), many("b"))] {
        let rows = [child(&Standing::of_key(&key, now).unwrap(), tenant, new(one.clone()), now).unwrap()];
        let parent = Standing::of_chain(&key, &rows, now).unwrap();
        let refused = child(&parent, tenant, new(two), now).unwrap_err();
        assert_eq!((refused.code(), refused.pointer()), (kernel::Code::InvalidInput, Some("/args")));
        assert!(child(&parent, tenant, new(one), now).is_ok(), "its maker's own count once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_child_exceeds_its_parent(first in asked(), chain in prop::collection::vec(asked(), 1..6)) {
        let (tenant, env, now) = (TenantId::new(), EnvId::new(), Timestamp::now());
        let key = root(tenant, &first, now);
        let mut rows = Vec::new();
        let mut parent = Standing::of_key(&key, now).unwrap();
        for asked in chain {
            let held = Held::read(asked.tools.clone(), asked.args.as_ref()).unwrap();
            let new = NewToken {
                env,
                scopes: asked.scopes,
                held,
                source: asked.source.clone(),
                expires_in: Duration::from_secs(asked.seconds),
                run: None,
            };
            let Ok(row) = child(&parent, tenant, new, now) else { break };
            prop_assert!(rows.len() < 4);
            // As its row gives it back.
            let tools = row.held.tools().map(|tools| tools.iter().cloned().collect());
            let args = row.held.args();
            prop_assert_eq!(&Held::read(tools, args.as_ref()).unwrap(), &row.held);
            rows.push(row);
            let made = Standing::of_chain(&key, &rows, now).unwrap();
            let (may, most) = (passes(&made, now), passes(&parent, now));
            let beyond: Vec<_> = may.iter().filter(|one| !most.contains(one)).collect();
            prop_assert!(beyond.is_empty(), "beyond its parent: {beyond:?}");
            // Nor beyond what was asked for.
            prop_assert!(made.scopes.iter().all(|scope| asked.scopes.contains(scope)));
            prop_assert!(made.held.tools().is_none_or(|tools| asked.tools.as_ref().is_none_or(|all| tools.iter().all(|tool| all.contains(tool)))));
            parent = made;
        }
        // What the root loses, all lose; and one that has ended ends those that stand on it.
        for (at, row) in rows.iter().enumerate() {
            for end in [Some(now), None] {
                let mut ended = rows.clone();
                match end {
                    Some(at_once) => ended[at].revoked = Some(at_once),
                    None => ended[at].ends = now,
                }
                prop_assert!(Standing::of_chain(&key, &ended, now).is_none(), "{:?}", row.id);
            }
            let strange = Key { id: KeyId::new(), ..key.clone() };
            prop_assert!(Standing::of_chain(&strange, &rows, now).is_none());
            let bound = Key { env: Some(EnvId::new()), ..key.clone() };
            prop_assert!(Standing::of_chain(&bound, &rows, now).is_none());
            let narrowed = Key { scopes: Scopes::NONE, ..key.clone() };
            prop_assert!(Standing::of_chain(&narrowed, &rows, now).is_none_or(|left| left.scopes == Scopes::NONE));
            let dead = Key { revoked: Some(now), ..key.clone() };
            prop_assert!(Standing::of_chain(&dead, &rows, now).is_none());
        }
        if rows.len() > 1 {
            prop_assert!(Standing::of_chain(&key, &rows[1..], now).is_none(), "a link is missing");
        }
    }
}
