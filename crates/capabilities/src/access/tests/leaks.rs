//! The statements that are served, under random rules and filters: no row is shown, changed or removed that the words of
//! the rules do not give.

use proptest::prelude::*;

use super::oracle::{Case, Ground, rows, subjects};
use super::wild::predicate;
use super::*;
use crate::access::expr::Source;
use crate::database::{Durability, Role, Writer};
use crate::rows::{Order, Statements, Wanted};

/// Runs `sql`, says of how many rows it spoke and how many rows with the title `taken` there were then, and undoes it.
async fn tried(db: &mut Writer, sql: &Sql) -> (usize, u64) {
    db.run(Role::Platform, "SAVEPOINT attack", &[]).await.unwrap();
    let spoken = db.run(Role::Writer, &sql.text, &sql.params).await.unwrap().rows.len();
    let touched = "SELECT 6 - count(*) + sum(title IS 'taken') FROM things";
    let touched = db.run(Role::Platform, touched, &[]).await.unwrap().rows[0][0].as_u64().unwrap();
    db.run(Role::Platform, "ROLLBACK TO attack", &[]).await.unwrap();
    (spoken, touched)
}

#[test]
fn no_statement_reaches_a_row_that_the_rules_do_not_give() {
    let subjects = subjects();
    let rows = rows(&subjects);
    let ground = Ground::new(&rows);
    let rules =
        (predicate(&[Source::Row]), predicate(&[Source::Row]), predicate(&[Source::Row, Source::New]));
    let patch = object(json!({ "title": "taken" }));
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((list, get, update) in rules, filter in predicate(&[Source::Bare]))| {
        let access = Rules { list: Some(list), get: Some(get), update: Some(update.clone()), ..Rules::default() };
        let access = Rules { delete: access.list.clone(), ..access };
        let table = TableModel { access, ..things() };
        for subject in &subjects {
            let statements = Statements { table: &table, subject };
            ground.runtime.block_on(async {
                let mut db = ground.databases.writer(&ground.env).await.unwrap();
                db.begin(Durability::Normal).await.unwrap();
                let columns: Vec<_> = table.columns.iter().take(1).collect();
                let order = Order::parse(None, &table).unwrap();
                let wanted = Wanted { columns: &columns, beside: &[], search: None, filter: Some(&filter), order: &order, after: None, most: 100 };
                let sql = statements.list(&wanted);
                let listed = db.run(Role::Writer, &sql.text, &sql.params).await.unwrap().rows;
                let listed: Vec<_> = listed.iter().map(|row| row[0].clone()).collect();
                let mut may_list = Vec::new();
                for row in &rows {
                    let mut new = row.clone();
                    new.extend(patch.clone());
                    let case = Case { subject, row: Some(row), new: Some(&new), inner: None };
                    let may = |operation| case.holds(table.access.of(operation).unwrap()) == Some(true);
                    if may(Operation::List) && case.holds(&filter) == Some(true) {
                        may_list.push(row["id"].clone());
                    }
                    let id = row["id"].as_str().unwrap();
                    let get = usize::from(may(Operation::Get));
                    let changed = get * usize::from(may(Operation::Update));
                    let removed = get * usize::from(may(Operation::Delete));
                    prop_assert_eq!(tried(&mut db, &statements.get(id)).await, (get, 0));
                    prop_assert_eq!(tried(&mut db, &statements.update(id, &patch)).await, (changed, changed as u64));
                    prop_assert_eq!(tried(&mut db, &statements.delete(id)).await, (removed, removed as u64));
                }
                prop_assert_eq!(listed, may_list);
                db.rollback().await.unwrap();
                Ok(())
            })?;
        }
    });
}
