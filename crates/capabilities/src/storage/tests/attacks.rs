//! Attacks on files: other people's, other environments', paths that lead out, types that lie, too much of it.

use super::*;

suite! {
    who_may_not_read_a_file_sees_none,
    a_bucket_without_access_is_closed_to_everybody_but_the_makers,
    what_everybody_reads_only_its_owner_changes,
    a_path_leads_nowhere_but_into_its_bucket,
    bytes_are_what_their_type_says_and_types_are_those_of_the_bucket,
    more_than_the_bucket_or_the_app_may_have_is_refused_with_the_numbers,
    rules_see_the_size_that_arrives_not_the_one_that_is_announced,
    another_environment_has_no_part_in_it,
    of_racing_writers_one_is_whole_and_nothing_is_left_over,
    a_body_that_breaks_off_leaves_what_was_there,
}

async fn who_may_not_read_a_file_sees_none(engine: Engine) {
    let ground = engine.ground().await;
    let (ada, bob) = (ground.user(), ground.user());
    ground.put(&ada, "own", "secret.txt", b"secret").await.unwrap();
    let nothing = "404 not_found: there is no such file";
    for guest in [&bob, &ground.visitor()] {
        assert_eq!(told(ground.read(guest, "own", "secret.txt").await), nothing);
        assert_eq!(told(ground.storage.delete(guest, "own", "secret.txt", Condition::Any).await), nothing);
        assert_eq!(told(ground.storage.rename(guest, "own", "secret.txt", "mine").await), nothing);
        assert_eq!(told(ground.storage.copy(guest, "own", "secret.txt", "mine").await), nothing);
        assert_eq!(ground.paths(guest, "own").await, [""; 0]);
    }
    // Who could make a file there learns that they cannot, and nothing of what is there.
    assert_eq!(
        told(ground.put(&bob, "own", "secret.txt", b"mine").await),
        "409 conflict /path: this path is taken"
    );
    // Who could not is told the same whether one is there or not.
    let refused = "403 forbidden: the rules of own do not allow this create";
    for path in ["secret.txt", "nothing.txt"] {
        assert_eq!(told(ground.put(&ground.visitor(), "own", path, b"mine").await), refused);
    }
    assert_eq!(ground.read(&ada, "own", "secret.txt").await.unwrap(), b"secret");
    assert_eq!(ground.contents(), 1);
}

async fn a_bucket_without_access_is_closed_to_everybody_but_the_makers(engine: Engine) {
    let ground = engine.ground().await;
    let maker = Guest::maker(ground.env.clone());
    ground.put(&maker, "closed", "a", b"x").await.unwrap();
    let ada = ground.user();
    assert_eq!(told(ground.read(&ada, "closed", "a").await), "404 not_found: there is no such file");
    assert_eq!(
        told(ground.put(&ada, "closed", "b", b"x").await),
        "403 forbidden: the rules of closed do not allow this create"
    );
    assert_eq!(ground.paths(&ada, "closed").await, [""; 0]);
    for bucket in ["nowhere", "", "own/..", "_steading_object"] {
        assert_eq!(told(ground.read(&ada, bucket, "a").await), "404 not_found: there is no such bucket");
    }
}

async fn what_everybody_reads_only_its_owner_changes(engine: Engine) {
    let ground = engine.ground().await;
    let (ada, bob) = (ground.user(), ground.user());
    ground.put(&ada, "open", "a", b"ada").await.unwrap();
    assert_eq!(ground.read(&ground.visitor(), "open", "a").await.unwrap(), b"ada");
    let update = "403 forbidden: the rules of open do not allow this update";
    assert_eq!(told(ground.put(&bob, "open", "a", b"bob").await), update);
    assert_eq!(
        told(ground.storage.delete(&bob, "open", "a", Condition::Any).await),
        "403 forbidden: the rules of open do not allow this delete"
    );
    assert_eq!(ground.read(&bob, "open", "a").await.unwrap(), b"ada");
}

async fn a_path_leads_nowhere_but_into_its_bucket(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let long = "a".repeat(513);
    for path in [
        "", "/", "/a", "..", "../own/a", "a/../b", "a/./b", "a//b", "a/", "a\\b", "a\0b", "a\nb", "C:/a",
        "a.", &long,
    ] {
        let refused = told(ground.put(&ada, "own", path, b"x").await);
        assert!(
            refused.starts_with("400 invalid_input /path: this is no path of a file: "),
            "{path:?}: {refused}"
        );
        assert!(told(ground.read(&ada, "own", path).await).starts_with("400 "), "{path:?}");
        if !path.is_empty() {
            ground.put(&ada, "own", "from", b"x").await.unwrap();
            let refused = told(ground.storage.rename(&ada, "own", "from", path).await);
            assert!(refused.starts_with("400 invalid_input /to: "), "{path:?}: {refused}");
        }
    }
    // Both spellings of a character are one file.
    ground.put(&ada, "own", "e\u{301}.txt", b"one").await.unwrap();
    assert_eq!(ground.read(&ada, "own", "\u{e9}.txt").await.unwrap(), b"one");
}

async fn bytes_are_what_their_type_says_and_types_are_those_of_the_bucket(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let typed =
        |path: &str, kind: &str| Put { content_type: Some(kind.to_owned()), ..place("pictures", path) };
    let html = b"<script>alert(1)</script>";
    for path in ["a.png", "a"] {
        let lie = told(ground.store(&ada, typed(path, "image/png"), html).await);
        assert_eq!(lie, "400 invalid_input /content_type: the bytes are not image/png");
    }
    for kind in ["text/html", "application/json", "imagex/png"] {
        let refused = told(ground.store(&ada, typed("a.png", kind), html).await);
        assert_eq!(refused, format!("400 invalid_input /content_type: files of pictures are not {kind}"));
    }
    assert_eq!(
        told(ground.store(&ada, typed("a.png", "image"), html).await),
        "400 invalid_input /content_type: the content type cannot be read"
    );
    assert_eq!(ground.contents(), 0);
    ground.store(&ada, typed("a.png", "image/png"), PNG).await.unwrap();
    assert!(ground.storage.get(&ada, "pictures", "a.png").await.unwrap().is_shown());
    let page = ground.put(&ada, "own", "a.html", html).await.unwrap();
    assert!(!page.is_shown());
}

async fn more_than_the_bucket_or_the_app_may_have_is_refused_with_the_numbers(engine: Engine) {
    let ground = engine.with(StorageLimits { bytes: 2_500 }).await;
    let ada = ground.user();
    let bytes: &'static [u8] = &[b'a'; 1_001];
    let too_large = "413 too_large: a file of open has at most 1000 bytes";
    assert_eq!(told(ground.put(&ada, "open", "a", bytes).await), too_large);
    // Also where nothing was announced, and where too little was.
    for length in [None, Some(1)] {
        let put = Put { length, ..place("open", "a") };
        assert_eq!(told(ground.store(&ada, put, bytes).await), too_large);
    }
    ground.put(&ada, "own", "a", bytes).await.unwrap();
    ground.put(&ada, "own", "b", bytes).await.unwrap();
    let used_up = "429 quota_exceeded: the app's files have 2002 of 2500 bytes, and this is more";
    assert_eq!(told(ground.put(&ada, "own", "c", bytes).await), used_up);
    assert_eq!(told(ground.store(&ada, place("own", "c"), bytes).await), used_up);
    assert_eq!(told(ground.storage.copy(&ada, "own", "a", "c").await), used_up);
    // What is replaced makes room for what replaces it.
    ground.put(&ada, "own", "b", &bytes[1..]).await.unwrap();
    ground.storage.delete(&ada, "own", "a", Condition::Any).await.unwrap();
    ground.put(&ada, "own", "c", bytes).await.unwrap();
    assert_eq!(ground.contents(), 2, "what was refused has left nothing");
}

async fn rules_see_the_size_that_arrives_not_the_one_that_is_announced(engine: Engine) {
    let ground = engine.ground().await;
    ground.buckets(json!({ "small": { "access": {
        "get": "true", "create": "auth.uid != null && new.size <= 10", "update": "new.size <= 10",
    } } }));
    let ada = ground.user();
    let refused = "403 forbidden: the rules of small do not allow this create";
    for length in [None, Some(5), Some(20)] {
        let put = Put { length, ..place("small", "a") };
        assert_eq!(told(ground.store(&ada, put, b"more than ten bytes").await), refused, "{length:?}");
    }
    ground.store(&ada, place("small", "a"), b"few bytes").await.unwrap();
    assert_eq!(ground.contents(), 1);
}

async fn another_environment_has_no_part_in_it(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let stored = ground.put(&ada, "open", "a", b"ours").await.unwrap();
    let other = Env::for_upkeep(ground.env.tenant(), EnvId::new());
    ground.databases.create(other.id()).await.unwrap();
    let stranger = Guest::maker(other.clone());
    let nothing = "404 not_found: there is no such file";
    assert_eq!(told(ground.read(&stranger, "open", "a").await), nothing);
    // Not even where the stranger holds the file's metadata.
    let read = ground.storage.read(&stranger, &stored, 0..4).await;
    assert_eq!(told(read), "404 not_found: there is no content of this file (any more)");
    ground.put(&stranger, "open", "a", b"theirs").await.unwrap();
    assert_eq!(ground.read(&ada, "open", "a").await.unwrap(), b"ours");
    ground.storage.forget(other.id()).await.unwrap();
    assert!(ground.put(&stranger, "open", "b", b"late").await.is_err());
}

async fn of_racing_writers_one_is_whole_and_nothing_is_left_over(engine: Engine) {
    let ground = Arc::new(engine.ground().await);
    let ada = ground.user();
    let contents: Vec<&'static [u8]> =
        (0..12_u8).map(|n| &*vec![b'a' + n; 300_000 + usize::from(n)].leak()).collect();
    let puts = contents.iter().map(|bytes| {
        let (ground, ada, bytes) = (Arc::clone(&ground), ada.clone(), *bytes);
        tokio::spawn(async move { ground.put(&ada, "own", "same", bytes).await })
    });
    for put in futures::future::join_all(puts).await {
        put.unwrap().unwrap();
    }
    let seen = ground.read(&ada, "own", "same").await.unwrap();
    assert!(contents.iter().any(|bytes| *bytes == seen), "{} bytes", seen.len());
    assert_eq!(ground.contents(), 1);
    // Of those that want the place empty, one gets it.
    let puts = contents.iter().map(|bytes| {
        let (ground, ada, bytes) = (Arc::clone(&ground), ada.clone(), *bytes);
        let put = Put { condition: Condition::Absent, ..place("own", "once") };
        tokio::spawn(async move { ground.store(&ada, put, bytes).await })
    });
    let results = futures::future::join_all(puts).await;
    let made = results.into_iter().filter(|put| put.as_ref().unwrap().is_ok()).count();
    assert_eq!((made, ground.contents()), (1, 2));
}

async fn a_body_that_breaks_off_leaves_what_was_there(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    ground.put(&ada, "own", "a", b"whole").await.unwrap();
    let broken = kernel::Error::new(kernel::Code::InvalidInput, "the body broke off before its end");
    let part = vec![b'x'; 600_000];
    let chunks = futures::stream::iter([Ok(Bytes::from(part)), Err(broken)]);
    let put = ground.storage.put(&ada, place("own", "a"), chunks).await;
    assert_eq!(told(put), "400 invalid_input: the body broke off before its end");
    assert_eq!(ground.read(&ada, "own", "a").await.unwrap(), b"whole");
    assert_eq!(ground.contents(), 1);
}
