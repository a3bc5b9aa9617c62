//! The grammar: what is read, how it is said again, and what a mistake is answered with.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn said(outcome: kernel::Result<Expr>) -> String {
    match outcome {
        Ok(expr) => expr.to_string(),
        Err(error) => {
            assert_eq!((error.code(), error.pointer()), (kernel::Code::InvalidInput, None));
            let hint = error.advice().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}{hint}", error.message())
        }
    }
}

fn filters(texts: &[&str], expect: Expect) {
    let lines = texts.iter().map(|text| format!("{}\n", said(Expr::parse_where(text, &things()))));
    expect.assert_eq(&lines.collect::<String>());
}

fn rules(operation: Operation, texts: &[&str], expect: Expect) {
    let lines = texts
        .iter()
        .map(|text| format!("{}\n", said(Expr::parse_rule(text, &things(), &tables(), operation))));
    expect.assert_eq(&lines.collect::<String>());
}

#[test]
fn a_filter_is_read_as_it_is_meant() {
    filters(
        &[
            r#"done == false && title != "x""#,
            "done",
            "!done || count>3&&price<=-1.5e3",
            "(done || title == 'a\\'b') && !(count == 1)",
            "((done && done) && done)",
            r#"title.startsWith("a") || startsWith(owner, "b")"#,
            "size(title) > 3 && title.size() < 9 && size(data.tags) == 2",
            "count in [1, 2,3]",
            "TITLE in ['a'] && \"b\" in data.tags && auth.uid in data",
            "due < now() && due >= '2026-01-02T03:04:05+01:00' && created_at in ['2026-01-02T03:04:05.6Z']",
            "owner == auth.uid && auth.role == 'admin' && auth.claims.a.b == count",
            "title == null && null != data && auth.email == null",
            "data.a.b == true && data.flag",
            "title in auth.claims.teams && auth.claims.name.startsWith('x')",
        ],
        expect![[r#"
            done == false && title != "x"
            done
            !done || count > 3 && price <= -1500.0
            (done || title == "a'b") && !(count == 1)
            done && done && done
            startsWith(title, "a") || startsWith(owner, "b")
            size(title) > 3 && size(title) < 9 && size(data.tags) == 2
            count in [1, 2, 3]
            title in ["a"] && "b" in data.tags && auth.uid in data
            due < now() && due >= "2026-01-02T02:04:05.000Z" && created_at in ["2026-01-02T03:04:05.600Z"]
            owner == auth.uid && auth.role == "admin" && auth.claims.a.b == count
            title == null && null != data && auth.email == null
            data.a.b == true && data.flag
            title in auth.claims.teams && startsWith(auth.claims.name, "x")
        "#]],
    );
}

#[test]
fn a_wrong_filter_is_refused_with_its_place() {
    filters(
        &[
            "",
            "   ",
            "tilte == 1",
            "done == 'yes'",
            "count == '1'",
            "title == 1",
            "done == 1",
            "done < true",
            "title",
            "count && done",
            "due < 'tomorrow'",
            "due < '9999-12-31T23:59:59-01:00'",
            "data == '{}'",
            "raw == 'a'",
            "data.a < data.b",
            "data.a < auth.claims.b",
            "title.x == 1",
            "title < null",
            "(title == 'a') == null",
            "null == null",
            "count in [1, 'a']",
            "count in [1, null]",
            "count in [data.a]",
            "count in []",
            "count in [1",
            "count in title",
            "due in data",
            "1 < count < 3",
            "count == 1 == true",
            "done = true",
            "done & done",
            "done and done",
            "title == \"a",
            "title == 'a\\x'",
            "count == 1a",
            "count == 99999999999999999999",
            "price == 1e999",
            "(done",
            "done)",
            "row.done",
            "title is null",
            "title LIKE 'a%'",
            "count <> 1",
            "count in (1, 2)",
            "due > now() - 3600",
            "title.contains('a')",
            "size(count) > 1",
            "lower(title) == 'a'",
            "exists(title, count == 1)",
            "title == 'a'; DROP TABLE things",
            "title == é",
            "auth == 'x'",
            "auth.id == 'x'",
            "auth.claims == 'x'",
            "in == 1",
            "now == 1",
            "now(1) < due",
            "- done",
        ],
        expect![[r#"
            at byte 0: expected a value, found the end
            at byte 3: expected a value, found the end
            at byte 0: there is no column "tilte" in Things (its columns are id, owner, title, count, price, done, data, raw, due, created_at, updated_at)
            at byte 5: done is a bool and "yes" is a text: they do not compare
            at byte 6: count is a number and "1" is a text: they do not compare
            at byte 6: title is a text and 1 is a number: they do not compare
            at byte 5: done is a bool and 1 is a number: they do not compare
            at byte 5: done and true have no order: use == or !=
            at byte 0: title is a text, which is neither true nor false (compare it with something)
            at byte 0: count is a number, which is neither true nor false (compare it with something)
            at byte 4: due is a timestamp and "tomorrow" is none (write it like "2030-01-31T12:00:00Z")
            at byte 4: due is a timestamp and "9999-12-31T23:59:59-01:00" is none (write it like "2030-01-31T12:00:00Z")
            at byte 5: data is a json, which compares with null only (compare a part of it: data.name)
            at byte 4: raw is a blob, which compares with null only
            at byte 7: data.a and data.b have no order: use == or !=
            at byte 7: data.a and auth.claims.b have no order: use == or !=
            at byte 6: title is a text and has no parts
            at byte 6: null has no order: < does not fit
            at byte 15: title == "a" is never null: ask a column, or something of auth
            at byte 5: null is never null: ask a column, or something of auth
            at byte 13: count is a number and "a" is a text: they do not compare
            at byte 13: null is null and cannot stand in a list
            at byte 10: data.a is a part of a json and cannot stand in a list
            at byte 10: expected a value, found `]`
            at byte 11: expected `]`, found the end
            at byte 6: title is a text, not a list (a list is [a, b], a json column, or a claim)
            at byte 4: due is a timestamp: it cannot be looked for in data
            at byte 10: comparisons do not follow each other: join them with &&
            at byte 11: comparisons do not follow each other: join them with &&
            at byte 5: '=' has no meaning here (write ==)
            at byte 5: '&' has no meaning here (write &&)
            at byte 5: expected an operator or the end, found `and` (write &&)
            at byte 9: this text has no end: a quote is missing
            at byte 11: there is no such escape: \\ \" \' \n \r \t \uXXXX
            at byte 9: a number ends in a letter here
            at byte 9: this number is too large
            at byte 9: this number is too large
            at byte 5: expected `)`, found the end
            at byte 4: expected an operator or the end, found `)`
            at byte 0: there is no "row" here (a filter names columns alone: done == false)
            at byte 6: expected an operator or the end, found `is` (write == null, or != null)
            at byte 6: expected an operator or the end, found `LIKE` (write startsWith(text, start))
            at byte 7: expected a value, found `>` (write !=)
            at byte 11: expected `)`, found `,` (a list stands in brackets: [a, b])
            at byte 12: expected an operator or the end, found `-` (nothing is calculated: compare with a column or a value)
            at byte 6: there is no function "contains" (write value in list; of a text only startsWith, size and == are asked)
            at byte 0: size takes a text, a blob or a list, and count is a number
            at byte 0: there is no function "lower" (functions are now, size, startsWith, exists)
            at byte 0: exists(…) is for access rules alone
            at byte 12: ';' has no meaning here
            at byte 9: 'é' has no meaning here
            at byte 0: there is no column "auth" in Things (its columns are id, owner, title, count, price, done, data, raw, due, created_at, updated_at)
            at byte 5: there is no auth.id (use auth.uid, auth.role, auth.email, auth.claims.…)
            at byte 12: expected `.`, found `==`
            at byte 0: expected a value, found `in`
            at byte 0: there is no column "now" in Things (its columns are id, owner, title, count, price, done, data, raw, due, created_at, updated_at)
            at byte 4: expected `)`, found `1`
            at byte 0: expected a number after `-`
        "#]],
    );
}

#[test]
fn a_rule_names_the_row_and_its_new_values_as_the_operation_has_them() {
    rules(
        Operation::Update,
        &[
            "row.owner == auth.uid && new.owner == row.owner",
            "new.id == row.id",
            "owner == auth.uid",
            "row.user_id == auth.uid",
            "auth != null",
            "not row.done",
            "auth.role == admin",
            "old.owner == 'x'",
            "row == 'x'",
        ],
        expect![[r#"
            row.owner == auth.uid && new.owner == row.owner
            at byte 4: the id of a new row is not known before it is there
            at byte 0: there is no "owner" here (write row.owner or new.owner)
            at byte 4: there is no column "user_id" in Things (who made a row is row.owner; its columns are id, owner, title, count, price, done, data, raw, due, created_at, updated_at)
            at byte 0: there is no "auth" here (write auth.uid != null for somebody who is signed in)
            at byte 0: there is no "not" here (write !)
            at byte 13: there is no "admin" here (names are row.…, new.…, auth.…, now(); a text stands in quotes)
            at byte 0: there is no "old" here (names are row.…, new.…, auth.…, now(); a text stands in quotes)
            at byte 0: there is no "row" here (names are row.…, new.…, auth.…, now(); a text stands in quotes)
        "#]],
    );
    rules(
        Operation::Create,
        &["new.owner == auth.uid", "row.owner == auth.uid"],
        expect![[r#"
        new.owner == auth.uid
        at byte 0: there is no row before it is created (write new. for its values)
    "#]],
    );
    rules(
        Operation::List,
        &["row.owner == auth.uid", "new.owner == auth.uid"],
        expect![[r#"
        row.owner == auth.uid
        at byte 0: list brings no new values (write row. for the stored row)
    "#]],
    );
}

#[test]
fn a_rule_looks_into_other_tables_and_takes_the_words_of_cloudbase() {
    rules(
        Operation::Update,
        &[
            "exists(Members, user == auth.uid && thing == row.id)",
            "exists(members, active) || !exists(members, level > 3 && new.count < level)",
            "exists(things, owner == row.owner)",
            "exists(members, user == auth.uid) == true",
            "doc._openid == auth.openid && doc.data.a == 'x' && doc._id != new.title",
            "exists(member, true)",
            "exists(members)",
            "exists(members, user)",
            "exists(members, title == 'a')",
            "exists(members, exists(members, active))",
            "exists(members, active) || exists(members, active) || exists(members, active)",
            "exists('members', active)",
            "exists(members, active, active)",
            "get(`database.members.x`)",
            "get('members').user",
        ],
        expect![[r#"
            exists(members, user == auth.uid && thing == row.id)
            exists(members, active) || !exists(members, level > 3 && new.count < level)
            exists(Things, owner == row.owner)
            exists(members, user == auth.uid) == true
            row.owner == auth.uid && row.data.a == "x" && row.id != new.title
            at byte 7: there is no table "member" (exists(table, condition) takes one of Things, members)
            at byte 14: expected `,`, found `)`
            at byte 16: user is a text, which is neither true nor false (compare it with something)
            at byte 16: there is no column "title" in members (its columns are id, thing, user, level, active, tags, until)
            at byte 16: one exists(…) does not stand in another
            at byte 54: a rule has at most 2 exists(…)
            at byte 7: expected the name of a table, found the text "members"
            at byte 22: expected `)`, found `,` (a list stands in brackets: [a, b])
            at byte 4: '`' has no meaning here (write double quotes around a text)
            at byte 0: there is no function "get" (write exists(table, id == row.list && owner == auth.uid))
        "#]],
    );
    rules(
        Operation::Create,
        &["doc._openid == auth.openid && doc.title == 'a'"],
        expect![[r#"
        new.owner == auth.uid && new.title == "a"
    "#]],
    );
    rules(
        Operation::List,
        &["exists(members, user == new.owner)"],
        expect![[r#"
        at byte 24: list brings no new values (write row. for the stored row)
    "#]],
    );
    filters(
        &["doc.title == 'a'", "exists(members, active)"],
        expect![[r#"
        at byte 0: there is no column "doc" in Things (its columns are id, owner, title, count, price, done, data, raw, due, created_at, updated_at)
        at byte 0: exists(…) is for access rules alone
    "#]],
    );
}

#[test]
fn the_presets_are_the_expressions_that_they_are_said_to_be() {
    let mut lines = String::new();
    for preset in [Preset::Private, Preset::PublicRead, Preset::AdminWrite, Preset::AdminOnly] {
        for operation in Operation::ALL {
            let rules = preset.rules();
            let rule = rules.of(operation).unwrap();
            assert_eq!(Expr::parse_rule(&rule.to_string(), &things(), &tables(), operation).unwrap(), *rule);
            lines.push_str(&format!("{} {operation}: {rule}\n", preset.as_str()));
        }
    }
    expect![[r#"
        private list: row.owner == auth.uid
        private get: row.owner == auth.uid
        private create: new.owner == auth.uid
        private update: row.owner == auth.uid && new.owner == auth.uid
        private delete: row.owner == auth.uid
        public_read list: true
        public_read get: true
        public_read create: new.owner == auth.uid
        public_read update: row.owner == auth.uid && new.owner == auth.uid
        public_read delete: row.owner == auth.uid
        admin_write list: true
        admin_write get: true
        admin_write create: auth.role == "admin"
        admin_write update: auth.role == "admin"
        admin_write delete: auth.role == "admin"
        admin_only list: auth.role == "admin"
        admin_only get: auth.role == "admin"
        admin_only create: auth.role == "admin"
        admin_only update: auth.role == "admin"
        admin_only delete: auth.role == "admin"
    "#]]
    .assert_eq(&lines);
    assert_eq!(Rules::default().of(Operation::List), None);
}

#[test]
fn what_is_too_large_is_refused() {
    let message = |text: &str| said(Expr::parse_where(text, &things()));
    let many = |n: usize| vec!["done"; n].join(" && ");
    assert!(Expr::parse_where(&many(63), &things()).is_ok());
    assert_eq!(message(&many(64)), "at byte 504: an expression has at most 64 parts");
    assert!(Expr::parse_where(&format!("{}done{}", "(".repeat(8), ")".repeat(8)), &things()).is_ok());
    let deep = format!("{}done{}", "(".repeat(9), ")".repeat(9));
    assert_eq!(message(&deep), "at byte 9: parts are at most 8 deep inside each other");
    assert!(message(&"!".repeat(4000)).contains("at most 8 deep"));
    assert!(message(&"(".repeat(4096)).contains("at most 8 deep"));
    assert_eq!(message(&"a".repeat(4097)), "an expression is at most 4096 bytes, this has 4097");
    let list = |n: usize| format!("count in [{}]", vec!["1"; n].join(","));
    assert!(Expr::parse_where(&list(100), &things()).is_ok());
    assert_eq!(message(&list(101)), "at byte 210: a list has at most 100 values");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Expr::parse_where(&text, &things());
        let _ = Expr::parse_rule(&text, &things(), &tables(), Operation::Update);
    }

    #[test]
    fn any_words_in_any_order_are_read_or_refused(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..40),
    ) {
        let text = words.join(" ");
        if let Ok(expr) = Expr::parse_where(&text, &things()) {
            prop_assert_eq!(Expr::parse_where(&expr.to_string(), &things()).ok(), Some(expr));
        }
        for operation in Operation::ALL {
            if let Ok(expr) = Expr::parse_rule(&text, &things(), &tables(), operation) {
                let said = expr.to_string();
                prop_assert_eq!(Expr::parse_rule(&said, &things(), &tables(), operation).ok(), Some(expr));
            }
        }
        let _ = Expr::parse_check(&text, &things()).map(|check| check.check_sql(&things()));
    }

    #[test]
    fn rules_that_look_into_tables_are_read_or_refused(
        words in prop::collection::vec(prop::sample::select(LOOKUPS), 0..12), turned in any::<bool>(),
    ) {
        let text = format!("{}exists(members, {})", if turned { "!" } else { "" }, words.join(" "));
        if let Ok(expr) = Expr::parse_rule(&text, &things(), &tables(), Operation::Update) {
            let said = expr.to_string();
            prop_assert_eq!(Expr::parse_rule(&said, &things(), &tables(), Operation::Update).ok(), Some(expr));
        }
    }
}

const LOOKUPS: &[&str] = &[
    "thing",
    "user",
    "level",
    "active",
    "tags",
    "until",
    "row.id",
    "row.owner",
    "new.title",
    "doc._openid",
    "auth.uid",
    "auth.openid",
    "auth.claims.n",
    "==",
    "!=",
    "<",
    "&&",
    "||",
    "in",
    "!",
    "(",
    ")",
    ",",
    "exists(members,",
    "null",
    "1",
    "'a'",
    "now()",
    "size(user)",
    "startsWith(user,",
    "[1, 2]",
    "row.data.list",
];

const WORDS: &[&str] = &[
    "title",
    "count",
    "price",
    "done",
    "data",
    "raw",
    "due",
    ".",
    "a",
    "auth",
    ".uid",
    ".claims",
    "now",
    "()",
    "(",
    ")",
    "[",
    "]",
    ",",
    "&&",
    "||",
    "!",
    "==",
    "!=",
    "<",
    ">=",
    "in",
    "null",
    "true",
    "1",
    "-",
    "2.5",
    "'x'",
    "'2026-01-02T03:04:05Z'",
    "startsWith",
    "size",
    "row",
    "new",
    "doc",
    ".owner",
    "._openid",
    "exists",
    "members",
    "user",
    "\"",
    "\\",
    "é",
];
