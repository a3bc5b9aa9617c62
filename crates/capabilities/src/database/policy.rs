//! What each role may do in an environment's database, decided on what the engine reports it is about to do.

use std::ffi::c_int;

use libsqlite3_sys as sys;

/// In whose name a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads the app's tables, writes nothing.
    Reader,
    /// Changes rows and adds to the schema.
    Writer,
    /// Changes the schema in any way.
    Migrator,
    /// Reads and changes rows of the app's tables, and nothing else. Never text that a caller wrote.
    Rows,
    /// As [`Role::Rows`], and begins and ends transactions: the data plane's own connection.
    Turn,
    /// The platform's own statements. Never text that a caller wrote.
    Platform,
}

/// Why the guard stops a statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A change, where only reading is allowed.
    #[error("this statement changes the database, and only reading is allowed here")]
    Change,
    /// A table, index or trigger of the platform.
    #[error("{0} belongs to the platform")]
    Platform(String),
    /// One of the engine's own tables.
    #[error("the table {0} is the engine's own")]
    EngineTable(String),
    /// Something dropped or renamed outside a migration.
    #[error("this statement drops or renames a part of the schema")]
    Drop,
    /// A second database file.
    #[error("other database files cannot be reached")]
    Attach,
    /// A pragma that is not on the list.
    #[error("the pragma {0} is not available")]
    Pragma(String),
    /// A function that is not on the list.
    #[error("the function {0} is not available")]
    Function(String),
    /// `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT`.
    #[error("transactions are the platform's to control")]
    Transaction,
    /// A temporary table, view or trigger.
    #[error("temporary objects are not available")]
    Temporary,
    /// A virtual table.
    #[error("virtual tables are not available")]
    Virtual,
    /// Anything else.
    #[error("this kind of statement is not available")]
    Kind,
}

impl Refusal {
    /// What to do instead, where there is something.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            Refusal::Change => Some("use db_execute to change rows, db_migrate to change the schema"),
            Refusal::Drop => Some(
                "use db_migrate, which shows first what would be lost and keeps the history of the schema",
            ),
            Refusal::Platform(_) => {
                Some("use another name; names that start with _steading_ or pragma_ are reserved")
            }
            Refusal::Pragma(name) if name.eq_ignore_ascii_case("foreign_keys") => Some(
                "leave it out: db_migrate rebuilds tables without enforcement and checks the references last",
            ),
            Refusal::Pragma(_) => Some(
                "to see the schema use app_describe, PRAGMA table_info(…), or SELECT name, sql FROM sqlite_schema",
            ),
            Refusal::Transaction => {
                Some("each statement is a transaction of its own; db_migrate runs several statements as one")
            }
            Refusal::Temporary => Some("use a WITH clause, or an ordinary table"),
            Refusal::Attach
            | Refusal::EngineTable(_)
            | Refusal::Function(_)
            | Refusal::Virtual
            | Refusal::Kind => None,
        }
    }
}

/// One thing the engine is about to do: the arguments of the authorizer callback
/// (<https://www.sqlite.org/c3ref/set_authorizer.html>).
#[derive(Debug, Clone, Copy)]
pub(super) struct Action<'a> {
    pub code: c_int,
    pub first: &'a str,
    pub second: &'a str,
    /// `main` or `temp`; for a dropped column, its name.
    pub third: &'a str,
    /// The trigger or view that does it, if it is not the statement itself.
    pub inside: Option<&'a str>,
}

/// Whether `name` is one of ours. Names compare without case, as the engine compares them.
pub(super) fn is_platform(name: &str) -> bool {
    starts_with(name, "_steading_")
}

/// Whether `name` is the full-text index of a table, or one of the engine's tables behind it. The engine itself keeps
/// those from callers' statements (`SQLITE_DBCONFIG_DEFENSIVE`), and names them here in its own.
pub(super) fn is_search(name: &str) -> bool {
    let Some((table, rest)) = name.rsplit_once('.') else { return false };
    !table.is_empty()
        && (is_search_index(name) || SHADOWS.iter().any(|shadow| rest.eq_ignore_ascii_case(shadow)))
}

const SHADOWS: [&str; 5] = ["search_data", "search_idx", "search_content", "search_docsize", "search_config"];

fn is_search_index(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case("search"))
}

/// What the names of triggers begin with that note events, the table that they note them in, and what they call. No
/// caller's text names any of them.
pub(super) const NOTES: &str = "_steading_event";
const CALLED: &[&str] = &["steading_depth", "steading_row"];

/// The platform's own tables that have such triggers.
const TOLD: &[&str] = &["_steading_object", "_steading_user", "_steading_session"];

/// Whether this is what a trigger of ours does that notes an event.
fn notes_event(role: Role, action: &Action<'_>) -> bool {
    let ours = action.inside.is_some_and(|inside| starts_with(inside, NOTES));
    ours && match action.code {
        sys::SQLITE_INSERT => action.first == NOTES,
        sys::SQLITE_FUNCTION => CALLED.contains(&action.second),
        // What waits already, lest it become too much.
        sys::SQLITE_READ if action.first == NOTES => true,
        sys::SQLITE_READ => role == Role::Platform && one_of(action.first, TOLD),
        _ => false,
    }
}

/// Why a statement that a caller wrote is refused for its text: what is not named cannot be taken for ours.
pub(super) fn refused_text(role: Role, sql: &[u8]) -> Option<Refusal> {
    let callers = matches!(role, Role::Reader | Role::Writer | Role::Migrator);
    let names = |word: &str| sql.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    (callers && names(NOTES)).then(|| Refusal::Platform(NOTES.to_owned()))
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn one_of(name: &str, list: &[&str]) -> bool {
    list.iter().any(|entry| entry.eq_ignore_ascii_case(name))
}

/// Why `role` may not do this; `None` where it may. Whatever is not known is refused.
pub(super) fn refusal(role: Role, action: &Action<'_>) -> Option<Refusal> {
    if notes_event(role, action) {
        return None;
    }
    match role {
        Role::Platform => refused_to_the_platform(action),
        Role::Reader | Role::Writer | Role::Migrator => refused_to_a_caller(role, action),
        Role::Turn if action.code == sys::SQLITE_TRANSACTION => None,
        Role::Rows | Role::Turn => refused_to_the_data_plane(role, action),
    }
}

/// Even a trusted statement leaves other files alone, and a caller's trigger or view that it sets off does not
/// reach our tables in our name. (A WITH clause is named as a view is: do without one over our tables.)
fn refused_to_the_platform(action: &Action<'_>) -> Option<Refusal> {
    match action.code {
        sys::SQLITE_ATTACH | sys::SQLITE_DETACH => Some(Refusal::Attach),
        sys::SQLITE_CREATE_VTABLE | sys::SQLITE_DROP_VTABLE => {
            let ours = is_search_index(action.first) && action.second.eq_ignore_ascii_case("fts5");
            (!ours).then_some(Refusal::Virtual)
        }
        sys::SQLITE_READ | sys::SQLITE_INSERT | sys::SQLITE_UPDATE | sys::SQLITE_DELETE
            if action.inside.is_some() && is_platform(action.first) =>
        {
            Some(Refusal::Platform(action.first.to_owned()))
        }
        _ => None,
    }
}

/// The data plane's statements are put together here, of parts that are checked; this holds where one is not.
fn refused_to_the_data_plane(role: Role, action: &Action<'_>) -> Option<Refusal> {
    match action.code {
        sys::SQLITE_READ if starts_with(action.first, "sqlite_") => {
            Some(Refusal::EngineTable(action.first.to_owned()))
        }
        sys::SQLITE_INSERT | sys::SQLITE_UPDATE | sys::SQLITE_DELETE
            if starts_with(action.first, "sqlite_") =>
        {
            Some(Refusal::EngineTable(action.first.to_owned()))
        }
        sys::SQLITE_PRAGMA if is_data_version(action.first, action.second) => None,
        // More room for what removes rows, less for what adds some.
        sys::SQLITE_PRAGMA if role == Role::Turn && one_of(action.first, ROOM) => None,
        sys::SQLITE_PRAGMA => Some(Refusal::Pragma(action.first.to_owned())),
        sys::SQLITE_SELECT
        | sys::SQLITE_RECURSIVE
        | sys::SQLITE_READ
        | sys::SQLITE_FUNCTION
        | sys::SQLITE_INSERT
        | sys::SQLITE_UPDATE
        | sys::SQLITE_DELETE
        | sys::SQLITE_TRANSACTION
        | sys::SQLITE_SAVEPOINT
        | sys::SQLITE_ATTACH
        | sys::SQLITE_DETACH => refused_to_a_caller(role, action),
        _ => Some(Refusal::Kind),
    }
}

fn refused_to_a_caller(role: Role, action: &Action<'_>) -> Option<Refusal> {
    let Action { code, first, second, third, .. } = *action;
    match code {
        sys::SQLITE_SELECT | sys::SQLITE_RECURSIVE => None,
        sys::SQLITE_READ => refused_table(role, first),
        sys::SQLITE_FUNCTION => refused_function(role, second),
        sys::SQLITE_PRAGMA => refused_pragma(role, first, second),
        sys::SQLITE_TRANSACTION | sys::SQLITE_SAVEPOINT => Some(Refusal::Transaction),
        sys::SQLITE_ATTACH | sys::SQLITE_DETACH => Some(Refusal::Attach),
        sys::SQLITE_CREATE_VTABLE | sys::SQLITE_DROP_VTABLE => Some(Refusal::Virtual),
        sys::SQLITE_CREATE_TEMP_INDEX
        | sys::SQLITE_CREATE_TEMP_TABLE
        | sys::SQLITE_CREATE_TEMP_TRIGGER
        | sys::SQLITE_CREATE_TEMP_VIEW
        | sys::SQLITE_DROP_TEMP_INDEX
        | sys::SQLITE_DROP_TEMP_TABLE
        | sys::SQLITE_DROP_TEMP_TRIGGER
        | sys::SQLITE_DROP_TEMP_VIEW => Some(Refusal::Temporary),
        sys::SQLITE_INSERT | sys::SQLITE_UPDATE | sys::SQLITE_DELETE => refused_change(role, action),
        sys::SQLITE_CREATE_INDEX
        | sys::SQLITE_CREATE_TABLE
        | sys::SQLITE_CREATE_TRIGGER
        | sys::SQLITE_CREATE_VIEW => refused_schema_change(role, first, second)
            .or_else(|| hides_function(first).then(|| Refusal::Platform(first.to_owned()))),
        // It brings every index in order, ours among them, and changes nothing that is in them.
        sys::SQLITE_REINDEX => (role == Role::Reader).then_some(Refusal::Change),
        sys::SQLITE_ALTER_TABLE => refused_schema_change(role, second, third),
        sys::SQLITE_DROP_INDEX
        | sys::SQLITE_DROP_TABLE
        | sys::SQLITE_DROP_TRIGGER
        | sys::SQLITE_DROP_VIEW => refused_schema_change(role, first, second)
            .or_else(|| (role == Role::Writer).then_some(Refusal::Drop)),
        _ => Some(Refusal::Kind),
    }
}

/// The engine's tables that hold nothing but the app's own schema and counters.
const READABLE: &[&str] = &["sqlite_schema", "sqlite_master", "sqlite_sequence", "sqlite_stat1"];

/// ALTER TABLE looks after these too; nothing is ever in them.
const TEMPORARY: &[&str] = &["sqlite_temp_schema", "sqlite_temp_master"];

fn refused_table(role: Role, table: &str) -> Option<Refusal> {
    if is_platform(table) {
        return Some(Refusal::Platform(table.to_owned()));
    }
    if starts_with(table, "pragma_") {
        return refused_pragma(role, &table["pragma_".len()..], "");
    }
    let readable = one_of(table, READABLE) || (role != Role::Reader && one_of(table, TEMPORARY));
    (starts_with(table, "sqlite_") && !readable).then(|| Refusal::EngineTable(table.to_owned()))
}

fn refused_change(role: Role, action: &Action<'_>) -> Option<Refusal> {
    let Action { code, first: table, third: schema, inside, .. } = *action;
    if role == Role::Reader {
        return Some(Refusal::Change);
    }
    // The triggers that keep it are of the same table.
    if is_platform(table) || (is_search_index(table) && inside.is_none()) {
        return Some(Refusal::Platform(table.to_owned()));
    }
    if schema.eq_ignore_ascii_case("temp") {
        let altering = code == sys::SQLITE_UPDATE && one_of(table, TEMPORARY);
        return (!altering).then_some(Refusal::Temporary);
    }
    // A schema change reports its write to the schema table; the engine itself refuses such a write by hand.
    if one_of(table, &["sqlite_schema", "sqlite_master"]) {
        return None;
    }
    // DROP and RENAME keep these two in step.
    let kept_in_step = code != sys::SQLITE_INSERT
        && role == Role::Migrator
        && one_of(table, &["sqlite_sequence", "sqlite_stat1", "sqlite_stat4"]);
    (starts_with(table, "sqlite_") && !kept_in_step).then(|| Refusal::EngineTable(table.to_owned()))
}

fn refused_schema_change(role: Role, first: &str, second: &str) -> Option<Refusal> {
    if role == Role::Reader {
        return Some(Refusal::Change);
    }
    [first, second]
        .into_iter()
        .find(|name| is_platform(name) || is_search(name))
        .map(|name| Refusal::Platform(name.to_owned()))
}

/// Whether a table of this name would stand before one of the engine's functions that statements of ours read from.
pub(crate) fn hides_function(name: &str) -> bool {
    one_of(name, &["json_each", "json_tree"]) || starts_with(name, "pragma_")
}

/// Pragmas that only tell the schema.
const PRAGMAS: &[&str] = &[
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
];

/// How large the database is, and may become.
const ROOM: &[&str] = &["max_page_count", "page_count", "freelist_count"];

/// Full-text search asks it, to see whether what it remembers still holds.
fn is_data_version(name: &str, argument: &str) -> bool {
    one_of(name, &["data_version"]) && argument.is_empty()
}

fn refused_pragma(role: Role, name: &str, argument: &str) -> Option<Refusal> {
    let harmless = one_of(name, PRAGMAS)
        || is_data_version(name, argument)
        || (one_of(name, &["user_version"]) && argument.is_empty())
        // ADD COLUMN asks it whether the rows that are there fit.
        || (role != Role::Reader && one_of(name, &["quick_check"]));
    (!harmless).then(|| Refusal::Pragma(name.to_owned()))
}

/// What ALTER TABLE calls inside the engine; callers cannot name them, and only DROP and RENAME use the first
/// three.
const DROPPING: &[&str] = &["sqlite_drop_column", "sqlite_rename_table", "sqlite_rename_column"];
const ALTERING: &[&str] =
    &["sqlite_rename_test", "sqlite_rename_quotefix", "sqlite_fail", "sqlite_add_constraint"];

fn refused_function(role: Role, name: &str) -> Option<Refusal> {
    if one_of(name, DROPPING) && role == Role::Writer {
        return Some(Refusal::Drop);
    }
    let alters = matches!(role, Role::Writer | Role::Migrator);
    let known = one_of(name, FUNCTIONS) || (alters && (one_of(name, DROPPING) || one_of(name, ALTERING)));
    (!known).then(|| Refusal::Function(name.to_owned()))
}

/// Functions of the engine that compute and nothing more.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    // scalar
    "abs", "changes", "char", "coalesce", "concat", "concat_ws", "format", "glob", "hex", "if", "ifnull", "iif",
    "instr", "last_insert_rowid", "length", "like", "likelihood", "likely", "lower", "ltrim", "max", "min",
    "nullif", "octet_length", "printf", "quote", "random", "randomblob", "replace", "round", "rtrim", "sign",
    "soundex", "sqlite_version", "substr", "substring", "total_changes", "trim", "typeof", "unhex", "unicode",
    "unistr", "unistr_quote", "unlikely", "upper", "zeroblob", "match",
    // time
    "current_date", "current_time", "current_timestamp", "date", "datetime", "julianday", "strftime", "time",
    "timediff", "unixepoch",
    // aggregate and window
    "avg", "count", "cume_dist", "dense_rank", "first_value", "group_concat", "lag", "last_value", "lead",
    "median", "nth_value", "ntile", "percent_rank", "percentile", "percentile_cont", "percentile_disc", "rank",
    "row_number", "string_agg", "sum", "total",
    // mathematics
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "ceiling", "cos", "cosh", "degrees",
    "exp", "floor", "ln", "log", "log10", "log2", "mod", "pi", "pow", "power", "radians", "sin", "sinh", "sqrt",
    "tan", "tanh", "trunc",
    // JSON
    "->", "->>", "json", "json_array", "json_array_insert", "json_array_length", "json_each",
    "json_error_position", "json_extract", "json_group_array", "json_group_object", "json_insert", "json_object",
    "json_patch", "json_pretty", "json_quote", "json_remove", "json_replace", "json_set", "json_tree",
    "json_type", "json_valid", "jsonb", "jsonb_array", "jsonb_array_insert", "jsonb_extract",
    "jsonb_group_array", "jsonb_group_object", "jsonb_insert", "jsonb_object", "jsonb_patch", "jsonb_remove",
    "jsonb_replace", "jsonb_set",
];
