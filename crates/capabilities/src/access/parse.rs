//! From the text of a rule or a filter to an expression whose names and types are known to be right.

use kernel::{Code, Error, Result};

use super::Operation;
use super::advice::foreign;
use super::expr::{Expr, Kind, Op};
use super::lexer::{Token, tokens};
use super::typing::{alike, compare, predicate, within};
use crate::rows::TableModel;

/// How long a text may be, in bytes.
const LONGEST: usize = 4096;
/// How many parts an expression may have; a list counts as one.
const NODES: usize = 64;
/// How deep parts may be inside each other.
const DEPTH: usize = 8;
/// How many values a list may have.
const LISTED: usize = 100;

/// What is wrong with a text, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    at: usize,
    message: String,
    hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        let error = Error::new(Code::InvalidInput, format!("at byte {}: {}", wrong.at, wrong.message));
        match wrong.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// How columns are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// By their bare names.
    Where,
    /// By their bare names, and nothing but them is asked.
    Check,
    /// Behind `row.` and `new.`, those of them that the operation has.
    Rule(Operation),
}

impl Expr {
    /// Reads a `where` over `table`: columns by their bare names.
    ///
    /// # Errors
    /// `invalid_input` without a pointer, with the byte and what was expected there.
    pub(crate) fn parse_where(text: &str, table: &TableModel) -> Result<Expr> {
        parse(text, table, &[], Mode::Where)
    }

    /// Reads the `check` of a column of `table`: what every row must meet, by the bare names of columns.
    ///
    /// # Errors
    /// As [`Expr::parse_where`].
    pub(crate) fn parse_check(text: &str, table: &TableModel) -> Result<Expr> {
        parse(text, table, &[], Mode::Check)
    }

    /// Reads the rule of an operation on `table`: `row.` is the stored row, `new.` the row as it is going to be, and
    /// `exists` looks into `tables`.
    ///
    /// # Errors
    /// As [`Expr::parse_where`].
    pub(crate) fn parse_rule(
        text: &str,
        table: &TableModel,
        tables: &[TableModel],
        operation: Operation,
    ) -> Result<Expr> {
        parse(text, table, tables, Mode::Rule(operation))
    }
}

fn parse(text: &str, table: &TableModel, tables: &[TableModel], mode: Mode) -> Result<Expr> {
    if text.len() > LONGEST {
        let message = format!("an expression is at most {LONGEST} bytes, this has {}", text.len());
        return Err(Error::new(Code::InvalidInput, message));
    }
    let tokens = tokens(text)?;
    let mut parser =
        Parser { tokens, next: 0, table, tables, mode, inner: None, nodes: 0, depth: 0, lookups: 0 };
    let at = parser.at();
    let expr = parser.expression(0)?;
    parser.expect_end()?;
    predicate(&expr, at)?;
    Ok(expr)
}

pub(super) struct Parser<'a> {
    tokens: Vec<(usize, Token)>,
    pub(super) next: usize,
    pub(super) table: &'a TableModel,
    pub(super) tables: &'a [TableModel],
    pub(super) mode: Mode,
    /// The table that is looked into, inside of `exists`.
    pub(super) inner: Option<&'a TableModel>,
    nodes: usize,
    depth: usize,
    pub(super) lookups: usize,
}

pub(super) type Parsed<T = Expr> = Result<T, Wrong>;

const OPERATORS: [(&str, Op); 6] =
    [("==", Op::Eq), ("!=", Op::Ne), ("<=", Op::Le), (">=", Op::Ge), ("<", Op::Lt), (">", Op::Gt)];

/// How tight operators bind.
const OR: u8 = 1;
const AND: u8 = 2;
pub(super) const COMPARE: u8 = 3;

impl Parser<'_> {
    pub(super) fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(0, |(at, _)| *at)
    }

    pub(super) fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    pub(super) fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    pub(super) fn takes(&mut self, sign: &str) -> bool {
        let is = self.is(sign);
        self.next += usize::from(is);
        is
    }

    pub(super) fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Wrong {
        let wrong = Wrong::new(self.at(), format!("expected {wanted}, found {}", self.peek().words()));
        let before = self.next.checked_sub(1).and_then(|last| self.tokens.get(last)).map(|(_, token)| token);
        match (foreign(self.peek()), before, self.peek()) {
            (Some(ours), _, _) => wrong.hint(format!("write {ours}")),
            (_, Some(Token::Sign("<")), Token::Sign(">")) => wrong.hint("write !="),
            (_, _, Token::Sign(",")) => wrong.hint("a list stands in brackets: [a, b]"),
            (_, _, Token::Sign("-")) => wrong.hint("nothing is calculated: compare with a column or a value"),
            _ => wrong,
        }
    }

    fn expect_end(&self) -> Parsed<()> {
        match self.peek() {
            Token::End => Ok(()),
            _ => Err(self.unexpected("an operator or the end")),
        }
    }

    pub(super) fn count(&mut self, at: usize) -> Parsed<()> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(Wrong::new(at, format!("an expression has at most {NODES} parts")));
        }
        Ok(())
    }

    pub(super) fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Wrong::new(self.at(), format!("parts are at most {DEPTH} deep inside each other")));
        }
        let outcome = inside(self);
        self.depth -= 1;
        outcome
    }

    /// An expression of operators that bind tighter than `floor`.
    pub(super) fn expression(&mut self, floor: u8) -> Parsed {
        let start = self.at();
        let mut left = self.operand()?;
        loop {
            let at = self.at();
            if floor < OR && self.is("||") {
                left = self.joined(left, start, "||", OR)?;
            } else if floor < AND && self.is("&&") {
                left = self.joined(left, start, "&&", AND)?;
            } else if floor < COMPARE && matches!(self.peek(), Token::Name(name) if name == "in") {
                self.next += 1;
                self.count(at)?;
                left = self.membership(left, at)?;
                self.one_comparison()?;
            } else if floor < COMPARE
                && let Some((_, op)) = OPERATORS.into_iter().find(|(sign, _)| self.is(sign))
            {
                self.next += 1;
                self.count(at)?;
                let right = self.expression(COMPARE)?;
                left = compare(op, left, right, at)?;
                self.one_comparison()?;
            } else {
                return Ok(left);
            }
        }
    }

    fn one_comparison(&self) -> Parsed<()> {
        let again = OPERATORS.iter().any(|(sign, _)| self.is(sign));
        if again || matches!(self.peek(), Token::Name(name) if name == "in") {
            return Err(Wrong::new(self.at(), "comparisons do not follow each other: join them with &&"));
        }
        Ok(())
    }

    /// All operands that `sign` joins.
    fn joined(&mut self, first: Expr, start: usize, sign: &str, level: u8) -> Parsed {
        self.count(self.at())?;
        predicate(&first, start)?;
        let mut parts = vec![first];
        while self.takes(sign) {
            let at = self.at();
            let part = self.expression(level)?;
            predicate(&part, at)?;
            parts.push(part);
        }
        // What parentheses held is of the same kind: the tree is as flat as what it says.
        let flat = parts.into_iter().flat_map(|part| match part {
            Expr::All(inner) if level == AND => inner,
            Expr::Any(inner) if level == OR => inner,
            part => vec![part],
        });
        Ok(if level == AND { Expr::All(flat.collect()) } else { Expr::Any(flat.collect()) })
    }

    fn membership(&mut self, of: Expr, at: usize) -> Parsed {
        if !self.is("[") {
            let list = self.expression(COMPARE)?;
            if self.mode == Mode::Check {
                return Err(Wrong::new(at, "a check does not look into the lists of columns")
                    .hint("in takes a list of values there: state in ['open', 'done']"));
            }
            return within(of, list, at);
        }
        self.next += 1;
        let mut list = Vec::new();
        while !self.is("]") {
            let at = self.at();
            let nodes = self.nodes;
            let item = self.deeper(|p| p.expression(COMPARE))?;
            self.nodes = nodes;
            let plain = item.parts().is_empty()
                && matches!(item.kind(), Kind::Bool | Kind::Number | Kind::Text | Kind::Time | Kind::Claim);
            if !plain {
                let message = format!("{item} is {} and cannot stand in a list", item.kind().words());
                return Err(Wrong::new(at, message));
            }
            let Expr::Compare(_, _, item) = compare(Op::Eq, of.clone(), item, at)? else {
                return Err(Wrong::new(at, "expected a value"));
            };
            if let Some(other) = list.iter().find(|other: &&Expr| !alike(other.kind(), item.kind())) {
                let (one, other) = (item.kind().words(), other.kind().words());
                return Err(Wrong::new(at, format!("the list has {other} and {one}")));
            }
            list.push(*item);
            if list.len() > LISTED {
                return Err(Wrong::new(at, format!("a list has at most {LISTED} values")));
            }
            if !self.takes(",") {
                break;
            }
        }
        if list.is_empty() {
            return Err(self.unexpected("a value"));
        }
        self.expect("]")?;
        Ok(Expr::In(Box::new(of), list))
    }

    fn operand(&mut self) -> Parsed {
        let at = self.at();
        self.count(at)?;
        match self.take() {
            Token::Int(number) => Ok(Expr::Int(number)),
            Token::Real(number) => Ok(Expr::Real(number)),
            Token::Text(text) => Ok(Expr::Text(text)),
            Token::Sign("-") => match self.take() {
                Token::Int(number) => Ok(Expr::Int(-number)),
                Token::Real(number) => Ok(Expr::Real(-number)),
                _ => Err(Wrong::new(at, "expected a number after `-`")),
            },
            Token::Sign("!") => {
                let of = self.deeper(Self::operand)?;
                predicate(&of, at + 1)?;
                Ok(Expr::Not(Box::new(of)))
            }
            Token::Sign("(") => {
                self.nodes -= 1;
                let inner = self.deeper(|p| p.expression(0))?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Name(name) => self.named(&name, at),
            _ => {
                self.next -= 1;
                Err(self.unexpected("a value"))
            }
        }
    }
}
