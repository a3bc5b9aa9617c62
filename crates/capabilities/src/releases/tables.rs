//! From the tables that are there to the tables that a release wants.

use kernel::{Code, Error, Result};

use super::alter::Alteration;
use super::change::{Action, Draft, EffectKind};
use super::manifest::Table;
use super::names::TableName;
use crate::access::{AccessSpec, Expr, Operation, Rules};
use crate::database::{Role, Schema, Table as LiveTable, Writer, quoted};

/// What becomes of data that the wanted tables have no place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surplus {
    /// It goes, and the plan says so.
    Drop,
    /// It stays where it is: the way back to an earlier release loses nothing.
    Keep,
}

/// Works out how to get from `live` to `wanted`. `managed` are the tables of the release that is current: what
/// is neither managed nor wanted is somebody else's and stays as it is.
pub(crate) async fn diff(
    db: &mut Writer,
    live: &Schema,
    managed: &[Table],
    wanted: &[Table],
    surplus: Surplus,
) -> Result<Draft> {
    let mut draft = Draft::default();
    let gone: Vec<&Table> =
        managed.iter().filter(|m| !wanted.iter().any(|w| same(&w.name, &m.name))).collect();
    let kept: Vec<&Table> = wanted.iter().collect();
    for table in &gone {
        let Some(live_table) = find(live, table.name.as_str()) else { continue };
        draft.place = "/database/tables".to_owned();
        let stays =
            |name: &str| !gone.iter().chain(&kept).any(|t| t.name.as_str().eq_ignore_ascii_case(name));
        let refers =
            |t: &&LiveTable| t.foreign_keys.iter().any(|k| k.table.eq_ignore_ascii_case(&live_table.name));
        let stranger = live.tables.iter().filter(|t| stays(&t.name)).find(refers);
        drop_table(db, live_table, stranger, surplus, &mut draft).await?;
    }
    for table in wanted {
        draft.place = format!("/database/tables/{}", table.name);
        match find(live, table.name.as_str()) {
            None => create(table, &mut draft),
            Some(live_table) => {
                let before = managed.iter().find(|m| same(&m.name, &table.name));
                let alteration = Alteration { live: live_table, before, wanted: table, surplus };
                alteration
                    .plan(db, &mut draft)
                    .await
                    .map_err(|e| e.under(&format!("/tables/{}", table.name)))?;
            }
        }
    }
    Ok(draft)
}

/// The table of that name, whatever its case.
pub(crate) fn find<'a>(live: &'a Schema, name: &str) -> Option<&'a LiveTable> {
    live.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
}

fn same(a: &TableName, b: &TableName) -> bool {
    a.folded() == b.folded()
}

fn create(table: &Table, draft: &mut Draft) {
    let columns: Vec<_> = table.columns.iter().map(|c| format!("{} {c}", c.name)).collect();
    draft.change(Action::Create, format!("table {}", table.name), Some(columns.join(", ")));
    draft.step(table.create(table.name.as_str(), &[]));
    draft.step(table.touch_trigger());
    for (_, sql) in table.create_indexes() {
        draft.step(sql);
    }
    if let Some(create) = table.create_search() {
        draft.step(create);
        table.fill_search().into_iter().for_each(|step| draft.step(step));
    }
}

async fn drop_table(
    db: &mut Writer,
    table: &LiveTable,
    stranger: Option<&LiveTable>,
    surplus: Surplus,
    draft: &mut Draft,
) -> Result<()> {
    let target = format!("table {}", table.name);
    let rows = count(db, &format!("SELECT count(*) FROM {}", quoted(&table.name))).await?;
    match (surplus, stranger) {
        (Surplus::Keep, _) if rows > 0 => {
            let detail = format!("it has {rows} rows that the release does not know");
            draft.change(Action::Keep, target, Some(detail));
            return Ok(());
        }
        (Surplus::Keep, Some(other)) => {
            draft.change(Action::Keep, target, Some(format!("{} refers to it", other.name)));
            return Ok(());
        }
        (Surplus::Drop, Some(other)) => {
            let message = format!("the table {} cannot go: {} refers to it", table.name, other.name);
            return Err(Error::new(Code::Conflict, message)
                .field(format!("/tables/{}", table.name))
                .hint(format!("drop {} first with db_migrate", other.name)));
        }
        _ => {}
    }
    if rows > 0 {
        draft.effect(EffectKind::DataLoss, &target, format!("{rows} rows are deleted with the table"));
    }
    draft.change(Action::Drop, target, None);
    draft.foreign_keys_off = true;
    if table.search.is_some() {
        Table::drop_search(&table.name).into_iter().for_each(|step| draft.step(step));
    }
    draft.step(format!("DROP TABLE {}", quoted(&table.name)));
    Ok(())
}

/// What changes for those who read and write.
pub(crate) fn privileges(before: &[Table], after: &[Table], draft: &mut Draft) {
    for table in after {
        let old = before.iter().find(|old| same(&old.name, &table.name));
        let was = old.map(|old| Guarded { access: old.access.as_ref(), rules: &old.rules });
        let is = Guarded { access: table.access.as_ref(), rules: &table.rules };
        privilege(&format!("table {}", table.name), "rows", was, is, draft);
    }
}

/// Who may do what with something.
#[derive(Clone, Copy)]
pub(crate) struct Guarded<'a> {
    pub access: Option<&'a AccessSpec>,
    pub rules: &'a Rules,
}

/// What changes for those who read and write `target`, which is made of `things`.
pub(crate) fn privilege(
    target: &str,
    things: &str,
    old: Option<Guarded<'_>>,
    new: Guarded<'_>,
    draft: &mut Draft,
) {
    let nobody = Rules::default();
    let words = |of: Guarded<'_>| of.access.map_or("nobody".to_owned(), ToString::to_string);
    let (was, is) = (old.map_or("nobody".to_owned(), words), words(new));
    let rules = old.map_or(&nobody, |old| old.rules);
    let mut detail = if was == is { String::new() } else { format!("access {was} → {is}") };
    if is == "expressions" {
        for (operation, before, after) in changed(rules, new.rules) {
            let comma = if detail.is_empty() { "access: " } else { "; " };
            detail.push_str(&format!("{comma}{operation} {} → {}", brief(before), brief(after)));
        }
    }
    if old.is_some_and(|old| old.access != new.access) {
        draft.change(Action::Alter, target, Some(detail.clone()));
    }
    // What was written in another platform's words is said in ours.
    if new.access.is_some_and(AccessSpec::is_cloudbase) && old.is_none_or(|old| old.access != new.access) {
        let rules = Operation::ALL.map(|operation| (operation, brief(new.rules.of(operation))));
        let rules: Vec<_> = rules.iter().map(|(operation, rule)| format!("{operation}: {rule}")).collect();
        let detail = format!("{is} means {}", rules.join("; "));
        draft.change(Action::Alter, format!("access of {target}"), Some(detail));
    }
    let open = |rule: Option<&Expr>| rule.is_some_and(|rule| *rule != Expr::Bool(false) && !rule.asks_who());
    let opened: Vec<_> = changed(rules, new.rules)
        .into_iter()
        .filter(|(_, before, after)| open(*after) && !open(*before))
        .filter_map(|(operation, _, after)| Some((operation, after?)))
        .collect();
    let all = |operation| opened.contains(&(operation, &Expr::Bool(true)));
    if all(Operation::List) && all(Operation::Get) {
        draft.effect(EffectKind::Privilege, target, format!("everybody may read it ({is})"));
    }
    for (operation, rule) in &opened {
        let message = match (operation, rule) {
            (Operation::List | Operation::Get, Expr::Bool(_))
                if all(Operation::List) && all(Operation::Get) =>
            {
                continue;
            }
            (_, Expr::Bool(_)) => format!("everybody may {operation} {things}"),
            (_, rule) => format!("everybody may {operation} {things} where {rule}"),
        };
        draft.effect(EffectKind::Privilege, target, message);
    }
    let anybody = |rule: Option<&Expr>| open(rule) || rule.is_some_and(Expr::asks_only_whether_signed_in);
    // What is hidden can be neither changed nor deleted.
    let all = |of: &Rules, operation| anybody(of.of(operation)) && anybody(of.of(Operation::Get));
    for operation in [Operation::Update, Operation::Delete] {
        if all(new.rules, operation) && !all(rules, operation) && !open(new.rules.of(operation)) {
            let message = format!("every signed-in user may {operation} all {things}, also those of others");
            draft.effect(EffectKind::Privilege, target, message);
        }
    }
    if opened.is_empty() && old.is_some_and(|old| old.rules != new.rules) {
        draft.effect(EffectKind::Privilege, target, detail);
    }
}

/// The operations whose rules differ, with both.
fn changed<'a>(before: &'a Rules, after: &'a Rules) -> Vec<(Operation, Option<&'a Expr>, Option<&'a Expr>)> {
    let both = Operation::ALL.map(|operation| (operation, before.of(operation), after.of(operation)));
    both.into_iter().filter(|(_, before, after)| before != after).collect()
}

/// A rule, or its beginning.
fn brief(rule: Option<&Expr>) -> String {
    let text = rule.map_or("nobody".to_owned(), ToString::to_string);
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The one number that `sql` gives.
pub(crate) async fn count(db: &mut Writer, sql: &str) -> Result<u64> {
    let rows = db.run(Role::Platform, sql, &[]).await?.rows;
    Ok(rows.first().and_then(|row| row.first()).and_then(serde_json::Value::as_u64).unwrap_or_default())
}
