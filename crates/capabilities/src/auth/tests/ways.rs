//! Ways in that are taken away, and what ends with the sessions that they have opened.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kernel::{Env, Networks, Result, Secret};
use serde_json::{Value, json};

use super::fixture::{Ground, PASSWORD, linked, told};
use crate::auth::{AuthLimits, Ending, Outside, Rate, Session, Shown, UserChange};
use crate::outbound::{Outbound, SecretValues};
use crate::rows::{Method, PhoneAdapter};

const ADA: &str = "ada@example.org";
const EVE: &str = "eve@example.org";
const NUMBER: &str = "+4915123456789";

/// Gives a user an identity, as if a session had come by it.
async fn identify(ground: &Ground, session: &Session, provider: &str, subject: &str, method: &str) {
    let user = session.user.id;
    ground
        .run(&format!("INSERT INTO _steading_identity VALUES ('{provider}', '{subject}', '{user}', 1)"))
        .await;
    let sessions = ground.auth.sessions(&ground.env, &session.access_token).await.unwrap();
    let id = &sessions.iter().find(|session| session.current).unwrap().id;
    ground.run(&format!("UPDATE _steading_session SET method = '{method}' WHERE id = '{id}'")).await;
    ground.auth.forget(ground.env.id());
}

#[tokio::test]
async fn a_change_of_address_ends_with_the_session_that_asks_for_it_however_that_ends() {
    for way in ["its owner", "itself", "a stolen token", "its identity", "its number", "newer sessions"] {
        let often = Rate { burst: NonZeroU32::MAX, every: Duration::from_nanos(1) };
        let ground =
            Ground::with(AuthLimits { passwords: often, sessions: 3, ..AuthLimits::default() }).await;
        let ada = ground.member(ADA).await;
        let thief = ground.log_in(ADA, PASSWORD).await.unwrap();
        match way {
            "its identity" => identify(&ground, &thief, "google", "s", "oauth:google").await,
            "its number" => identify(&ground, &thief, "phone", NUMBER, "phone").await,
            _ => {}
        }
        let asking = ground.asking();
        ground.auth.ask_email(&asking, &thief.access_token, Some(&Secret::new(PASSWORD)), EVE).await.unwrap();
        let link = linked(&ground.mail(EVE, "Confirm").await);
        let end = async |session: &Session, ending| {
            ground.auth.log_out(&ground.env, &session.access_token, ending).await.unwrap();
        };
        match way {
            "its owner" => {
                let sessions = ground.auth.sessions(&ground.env, &ada.access_token).await.unwrap();
                let other = sessions.into_iter().find(|session| !session.current).unwrap();
                end(&ada, Ending::One(other.id)).await;
            }
            "itself" => end(&thief, Ending::This).await,
            "a stolen token" => {
                ground.refresh(&thief).await.unwrap();
                ground.refresh(&thief).await.unwrap_err();
            }
            "its identity" => ground.auth.unlink(&asking, &ada.access_token, "google").await.unwrap(),
            "its number" => ground.auth.unlink(&asking, &ada.access_token, "phone").await.unwrap(),
            _ => {
                for _ in 0..3 {
                    ground.log_in(ADA, PASSWORD).await.unwrap();
                }
            }
        }
        assert!(!ground.is_live(&thief).await, "{way}");
        let again = ground.log_in(ADA, PASSWORD).await.unwrap();
        let shown = ground.auth.verify_email(&asking, Some(&again.access_token), &Shown::Link(link)).await;
        assert_eq!(told(shown), "unauthenticated: the code is wrong, or not valid any more", "{way}");
    }
}

#[tokio::test]
async fn a_number_is_a_way_in_that_its_user_and_the_makers_take_away() {
    let mut ground = Ground::new().await;
    ground.settings.methods.insert(Method::Phone);
    let (webhook, secret) = ("https://sms.example.com/send".to_owned(), "SMS".to_owned());
    ground.settings.phone = Some(PhoneAdapter { webhook, secret });
    let ada = ground.member(ADA).await;
    let whose_phone = ground.log_in(ADA, PASSWORD).await.unwrap();
    identify(&ground, &whose_phone, "phone", NUMBER, "phone").await;
    let identities = ground.auth.identities(&ground.env, &ada.access_token).await.unwrap();
    assert_eq!(identities.iter().map(|it| it.provider.as_str()).collect::<Vec<_>>(), ["phone"]);
    let unlink =
        async |provider: &str| ground.auth.unlink(&ground.asking(), &ada.access_token, provider).await;
    assert_eq!(told(unlink("email").await), "not_found: there is no such identity of yours");
    ground.auth.ask_text(&ground.asking(), NUMBER).await.unwrap();
    until(&ground, "SELECT count(*) FROM _steading_code", 1).await;
    unlink("phone").await.unwrap();
    ground.mail(ADA, "is gone").await;
    assert!(ground.is_live(&ada).await && !ground.is_live(&whose_phone).await);
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_code").await, [[json!(0)]]);
    let me = ground.auth.me(&ground.env, &ada.access_token).await.unwrap();
    assert_eq!((me.phone, me.email.as_deref()), (None, Some(ADA)));
    assert_eq!(told(unlink("phone").await), "not_found: there is no such identity of yours");
    // The makers give and take numbers, too.
    let set = async |user: &str, phone: &str| {
        let change =
            UserChange { user: user.to_owned(), phone: Some(phone.to_owned()), ..UserChange::default() };
        ground.auth.set_user(&ground.env, change).await
    };
    assert_eq!(set(ADA, "+49 151 23456789").await.unwrap().user.phone.as_deref(), Some(NUMBER));
    let bea = ground.member("bea@example.org").await;
    assert_eq!(told(set("bea@example.org", NUMBER).await), "conflict /phone: another user has this number");
    assert_eq!(told(set(ADA, "0151").await).split(':').next(), Some("invalid_input /phone"));
    let again = ground.log_in(ADA, PASSWORD).await.unwrap();
    let sql = "UPDATE _steading_session SET method = 'phone' WHERE created_at = (SELECT max(created_at) FROM _steading_session)";
    ground.run(sql).await;
    let gone = set(ADA, "").await.unwrap();
    assert_eq!((gone.user.phone, gone.user.anonymous, gone.signed_out), (None, false, 1));
    assert!(!ground.is_live(&again).await && ground.is_live(&ada).await && ground.is_live(&bea).await);
}

#[tokio::test]
async fn the_last_way_in_stays() {
    let mut ground = Ground::new().await;
    ground.settings.methods.insert(Method::Phone);
    let ada = ground.anonymous().await;
    identify(&ground, &ada, "phone", NUMBER, "phone").await;
    let unlinked = ground.auth.unlink(&ground.asking(), &ada.access_token, "phone").await;
    assert_eq!(told(unlinked), "conflict: this is the only way in to the account");
    assert_eq!(ground.rows("SELECT subject FROM _steading_identity").await, [[json!(NUMBER)]]);
    assert!(ground.is_live(&ada).await);
}

async fn until(ground: &Ground, sql: &str, count: u64) {
    let done = async {
        while ground.rows(sql).await != [[json!(count)]] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), done).await.unwrap();
}

/// Every secret there is.
struct Secrets;

impl SecretValues for Secrets {
    fn value<'a>(&'a self, _: &'a Env, _: &'a str) -> BoxFuture<'a, Result<Option<Secret>>> {
        async { Ok(Some(Secret::new("shared"))) }.boxed()
    }
}

/// Takes texts, and answers those that say `answered`.
fn adapter(answered: bool) -> (PhoneAdapter, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let webhook = format!("http://{}/send", listener.local_addr().unwrap());
    let texts = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&texts);
    std::thread::spawn(move || {
        let mut waiting = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut said = Vec::new();
            let mut part = [0; 4_096];
            while !said.ends_with(b"}") {
                let read = stream.read(&mut part).unwrap();
                said.extend_from_slice(&part[..read]);
            }
            let said = String::from_utf8(said).unwrap();
            let body: Value = serde_json::from_str(&said[said.find("\r\n\r\n").unwrap()..]).unwrap();
            kept.lock().unwrap().push(body["to"].as_str().unwrap().to_owned());
            if answered {
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).unwrap();
            } else {
                waiting.push(stream);
            }
        }
    });
    (PhoneAdapter { webhook, secret: "SMS".to_owned() }, texts)
}

async fn texting(limits: AuthLimits, answered: bool) -> (Ground, Arc<Mutex<Vec<String>>>) {
    let http = Outbound::new(Networks::of(["127.0.0.1"].into_iter()).unwrap()).unwrap();
    let outside = Outside { http, secrets: Arc::new(Secrets) };
    let mut ground = Ground::reaching(limits, outside).await;
    ground.settings.methods.insert(Method::Phone);
    let (phone, texts) = adapter(answered);
    ground.settings.phone = Some(phone);
    (ground, texts)
}

#[tokio::test]
async fn numbers_that_somebody_makes_up_use_up_no_texts_of_those_who_have_an_account() {
    let few = Rate { burst: NonZeroU32::new(3).unwrap(), every: Duration::from_secs(3_600) };
    let (mut ground, texts) = texting(AuthLimits { texts_of_app: few, ..AuthLimits::default() }, true).await;
    let ada = ground.member(ADA).await;
    identify(&ground, &ada, "phone", NUMBER, "phone").await;
    let ask = async |ground: &mut Ground, network: u8, number: &str| {
        ground.client = Some(format!("192.0.2.{network}").parse().unwrap());
        ground.auth.ask_text(&ground.asking(), number).await.unwrap();
    };
    for n in 0..10 {
        ask(&mut ground, n, &format!("+4915100000{n:02}")).await;
    }
    until(&ground, "SELECT count(*) FROM _steading_code", 10).await;
    ask(&mut ground, 200, NUMBER).await;
    let sent = async {
        while texts.lock().unwrap().len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sent).await.unwrap();
    assert!(texts.lock().unwrap().iter().any(|to| to == NUMBER));
}

#[tokio::test]
async fn who_sends_texts_slowly_holds_up_no_mail() {
    let often = Rate { burst: NonZeroU32::MAX, every: Duration::from_nanos(1) };
    let limits = AuthLimits { texts_from: often, mails_from: often, ..AuthLimits::default() };
    let (ground, texts) = texting(limits, false).await;
    for n in 0..40 {
        let asked = async {
            while ground.auth.ask_text(&ground.asking(), &format!("+4915100000{n:02}")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap();
    }
    let sent = async {
        while texts.lock().unwrap().len() < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sent).await.unwrap();
    for n in 0..32 {
        ground.auth.forgot(&ground.asking(), &format!("ada{n}@example.org"), None).await.unwrap();
    }
}
