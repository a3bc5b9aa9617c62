//! Logs on a real directory: what is found again, what is bounded, and what a crash or a flood does.

use kernel::TenantId;
use serde_json::json;
use tempfile::TempDir;

use super::*;

struct Ground {
    dir: TempDir,
    logs: Logs,
    env: Env,
}

impl Ground {
    fn new(rotation: Rotation) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::with(dir.path(), rotation, Pace::default());
        let ground = Self { dir, logs, env: Env::for_upkeep(TenantId::new(), EnvId::new()) };
        std::fs::create_dir(ground.env_dir(&ground.env)).unwrap();
        ground
    }

    fn env_dir(&self, env: &Env) -> PathBuf {
        self.dir.path().join(env.id().to_string())
    }

    fn files(&self) -> Vec<(String, u64)> {
        let Ok(entries) = std::fs::read_dir(self.env_dir(&self.env).join("logs")) else { return Vec::new() };
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
            .collect();
        files.sort();
        files
    }

    fn say(&self, message: &str) {
        self.logs.append(&self.env, entry(1, Level::Info, message));
    }

    async fn find(&self, query: Query) -> Vec<String> {
        let page = self.logs.query(&self.env, query).await.unwrap();
        page.entries.into_iter().map(|entry| entry.message).collect()
    }
}

fn entry(secs: i64, level: Level, message: &str) -> Entry {
    Entry::new(Timestamp::from_micros(secs * 1_000_000), level, Source::Database, message)
}

#[tokio::test]
async fn an_entry_is_one_line_of_json_and_reads_back() {
    let ground = Ground::new(Rotation::default());
    let mut said = entry(1_700_000_000, Level::Warn, "a\nb");
    said.request_id = Some("req_1".into());
    said.fields.insert("status".into(), json!(404));
    ground.logs.append(&ground.env, said.clone());
    ground.logs.flush().await;
    let text = std::fs::read_to_string(ground.env_dir(&ground.env).join("logs/1.ndjson")).unwrap();
    assert_eq!(
        text,
        "{\"at\":\"2023-11-14T22:13:20Z\",\"level\":\"warn\",\"source\":\"database\",\"message\":\"a\\nb\",\
         \"request_id\":\"req_1\",\"fields\":{\"status\":404}}\n"
    );
    let page = ground.logs.query(&ground.env, Query::default()).await.unwrap();
    assert_eq!(page, Page { entries: vec![said], cursor: None });
}

#[tokio::test]
async fn entries_are_written_without_anyone_asking() {
    let ground = Ground::new(Rotation::default());
    ground.say("hello");
    while ground.files().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_query_finds_what_it_names_newest_first() {
    let ground = Ground::new(Rotation::default());
    for (at, level, message, request) in [
        (1, Level::Debug, "one", None),
        (2, Level::Info, "GET /Two", Some("req_a")),
        (3, Level::Warn, "three", Some("req_b")),
        (4, Level::Error, "four", Some("req_a")),
    ] {
        let mut said = entry(at, level, message);
        said.request_id = request.map(str::to_owned);
        said.fields.insert("path".into(), json!(format!("/p{at}")));
        ground.logs.append(&ground.env, said);
    }
    let all = Query::default();
    let since = Some(Timestamp::from_micros(3_000_000));
    for (query, found) in [
        (all.clone(), vec!["four", "three", "GET /Two", "one"]),
        (Query { since, ..all.clone() }, vec!["four", "three"]),
        (Query { level: Some(Level::Warn), ..all.clone() }, vec!["four", "three"]),
        (Query { text: Some("get /two".into()), ..all.clone() }, vec!["GET /Two"]),
        (Query { text: Some("/P3".into()), ..all.clone() }, vec!["three"]),
        (Query { request_id: Some("req_a".into()), ..all.clone() }, vec!["four", "GET /Two"]),
        (Query { request_id: Some("req".into()), ..all.clone() }, vec![]),
        (Query { since, request_id: Some("req_a".into()), ..all.clone() }, vec!["four"]),
    ] {
        assert_eq!(ground.find(query.clone()).await, found, "{query:?}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_while_the_log_grows_and_rotates() {
    let ground = Ground::new(Rotation { files: 9, file_bytes: 300 });
    for number in 0..20 {
        ground.say(&number.to_string());
        ground.logs.flush().await;
    }
    assert!(ground.files().len() > 3);
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let query = Query { limit: 3, cursor, ..Query::default() };
        let page = ground.logs.query(&ground.env, query).await.unwrap();
        found.extend(page.entries.into_iter().map(|entry| entry.message));
        ground.say("newer");
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..20).rev().map(|number| number.to_string()).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_page_that_ends_with_the_log_has_no_cursor() {
    let ground = Ground::new(Rotation::default());
    ground.say("one");
    ground.say("two");
    let page = |limit| ground.logs.query(&ground.env, Query { limit, ..Query::default() });
    assert_eq!(page(2).await.unwrap().cursor, None);
    assert!(page(1).await.unwrap().cursor.is_some());
}

#[tokio::test]
async fn a_cursor_of_another_kind_is_refused() {
    let ground = Ground::new(Rotation::default());
    for cursor in [
        "",
        "1",
        "1.2",
        "1.0-1.0",
        "a.b-1.2-1.0",
        "1.2.3-1.2-1.0",
        "-1.0-1.0",
        "1.0-1.0-99999999999999999999.0",
    ] {
        let query = Query { cursor: Some(cursor.into()), ..Query::default() };
        let error = ground.logs.query(&ground.env, query).await.map_err(kernel::Error::from).unwrap_err();
        assert_eq!(error.pointer(), Some("/cursor"), "{cursor}");
    }
    let far = Query { cursor: Some("7.999-7.999-7.999".into()), ..Query::default() };
    ground.say("one");
    assert_eq!(ground.find(far).await, ["one"]);
}

#[tokio::test]
async fn a_crowd_of_visits_pushes_out_nothing_but_visits() {
    let dir = tempfile::tempdir().unwrap();
    let pace = Pace { per_second: std::num::NonZeroU32::new(100).unwrap() };
    let logs = Logs::with(dir.path(), Rotation { files: 2, file_bytes: 4_000 }, pace);
    let env = Env::for_upkeep(TenantId::new(), EnvId::new());
    std::fs::create_dir(dir.path().join(env.id().to_string())).unwrap();
    let said = |at, level, source, message: &str| {
        logs.append(&env, Entry::new(Timestamp::from_micros(at), level, source, message));
    };
    said(1, Level::Info, Source::Release, "release 1 is live");
    // Many more than there may be at once, and than the files hold, of each kind.
    for at in 10..5_010 {
        let level = if at % 2 == 0 { Level::Info } else { Level::Warn };
        said(at, level, Source::Edge, "GET /none");
        said(at, Level::Warn, Source::Auth, "a wrong password");
        // Not on and on: each time, what was dropped by then is told, in the same few bytes.
        if at % 100 == 0 && at <= 2_000 {
            logs.flush().await;
        }
    }
    said(6_000, Level::Error, Source::Edge, "GET /broken");
    said(6_001, Level::Warn, Source::Mail, "a letter came back");
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = logs.query(&env, Query { limit: 7, cursor, ..Query::default() }).await.unwrap();
        all.extend(page.entries);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let told = all.iter().filter(|entry| entry.source != Source::Logs);
    assert!(
        told.is_sorted_by_key(|entry| std::cmp::Reverse(entry.at)),
        "newest first, a page after the other"
    );
    let of =
        |source| all.iter().filter(move |entry| entry.source == source).map(|entry| entry.message.as_str());
    assert_eq!(of(Source::Release).collect::<Vec<_>>(), ["release 1 is live"]);
    let guesses = of(Source::Auth).count();
    assert!((1..200).contains(&guesses), "{guesses}");
    assert_eq!(of(Source::Mail).collect::<Vec<_>>(), ["a letter came back"]);
    let visits: Vec<_> = of(Source::Edge).collect();
    assert_eq!(visits.iter().filter(|message| **message == "GET /broken").count(), 1);
    assert!((1..200).contains(&visits.len()), "{}", visits.len());
    let kept = std::fs::read_dir(dir.path().join(env.id().to_string()).join("logs")).unwrap().count();
    assert_eq!(kept, 5, "two files of visits, two of guesses, one of the rest");
}

#[tokio::test]
async fn the_oldest_entries_make_room() {
    let ground = Ground::new(Rotation { files: 3, file_bytes: 1_000 });
    for number in 0..200 {
        ground.say(&format!("entry {number}"));
        ground.logs.flush().await;
    }
    let files = ground.files();
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|(_, size)| *size <= 1_000), "{files:?}");
    let found = ground.find(Query::default()).await;
    let expected: Vec<String> = (0..200).rev().take(found.len()).map(|n| format!("entry {n}")).collect();
    assert_eq!(found, expected);
    assert!(found.len() > 15);
}

#[tokio::test]
async fn a_line_that_a_crash_tore_costs_no_other_line() {
    let ground = Ground::new(Rotation::default());
    ground.say("before");
    ground.logs.flush().await;
    let path = ground.env_dir(&ground.env).join("logs/1.ndjson");
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"at\":\"2023-");
    std::fs::write(&path, text).unwrap();
    ground.say("after");
    assert_eq!(ground.find(Query::default()).await, ["after", "before"]);
}

#[tokio::test]
async fn a_flood_is_bounded_and_says_so() {
    let ground = Ground::new(Rotation::default());
    let message = "x".repeat(1_000);
    for _ in 0..1_000 {
        ground.say(&message);
    }
    let page = ground.logs.query(&ground.env, Query::default()).await.unwrap();
    let (notice, kept) = page.entries.split_first().unwrap();
    assert!(kept.len() < 300, "{}", kept.len());
    assert_eq!((notice.level, notice.source), (Level::Warn, Source::Logs));
    assert_eq!(notice.fields["dropped"], json!(1_000 - kept.len()));
}

#[tokio::test]
async fn who_logs_faster_than_it_may_is_held_back_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let pace = Pace { per_second: std::num::NonZeroU32::new(10).unwrap() };
    let logs = Logs::with(dir.path(), Rotation::default(), pace);
    let [noisy, quiet] = [(); 2].map(|()| Env::for_upkeep(TenantId::new(), EnvId::new()));
    for env in [&noisy, &quiet] {
        std::fs::create_dir(dir.path().join(env.id().to_string())).unwrap();
    }
    for number in 0..10_000 {
        logs.append(&noisy, entry(1, Level::Info, &number.to_string()));
    }
    logs.append(&noisy, entry(1, Level::Error, "it failed"));
    logs.append(&quiet, entry(1, Level::Info, "hello"));
    let all = logs.query(&noisy, Query::default()).await.unwrap().entries;
    let dropped: u64 = all.iter().filter_map(|entry| entry.fields.get("dropped")?.as_u64()).sum();
    let kept =
        all.iter().filter(|entry| entry.source == Source::Database && entry.level == Level::Info).count();
    assert!((100..200).contains(&kept), "{kept}");
    assert_eq!(dropped + kept as u64, 10_000);
    assert_eq!(all.iter().filter(|entry| entry.message == "it failed").count(), 1);
    let notices = all.iter().filter(|entry| entry.source == Source::Logs).count();
    assert!(notices <= 3, "{notices}");
    let others = logs.query(&quiet, Query::default()).await.unwrap().entries;
    assert_eq!(others.len(), 1);
    assert!(!logs.waiting().has_more_to_tell());
}

#[tokio::test]
async fn what_is_too_old_goes_from_the_file_that_is_written_too() {
    let ground = Ground::new(Rotation::default());
    for at in [10, 20, 30] {
        ground.logs.append(&ground.env, entry(at, Level::Info, &format!("at {at}")));
    }
    ground.logs.flush().await;
    let first = Query { limit: 1, ..Query::default() };
    let cursor = ground.logs.query(&ground.env, first).await.unwrap().cursor;
    let before = ground.files();
    let expire = |secs: i64| ground.logs.expire(&ground.env, Timestamp::from_micros(secs * 1_000_000));
    assert_eq!(expire(20).await.unwrap(), 0);
    assert_eq!(ground.find(Query::default()).await, ["at 30", "at 20"]);
    let text = std::fs::read_to_string(ground.env_dir(&ground.env).join("logs/1.ndjson")).unwrap();
    assert!(!text.contains("at 10"), "{text}");
    assert_eq!(ground.files(), before, "what is left stays where it is");
    assert_eq!(ground.find(Query { cursor, ..Query::default() }).await, ["at 20"]);
    expire(20).await.unwrap();
    ground.logs.append(&ground.env, entry(40, Level::Info, "at 40"));
    ground.logs.flush().await;
    expire(35).await.unwrap();
    assert_eq!(ground.find(Query::default()).await, ["at 40"]);
}

#[tokio::test]
async fn one_entry_cannot_fill_the_log() {
    let ground = Ground::new(Rotation::default());
    let mut huge = entry(1, Level::Info, &"ü".repeat(100_000));
    huge.request_id = Some("r".repeat(100_000));
    huge.fields.insert("x".into(), json!("y".repeat(100_000)));
    ground.logs.append(&ground.env, huge);
    ground.logs.flush().await;
    assert!(ground.files()[0].1 < 10_000, "{:?}", ground.files());
    let page = ground.logs.query(&ground.env, Query::default()).await.unwrap();
    assert_eq!(page.entries[0].fields, json!({ "fields_dropped": 1 }).as_object().unwrap().clone());
}

#[tokio::test]
async fn an_environment_sees_its_own_entries_and_a_deleted_one_does_not_come_back() {
    let ground = Ground::new(Rotation::default());
    ground.say("mine");
    let deleted = Env::for_upkeep(TenantId::new(), EnvId::new());
    ground.logs.append(&deleted, entry(1, Level::Info, "late"));
    assert_eq!(ground.logs.query(&deleted, Query::default()).await.unwrap().entries, []);
    assert!(!ground.env_dir(&deleted).exists());
    assert_eq!(ground.find(Query::default()).await, ["mine"]);
}

#[tokio::test]
async fn the_writing_task_ends_with_the_last_clone() {
    let ground = Ground::new(Rotation::default());
    let arrived = Arc::downgrade(&ground.logs.inner.arrived);
    drop(ground);
    while arrived.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}
