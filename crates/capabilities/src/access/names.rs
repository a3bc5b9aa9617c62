//! The names in rules and filters: columns, who asks, functions, other tables.

use super::Operation;
use super::advice::{is_for_a_user, unknown_function};
use super::expr::{Auth, ColumnRef, Expr, Lookup, Source};
use super::lexer::Token;
use super::parse::{COMPARE, Mode, Parsed, Parser, Wrong};
use super::typing::{predicate, size, starts_with};
use crate::rows::{ColumnModel, Type};

/// How many other tables a rule may look into.
const LOOKUPS: usize = 2;

impl Parser<'_> {
    pub(super) fn named(&mut self, name: &str, at: usize) -> Parsed {
        if self.is("(") {
            return self.function(name, at);
        }
        match name {
            "true" => return Ok(Expr::Bool(true)),
            "false" => return Ok(Expr::Bool(false)),
            "null" => return Ok(Expr::Null),
            "auth" if self.is(".") => return self.auth(),
            "in" => {
                self.next -= 1;
                return Err(self.unexpected("a value"));
            }
            _ => {}
        }
        match (self.mode, name) {
            (Mode::Where | Mode::Check, "row" | "new")
                if self.is(".") && self.table.column(name).is_none() =>
            {
                let place = if self.mode == Mode::Check { "check" } else { "filter" };
                Err(Wrong::new(at, format!("there is no {name:?} here"))
                    .hint(format!("a {place} names columns alone: done == false")))
            }
            (Mode::Where | Mode::Check, name) => self.column(Source::Bare, name, at),
            (Mode::Rule(operation), "row" | "new" | "doc") if self.is(".") => {
                // CloudBase's `doc` is the row that there is, and when one is made that one.
                let of = match (name, operation) {
                    ("new", _) | ("doc", Operation::Create) => Source::New,
                    _ => Source::Row,
                };
                self.available(of, at)?;
                self.next += 1;
                let at = self.at();
                let column = self.name("the name of a column")?;
                let column = if name == "doc" { ours(&column) } else { &column };
                self.column(of, column, at)
            }
            (Mode::Rule(_), name) if self.inner.is_some() => self.column(Source::Inner, name, at),
            (Mode::Rule(_), name) => {
                let known = self.table.column(name).map(|column| column.name.as_str());
                let known = known.or_else(|| name.eq_ignore_ascii_case("owner").then_some("owner"));
                let hint = match (known, name.to_ascii_lowercase().as_str()) {
                    (Some(column), _) => format!("write row.{column} or new.{column}"),
                    (None, "auth") => "write auth.uid != null for somebody who is signed in".to_owned(),
                    (None, "not") => "write !".to_owned(),
                    _ => "names are row.…, new.…, auth.…, now(); a text stands in quotes".to_owned(),
                };
                Err(Wrong::new(at, format!("there is no {name:?} here")).hint(hint))
            }
        }
    }

    /// Refuses the row that an operation does not have.
    fn available(&self, of: Source, at: usize) -> Parsed<()> {
        let Mode::Rule(operation) = self.mode else { return Ok(()) };
        match (operation, of) {
            (Operation::Create, Source::Row) => {
                Err(Wrong::new(at, "there is no row before it is created").hint("write new. for its values"))
            }
            (Operation::List | Operation::Get | Operation::Delete, Source::New) => {
                let message = format!("{operation} brings no new values");
                Err(Wrong::new(at, message).hint("write row. for the stored row"))
            }
            _ => Ok(()),
        }
    }

    fn name(&mut self, wanted: &str) -> Parsed<String> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn column(&mut self, of: Source, name: &str, at: usize) -> Parsed {
        let table = self.inner.filter(|_| of == Source::Inner).unwrap_or(self.table);
        // Whoever sends a filter is not told of columns that nobody is shown.
        let seen = |column: &&ColumnModel| self.mode != Mode::Where || !column.hidden;
        let Some(column) = table.column(name).filter(seen) else {
            let names: Vec<_> = table.columns.iter().filter(seen).map(|c| c.name.as_str()).collect();
            let message = format!("there is no column {name:?} in {}", table.name);
            let mut hint = format!("its columns are {}", names.join(", "));
            if matches!(self.mode, Mode::Rule(_)) && of != Source::Inner && is_for_a_user(name) {
                let owner = if of == Source::New { "new.owner" } else { "row.owner" };
                hint = format!("who made a row is {owner}; {hint}");
            }
            return Err(Wrong::new(at, message).hint(hint));
        };
        if of == Source::New && column.name == "id" {
            return Err(Wrong::new(at, "the id of a new row is not known before it is there"));
        }
        let mut column = ColumnRef { of, name: column.name.clone(), kind: column.kind, path: Vec::new() };
        while self.takes(".") {
            let at = self.at();
            let key = self.name("a name after the dot")?;
            if self.is("(") {
                return self.method(Expr::Column(column), &key, at);
            }
            if column.kind != Type::Json {
                let kind = Expr::Column(column).kind().words();
                return Err(Wrong::new(at, format!("{name} is {kind} and has no parts")));
            }
            column.path.push(key);
        }
        Ok(Expr::Column(column))
    }

    fn auth(&mut self) -> Parsed {
        if self.mode == Mode::Check {
            return Err(Wrong::new(self.at(), "a check holds whoever writes: it has no auth")
                .hint("say who may write what in the table's access"));
        }
        self.next += 1;
        let at = self.at();
        let name = self.name("uid, role, email or claims")?;
        let auth = match name.as_str() {
            // CloudBase's word for it.
            "uid" | "openid" => Auth::Uid,
            "role" => Auth::Role,
            "email" => Auth::Email,
            "claims" => {
                let mut path = Vec::new();
                self.expect(".")?;
                loop {
                    let at = self.at();
                    let key = self.name("the name of a claim")?;
                    if self.is("(") && !path.is_empty() {
                        return self.method(Expr::Auth(Auth::Claim(path)), &key, at);
                    }
                    path.push(key);
                    if !self.takes(".") {
                        return Ok(Expr::Auth(Auth::Claim(path)));
                    }
                }
            }
            other => {
                let message = format!("there is no auth.{other}");
                return Err(
                    Wrong::new(at, message).hint("use auth.uid, auth.role, auth.email, auth.claims.…")
                );
            }
        };
        if self.takes(".") {
            let at = self.at();
            let name = self.name("a name after the dot")?;
            if self.is("(") {
                return self.method(Expr::Auth(auth), &name, at);
            }
            return Err(Wrong::new(at, "a text has no parts"));
        }
        Ok(Expr::Auth(auth))
    }

    /// `a.startsWith(b)`, `a.size()`.
    fn method(&mut self, of: Expr, name: &str, at: usize) -> Parsed {
        self.count(at)?;
        self.next += 1;
        let made = match name {
            "startsWith" => {
                let start = self.deeper(|p| p.expression(COMPARE))?;
                starts_with(of, start, at)?
            }
            "size" => size(of, at)?,
            _ => return Err(unknown_function(name, at)),
        };
        self.expect(")")?;
        Ok(made)
    }

    fn function(&mut self, name: &str, at: usize) -> Parsed {
        self.next += 1;
        let made = match name {
            "now" if self.mode == Mode::Check => {
                return Err(Wrong::new(at, "a check holds at any time: it has no now()")
                    .hint("compare with now() in the table's access"));
            }
            "now" => Expr::Now,
            "exists" => self.exists(at)?,
            "size" => {
                let of = self.deeper(|p| p.expression(COMPARE))?;
                size(of, at)?
            }
            "startsWith" => {
                let text = self.deeper(|p| p.expression(COMPARE))?;
                self.expect(",")?;
                let start = self.deeper(|p| p.expression(COMPARE))?;
                starts_with(text, start, at)?
            }
            _ => return Err(unknown_function(name, at)),
        };
        self.expect(")")?;
        Ok(made)
    }

    /// `exists(table, condition)`, after the parenthesis.
    fn exists(&mut self, at: usize) -> Parsed {
        if !matches!(self.mode, Mode::Rule(_)) {
            return Err(Wrong::new(at, "exists(…) is for access rules alone"));
        }
        if self.inner.is_some() {
            return Err(Wrong::new(at, "one exists(…) does not stand in another"));
        }
        self.lookups += 1;
        if self.lookups > LOOKUPS {
            return Err(Wrong::new(at, format!("a rule has at most {LOOKUPS} exists(…)")));
        }
        let name_at = self.at();
        let name = self.name("the name of a table")?;
        let Some(inner) = self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(&name)) else {
            let names: Vec<_> = self.tables.iter().map(|table| table.name.as_str()).collect();
            let wrong = Wrong::new(name_at, format!("there is no table {name:?}"));
            return Err(wrong.hint(format!("exists(table, condition) takes one of {}", names.join(", "))));
        };
        self.expect(",")?;
        let condition_at = self.at();
        self.inner = Some(inner);
        let condition = self.deeper(|p| p.expression(0))?;
        self.inner = None;
        predicate(&condition, condition_at)?;
        Ok(Expr::Exists(Box::new(Lookup { table: inner.name.clone(), condition })))
    }
}

/// The column that CloudBase calls `name`.
fn ours(name: &str) -> &str {
    match name {
        "_openid" => "owner",
        "_id" => "id",
        name => name,
    }
}
