//! The Todo app on each of the two servers: how it is made there, and the requests that its pages would send.

use serde_json::{Value, json};
use testkit::{PocketBase, Steading, require};

use crate::load::unlimited;

/// So many sign up with a password and log in. The product bounds how many do from one network address, and lets the
/// others in without; PocketBase knows no other way.
pub const WITH_PASSWORDS: usize = 20;

/// Somebody who has signed in.
pub struct Person {
    id: String,
    token: String,
}

/// Who has signed up, and the ids of their rows: row `n` is of person `n` modulo the number of people.
pub struct People {
    /// Those who have signed up.
    pub people: Vec<Person>,
    /// The ids of the rows that were there at first.
    pub rows: Vec<String>,
}

impl People {
    /// The `n`th of them, round and round.
    pub fn person(&self, n: usize) -> &Person {
        &self.people[n % self.people.len()]
    }

    /// A row of the `n`th person.
    pub fn row(&self, n: usize) -> &str {
        &self.rows[n % self.rows.len()]
    }
}

/// A Todo app that runs somewhere. Requests are whole, as they go out.
pub trait Todo {
    /// What it runs on.
    fn name(&self) -> &'static str;
    /// Where to connect to.
    fn address(&self) -> &str;
    /// The server's process.
    fn pid(&self) -> u32;
    /// The requests that sign the `n`th person up; the last one's answer is the session.
    fn sign_up(&self, n: usize) -> Vec<String>;
    /// Who the session is of.
    fn person(&self, session: &Value) -> Person;
    /// Reads one row.
    fn get(&self, person: &Person, id: &str) -> String;
    /// Reads the newest twenty of the person's rows.
    fn list(&self, person: &Person) -> String;
    /// Adds a row.
    fn insert(&self, person: &Person, n: usize) -> String;
}

/// The app as one manifest.
pub fn manifest() -> Value {
    json!({
        "name": "Todo",
        "auth": { "methods": ["anonymous", "password"] },
        "database": { "tables": { "todos": {
            "columns": { "title": "text!", "done": "bool = false" },
            "access": "private",
            "indexes": [["owner", "created_at"]],
        } } },
        "site": { "files": { "index.html": "<!doctype html><title>Todo</title><h1>Todo</h1>" } },
        "tests": [
            { "as": "user", "do": "create", "on": "todos", "expect": "allow", "new": { "title": "a" } },
            { "as": "other", "do": "get", "on": "todos", "expect": "deny" },
            { "as": "anonymous", "do": "list", "on": "todos", "expect": "deny" },
        ],
    })
}

/// The product.
pub struct OnSteading {
    steading: Steading,
    host: String,
}

impl OnSteading {
    /// Starts it and makes the app.
    pub fn start() -> Self {
        let steading = unlimited();
        let applied = steading.client().output("app_apply", &json!({ "manifest": manifest() })).unwrap();
        let host = applied["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Self { steading, host }
    }
}

impl Todo for OnSteading {
    fn name(&self) -> &'static str {
        "Steading"
    }

    fn address(&self) -> &str {
        self.steading.authority()
    }

    fn pid(&self) -> u32 {
        self.steading.id()
    }

    fn sign_up(&self, n: usize) -> Vec<String> {
        if n >= WITH_PASSWORDS {
            return vec![request("POST", &self.host, "/_/auth/anonymous", "", Some(&json!({})))];
        }
        let credentials = credentials(n);
        ["signup", "login"]
            .map(|path| request("POST", &self.host, &format!("/_/auth/{path}"), "", Some(&credentials)))
            .to_vec()
    }

    fn person(&self, session: &Value) -> Person {
        Person {
            id: text(&session["user"]["id"]),
            token: format!("Bearer {}", text(&session["access_token"])),
        }
    }

    fn get(&self, person: &Person, id: &str) -> String {
        request("GET", &self.host, &format!("/_/db/todos/{id}"), &person.token, None)
    }

    fn list(&self, person: &Person) -> String {
        request("GET", &self.host, "/_/db/todos?order=-created_at&limit=20", &person.token, None)
    }

    fn insert(&self, person: &Person, n: usize) -> String {
        let row = json!({ "title": format!("Todo number {n}"), "done": false });
        request("POST", &self.host, "/_/db/todos", &person.token, Some(&row))
    }
}

/// PocketBase, as it comes.
pub struct OnPocketBase {
    server: PocketBase,
    host: String,
}

impl OnPocketBase {
    /// Starts it and makes the app by its own API.
    pub fn start() -> Self {
        let server = require(PocketBase::start());
        let own = "owner = @request.auth.id";
        let collection = json!({
            "name": "todos", "type": "base",
            "listRule": own, "viewRule": own, "createRule": own, "updateRule": own, "deleteRule": own,
            "fields": [
                { "name": "title", "type": "text", "required": true },
                { "name": "done", "type": "bool" },
                { "name": "owner", "type": "relation", "collectionId": "_pb_users_auth_", "maxSelect": 1, "required": true },
                { "name": "created", "type": "autodate", "onCreate": true },
                { "name": "updated", "type": "autodate", "onCreate": true, "onUpdate": true },
            ],
            "indexes": ["CREATE INDEX todos_owner_created_idx ON todos (owner, created)"],
        });
        server.post("/api/collections", &collection).unwrap();
        let host = server.url().strip_prefix("http://").unwrap().to_owned();
        Self { server, host }
    }
}

impl Todo for OnPocketBase {
    fn name(&self) -> &'static str {
        "PocketBase"
    }

    fn address(&self) -> &str {
        &self.host
    }

    fn pid(&self) -> u32 {
        self.server.id()
    }

    fn sign_up(&self, n: usize) -> Vec<String> {
        let mut credentials = credentials(n);
        credentials["passwordConfirm"] = credentials["password"].clone();
        let login = json!({ "identity": credentials["email"], "password": credentials["password"] });
        let users = "/api/collections/users";
        vec![
            request("POST", &self.host, &format!("{users}/records"), "", Some(&credentials)),
            request("POST", &self.host, &format!("{users}/auth-with-password"), "", Some(&login)),
        ]
    }

    fn person(&self, session: &Value) -> Person {
        Person { id: text(&session["record"]["id"]), token: text(&session["token"]) }
    }

    fn get(&self, person: &Person, id: &str) -> String {
        request("GET", &self.host, &format!("/api/collections/todos/records/{id}"), &person.token, None)
    }

    fn list(&self, person: &Person) -> String {
        // Without the count of all rows, which the product does not make either.
        let path = "/api/collections/todos/records?sort=-created&perPage=20&skipTotal=1";
        request("GET", &self.host, path, &person.token, None)
    }

    fn insert(&self, person: &Person, n: usize) -> String {
        let row = json!({ "title": format!("Todo number {n}"), "done": false, "owner": person.id });
        request("POST", &self.host, "/api/collections/todos/records", &person.token, Some(&row))
    }
}

fn credentials(n: usize) -> Value {
    json!({ "email": format!("person-{n}@example.com"), "password": format!("the long word of {n}") })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A whole request.
pub fn request(method: &str, host: &str, path: &str, authorization: &str, body: Option<&Value>) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\n");
    if !authorization.is_empty() {
        request.push_str(&format!("authorization: {authorization}\r\n"));
    }
    match body.map(Value::to_string) {
        Some(body) => request.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )),
        None => request.push_str("\r\n"),
    }
    request
}
