//! An app of teams at its own address: rules that look into other tables, columns that are kept, and rows that are asked
//! for in richer ways.

use anyhow::{Context, ensure};
use conformance_tests::{App, Person, Place, Reply, encoded};
use serde_json::{Value, json};
use testkit::{NodeTool, finish, require};

fn manifest() -> Value {
    let member = |row: &str| format!("exists(members, team == {row} && user == auth.uid)");
    json!({
        "auth": { "methods": ["anonymous"] },
        "database": { "tables": {
            "teams": { "columns": { "name": "text!" }, "access": {
                "list": member("row.id"), "get": member("row.id"), "create": "auth.uid != null && !exists(bans, user == auth.uid)",
            } },
            "members": {
                "columns": { "team": { "type": "ref:teams", "required": true, "immutable": true }, "user": "text!",
                             "role": { "type": "text", "default": "member", "check": "role in ['member', 'lead']" } },
                "unique": [["team", "user"]], "access": "admin_only", "indexes": ["user"],
            },
            "bans": { "columns": { "user": "text!" }, "indexes": ["user"] },
            "posts": {
                "columns": { "team": { "type": "ref:teams", "required": true, "immutable": true }, "title": "text!", "score": "int = 0",
                             "note": { "type": "text", "hidden": true }, "slug": { "type": "text", "unique": true } },
                "search": ["title"],
                "access": { "list": member("row.team"), "get": member("row.team"), "create": member("new.team"),
                            "update": "row.owner == auth.uid", "delete": "row.owner == auth.uid" },
            },
            "places": { "kind": "documents", "access": "READONLY", "indexes": ["data.address.city"] },
        } },
        "tests": [
            { "as": "user", "do": "get", "on": "posts", "expect": "deny" },
            { "as": "user", "do": "get", "on": "posts", "row": { "team": "t" }, "given": [{ "on": "members", "row": { "team": "t", "user": "@user" } }], "expect": "allow" },
            { "as": "user", "do": "create", "on": "teams", "given": [{ "on": "bans", "row": { "user": "@user" } }], "expect": "deny" },
        ],
        "site": { "files": { "index.html": "<title>Teams</title>" } },
    })
}

struct Ground {
    place: Place,
    app: App,
    ada: Person,
    bob: Person,
    team: String,
}

impl Ground {
    fn new() -> anyhow::Result<Self> {
        let place = Place::new("rich")?;
        let applied = place.output("app_apply", &json!({ "manifest": manifest() }))?;
        let app = App::new(applied["url"].as_str().context("no url")?);
        let (ada, bob) = (app.stranger()?, app.stranger()?);
        let made = ada.send("POST", "/_/db/teams", &json!({ "name": "red" }))?;
        // Whoever makes a team is not yet in it: the row is told to who made it, and hidden then.
        ensure!(made.status == 201, "{made:?}");
        let team = made.body["id"].as_str().context("no id")?.to_owned();
        let ground = Self { place, app, ada, bob, team };
        ground.join(&ground.ada)?;
        Ok(ground)
    }

    fn join(&self, person: &Person) -> anyhow::Result<()> {
        let sql = "INSERT INTO members (team, user) VALUES (?1, ?2)";
        self.place.output("db_execute", &json!({ "sql": sql, "params": [self.team, person.id()] }))?;
        Ok(())
    }

    fn post(&self, title: &str) -> anyhow::Result<Value> {
        self.ada.create("posts", &json!({ "team": self.team, "title": title }))
    }
}

fn keyed(person: &Person, method: &str, path: &str, key: &str, body: &Value) -> anyhow::Result<Reply> {
    Reply::of(person.request(method, path).header("idempotency-key", key).json(body))
}

#[test]
fn who_is_in_a_team_is_looked_up_by_the_database() {
    let ground = Ground::new().unwrap();
    let post = ground.post("plans").unwrap();
    let path = format!("/_/db/posts/{}", post["id"].as_str().unwrap());
    ground.bob.ask("GET", &path).unwrap().refuses(404, "not_found").unwrap();
    ground.bob.list("posts", &[]).unwrap().lists(&[]).unwrap();
    let refused =
        ground.bob.send("POST", "/_/db/posts", &json!({ "team": ground.team, "title": "x" })).unwrap();
    refused.refuses(403, "forbidden").unwrap();
    ground.join(&ground.bob).unwrap();
    ground.bob.list("posts", &[]).unwrap().lists(&[post["id"].as_str().unwrap()]).unwrap();
    // The table that rules look into stays as closed as it is.
    ground.bob.list("members", &[]).unwrap().lists(&[]).unwrap();
    let probe = ground.bob.list("posts", &[("where", "exists(members, role == 'lead')")]).unwrap();
    probe.refuses(400, "invalid_input").unwrap();
    let ban = json!({ "sql": "INSERT INTO bans (user) VALUES (?1)", "params": [ground.bob.id()] });
    ground.place.output("db_execute", &ban).unwrap();
    ground
        .bob
        .send("POST", "/_/db/teams", &json!({ "name": "x" }))
        .unwrap()
        .refuses(403, "forbidden")
        .unwrap();
    let nobody = ground.app.visitor().send("POST", "/_/db/teams", &json!({ "name": "x" })).unwrap();
    nobody.refuses(403, "forbidden").unwrap();
}

#[test]
fn columns_are_kept_hidden_and_checked() {
    let ground = Ground::new().unwrap();
    let post = ground.post("plans").unwrap();
    assert_eq!(post.get("note"), None);
    ground.place.output("db_execute", &json!({ "sql": "UPDATE posts SET note = 'secret words'" })).unwrap();
    let path = format!("/_/db/posts/{}", post["id"].as_str().unwrap());
    for reply in [
        ground.ada.ask("GET", &path),
        ground.ada.ask("GET", "/_/db/posts"),
        ground.ada.ask("GET", "/_/db/posts.csv"),
        ground.ada.ask("GET", &format!("/_/db/teams?expand={}", encoded("posts_via_team"))),
        ground.ada.ask("GET", "/_/openapi.json"),
        ground.ada.ask("GET", "/_/client.ts"),
    ] {
        let reply = reply.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        let text = reply.body.to_string();
        assert!(text.contains("title") && !text.contains("secret") && !text.contains("\"note\""), "{text}");
    }
    for parameter in [("select", "note"), ("order", "note"), ("where", "note != null"), ("search", "secret")]
    {
        let reply = ground.ada.list("posts", &[parameter]).unwrap();
        match parameter.0 {
            "search" => reply.lists(&[]).unwrap(),
            _ => reply.refuses(400, "invalid_input").unwrap(),
        }
    }
    let other = ground.ada.send("PATCH", &path, &json!({ "team": "elsewhere" })).unwrap();
    other.refuses(403, "forbidden").unwrap();
    assert_eq!(other.body["field"], "/team");
    let same = ground.ada.send("PATCH", &path, &json!({ "team": ground.team, "title": "b" })).unwrap();
    assert_eq!((same.status, &same.body["title"]), (200, &json!("b")));
    let wrong = json!({ "sql": "UPDATE members SET role = 'king'" });
    assert!(ground.place.output("db_execute", &wrong).is_err());
}

#[test]
fn rows_are_asked_for_in_richer_ways() {
    let ground = Ground::new().unwrap();
    for (title, score) in [("milk and honey", 2), ("milky way", 3), ("=1+1", 5)] {
        ground.ada.create("posts", &json!({ "team": ground.team, "title": title, "score": score })).unwrap();
    }
    let query = |body: Value| ground.ada.send("POST", "/_/db/posts/query", &body).unwrap().body;
    assert_eq!(
        query(json!({ "aggregate": { "n": "count()", "all": "sum(score)" } })),
        json!({ "groups": [{ "n": 3, "all": 10 }] })
    );
    let found = query(json!({ "search": "milk ", "select": "title", "expand": "team" }));
    assert_eq!(found["rows"][0]["expand"]["team"]["name"], "red");
    assert_eq!(found["rows"].as_array().unwrap().len(), 1);
    let stranger =
        ground.bob.send("POST", "/_/db/posts/query", &json!({ "aggregate": { "n": "count()" } })).unwrap();
    assert_eq!(stranger.body, json!({ "groups": [{ "n": 0 }] }));

    let csv = Reply::of(
        ground
            .ada
            .request("GET", "/_/db/posts?select=title,score&order=score&limit=2")
            .header("accept", "text/csv"),
    )
    .unwrap();
    assert_eq!(csv.body, json!("title,score\r\n\"milk and honey\",2\r\n\"milky way\",3\r\n"));
    assert_eq!(csv.header("content-disposition"), Some("attachment; filename=\"posts.csv\""));
    let cursor = csv.header("next-cursor").unwrap();
    let rest = ground
        .ada
        .ask("GET", &format!("/_/db/posts.csv?select=title,score&order=score&cursor={cursor}"))
        .unwrap();
    assert_eq!((&rest.body, rest.header("next-cursor")), (&json!("title,score\r\n\"'=1+1\",5\r\n"), None));

    let put = |body: Value| ground.ada.send("PUT", "/_/db/posts?by=slug", &body).unwrap();
    let made = put(json!({ "slug": "one", "team": ground.team, "title": "one" }));
    let again = put(json!({ "slug": "one", "title": "two", "score": 9 }));
    assert_eq!((made.status, again.status, &again.body["id"]), (201, 200, &made.body["id"]));
    assert_eq!(
        made.header("location"),
        Some(format!("/_/db/posts/{}", made.body["id"].as_str().unwrap()).as_str())
    );
    ground
        .bob
        .send("PUT", "/_/db/posts?by=slug", &json!({ "slug": "one", "team": ground.team, "title": "stolen" }))
        .unwrap()
        .refuses(403, "forbidden")
        .unwrap();
    let by_id = ground
        .ada
        .send("PUT", "/_/db/posts/chosen-1", &json!({ "team": ground.team, "title": "x" }))
        .unwrap();
    assert_eq!((by_id.status, &by_id.body["id"]), (201, &json!("chosen-1")));

    let body = json!({ "team": ground.team, "title": "once" });
    let first = keyed(&ground.ada, "POST", "/_/db/posts", "k1", &body).unwrap();
    let second = keyed(&ground.ada, "POST", "/_/db/posts", "k1", &body).unwrap();
    assert_eq!((first.status, &first.body), (201, &second.body));
    assert_eq!(
        (second.header("etag"), second.header("location")),
        (first.header("etag"), first.header("location"))
    );
    keyed(&ground.ada, "POST", "/_/db/posts", "k1", &json!({ "team": ground.team, "title": "other" }))
        .unwrap()
        .refuses(422, "conflict")
        .unwrap();
    keyed(&ground.app.visitor(), "POST", "/_/db/places", "k1", &json!({ "data": {} }))
        .unwrap()
        .refuses(400, "invalid_input")
        .unwrap();
    let step = json!({ "operations": [["create", "posts", null, body, null]] });
    ground.ada.send("POST", "/_/batch", &step).unwrap().refuses(400, "invalid_input").unwrap();

    for city in ["Bern", "Genf"] {
        ground.ada.create("places", &json!({ "data": { "address": { "city": city } } })).unwrap();
    }
    let found = ground.bob.list("places", &[("where", "data.address.city == 'Bern'")]).unwrap();
    assert_eq!(found.body["rows"][0]["data"]["address"]["city"], "Bern");
    assert_eq!(found.body["rows"].as_array().unwrap().len(), 1);
}

#[test]
fn the_typed_client_compiles_and_knows_its_app() {
    let ground = Ground::new().unwrap();
    let described = ground.place.output("client_code", &json!({})).unwrap();
    let served = ground.app.visitor().ask("GET", "/_/client.ts").unwrap();
    assert_eq!(described["code"], served.body);
    let home = testkit::temporary().unwrap();
    for (path, file) in [("/_/client.ts", "client.ts"), ("/_/sdk.d.ts", "sdk.d.ts"), ("/_/sdk.js", "sdk.js")]
    {
        let reply = ground.app.visitor().ask("GET", path).unwrap();
        std::fs::write(home.path().join(file), reply.body.as_str().unwrap()).unwrap();
    }
    let sample = r#"
import { createApp, where, type Posts, type PostsNew } from "./client.js";
const app = createApp({ url: "https://app.example.com" });
export async function uses(): Promise<number> {
  const made = await app.db("posts").create({ team: "t", title: "a" });
  const score: number | null = made.score;
  await app.db("posts").update(made.id, { title: "b", score: 3 }, { ifMatch: made });
  await app.db("posts").upsert({ team: "t", title: "c", slug: "s" }, { by: "slug" });
  const page = await app.db("posts").list({ select: ["title"], where: where`score > ${1}`, search: "a", expand: ["team"] });
  const titles: string[] = page.rows.map((row) => row.title);
  const { groups } = await app.db("posts").aggregate({ n: "count()" }, { group: ["team"] });
  const whole: PostsNew = { team: "t", title: "a" };
  const row: Pick<Posts, "slug"> = { slug: null };
  // @ts-expect-error a title is required
  await app.db("posts").create({ team: "t" });
  // @ts-expect-error a team is immutable
  await app.db("posts").update(made.id, { team: "u" });
  // @ts-expect-error a hidden column is not there
  made.note;
  // @ts-expect-error there is no such table
  app.db("bans");
  // @ts-expect-error no such column
  await app.db("posts").list({ order: "-titel" });
  return titles.length + groups.length + (score ?? 0) + whole.title.length + (row.slug ?? "").length;
}
"#;
    std::fs::write(home.path().join("sample.ts"), sample).unwrap();
    let options = [
        "--strict",
        "--noEmit",
        "--exactOptionalPropertyTypes",
        "--noUncheckedIndexedAccess",
        "--noUnusedLocals",
    ];
    let target = [
        "--target",
        "es2022",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
        "client.ts",
        "sample.ts",
    ];
    let mut command = require(NodeTool::install()).command("tsc", home.path()).unwrap();
    command.args(options).args(target);
    let ran = finish(command, std::time::Duration::from_secs(120)).unwrap();
    assert!(ran.success(), "{}\n{}", ran.stdout, ran.stderr);
}

#[test]
fn advice_names_the_call_that_mends() {
    let place = Place::new("advice").unwrap();
    let tables: Value = (0..50)
        .map(|n| {
            let columns = json!({ "title": "text!", "author": "text", "done": "bool = false" });
            let access = json!({ "list": "row.author == auth.uid", "get": "true", "create": "true", "update": "auth.uid != null" });
            (format!("table_{n:02}"), json!({ "columns": columns, "access": access }))
        })
        .collect();
    place.output("app_apply", &json!({ "manifest": { "database": { "tables": tables } } })).unwrap();
    let seen = place.output("app_describe", &json!({})).unwrap();
    let tokens = tiktoken_rs::o200k_base().unwrap().encode_ordinary(&seen.to_string()).len();
    assert!(tokens <= 2_500, "{tokens} tokens");
    let advice: Vec<&str> = seen["advice"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(advice.iter().any(|advice| advice.contains(": access_set ")), "{advice:?}");
}

#[test]
fn a_branch_finds_the_same_words_and_goes_its_own_way() {
    let ground = Ground::new().unwrap();
    ground.post("red fox").unwrap();
    let made = ground.place.output("env_branch", &json!({ "data": "all" })).unwrap();
    let branch = ground.place.steading.client().in_env(made["slug"].as_str().unwrap());
    let found = |client: &testkit::Client, word: &str| {
        let sql = "SELECT title FROM posts WHERE _rowid_ IN (SELECT rowid FROM \"posts.search\" WHERE \"posts.search\" MATCH ?1)";
        client.output("db_query", &json!({ "sql": sql, "params": [word] })).unwrap()["rows"].clone()
    };
    assert_eq!(found(&branch, "fox"), json!([["red fox"]]));
    branch.output("db_execute", &json!({ "sql": "UPDATE posts SET title = 'blue whale'" })).unwrap();
    assert_eq!((found(&branch, "fox"), found(&branch, "whale")), (json!([]), json!([["blue whale"]])));
    assert_eq!(found(&ground.place.client, "fox"), json!([["red fox"]]));
    let shape = ground.place.output("env_branch", &json!({ "data": "none" })).unwrap();
    let shape = ground.place.steading.client().in_env(shape["slug"].as_str().unwrap());
    assert_eq!(found(&shape, "fox"), json!([]));
    let row = "INSERT INTO posts (team, title) VALUES (NULL, 'grey fox')";
    assert!(shape.output("db_execute", &json!({ "sql": row })).is_err(), "a post has a team");
    let rows = "INSERT INTO teams (id, name) VALUES ('t', 'red')";
    shape.output("db_execute", &json!({ "sql": rows })).unwrap();
    shape.output("db_execute", &json!({ "sql": row.replace("NULL", "'t'") })).unwrap();
    assert_eq!(found(&shape, "fox"), json!([["grey fox"]]));
}
