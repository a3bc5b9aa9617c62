//! What is told of changes: judged for all who are told the same, and put in order for each.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use kernel::{Code, Error, Result};
use serde_json::Value;

use super::hub::{Hub, Id};
use super::judge::{Event, Told, Wanted};
use super::message::{Reset, event, reset};
use super::outbox::{Frame, Outbox};
use crate::access::{Auth, Expr, Op, Operation, Source, Subject};
use crate::database::{Cell, Changed, Entry, quoted};
use crate::rows::{App, TableModel};

/// What one connection wants to know of one table.
pub(super) struct Subscription {
    pub connection: Id,
    pub outbox: Arc<Outbox>,
    pub sub: String,
    /// As the model writes it.
    pub table: String,
    pub filter: Option<String>,
    pub select: Option<String>,
    pub subject: Arc<Subject>,
    /// What came before this change is not told.
    pub from: u64,
    pub recent: Arc<Mutex<Recent>>,
}

/// What a subscription was told last of the latest rows: a row that changes twice while it is judged looks the same both
/// times.
#[derive(Default)]
pub(super) struct Recent(HashMap<Arc<str>, Event>);

/// How many rows are kept in mind.
const RECENT: usize = 32;

impl Recent {
    /// Whether this is something new.
    fn is_news(&mut self, id: &Arc<str>, event: &Event) -> bool {
        if self.0.get(id).is_some_and(|last| last.leaves() == event.leaves()) {
            return false;
        }
        if self.0.len() >= RECENT {
            self.0.clear();
        }
        self.0.insert(Arc::clone(id), event.clone());
        true
    }

    /// Who is to list again has been told nothing yet.
    fn forget(&mut self) {
        self.0.clear();
    }
}

/// Subscriptions that are told the same.
#[derive(PartialEq, Eq, Hash)]
struct Alike<'a> {
    table: &'a str,
    filter: Option<&'a str>,
    select: Option<&'a str>,
    /// None where neither rule nor condition asks who asks.
    subject: Option<String>,
}

/// What goes into one outbox, by change.
pub(super) type Post = Vec<(u64, Posted)>;

pub(super) enum Posted {
    Event(Arc<Subscription>, Event),
    Reset(Arc<Subscription>, Reset),
}

impl Hub {
    /// What is told of these changes, for each outbox.
    pub async fn judged(
        &self,
        app: &App,
        entries: &[Arc<Entry>],
        subscriptions: Vec<Arc<Subscription>>,
    ) -> Vec<(Arc<Outbox>, Post)> {
        let mut alike: HashMap<Alike<'_>, Vec<&Arc<Subscription>>> = HashMap::new();
        for one in &subscriptions {
            let asks = *one.subject == Subject::Service
                || app.table(&one.table).is_none_or(|it| asks_who(it, one.filter.as_deref()));
            let subject = asks.then(|| format!("{:?}", one.subject));
            let key = Alike {
                table: &one.table,
                filter: one.filter.as_deref(),
                select: one.select.as_deref(),
                subject,
            };
            alike.entry(key).or_default().push(one);
        }
        let mut posts: HashMap<Id, (Arc<Outbox>, Post)> = HashMap::new();
        let mut touched: HashMap<&str, Option<HashSet<String>>> = HashMap::new();
        for group in alike.into_values() {
            let Some(first) = group.first() else { continue };
            if !touched.contains_key(first.table.as_str()) {
                touched.insert(&first.table, self.touched(app, &first.table, entries).await);
            }
            if let Some(Some(owners)) = touched.get(first.table.as_str())
                && *first.subject != Subject::Service
                && first.subject.uid().is_none_or(|uid| !owners.contains(&uid))
            {
                continue;
            }
            let post = self.group(app, first, entries).await;
            for one in group {
                let to = posts.entry(one.connection).or_insert_with(|| (Arc::clone(&one.outbox), Vec::new()));
                let mut recent = one.recent.lock().unwrap_or_else(PoisonError::into_inner);
                let fresh = post.iter().filter(|(seq, _)| *seq > one.from);
                to.1.extend(fresh.filter_map(|(seq, told)| {
                    let posted = match told {
                        Ok((id, event)) => recent
                            .is_news(id, event)
                            .then(|| Posted::Event(Arc::clone(one), event.clone()))?,
                        Err(why) => {
                            recent.forget();
                            Posted::Reset(Arc::clone(one), *why)
                        }
                    };
                    Some((*seq, posted))
                }));
            }
        }
        posts.into_values().collect()
    }

    /// The owners of the rows that have changed, before and now, where only owners may list rows of the table: nobody else
    /// needs to be asked about. None where others may, or where it is not known.
    async fn touched(&self, app: &App, table: &str, entries: &[Arc<Entry>]) -> Option<HashSet<String>> {
        let table = app.table(table)?;
        if !table.access.of(Operation::List).is_some_and(is_owners)
            || asked_by(app, &table.name).next().is_some()
        {
            return None;
        }
        let own = entries.iter().filter(|entry| entry.table.eq_ignore_ascii_case(&table.name));
        let (mut owners, mut ids) = (HashSet::new(), Vec::new());
        for entry in own {
            let Changed::Row { id, before } = &entry.what else { return None };
            ids.push(Value::from(id.as_str()));
            let before = before.as_ref();
            let at =
                before.and_then(|it| it.columns.iter().position(|name| name.eq_ignore_ascii_case("owner")));
            let owner = at.and_then(|at| before?.values.get(at)?.as_str());
            owners.extend(owner.map(str::to_owned));
        }
        let name = quoted(&table.name);
        let sql = format!(
            "SELECT {name}.\"owner\" FROM json_each(?) AS \"_ids\" CROSS JOIN {name} ON {name}.\"id\" = \"_ids\".\"value\""
        );
        let params = vec![Value::from(Value::Array(ids).to_string())];
        let rows = self.services.databases.list_rows(&self.env, &[], sql, params, usize::MAX).await.ok()?;
        owners.extend(rows.iter().filter_map(|row| match row.cell(0) {
            Cell::Text(owner) => Some(owner.to_owned()),
            _ => None,
        }));
        Some(owners)
    }

    /// What subscriptions like this one are told.
    async fn group(
        &self,
        app: &App,
        like: &Subscription,
        entries: &[Arc<Entry>],
    ) -> Vec<(u64, Result<Told, Reset>)> {
        let last = entries.last().map_or(0, |entry| entry.seq);
        // A table that is gone has no rows to tell of; that it is gone was told with the release.
        let Ok(table) = known(app, &like.table) else { return Vec::new() };
        let own = |entry: &&Arc<Entry>| entry.table.eq_ignore_ascii_case(&like.table);
        let much = entries.iter().rev().find(|entry| match entry.what {
            Changed::Much if own(entry) => true,
            // Who may see a row of this table may depend on rows of that one.
            _ => asked_by(app, &like.table).any(|table| entry.table.eq_ignore_ascii_case(table)),
        });
        if much.is_some() {
            return vec![(last, Err(Reset::Much))];
        }
        let wanted = Wanted::new(table, like.filter.as_deref(), like.select.as_deref(), &like.subject);
        let Ok(wanted) = wanted else { return vec![(last, Err(Reset::Release))] };
        let own: Vec<&Entry> = entries.iter().filter(own).map(|entry| &**entry).collect();
        match wanted.judge(&self.services.databases, &self.env, &own).await {
            Ok(told) => told.into_iter().map(|(seq, told)| (seq, Ok(told))).collect(),
            Err(error) => {
                tracing::debug!(env.id = %self.env.id(), error = %error, "changes could not be judged");
                vec![(last, Err(Reset::Unavailable))]
            }
        }
    }

    /// What is told, as messages in the order of the changes. Of several about one change only the last is a place to go
    /// on from, under the rules of which the client knows.
    pub fn frames(&self, mut post: Post, rules: u64) -> Vec<Frame> {
        post.sort_by_key(|(seq, _)| *seq);
        let nexts: Vec<Option<u64>> = post.iter().skip(1).map(|(seq, _)| Some(*seq)).chain([None]).collect();
        let framed = post.into_iter().zip(nexts).map(|((seq, posted), next)| {
            let (Posted::Event(to, _) | Posted::Reset(to, _)) = &posted;
            let at = (next != Some(seq)).then(|| self.place_under(rules, seq, &to.outbox)).flatten();
            let json = match posted {
                Posted::Event(to, told) => event(&to.sub, &to.table, &told, at.as_ref()),
                Posted::Reset(to, why) => reset(&to.sub, &to.table, at.as_ref(), why),
            };
            Frame { at, json: json.into() }
        });
        framed.collect()
    }

    /// As [`Hub::reset_all`], to those who have a seat.
    pub fn reset_these(&self, subscriptions: &[Arc<Subscription>], at: u64, why: Reset) {
        for one in subscriptions {
            one.recent.lock().unwrap_or_else(PoisonError::into_inner).forget();
            let at = self.place(at, &one.outbox);
            one.outbox.push(Frame { json: reset(&one.sub, &one.table, at.as_ref(), why).into(), at });
        }
    }

    /// Says to each that it has to list again.
    pub fn reset_all(&self, made: &[Subscription], at: u64, why: Reset) {
        for one in made {
            let at = self.place(at, &one.outbox);
            one.outbox.push(Frame { json: reset(&one.sub, &one.table, at.as_ref(), why).into(), at });
        }
    }
}

impl Subscription {
    /// The same, told what the other was told.
    pub fn copy(&self) -> Self {
        Self {
            connection: self.connection,
            outbox: Arc::clone(&self.outbox),
            sub: self.sub.clone(),
            table: self.table.clone(),
            filter: self.filter.clone(),
            select: self.select.clone(),
            subject: Arc::clone(&self.subject),
            from: self.from,
            recent: Arc::clone(&self.recent),
        }
    }
}

/// Whether it depends on who asks what is told of the table.
fn asks_who(table: &TableModel, filter: Option<&str>) -> bool {
    // A text that says the word may be about something else, and is then judged for each by itself.
    filter.is_some_and(|text| text.contains("auth"))
        || table.access.of(Operation::List).is_some_and(Expr::asks_who)
}

/// The other tables by whose rows it is decided who may list rows of this one.
pub(super) fn asked_by<'a>(app: &'a App, table: &str) -> impl Iterator<Item = &'a str> {
    let rule = app.table(table).and_then(|table| table.access.of(Operation::List));
    rule.map(looked_into).unwrap_or_default().into_iter()
}

/// Whether nobody but a row's owner is let through.
fn is_owners(expr: &Expr) -> bool {
    let is_owner = |expr: &Expr| matches!(expr, Expr::Column(it) if it.of == Source::Row && it.name == "owner" && it.path.is_empty());
    let is_who = |expr: &Expr| *expr == Expr::Auth(Auth::Uid);
    match expr {
        Expr::Compare(Op::Eq, one, other) => {
            (is_owner(one) && is_who(other)) || (is_who(one) && is_owner(other))
        }
        Expr::All(parts) => parts.iter().any(is_owners),
        _ => false,
    }
}

fn looked_into(expr: &Expr) -> Vec<&str> {
    let own = match expr {
        Expr::Exists(lookup) => Some(lookup.table.as_str()),
        _ => None,
    };
    own.into_iter().chain(expr.parts().into_iter().flat_map(looked_into)).collect()
}

/// The table of that name, as the release has it.
pub(super) fn known<'a>(app: &'a App, name: &str) -> Result<&'a Arc<TableModel>> {
    app.table(name).ok_or_else(|| Error::new(Code::NotFound, "there is no such table").field("/table"))
}
