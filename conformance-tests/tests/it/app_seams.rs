//! What parts of an app do to each other: nobody gets out of the seams what no part would give by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use conformance_tests::{App, Person, Place, Reply};
use serde_json::{Value, json};

use crate::app_mail::Shop;

const PASSWORD: &str = "a word that is long enough";
const ANOTHER: &str = "another word for later";

fn login(app: &App, email: &str, password: &str) -> Reply {
    app.auth("login", &json!({ "email": email, "password": password })).unwrap()
}

#[test]
fn a_change_of_address_ends_with_the_sessions_of_who_asked_for_it() {
    let shop = Shop::new("seam-change", json!({ "methods": ["password", "otp"] })).unwrap();
    let user = json!({ "user": "ada@example.org", "password": PASSWORD });
    shop.client.output("auth_user_set", &user).unwrap();
    let asked = |thief: &Person, address: &str| {
        let change = json!({ "email": address, "current": PASSWORD });
        assert_eq!(thief.send("POST", "/_/auth/email", &change).unwrap().status, 202);
        let mail = shop.take(address, "Confirm your new address").unwrap();
        json!({ "token": mail.token().unwrap() })
    };
    let enter = || shop.app.login("ada@example.org", PASSWORD).unwrap();
    let refused = |token: &Value| {
        shop.app.auth("email/verify", token).unwrap().refuses(401, "unauthenticated").unwrap();
    };
    let token = asked(&enter(), "one@evil.example");
    assert_eq!(enter().send("POST", "/_/auth/logout", &json!({ "everywhere": true })).unwrap().status, 204);
    refused(&token);
    let token = asked(&enter(), "two@evil.example");
    shop.client.output("auth_user_set", &json!({ "user": "ada@example.org", "sign_out": true })).unwrap();
    refused(&token);
    let token = asked(&enter(), "three@evil.example");
    let forgot = json!({ "email": "ada@example.org" });
    assert_eq!(shop.app.auth("password/forgot", &forgot).unwrap().status, 202);
    let mail = shop.take("ada@example.org", "Reset your password").unwrap();
    let reset = json!({ "token": mail.token().unwrap(), "password": ANOTHER });
    assert_eq!(shop.app.auth("password/reset", &reset).unwrap().status, 200);
    refused(&token);
}

#[test]
fn what_a_stranger_typed_first_is_no_password_of_an_account_that_is_somebodys() {
    let shop = Shop::new("seam-first", json!({ "methods": ["password", "otp"], "confirm": true })).unwrap();
    let email = "boss@example.org";
    let stranger = json!({ "email": email, "password": ANOTHER });
    assert_eq!(shop.app.auth("signup", &stranger).unwrap().status, 202);
    let early = shop.take(email, "Confirm your address").unwrap();
    let invite = json!({ "user": email, "role": "admin", "invite": true });
    shop.client.output("auth_user_set", &invite).unwrap();
    let token = json!({ "token": early.token().unwrap() });
    shop.app.auth("otp/verify", &token).unwrap().refuses(401, "unauthenticated").unwrap();
    login(&shop.app, email, ANOTHER).refuses(401, "unauthenticated").unwrap();
    // Whoever confirms in the page that the password was typed into gets that one, whatever others have typed meanwhile.
    let email = "new@example.org";
    let mine = json!({ "email": email, "password": PASSWORD });
    assert_eq!(shop.app.auth("signup", &mine).unwrap().status, 202);
    shop.take(email, "Confirm your address").unwrap();
    let theirs = json!({ "email": email, "password": ANOTHER });
    assert_eq!(shop.app.auth("signup", &theirs).unwrap().status, 202);
    let newest = shop.take(email, "Confirm your address").unwrap();
    let shown = json!({ "email": email, "code": newest.code().unwrap(), "password": PASSWORD });
    shop.entered(&shop.app.auth("otp/verify", &shown).unwrap()).unwrap();
    assert_eq!(login(&shop.app, email, PASSWORD).status, 200);
    login(&shop.app, email, ANOTHER).refuses(401, "unauthenticated").unwrap();
    // Where it is not said which of two it is, it is neither.
    let email = "two@example.org";
    for password in [PASSWORD, ANOTHER] {
        let body = json!({ "email": email, "password": password });
        assert_eq!(shop.app.auth("signup", &body).unwrap().status, 202);
    }
    shop.take(email, "Confirm your address").unwrap();
    let mail = shop.take(email, "Confirm your address").unwrap();
    shop.entered(&shop.verify(email, mail.code().unwrap()).unwrap()).unwrap();
    for password in [PASSWORD, ANOTHER] {
        login(&shop.app, email, password).refuses(401, "unauthenticated").unwrap();
    }
}

#[test]
fn nobody_gets_rights_by_typing_somebody_elses_address_first() {
    let place = Place::new("seam-role").unwrap();
    let manifest = json!({ "auth": { "methods": ["password"] } });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(&place.url);
    let squatter = app.sign_up("boss@example.org", PASSWORD).unwrap();
    for change in [json!({ "role": "admin" }), json!({ "claims": { "team": "red" } })] {
        let mut change = change;
        change["user"] = json!("boss@example.org");
        let refused = place.client.call("auth_user_set", &change).unwrap();
        assert_eq!((refused.status, refused.code()), (409, "conflict"), "{:?}", refused.body);
        assert!(refused.body["hint"].as_str().unwrap().contains(squatter.id()), "{:?}", refused.body);
        change["user"] = json!(squatter.id());
        place.output("auth_user_set", &change).unwrap();
    }
    assert_eq!(squatter.ask("GET", "/_/auth/me").unwrap().body["role"], "admin");
}

fn files() -> (Place, App) {
    let place = Place::new("seam-files").unwrap();
    let manifest = json!({
        "auth": { "methods": ["password", "anonymous"] },
        "database": { "tables": { "todos": { "columns": { "title": "text!" }, "access": "private" } } },
        "storage": { "buckets": {
            "inbox": { "access": {
                "get": "row.owner == auth.uid || row.metadata.for == auth.email",
                "create": "auth.uid != null", "delete": "row.owner == auth.uid",
            } },
            "own": { "access": "private" },
        } },
    });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(&place.url);
    (place, app)
}

#[test]
fn a_link_lends_no_address_that_its_maker_has_not_shown_to_have() {
    let (_place, app) = files();
    let eve = app.sign_up("boss@example.org", PASSWORD).unwrap();
    let ada = app.stranger().unwrap();
    let path = "/_/files/inbox/report.txt";
    let put = |person: &Person| {
        let request = person.request("PUT", path).header("content-type", "text/plain");
        let noted = json!({ "for": "boss@example.org" }).to_string();
        Reply::of(request.header("file-metadata", &noted).body(b"for the boss".to_vec())).unwrap().status
    };
    assert_eq!(put(&eve), 201);
    let link = eve.send("POST", &format!("{path}/sign"), &json!({ "method": "get" })).unwrap();
    let link = link.body["url"].as_str().unwrap().to_owned();
    assert_eq!(app.visitor().ask("GET", &link).unwrap().status, 200);
    assert_eq!(eve.ask("DELETE", path).unwrap().status, 204);
    assert_eq!(put(&ada), 201);
    eve.ask("GET", path).unwrap().refuses(404, "not_found").unwrap();
    app.visitor().ask("GET", &link).unwrap().refuses(404, "not_found").unwrap();
}

/// A request whose body has come as far as `first`; the rest comes when it is asked for.
struct Slow {
    stream: TcpStream,
    rest: String,
}

impl Slow {
    fn begin(person: &Person, method: &str, path: &str, kind: &str, more: &str, body: &str) -> Self {
        let url = person.app.url();
        let host = url.split_once("://").unwrap().1;
        let port = host.rsplit_once(':').unwrap().1;
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let (first, rest) = body.split_at(body.len() / 2);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\n{more}\
             content-length: {}\r\nconnection: close\r\n\r\n{first}",
            person.token(),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        Self { stream, rest: rest.to_owned() }
    }

    /// Sends the rest; the status of the answer.
    fn end(mut self) -> u16 {
        // The server may have answered and gone by now.
        let _ = self.stream.write_all(self.rest.as_bytes());
        let mut answer = Vec::new();
        let _ = self.stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[test]
fn who_has_gone_while_a_body_comes_writes_nothing() {
    let (place, app) = files();
    let row = json!({ "title": "from the past" }).to_string();
    for ending in ["logout", "disabled", "role"] {
        let ada = app.stranger().unwrap();
        // The upload has its bytes sent apart from its beginning.
        let begin = ada.request("POST", "/_/uploads").header("tus-resumable", "1.0.0");
        let begin = begin.header("upload-length", "8").header("upload-metadata", "bucket b3du,path YS50eHQ=");
        let upload = begin.send().unwrap();
        assert_eq!(upload.status, 201);
        let upload = upload.header("location").unwrap().to_owned();
        let tus = "tus-resumable: 1.0.0\r\nupload-offset: 0\r\n";
        let slow = [
            Slow::begin(&ada, "POST", "/_/db/todos", "application/json", "", &row),
            Slow::begin(&ada, "PUT", "/_/files/own/b.txt", "text/plain", "", "the text"),
            Slow::begin(&ada, "PATCH", &upload, "application/offset+octet-stream", tus, "the text"),
        ];
        // All have been let in once the server has answered something that came after them.
        assert_eq!(ada.ask("GET", "/_/auth/me").unwrap().status, 200);
        match ending {
            "logout" => assert_eq!(ada.send("POST", "/_/auth/logout", &json!({})).unwrap().status, 204),
            "disabled" => {
                drop(place.output("auth_user_set", &json!({ "user": ada.id(), "disabled": true })).unwrap())
            }
            _ => drop(place.output("auth_user_set", &json!({ "user": ada.id(), "role": "editor" })).unwrap()),
        }
        let statuses = slow.map(Slow::end);
        match ending {
            // The session goes on, as somebody else: a row is written by whom they are now.
            "role" => assert_eq!((statuses[0], &statuses[1..]), (201, &[401, 401][..]), "{ending}"),
            _ => assert_eq!(statuses, [401, 401, 401], "{ending}"),
        }
        let sql = "SELECT (SELECT count(*) FROM todos)";
        let rows = place.output("db_query", &json!({ "sql": sql })).unwrap()["rows"][0][0].clone();
        assert_eq!(rows, json!(u8::from(ending == "role")), "{ending}");
        let listed = place.output("storage_list", &json!({ "bucket": "own" })).unwrap();
        assert_eq!(listed["files"], json!([]), "{ending}");
    }
}

#[test]
fn who_was_told_to_list_again_is_told_of_every_change_after_that() {
    let (place, app) = crate::app_realtime::ground("seam-reset");
    let ada = app.stranger().unwrap();
    let row = ada.create("todos", &json!({ "title": "a" })).unwrap();
    let wanted = json!({ "table": "todos", "select": "id,title" });
    let mut events = ada.subscribed(&[wanted], None).unwrap();
    assert_eq!(events.event().unwrap()["type"], "subscribed");
    let patch = |title: &str| {
        let path = format!("/_/db/todos/{}", row["id"].as_str().unwrap());
        assert_eq!(ada.send("PATCH", &path, &json!({ "title": title })).unwrap().status, 200);
    };
    patch("b");
    assert_eq!(events.event().unwrap()["row"]["title"], "b");
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) \
               INSERT INTO todos (title, owner) SELECT 'x', ?1 FROM n";
    place.output("db_execute", &json!({ "sql": sql, "params": [ada.id()] })).unwrap();
    place.output("db_execute", &json!({ "sql": "UPDATE todos SET title = 'x'" })).unwrap();
    let heard = events.until(|event| event["type"] == "reset").unwrap();
    assert!(heard.iter().all(|event| event["type"] == "reset"), "{heard:?}");
    crate::app_realtime::settled(&mut events, || ada.create("todos", &json!({ "title": "after" })).unwrap());
    patch("b");
    let heard = events.until(|event| event["type"] == "update").unwrap();
    assert_eq!(heard.last().unwrap()["row"]["title"], "b");
}

#[test]
fn a_change_that_is_repeated_after_a_return_is_still_made_once() {
    let (place, app) = files();
    let ada = app.stranger().unwrap();
    let create = || {
        let request = ada.request("POST", "/_/db/todos").header("idempotency-key", "one-and-the-same");
        Reply::of(request.json(&json!({ "title": "once" }))).unwrap().body["id"].clone()
    };
    let first = create();
    place.output("env_snapshot", &json!({ "name": "then" })).unwrap();
    let plan = place.output("env_restore", &json!({ "snapshot": "then", "dry_run": true })).unwrap();
    place.output("env_restore", &json!({ "snapshot": "then", "confirm": plan["confirm"] })).unwrap();
    assert_eq!(create(), first);
}

#[test]
fn reading_alone_does_not_read_what_opens_accounts() {
    let place = Place::new("seam-outbox").unwrap();
    let manifest = json!({ "auth": { "methods": ["otp"] } });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(&place.url);
    assert_eq!(app.auth("otp", &json!({ "email": "ada@example.org" })).unwrap().status, 202);
    let ask = |selection: &str| {
        let url = format!("{}{selection}", place.mcp_url());
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "auth_users", "arguments": { "mails": true } } });
        let request = testkit::http::Request::new("POST", &url)
            .header("authorization", &format!("Bearer {}", place.steading.ready().key))
            .header("accept", "application/json, text/event-stream");
        request.json(&call).send().unwrap().text().unwrap().to_owned()
    };
    assert!(
        ask("?tools=readonly").contains("connection asked for reading alone"),
        "{}",
        ask("?tools=readonly")
    );
    assert!(ask("").contains("\\\"mails\\\":[") || ask("").contains("\"mails\":["), "{}", ask(""));
}

#[test]
fn a_put_does_not_tell_whether_a_hidden_row_is_there() {
    let place = Place::new("seam-put").unwrap();
    let tables = json!({
        "patients": { "columns": { "email": { "type": "text", "unique": true }, "name": "text!" },
            "access": "admin_only" },
        "notes": { "columns": { "key": { "type": "text", "unique": true }, "text": "text!" }, "access": "private" },
    });
    let manifest = json!({ "auth": { "methods": ["anonymous"] }, "database": { "tables": tables } });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(&place.url);
    let key = json!({ "sql": "INSERT INTO patients (id, email, name) VALUES ('pat-1', 'ada@x.com', 'Ada')" });
    place.output("db_execute", &key).unwrap();
    let (ada, eve) = (app.stranger().unwrap(), app.stranger().unwrap());
    let said = |person: &Person, path: &str, row: &Value, tag: Option<&str>| {
        let mut request = person.request("PUT", path);
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        let reply = Reply::of(request.json(row)).unwrap();
        format!("{} {} {}", reply.status, reply.body["code"], reply.body["message"])
    };
    for person in [&app.visitor(), &eve] {
        for tag in [None, Some("*")] {
            for (there, missing) in [
                (json!({ "email": "ada@x.com" }), json!({ "email": "bob@x.com" })),
                (json!({ "email": "ada@x.com", "name": "A" }), json!({ "email": "bob@x.com", "name": "A" })),
            ] {
                let by = "/_/db/patients?by=email";
                assert_eq!(said(person, by, &there, tag), said(person, by, &missing, tag), "{there} {tag:?}");
                let (one, other) = ("/_/db/patients/pat-1", "/_/db/patients/pat-2");
                assert_eq!(
                    said(person, one, &there, tag),
                    said(person, other, &there, tag),
                    "{there} {tag:?}"
                );
            }
        }
    }
    // Who may make rows learns that a value is taken, as with POST, and changes nothing of the row that has it.
    let row = json!({ "key": "k", "text": "mine" });
    assert!(said(&ada, "/_/db/notes?by=key", &row, None).starts_with("201"));
    let row = json!({ "key": "k", "text": "hers" });
    assert!(said(&eve, "/_/db/notes?by=key", &row, None).starts_with("409"));
    let listed = ada.list("notes", &[]).unwrap();
    assert_eq!(listed.body["rows"][0]["text"], "mine");
}

#[test]
fn who_comes_back_as_another_or_under_other_rules_lists_again() {
    let (place, app) = crate::app_realtime::ground("seam-resume");
    let ada = app.sign_up("ada@example.org", PASSWORD).unwrap();
    let eve = app.stranger().unwrap();
    ada.create("posts", &json!({ "title": "a", "public": true })).unwrap();
    let wanted = [json!({ "table": "posts" })];
    let told = |person: &Person, last: Option<&str>| {
        let mut events = person.subscribed(&wanted, last).unwrap();
        let first = events.event().unwrap();
        (first["resumed"].clone(), events.last.clone().unwrap())
    };
    let (_, place_of_ada) = told(&ada, None);
    assert_eq!(told(&ada, Some(&place_of_ada)).0, json!(true));
    assert_eq!(told(&eve, Some(&place_of_ada)).0, json!(false), "a place of somebody else");
    place.output("auth_user_set", &json!({ "user": ada.id(), "role": "editor" })).unwrap();
    let again = app.login("ada@example.org", PASSWORD).unwrap();
    assert_eq!(told(&again, Some(&place_of_ada)).0, json!(false), "she is somebody else by now");
    let (_, place_of_ada) = told(&again, None);
    let mut stricter = crate::app_realtime::manifest();
    stricter["database"]["tables"]["posts"]["access"]["list"] = json!("row.owner == auth.uid");
    place.output("app_apply", &json!({ "manifest": stricter })).unwrap();
    assert_eq!(told(&again, Some(&place_of_ada)).0, json!(false), "the rules are others by now");
}

#[test]
fn a_credential_that_may_only_read_the_app_runs_nothing_on_its_rows() {
    let place = Place::new("seam-plan").unwrap();
    let manifest = json!({ "database": { "tables": { "notes": { "columns": { "text": "text" } } } } });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let key = |scopes: &[&str]| {
        let body = json!({ "name": scopes.join(" "), "env": place.slug, "scopes": scopes });
        let url = format!("http://{}/v1/keys", place.steading.authority());
        let request = testkit::http::Request::post(&url).bearer(&place.steading.ready().key);
        request.json(&body).send().unwrap().json().unwrap()["key"].as_str().unwrap().to_owned()
    };
    let call = |key: &str, tool: &str, input: &Value| {
        let url = format!("http://{}/v1/tools/{tool}", place.steading.authority());
        let reply = testkit::http::Request::post(&url).bearer(key).json(input).send().unwrap();
        let body = reply.json().unwrap();
        format!("{} {}", reply.status, body["message"].as_str().unwrap_or_default())
    };
    let sql = "UPDATE notes SET text = 'theirs'";
    let migrating = json!({ "manifest": { "database": { "migrations": [{ "name": "m", "sql": sql }] } } });
    let plain = json!({ "manifest": { "site": { "files": { "index.html": "hello" } } } });
    let reader = key(&["app:read"]);
    assert_eq!(call(&reader, "app_plan", &plain), "403 the credential lacks the scope db:read");
    let reader = key(&["app:read", "db:read"]);
    assert_eq!(
        call(&reader, "app_plan", &migrating),
        "403 migrations read and write rows: the credential lacks the scope db:write"
    );
    assert!(call(&reader, "app_plan", &plain).starts_with("200"));
    let maker = key(&["app:read", "app:write", "db:read"]);
    assert!(call(&maker, "app_apply", &migrating).starts_with("403"));
    assert!(call(&maker, "app_apply", &plain).starts_with("200"));
}

#[test]
fn a_link_that_a_key_made_ends_with_the_key() {
    let (place, app) = files();
    let keys = format!("http://{}/v1/keys", place.steading.authority());
    let operator = &place.steading.ready().key;
    let body = json!({ "name": "links", "env": place.slug, "scopes": ["storage:read", "storage:write"] });
    let request = testkit::http::Request::post(&keys).bearer(operator).json(&body);
    let made = request.send().unwrap().json().unwrap();
    let key = made["key"].as_str().unwrap();
    let path = "/_/files/own/a.txt";
    let put = |path: &str| {
        let request = app.visitor().request("PUT", path).header("content-type", "text/plain");
        Reply::of(request.body(b"text".to_vec())).unwrap()
    };
    let url = format!("http://{}/v1/tools/storage_sign", place.steading.authority());
    let path_of = |signed: &Value| {
        let url = signed["url"].as_str().unwrap();
        url[url.find("/_/").unwrap()..].to_owned()
    };
    let link =
        |method: &str| json!({ "bucket": "own", "path": "a.txt", "method": method, "expires_in": 600_000 });
    let signed = |method: &str| {
        let reply = testkit::http::Request::post(&url).bearer(key).json(&link(method)).send().unwrap();
        path_of(&reply.json().unwrap())
    };
    let lasting = path_of(&place.output("storage_sign", &link("put")).unwrap());
    let writes = signed("put");
    assert_eq!(put(&writes).status, 201);
    let body = json!({ "method": "get", "expires_in": 600_000 });
    let request = app.visitor().request("POST", &format!("{path}/sign")).bearer(key);
    let of_server = Reply::of(request.json(&body)).unwrap().body["url"].as_str().unwrap().to_owned();
    let reads = [signed("get"), of_server];
    for link in &reads {
        assert_eq!(app.visitor().ask("GET", link).unwrap().status, 200);
    }
    let id = made["id"].as_str().unwrap();
    let gone =
        testkit::http::Request::new("DELETE", &format!("{keys}/{id}")).bearer(operator).send().unwrap();
    assert_eq!(gone.status, 200);
    put(&writes).refuses(403, "forbidden").unwrap();
    for link in &reads {
        app.visitor().ask("GET", link).unwrap().refuses(403, "forbidden").unwrap();
    }
    assert_eq!(put(&lasting).status, 200);
}
