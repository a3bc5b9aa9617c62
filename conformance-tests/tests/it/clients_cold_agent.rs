//! A cold agent: Claude Code whose model knows nothing but what the server tells it, and makes an app.

use conformance_tests::{Ask, Heard, LAST_WORDS, Model, Wire};
use serde_json::{Value, json};
use testkit::finish;
use testkit::http::{Request, Response};

use crate::clients_agents::{Agent, LIMIT, claude};

/// What a model does that reads what it is told and takes it at its word.
fn mind(heard: &Heard) -> Option<Ask> {
    let (tool, input) = match heard.results.as_slice() {
        [] => instructed(&heard.told)?,
        [skill] => ("app_apply".to_owned(), json!({ "manifest": manifest(skill)? })),
        _ => return None,
    };
    Some(Ask { tool, input })
}

/// The first call that the server's instructions spell out for a new app: a tool's name and its input.
fn instructed(told: &str) -> Option<(String, Value)> {
    let (_, after) = told.split_once("For a new app call ")?;
    let (tool, after) = after.split_once(' ')?;
    let mut input = serde_json::Deserializer::from_str(after).into_iter();
    Some((tool.to_owned(), input.next()?.ok()?))
}

/// The manifest in the text of a skill.
fn manifest(skill: &str) -> Option<Value> {
    let skill: Value = serde_json::from_str(skill).ok()?;
    let (_, after) = skill["text"].as_str()?.split_once("```json manifest\n")?;
    serde_json::from_str(after.split_once("```")?.0).ok()
}

/// One user of the app.
struct User<'a> {
    url: &'a str,
    token: Option<String>,
}

impl<'a> User<'a> {
    fn anonymous(url: &'a str) -> Self {
        let answer = Self { url, token: None }.send("POST", "/_/auth/anonymous", &json!({}));
        assert_eq!(answer.status, 201, "{answer:?}");
        let session = answer.json().unwrap();
        assert!(session["user"]["id"].as_str().unwrap().starts_with("usr_"), "{session}");
        Self { url, token: Some(session["access_token"].as_str().unwrap().to_owned()) }
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        let request = Request::new(method, &format!("{}{path}", self.url));
        let request = if method == "GET" { request } else { request.json(body) };
        let request = self.token.iter().fold(request, |request, token| request.bearer(token));
        request.send().unwrap()
    }

    fn rows(&self) -> Value {
        let answer = self.send("GET", "/_/db/todos", &Value::Null);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().unwrap()["rows"].take()
    }
}

#[test]
fn an_agent_that_knows_nothing_makes_an_app_in_two_calls() {
    let agent = Agent::of("claude-code", Model::thinking(Wire::Messages, mind).unwrap());
    let allowed = "mcp__steading__skill_read,mcp__steading__app_apply";
    let finished = finish(claude(&agent, "Make me a todo list.", allowed), LIMIT).unwrap();
    assert!(finished.success() && finished.stdout.contains(LAST_WORDS), "{finished:?}");
    let results = agent.model.results();
    assert_eq!(results.len(), 2, "{results:?}");
    let applied: Value = serde_json::from_str(&results[1]).unwrap_or_else(|_| panic!("{}", results[1]));
    assert_eq!((&applied["release"], &applied["url"]), (&json!(1), &json!(agent.place.url)));

    let url = agent.place.url.as_str();
    let page = Request::get(url).send().unwrap();
    assert!(page.text().unwrap().contains("<title>Todo</title>"), "{page:?}");
    let (ada, bob, visitor) = (User::anonymous(url), User::anonymous(url), User { url, token: None });
    let made = ada.send("POST", "/_/db/todos", &json!({ "title": "Milk" }));
    assert_eq!(made.status, 201, "{made:?}");
    let row = made.json().unwrap();
    assert_eq!((&row["title"], &row["done"]), (&json!("Milk"), &json!(false)));
    assert_eq!(ada.rows(), json!([row]));
    assert_eq!((bob.rows(), visitor.rows()), (json!([]), json!([])));
    let path = format!("/_/db/todos/{}", row["id"].as_str().unwrap());
    for other in [&bob, &visitor] {
        for (method, body) in [("GET", json!({})), ("PATCH", json!({ "done": true })), ("DELETE", json!({}))]
        {
            assert_eq!(other.send(method, &path, &body).status, 404, "{method}");
        }
    }
    let refused = visitor.send("POST", "/_/db/todos", &json!({ "title": "Tea" }));
    assert_eq!(refused.status, 403, "{refused:?}");
    let account = json!({ "email": "ada@example.com", "password": "correct horse battery" });
    assert_eq!(ada.send("POST", "/_/auth/signup", &account).status, 201);
    let again = visitor.send("POST", "/_/auth/login", &account);
    assert_eq!(again.status, 200, "{again:?}");
    let token = again.json().unwrap()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(
        User { url, token: Some(token) }.rows(),
        json!([row]),
        "the account has the anonymous user's rows"
    );
}
