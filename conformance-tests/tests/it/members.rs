//! People of a tenant: invited, let in by a password, bounded by their role, and out at once when that ends.

use anyhow::ensure;
use conformance_tests::{Place, browser};
use serde_json::{Value, json};
use testkit::Client;
use testkit::http::Request;

use crate::console::{Visit, sent};
use crate::console_pages::{press, says, settled, until};
use crate::oauth_flow::{Flow, text};

const PASSWORD: &str = "a password of some length";

/// A tenant of its own, whose operator invites.
struct Ground {
    place: Place,
    operator: Client,
    tenant: String,
}

impl Ground {
    fn new(name: &str) -> Self {
        let place = Place::alone(name).unwrap();
        let operator = place.steading.client().without_env();
        let tenant = format!("of-{name}");
        let wanted = json!({ "tenant": { "slug": tenant }, "env": { "slug": format!("shop-{name}") } });
        let made = operator.request("POST", "/v1/provision").json(&wanted).send().unwrap();
        assert!([200, 201].contains(&made.status), "{:?}", made.text());
        Self { place, operator, tenant }
    }

    fn base(&self) -> &str {
        &self.place.steading.ready().url
    }

    fn asked(&self, method: &str, path: &str) -> Request {
        self.operator.request(method, path).header("steading-tenant", &self.tenant)
    }

    fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.asked(method, path).json(body).send().unwrap();
        assert!([200, 201].contains(&answer.status), "{:?}", answer.text());
        answer.json().unwrap()
    }

    fn invite(&self, email: &str, role: &str) -> Value {
        self.done("POST", "/v1/members", &json!({ "email": email, "role": role }))
    }

    /// What is behind the `#` of an invitation's address.
    fn invitation(invited: &Value) -> String {
        let url = text(&invited["invitation"], "url");
        let (page, invitation) = url.split_once('#').unwrap();
        assert!(page.ends_with("/console/join"), "{url}");
        invitation.to_owned()
    }

    fn join(&self, invited: &Value) -> Visit {
        let body = json!({ "invitation": Self::invitation(invited), "password": PASSWORD, "name": "Ada" });
        Visit::of(self.base(), &sent(self.base(), "/console/join", &body), PASSWORD)
    }

    fn sign_in(&self, email: &str, password: &str) -> testkit::http::Response {
        let body = json!({ "tenant": self.tenant, "email": email, "password": password });
        sent(self.base(), "/console/session", &body)
    }
}

fn status(visit: &Visit, method: &str, path: &str, body: &Value) -> u16 {
    visit.of_page(method, path).json(body).send().unwrap().status
}

#[test]
fn an_invitation_lets_one_in_once_and_a_password_from_then_on() {
    let ground = Ground::new("members-join");
    let invited = ground.invite("Ada@X.example", "developer");
    assert_eq!((text(&invited, "email"), text(&invited, "state")), ("ada@x.example", "invited"));
    let invitation = Ground::invitation(&invited);
    let told = sent(ground.base(), "/console/invitation", &json!({ "invitation": invitation }));
    let told: Value = told.json().unwrap();
    assert_eq!(told["tenant"]["slug"], json!(ground.tenant));
    assert_eq!((&told["role"], &told["is_new"]), (&json!("developer"), &json!(true)));
    // Nobody is in by an address that was only invited.
    assert_eq!(ground.sign_in("ada@x.example", "").status, 401);
    for bad in ["short", "password", "ada@x.example"] {
        let body = json!({ "invitation": invitation, "password": bad });
        let refused = sent(ground.base(), "/console/join", &body);
        assert_eq!(refused.status, 400, "{bad}: {:?}", refused.text());
        assert_eq!(text(&refused.json().unwrap(), "field"), "/password");
    }
    let visit = ground.join(&invited);
    assert_eq!(visit.told["who"], json!("member"));
    assert_eq!(visit.told["member"]["role"], json!("developer"));
    assert_eq!(visit.status("/v1/envs"), 200);
    // It was good once.
    let again = json!({ "invitation": invitation, "password": PASSWORD });
    assert_eq!(sent(ground.base(), "/console/join", &again).status, 401);
    assert_eq!(sent(ground.base(), "/console/invitation", &json!({ "invitation": invitation })).status, 401);
    let by_password = ground.sign_in(" ADA@x.example ", PASSWORD);
    Visit::of(ground.base(), &by_password, PASSWORD);
    // A wrong password, another address and another tenant are answered alike.
    let wrong = ground.sign_in("ada@x.example", "another password");
    let nobody = ground.sign_in("bob@x.example", PASSWORD);
    let elsewhere = json!({ "tenant": "default", "email": "ada@x.example", "password": PASSWORD });
    let elsewhere = sent(ground.base(), "/console/session", &elsewhere);
    let told = [wrong, nobody, elsewhere].map(|answer| {
        assert_eq!(answer.status, 401);
        text(&answer.json().unwrap(), "message").to_owned()
    });
    assert!(told.iter().all(|message| *message == told[0]), "{told:?}");
    // Another invitation sets another password; what was open before ends then.
    let path = format!("/v1/members/{}/invitation", text(&invited, "id"));
    let again = ground.done("POST", &path, &json!({}));
    assert_eq!(visit.status("/v1/envs"), 200);
    let body = json!({ "invitation": Ground::invitation(&again), "password": "another password" });
    Visit::of(ground.base(), &sent(ground.base(), "/console/join", &body), "another password");
    assert_eq!(visit.status("/v1/envs"), 401);
    assert_eq!(ground.sign_in("ada@x.example", PASSWORD).status, 401);
    assert_eq!(ground.sign_in("ada@x.example", "another password").status, 201);
    // Neither the invitation nor a password is in anything that is kept.
    let kept = format!(
        "{} {}",
        ground.done("GET", "/v1/members", &json!({})),
        ground.asked("GET", "/v1/audit").send().unwrap().text().unwrap()
    );
    for secret in [invitation.as_str(), PASSWORD, "another password"] {
        assert!(!kept.contains(secret), "{kept}");
    }
    for act in ["members.invite", "members.join", "console.sign_in"] {
        assert!(kept.contains(act), "{act} is not on record: {kept}");
    }
}

#[test]
fn a_role_is_all_that_a_member_may() {
    let ground = Ground::new("members-roles");
    let [viewer, developer, owner] = ["viewer", "developer", "owner"]
        .map(|role| ground.join(&ground.invite(&format!("{role}@x.example"), role)));
    let env = json!({ "name": "x", "slug": "members-roles-x" });
    let key = json!({ "name": "x" });
    let guest = json!({ "email": "eve@x.example", "role": "viewer" });
    for (visit, may) in [(&viewer, [403, 403, 403]), (&developer, [200, 403, 403]), (&owner, [200, 201, 201])]
    {
        assert_eq!(visit.status("/v1/envs"), 200);
        let got = [
            status(visit, "POST", "/v1/tools/env_create", &env),
            status(visit, "POST", "/v1/keys", &key),
            status(visit, "POST", "/v1/members", &guest),
        ];
        // The second environment of the slug is refused as taken, which takes the right to make it.
        let made = if got[0] == 409 { 200 } else { got[0] };
        assert_eq!([made, got[1], got[2]], may, "{:?}", visit.told);
        // Nobody of a tenant is anybody in another one, or on the platform.
        assert_eq!(visit.status("/v1/tenants"), 403);
        let elsewhere = visit.of_page("GET", "/v1/envs").header("steading-tenant", "default");
        assert_eq!(elsewhere.send().unwrap().status, 404);
    }
    // A key makes nobody who may more than it, and one of an environment or of an hour makes nobody.
    let scopes =
        json!(["key:admin", "app:read", "db:read", "auth:read", "storage:read", "logs:read", "env:read"]);
    let made = |body: &Value| -> Client {
        let key = ground.done("POST", "/v1/keys", body);
        ground.operator.clone().with_key(text(&key, "key"))
    };
    let invite = |client: &Client, role: &str| {
        let body = json!({ "email": format!("{role}-2@x.example"), "role": role });
        client.request("POST", "/v1/members").json(&body).send().unwrap()
    };
    let narrow = made(&json!({ "name": "narrow", "scopes": scopes }));
    assert_eq!(invite(&narrow, "owner").status, 403);
    assert_eq!(invite(&narrow, "developer").status, 403);
    assert_eq!(invite(&narrow, "viewer").status, 201);
    let short = made(&json!({ "name": "short", "scopes": scopes, "expires_in": 60 }));
    assert_eq!(invite(&short, "viewer").status, 403);
    // And changes nobody who may more.
    let all = ground.done("GET", "/v1/members", &json!({}));
    let id = |email: &str| {
        let members = all["members"].as_array().unwrap();
        text(members.iter().find(|it| it["email"] == json!(email)).unwrap(), "id").to_owned()
    };
    let path = format!("/v1/members/{}", id("owner@x.example"));
    let fall = json!({ "role": "viewer" });
    assert_eq!(narrow.request("PATCH", &path).json(&fall).send().unwrap().status, 403);
    assert_eq!(narrow.request("DELETE", &path).send().unwrap().status, 403);
    assert_eq!(narrow.request("POST", &format!("{path}/invitation")).send().unwrap().status, 403);
    // The last owner stays, whoever of the tenant asks; the operator may.
    assert_eq!(status(&owner, "PATCH", &path, &fall), 409);
    assert_eq!(status(&owner, "DELETE", &path, &json!({})), 409);
    assert_eq!(ground.done("PATCH", &path, &fall)["role"], json!("viewer"));
    // Another role ends what was open; who is removed is out at once.
    assert_eq!(owner.status("/v1/envs"), 401);
    let again = ground.sign_in("owner@x.example", PASSWORD);
    let again = Visit::of(ground.base(), &again, PASSWORD);
    assert_eq!(status(&again, "POST", "/v1/keys", &key), 403);
    assert_eq!(ground.done("DELETE", &path, &json!({}))["removed"], json!(true));
    assert_eq!(again.status("/v1/envs"), 401);
    assert_eq!(ground.sign_in("owner@x.example", PASSWORD).status, 401);
    // A tenant that is suspended lets nobody in.
    assert_eq!(viewer.status("/v1/envs"), 200);
    let suspend = format!("/v1/tenants/{}/suspend", ground.tenant);
    assert_eq!(ground.operator.request("POST", &suspend).send().unwrap().status, 200);
    assert!([401, 403].contains(&viewer.status("/v1/envs")));
    assert!(![200, 201].contains(&ground.sign_in("viewer@x.example", PASSWORD).status));
}

#[test]
fn who_guesses_passwords_or_invitations_waits() {
    let ground = Ground::new("members-guess");
    ground.join(&ground.invite("ada@x.example", "viewer"));
    let seen: Vec<u16> =
        (0..12).map(|n| ground.sign_in("ada@x.example", &format!("wrong-{n}")).status).collect();
    assert_eq!((&seen[..10], &seen[10..]), (&[401; 10][..], &[429; 2][..]));
    // From this address neither the right one nor an invitation is tried for a while.
    assert_eq!(ground.sign_in("ada@x.example", PASSWORD).status, 429);
    let made_up = json!({ "invitation": format!("stead_join_{}", "A".repeat(43)) });
    assert_eq!(sent(ground.base(), "/console/invitation", &made_up).status, 429);
}

#[test]
fn an_agent_acts_for_a_member_until_their_role_ends() {
    let ground = Ground::new("members-agent");
    let invited = ground.invite("ada@x.example", "developer");
    ground.join(&invited);
    let place = &ground.place;
    let flow = Flow { resource: format!("{}/mcp/shop-members-agent", ground.base()), ..Flow::new(place) };
    let who = [("tenant", &*ground.tenant), ("email", "ada@x.example"), ("password", PASSWORD)];
    let back = conformance_tests::Visitor::new(ground.base()).allow_as(&flow.url(&[]), &who, None).unwrap();
    let code = conformance_tests::field(&back, "code").unwrap_or_else(|| panic!("{back}"));
    let answer = flow.redeem(&code, &[]);
    assert_eq!(answer.status, 200, "{:?}", answer.text());
    let tokens: Value = answer.json().unwrap();
    let token = text(&tokens, "access_token");
    let opens =
        || crate::oauth_flow::at_door(ground.base(), "/mcp/shop-members-agent", token, "app_describe").status;
    assert_eq!(opens(), 200);
    ground.done("PATCH", &format!("/v1/members/{}", text(&invited, "id")), &json!({ "role": "viewer" }));
    assert_eq!(opens(), 401);
    assert_eq!(flow.refresh(text(&tokens, "refresh_token"), &[]).status, 400);
}

#[test]
fn somebody_is_invited_and_joins_in_a_browser() {
    let ground = Ground::new("members-browser");
    let owner = ground.invite("owner@x.example", "owner");
    let url = text(&owner["invitation"], "url").to_owned();
    browser(|browser| {
        browser.goto(&url)?;
        browser.type_into("#name", "Olive")?;
        browser.type_into("#password", PASSWORD)?;
        press(browser, "Join")?;
        settled(browser)?;
        ensure!(browser.evaluate("return location.href")? == json!(format!("{}/console", ground.base())));
        let html = browser.source()?;
        ensure!(!html.contains(PASSWORD) && !html.contains(&Ground::invitation(&owner)));
        says(browser, "Member, owner")?;
        browser.goto(&format!("{}/console/members", ground.base()))?;
        settled(browser)?;
        says(browser, "Olive")?;
        press(browser, "Invite")?;
        browser.type_into("dialog input[name=email]", "dev@x.example")?;
        press(browser, "Make the invitation")?;
        let link = until(browser, "return document.querySelector('dialog .copied code')?.textContent")?;
        press(browser, "I have kept it")?;
        says(browser, "dev@x.example")?;
        browser.as_narrow_as(360)?;
        ensure!(
            browser.evaluate("return document.documentElement.scrollWidth <= innerWidth")? == json!(true)
        );
        browser.as_usual()?;
        browser.click("[aria-label='Sign out']")?;
        browser.text("#key")?;
        // The other one joins, in the same browser, and signs in again by the password.
        browser.goto("about:blank")?;
        browser.goto(text(&json!({ "it": link }), "it"))?;
        browser.type_into("#password", PASSWORD)?;
        press(browser, "Join")?;
        settled(browser)?;
        says(browser, "Member, developer")?;
        browser.click("[aria-label='Sign out']")?;
        browser.text("#key")?;
        press(browser, "As a member")?;
        browser.type_into("#tenant", &ground.tenant)?;
        browser.type_into("#email", "dev@x.example")?;
        browser.type_into("#password", PASSWORD)?;
        press(browser, "Sign in")?;
        settled(browser)?;
        says(browser, "Member, developer")?;
        let console = browser.console()?;
        ensure!(console.is_empty(), "{console:?}");
        Ok(())
    })
    .unwrap();
}
