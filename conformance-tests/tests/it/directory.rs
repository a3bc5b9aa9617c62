//! People for whom a directory vouches: in by a real OpenID provider, as what it says they are, and nobody else by its word.

use std::sync::Arc;

use anyhow::ensure;
use conformance_tests::{Place, browser, encoded};
use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Launch, OpenId, Steading, require};

use crate::app_oauth::at_provider;
use crate::console::Visit;
use crate::console_pages::{says, settled};
use crate::oauth_flow::{Flow, text};
use crate::outsiders::{Outsider, Walker};

const CALLBACK: &str = "/oauth/directory/callback";

/// A platform that takes the word of a directory on this machine.
fn trusting(issuer: &str, (id, secret): (&str, &str)) -> Launch {
    Steading::launch()
        .env("STEADING_DIRECTORY_ISSUER", issuer)
        .env("STEADING_DIRECTORY_CLIENT_ID", id)
        .env("STEADING_DIRECTORY_CLIENT_SECRET", secret)
        .env("STEADING_DIRECTORY_PRIVATE", "127.0.0.1")
        .env("STEADING_DIRECTORY_ROLES", "platform-admins=owner,developers=developer,staff=viewer")
        .env("STEADING_DIRECTORY", "Acme <ID>")
}

/// A provider, and a platform that is a client of it.
struct Ground {
    provider: OpenId,
    steading: Arc<Steading>,
}

impl Ground {
    fn new(more: &[(&str, &str)]) -> Self {
        let provider = require(OpenId::start());
        let launch =
            more.iter().fold(trusting(provider.issuer(), OpenId::CLIENT), |launch, (name, value)| {
                launch.env(*name, *value)
            });
        let steading = Arc::new(require(launch.start()));
        let ground = Self { provider, steading };
        let callback = format!("{}{CALLBACK}", ground.base());
        ground.provider.control(&json!({ "redirects": [callback] })).unwrap();
        ground
    }

    fn base(&self) -> &str {
        &self.steading.ready().url
    }

    /// Says what the directory has on somebody from now on.
    fn knows(&self, who: &str, claims: &Value) {
        let mut account =
            json!({ "email": format!("{who}@x.example"), "email_verified": true, "name": "Ada A." });
        account.as_object_mut().unwrap().extend(claims.as_object().cloned().unwrap());
        self.provider.control(&json!({ "accounts": { who: account } })).unwrap();
    }

    fn start(&self, next: &str) -> String {
        format!("{}/oauth/directory?next={}", self.base(), encoded(next))
    }

    /// Goes to the directory as somebody, and back to the address that it sends to.
    fn back(&self, walker: &mut Walker, who: &str) -> String {
        at_provider(walker, &self.start("/console/members?a=b"), &format!("login={who}"), CALLBACK)
    }

    /// The page that somebody is led to, and what it has behind its `#`.
    fn ticket(&self, walker: &mut Walker, who: &str) -> String {
        let back = self.back(walker, who);
        let answer = walker.ask("GET", &back, None);
        assert_eq!(answer.status, 303, "{:?}", answer.text());
        let led = Walker::led(&answer, &back);
        let (page, ticket) = led.split_once('#').unwrap_or_else(|| panic!("{led}"));
        assert_eq!(page, format!("{}/console/arrived", self.base()));
        ticket.to_owned()
    }

    fn shown(&self, walker: &Walker, ticket: &str) -> Response {
        let request =
            Request::post(&format!("{}/console/session", self.base())).header("origin", self.base());
        request.header("cookie", &walker.line(self.base())).json(&json!({ "ticket": ticket })).send().unwrap()
    }

    fn enter(&self, who: &str) -> Visit {
        let mut walker = Walker::default();
        let ticket = self.ticket(&mut walker, who);
        Visit::of(self.base(), &self.shown(&walker, &ticket), &ticket)
    }

    /// What somebody is told who is not let in.
    fn refused(&self, who: &str) -> String {
        let mut walker = Walker::default();
        let back = self.back(&mut walker, who);
        refused(&mut walker, &back)
    }
}

/// What the page says that nobody comes past.
fn refused(walker: &mut Walker, address: &str) -> String {
    let answer = walker.ask("GET", address, None);
    assert_eq!(answer.status, 403, "{:?}", answer.text());
    assert!(!walker.line(address).contains("steading-ticket") && !walker.line(address).contains("sign-in"));
    answer.text().unwrap().to_owned()
}

#[test]
fn a_directory_lets_people_in_as_what_it_says_they_are() {
    let ground = Ground::new(&[]);
    let ways: Value =
        Request::get(&format!("{}/console/ways", ground.base())).send().unwrap().json().unwrap();
    assert_eq!(ways, json!({ "directory": { "name": "Acme <ID>" } }));
    ground.knows("ada", &json!({ "groups": ["others", "developers", "staff"] }));
    let visit = ground.enter("ada");
    let told = &visit.told;
    assert_eq!([&told["who"], &told["next"]], [&json!("member"), &json!("/console/members?a=b")]);
    assert_eq!(text(&told["tenant"], "slug"), "default");
    let member = &told["member"];
    assert_eq!([text(member, "role"), text(member, "email")], ["developer", "ada@x.example"]);
    assert_eq!(text(member, "name"), "Ada A.");
    assert_eq!(visit.status("/v1/envs"), 200);
    assert_eq!(visit.status("/v1/members"), 403);
    // The same somebody, as something else: what was open before ends.
    ground.knows("ada", &json!({ "groups": "platform-admins" }));
    let owner = ground.enter("ada");
    assert_eq!(
        [&owner.told["member"]["id"], &owner.told["member"]["role"]],
        [&member["id"], &json!("owner")]
    );
    assert_eq!(owner.status("/v1/members"), 200);
    assert_eq!(visit.status("/v1/envs"), 401);
    // Nobody comes in by an address that the directory has not confirmed, or for nothing that it says of them.
    ground.knows("eve", &json!({ "groups": ["staff"], "email": "ada@x.example", "email_verified": false }));
    let eve = ground.enter("eve");
    assert_eq!([&eve.told["member"]["email"], &eve.told["member"]["role"]], [&Value::Null, &json!("viewer")]);
    for groups in [json!([]), json!(["Developers"]), json!({ "developers": true }), Value::Null] {
        ground.knows("bob", &json!({ "groups": groups }));
        let page = ground.refused("bob");
        assert!(page.contains("Acme &lt;ID&gt; knows you, and says nothing of you"), "{page}");
    }
    let operator = ground.steading.client().without_env();
    let kept = operator.request("GET", "/v1/audit").send().unwrap().text().unwrap().to_owned();
    assert!(kept.contains("members.arrive") && kept.contains("console.sign_in"), "{kept}");
    let members = operator.request("GET", "/v1/members").send().unwrap();
    assert_eq!(members.json().unwrap()["members"].as_array().unwrap().len(), 2);
    assert!(!ground.steading.log().contains(OpenId::CLIENT.1));
}

#[test]
fn nobody_comes_in_by_the_way_of_another() {
    let ground = Ground::new(&[]);
    ground.knows("ada", &json!({ "groups": ["developers"] }));
    // To elsewhere nobody is sent.
    for next in ["https://evil.example/console", "//evil.example", "/v1/envs", "/oauth/token", "/console\\x"]
    {
        let answer = Request::get(&ground.start(next)).send().unwrap();
        assert_eq!((answer.status, answer.header("location")), (400, None), "{next}");
    }
    let mut walker = Walker::default();
    let back = ground.back(&mut walker, "ada");
    // A browser that has not begun it, and one that has begun another.
    refused(&mut Walker::default(), &back);
    let mut other = Walker::default();
    other.ask("GET", &ground.start("/console"), None);
    refused(&mut other, &back);
    // Who answers is said, and is another.
    let (before, iss) = back.split_once("iss=").unwrap();
    assert_eq!(iss.split('&').next().unwrap(), encoded(ground.provider.issuer()));
    let mixed = format!("{before}iss={}", encoded("https://evil.example"));
    let page = refused(&mut walker, &mixed);
    assert!(page.contains("does not hold") && !page.contains("evil.example"), "{page}");
    // It was come back by, whatever came of it.
    refused(&mut walker, &back);
    let mut walker = Walker::default();
    let back = ground.back(&mut walker, "ada");
    let away = walker.cookies.clone();
    let answer = walker.ask("GET", &back, None);
    let led = Walker::led(&answer, &back);
    let ticket = led.split_once('#').unwrap().1;
    // The same address again, in a browser that has kept its cookie.
    refused(&mut Walker { cookies: away }, &back);
    // A ticket is good in its browser, as it is, once.
    assert_eq!(ground.shown(&Walker::default(), ticket).status, 401);
    let (rest, tag) = ticket.rsplit_once('.').unwrap();
    let made_up = format!("{rest}.{}", tag.chars().rev().collect::<String>());
    assert_eq!(ground.shown(&walker, &made_up).status, 401);
    let elsewhere = Request::post(&format!("{}/console/session", ground.base()))
        .header("origin", "http://127.0.0.1:1")
        .header("cookie", &walker.line(ground.base()))
        .json(&json!({ "ticket": ticket }))
        .send()
        .unwrap();
    assert_eq!(elsewhere.status, 403);
    assert_eq!(ground.shown(&walker, ticket).status, 201);
    assert_eq!(ground.shown(&walker, ticket).status, 401);
    // Who says no is back without anything.
    let mut walker = Walker::default();
    let back = at_provider(&mut walker, &ground.start("/console"), "no=1", CALLBACK);
    assert!(refused(&mut walker, &back).contains("has let nobody in"));
    // And after so many of them nobody from here tries for a while.
    for _ in 0..4 {
        Walker::default().ask("GET", &format!("{}{CALLBACK}?state=x&code=y", ground.base()), None);
    }
    assert_eq!(Request::get(&ground.start("/console")).send().unwrap().status, 429);
}

#[test]
fn an_answer_to_another_question_is_none() {
    let outsider = Outsider::start();
    let steading = require(trusting(&outsider.url, ("ap", "a secret")).start());
    let base = &steading.ready().url;
    let answered = |person: Value| {
        outsider.is(person);
        let mut walker = Walker::default();
        let page = walker.walk(&format!("{base}/oauth/directory"), "/apple/authorize");
        let html = walker.ask("GET", &page, None).text().unwrap().to_owned();
        let value = |name: &str| {
            let at = html.split_once(&format!("name={name} value='"));
            let at = at.or(html.split_once(&format!("name='{name}' value='"))).unwrap().1;
            at.split_once('\'').unwrap().0.to_owned()
        };
        let back = format!("{base}{CALLBACK}?state={}&code={}", encoded(&value("state")), value("code"));
        walker.ask("GET", &back, None).status
    };
    let good = json!({ "sub": "1", "groups": ["staff"], "email": "a@x.example", "email_verified": true });
    assert_eq!(answered(good.clone()), 303);
    for (name, value) in [
        ("nonce", json!("another")),
        ("iss", json!("https://evil.example")),
        ("aud", json!("another")),
        ("exp", json!(1)),
        ("sub", json!("")),
    ] {
        let mut person = good.clone();
        person[name] = value;
        assert_eq!(answered(person), 403, "{name}");
    }
}

#[test]
fn a_claim_says_which_tenant_it_is() {
    let ground = Ground::new(&[("STEADING_DIRECTORY_TENANT_CLAIM", "org.tenant")]);
    let operator = ground.steading.client().without_env();
    for tenant in [json!({ "slug": "by-slug" }), json!({ "slug": "other", "external_id": "cust-1" })] {
        let made = operator.request("POST", "/v1/tenants").json(&tenant).send().unwrap();
        assert_eq!(made.status, 201, "{:?}", made.text());
    }
    for (named, slug) in [("by-slug", "by-slug"), ("cust-1", "other")] {
        ground.knows("ada", &json!({ "groups": ["staff"], "org": { "tenant": named } }));
        assert_eq!(ground.enter("ada").told["tenant"]["slug"], json!(slug));
    }
    for named in [json!("nobody"), json!(""), json!(["by-slug", "other"]), Value::Null] {
        ground.knows("ada", &json!({ "groups": ["staff"], "org": { "tenant": named } }));
        let page = ground.refused("ada");
        assert!(page.contains("names no tenant of this platform for you"), "{page}");
    }
    let suspended = operator.request("POST", "/v1/tenants/by-slug/suspend").send().unwrap();
    assert_eq!(suspended.status, 200);
    ground.knows("ada", &json!({ "groups": ["staff"], "org": { "tenant": "by-slug" } }));
    ground.refused("ada");
}

#[test]
fn an_agents_user_signs_in_by_the_directory() {
    let ground = Ground::new(&[]);
    ground.knows("ada", &json!({ "groups": ["developers"] }));
    let place = Place::on(Arc::clone(&ground.steading), "directory").unwrap();
    let asked = Flow::new(&place).url(&[]);
    let mut walker = Walker::default();
    let page = walker.ask("GET", &asked, None);
    let html = page.text().unwrap();
    assert!(html.contains("Sign in with Acme &lt;ID&gt;"), "{html}");
    let way = html.split_once("href=\"/oauth/directory?").unwrap().1.split_once('"').unwrap().0;
    let start = format!("{}/oauth/directory?{way}", ground.base());
    let end = at_provider(&mut walker, &start, "login=ada", "/oauth/authorize");
    assert_eq!(end, asked);
    let consent = walker.ask("GET", &end, None);
    assert!(consent.text().unwrap().contains("act for you?"), "{:?}", consent.text());
    assert!(consent.text().unwrap().contains("Ada A."));
}

#[test]
fn somebody_comes_to_the_console_in_a_browser() {
    let ground = Ground::new(&[]);
    ground.knows("ada", &json!({ "groups": ["platform-admins"] }));
    browser(|browser| {
        browser.goto(&format!("{}/console/members", ground.base()))?;
        browser.evaluate("localStorage.clear()")?;
        browser.goto(&format!("{}/console/members", ground.base()))?;
        says(browser, "Sign in with Acme <ID>")?;
        browser.click("a[href^='/oauth/directory']")?;
        browser.type_into("input[name=login]", "ada")?;
        browser.click("#go")?;
        settled(browser)?;
        let here = browser.url()?;
        ensure!(here == format!("{}/console/members", ground.base()), "{here}");
        says(browser, "Member, owner")?;
        says(browser, "ada@x.example")?;
        // Pages of the provider may lack a picture.
        let console: Vec<String> =
            browser.console()?.into_iter().filter(|line| line.contains(ground.base())).collect();
        ensure!(console.is_empty(), "{console:?}");
        browser.click("[aria-label='Sign out']")?;
        browser.text("#key")?;
        // A ticket that is none leads to the page that says so.
        browser.goto(&format!("{}/console/arrived#nothing", ground.base()))?;
        says(browser, "You are not signed in")?;
        ensure!(browser.url()? == format!("{}/console", ground.base()));
        // The refusal of the ticket is on the browser's console, and nothing else.
        browser.console()?;
        Ok(())
    })
    .unwrap();
}
