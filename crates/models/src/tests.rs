//! Against a provider that does what it is told, over real HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use kernel::{BudgetId, Code, Env, EnvId, Secret, TenantId, Timestamp};
use serde_json::{Value, json};
use store::{Budget, EnvState, Environment, Location, Price, Setter, Spending, Statement, Store, Tenant};
use testkit::{Provider, Turn, eventually};

use super::*;

const KEY: &str = "sk-planted-0123456789";

/// An environment that asks a provider.
pub(crate) struct Ground {
    pub models: Models,
    pub env: Env,
    pub spent: Arc<Mutex<Vec<Spent>>>,
    _dir: tempfile::TempDir,
}

impl Ground {
    pub async fn new(provider: &Provider, most: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Location::Sqlite(dir.path().join("control.db"))).await.unwrap();
        let (tenant, id, created) = (TenantId::new(), EnvId::new(), Timestamp::now());
        let row = Tenant::new("acme".parse().unwrap(), String::new(), tenant, created);
        assert!(store.tenants().insert(&row).await.unwrap().is_made());
        let row = Environment {
            id,
            tenant,
            slug: "shop".parse().unwrap(),
            name: String::new(),
            state: EnvState::Ready,
            template: String::new(),
            plan: store::DEFAULT_PLAN.to_owned(),
            tags: BTreeMap::new(),
            external_id: None,
            created,
        };
        let made = store.environments().insert(&row).await.unwrap();
        assert!(matches!(made, store::Insertion::Made), "{made:?}");
        let patience = Patience { pause: Duration::from_millis(400), ..Patience::default() };
        let config = ModelConfig {
            base_url: provider.base_url.parse().unwrap(),
            name: "small".to_owned(),
            api_key: Some(Secret::new(KEY)),
            template: 128,
            patience: Patience { answer: Duration::from_millis(400), ..patience },
        };
        let patience = Patience { drain: Duration::from_secs(2), ..config.patience };
        let models = Models::new(Some(ModelConfig { patience, ..config }), most, store).unwrap();
        Self { models, env: Env::for_upkeep(tenant, id), spent: Arc::default(), _dir: dir }
    }

    pub async fn ask(&self, more: Value) -> Result<Answer> {
        let mut asked = json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 100 });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spent = Arc::clone(&self.spent);
        let told = Box::new(move |_: &str, it: Spent| spent.lock().unwrap().push(it));
        self.models.chat(&self.env, asked.to_string().as_bytes(), told).await
    }

    pub async fn refused(&self, more: Value) -> Error {
        match self.ask(more).await {
            Ok(_) => panic!("it is answered"),
            Err(error) => error,
        }
    }

    /// The events of a stream, as one text.
    pub async fn streamed(&self, more: Value) -> String {
        let mut more = more;
        more["stream"] = json!(true);
        let Answer::Events(events) = self.ask(more).await.unwrap() else { panic!("no events") };
        String::from_utf8(events.collect::<Vec<_>>().await.concat()).unwrap()
    }

    pub fn store(&self) -> &Store {
        &self.models.purse.store
    }

    pub async fn today(&self) -> Spending {
        self.store().budgets().spending(self.env.id(), Period::Day, Timestamp::now()).await.unwrap()
    }

    pub async fn statement(&self) -> Statement {
        let (since, until) = (Timestamp::from_micros(0), Timestamp::now().plus(Duration::from_secs(60)));
        self.store().model_calls().statement(self.env.tenant(), None, since, until).await.unwrap()
    }

    pub async fn set(&self, env: Option<EnvId>, unit: Unit, period: Period, most: u64) {
        let (id, tenant, updated) = (BudgetId::new(), self.env.tenant(), Timestamp::now());
        let budget = Budget { id, tenant, env, unit, period, setter: Setter::Operator, most, updated };
        assert!(self.store().budgets().set(&budget).await.unwrap().is_some());
    }

    /// Has a million tokens that are sent cost as much as that, and of those that come back five times as much.
    pub async fn price(&self, input: u64) {
        let since = Timestamp::from_micros(0);
        let price =
            Price { model: "small".to_owned(), since, input, cached_input: input / 10, output: 5 * input };
        self.store().prices().set(&price).await.unwrap();
    }

    pub fn spent(&self) -> Vec<(u64, u64, bool)> {
        let spent = self.spent.lock().unwrap();
        spent.iter().map(|it| (it.tokens.prompt, it.tokens.completion, it.said)).collect()
    }
}

/// What is set aside for a call that says no more.
pub(crate) fn aside() -> u64 {
    let asked =
        json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 100, "model": "small" });
    asked.to_string().len() as u64 + 128 + 100
}

fn completion() -> Turn {
    let usage = json!({ "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 });
    let choice = json!({ "index": 0, "message": { "content": "hello" }, "finish_reason": "stop" });
    Turn::Says(200, vec![("x-own", KEY.to_owned())], json!({ "choices": [choice], "usage": usage }))
}

fn status(status: u16) -> Turn {
    let said = json!({ "error": { "message": format!("no: {KEY}") } });
    Turn::Says(status, vec![("retry-after", "0".to_owned())], said)
}

pub(crate) fn streamed() -> String {
    let chunk = |value: Value| format!("data: {value}\n\n");
    [
        chunk(json!({ "choices": [{ "delta": { "content": "hélló" }, "finish_reason": null }] })),
        chunk(json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] })),
        chunk(json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 5 } })),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_counts_as_the_provider_says() {
    let provider = Provider::always(completion()).unwrap();
    let ground = Ground::new(&provider, 1_000).await;
    let Answer::Whole(body) = ground.ask(json!({ "temperature": 0 })).await.unwrap() else {
        panic!("events")
    };
    let value: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(value["choices"][0]["message"]["content"], "hello");
    assert_eq!(ground.today().await, Spending { calls: 1, tokens: 12, ..Spending::default() });
    assert_eq!(ground.spent(), [(7, 5, true)]);
    assert_eq!(ground.models.census(), Census { said: 1, prompt: 7, completion: 5, ..Census::default() });
    let [asked] = &provider.questions()[..] else { panic!("not one") };
    assert!(asked.head.starts_with("POST /v1/chat/completions "), "{}", asked.head);
    assert!(asked.head.contains(&format!("authorization: Bearer {KEY}")), "{}", asked.head);
    assert_eq!((&asked.body["model"], &asked.body["temperature"]), (&json!("small"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_the_same_however_it_is_cut_and_counts_before_it_ends() {
    for size in [1, 7, 10_000] {
        let provider = Provider::always(Turn::Events(streamed(), size, Duration::ZERO)).unwrap();
        let ground = Ground::new(&provider, 1_000).await;
        let said = ground.streamed(json!({})).await;
        assert!(said.contains("hélló") && said.ends_with("data: [DONE]\n\n"), "{said}");
        assert!(!said.contains("prompt_tokens"), "{said}");
        assert_eq!(ground.today().await, Spending { calls: 1, tokens: 12, ..Spending::default() });
        let said = ground.streamed(json!({ "stream_options": { "include_usage": true } })).await;
        assert!(said.contains("prompt_tokens"), "{said}");
        let asked = provider.questions();
        assert!(asked.iter().all(|it| it.body["stream_options"] == json!({ "include_usage": true })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_asked_for_again_and_what_does_not_is_not() {
    let provider =
        Provider::start(|number, _| if number < 2 { status([429, 503][number]) } else { completion() });
    let provider = provider.unwrap();
    let ground = Ground::new(&provider, 1_000).await;
    assert!(ground.ask(json!({})).await.is_ok());
    assert_eq!(provider.questions().len(), 3);
    let released = Spending::default();
    for (said, code, shown, tries) in [
        (status(500), Code::Unavailable, 502, 1),
        (status(429), Code::RateLimited, 429, 3),
        (status(400), Code::InvalidInput, 400, 1),
        (status(203), Code::Unavailable, 502, 1),
        (status(401), Code::Unavailable, 503, 1),
        (status(402), Code::Unavailable, 503, 1),
        (status(404), Code::Unavailable, 503, 1),
        (status(413), Code::TooLarge, 413, 1),
        (Turn::Says(429, vec![("retry-after", "60".to_owned())], json!(null)), Code::RateLimited, 429, 1),
        (Turn::Ends, Code::Unavailable, 502, 1),
    ] {
        let provider = Provider::always(said.clone()).unwrap();
        let ground = Ground::new(&provider, 1_000).await;
        let error = ground.refused(json!({})).await;
        assert_eq!((error.code(), error.status()), (code, shown), "{said:?}");
        assert_eq!(provider.questions().len(), tries, "{said:?}");
        let told = error.problem("req").to_string();
        assert!(!told.contains(KEY) && !told.contains("127.0.0.1"), "{told}");
        // What may have worked on it counts as if it had.
        let worked = matches!(said, Turn::Ends | Turn::Says(203 | 500, ..));
        let counted =
            if worked { Spending { calls: 1, tokens: aside(), ..Spending::default() } } else { released };
        assert_eq!((ground.today().await, ground.spent().len()), (counted, usize::from(worked)), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_sent_elsewhere_with_the_key() {
    let other = Provider::always(completion()).unwrap();
    let place = format!("{}/chat/completions", other.base_url);
    let provider = Provider::always(Turn::Says(307, vec![("location", place)], json!(null))).unwrap();
    let ground = Ground::new(&provider, 1_000).await;
    assert_eq!(ground.refused(json!({})).await.status(), 502);
    assert_eq!((provider.questions().len(), other.questions().len()), (1, 0));
    assert_eq!(ground.models.census(), Census { unused: 1, ..Census::default() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_vain_or_goes_has_used_what_was_set_aside() {
    let provider = Provider::always(Turn::Hangs).unwrap();
    let ground = Ground::new(&provider, 1_000).await;
    assert_eq!(ground.refused(json!({})).await.code(), Code::Timeout);
    assert!(matches!(ground.spent()[..], [(_, 100, false)]));
    let census = ground.models.census();
    assert_eq!((census.estimated, census.said, census.completion), (1, 0, 100));
    let asked = tokio::time::timeout(Duration::from_millis(100), ground.ask(json!({}))).await;
    assert!(asked.is_err(), "it is not answered");
    let gone = || (provider.left() == 2 && ground.spent().len() == 2).then_some(());
    assert!(tokio::task::block_in_place(|| eventually(Duration::from_secs(10), gone)).is_some());
    // A stream that pauses for too long, or breaks off, says so, and counts in the same way.
    let begin = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".to_owned();
    for turn in [Turn::Pauses(begin.clone()), Turn::Torn(begin.clone())] {
        let provider = Provider::always(turn).unwrap();
        let ground = Ground::new(&provider, 1_000).await;
        let said = ground.streamed(json!({})).await;
        assert!(said.starts_with(&begin) && said.contains("\"code\":\"unavailable\""), "{said}");
        assert!(matches!(ground.spent()[..], [(_, 100, false)]));
        assert_eq!(ground.today().await.tokens_aside, 0);
    }
    // So does one that nobody reads to its end, where the provider does not come to it either.
    let provider = Provider::always(Turn::Pauses(begin)).unwrap();
    let ground = Ground::new(&provider, 1_000).await;
    let Answer::Events(mut events) = ground.ask(json!({ "stream": true })).await.unwrap() else {
        panic!("no events")
    };
    assert!(events.next().await.is_some());
    drop(events);
    let gone = || (provider.left() == 1 && ground.spent().len() == 1).then_some(());
    assert!(tokio::task::block_in_place(|| eventually(Duration::from_secs(10), gone)).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_reads_holds_nothing_for_long() {
    // More than what waits for whoever reads, and than the kernel takes.
    let word = "x".repeat(60_000);
    let part = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n");
    let long = format!("{}{}", part.repeat(400), streamed());
    let provider = Provider::always(Turn::Events(long, 60_100, Duration::ZERO)).unwrap();
    let ground = Ground::new(&provider, 1_000).await;
    let Answer::Events(mut events) = ground.ask(json!({ "stream": true })).await.unwrap() else {
        panic!("no events")
    };
    assert!(events.next().await.is_some());
    // It is there and waits; what is said at the end is read nonetheless.
    let told = || (!ground.spent().is_empty()).then(|| ground.spent());
    let told = tokio::task::block_in_place(|| eventually(Duration::from_secs(10), told));
    assert_eq!(told.unwrap(), [(7, 5, true)]);
    assert_eq!((ground.today().await.tokens, ground.today().await.tokens_aside), (12, 0));
    assert!(events.count().await < 400, "it has an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_none_is_an_error() {
    for turn in
        [Turn::Says(200, Vec::new(), json!({ "hello": 1 })), Turn::Events(streamed(), 99, Duration::ZERO)]
    {
        let provider = Provider::always(turn).unwrap();
        let ground = Ground::new(&provider, 1_000).await;
        assert_eq!(ground.refused(json!({})).await.status(), 502);
    }
    let provider = Provider::always(completion()).unwrap();
    let ground = Ground::new(&provider, 1_000).await;
    assert_eq!(ground.refused(json!({ "stream": true })).await.status(), 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_on_a_small_rest_nobody_uses_more_than_there_is() {
    // The provider uses all that a call may.
    let provider = Provider::start(|_, asked| {
        std::thread::sleep(Duration::from_millis(20));
        let usage = json!({ "prompt_tokens": 10, "completion_tokens": asked.body["max_tokens"] });
        Turn::Says(200, Vec::new(), json!({ "choices": [], "usage": usage }))
    });
    let provider = provider.unwrap();
    let most = 2_000;
    let ground = Ground::new(&provider, most).await;
    let calls = (0..64).map(|number| ground.ask(json!({ "max_tokens": 60 + number })));
    let outcomes = join_all(calls).await;
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let refusals = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(refusals.into_iter().all(|error| {
        error.code() == Code::BudgetExceeded
            && error.retry_after_secs().is_some()
            && error.limit_info().is_some()
    }));
    let today = ground.today().await;
    assert!(today.tokens <= most, "{today:?}");
    assert_eq!((today.calls, today.tokens_aside), (made as u64, 0));
    assert!(made >= 5 && made == provider.questions().len(), "{made}");
    let error = ground.refused(json!({ "max_tokens": 2_000 })).await;
    assert_eq!((error.code(), error.pointer()), (Code::BudgetExceeded, Some("/max_tokens")));
    let census = ground.models.census();
    assert_eq!((census.said, census.refused), (made as u64, 64 - made as u64 + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_calls_than_there_is_room_for_are_under_way() {
    let provider = Provider::always(Turn::Hangs).unwrap();
    let ground = Ground::new(&provider, u64::MAX).await;
    let outcomes = join_all((0..70).map(|_| ground.ask(json!({})))).await;
    let codes = outcomes.into_iter().map(|outcome| outcome.err().unwrap().code());
    assert_eq!(codes.filter(|code| *code == Code::RateLimited).count(), 6);
    assert_eq!(ground.refused(json!({})).await.code(), Code::Timeout, "there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_model_it_says_how_to_have_one() {
    let provider = Provider::always(Turn::Ends).unwrap();
    let ground = Ground::new(&provider, 1).await;
    let models = Models { provider: None, ..ground.models.clone() };
    let told = Box::new(|_: &str, _: Spent| {});
    let error = models.chat(&ground.env, b"{}", told).await.err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.advice().unwrap().contains("STEADING_MODEL_BASE_URL"));
    assert_eq!(models.today(&ground.env).await.unwrap(), None);
}
