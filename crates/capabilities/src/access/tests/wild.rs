//! Expressions as wild as the grammar lets them be.

use proptest::prelude::*;

use super::lookups::lookup;
use super::*;
use crate::access::expr::{Auth, ColumnRef, Kind, Op, Source};

pub(super) fn column(of: &'static [Source], names: &'static [&'static str]) -> BoxedStrategy<Expr> {
    let made = (prop::sample::select(of), prop::sample::select(names)).prop_map(|(of, name)| {
        let (name, path) =
            name.split_once('.').map_or((name, Vec::new()), |(name, key)| (name, vec![key.to_owned()]));
        let table = if of == Source::Inner { members() } else { things() };
        let kind = table.column(name).unwrap().kind;
        Expr::Column(ColumnRef { of, name: name.to_owned(), kind, path })
    });
    made.boxed()
}

pub(super) fn any_of<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(values)
}

pub(super) fn claims() -> BoxedStrategy<Expr> {
    let names = &["n", "t", "b", "list", "numbers", "when", "none", "mixed", "deep", "empty"];
    let claim = any_of(names).prop_map(|name| {
        let path =
            if name == "deep" { vec!["deep".to_owned(), "er".to_owned()] } else { vec![name.to_owned()] };
        Expr::Auth(Auth::Claim(path))
    });
    claim.boxed()
}

pub(super) fn size(of: impl Strategy<Value = Expr> + 'static) -> BoxedStrategy<Expr> {
    of.prop_map(|of| Expr::Size(Box::new(of))).boxed()
}

/// Operands of a kind, as wild as the grammar lets them be.
pub(super) fn operand(kind: Kind, of: &'static [Source]) -> BoxedStrategy<Expr> {
    match kind {
        Kind::Text => prop_oneof![
            any_of(&["", "a", "A", "it's", "5", "1", "admin", "é", "a\0b", "\"; DROP TABLE Things; --"])
                .prop_map(|text| Expr::Text(text.to_owned())),
            column(of, &["title", "owner"]),
            any_of(&[Auth::Uid, Auth::Role, Auth::Email]).prop_map(Expr::Auth),
        ]
        .boxed(),
        Kind::Number => prop_oneof![
            any_of(&[0, 1, -1, 5, 7]).prop_map(Expr::Int),
            any_of(&[0.0, 1.5, -1.0, 5.0]).prop_map(Expr::Real),
            column(of, &["count", "price"]),
            size(column(of, &["title", "raw", "data", "data.list", "data.t", "data.n"])),
        ]
        .boxed(),
        Kind::Time => prop_oneof![
            any_of(&["2026-01-02T03:04:05.000Z", "2020-01-01T00:00:00.000Z", "2099-01-01T00:00:00.000Z"])
                .prop_map(|text| Expr::Time(text.to_owned())),
            Just(Expr::Now),
            column(of, &["due", "created_at"]),
        ]
        .boxed(),
        Kind::Bool => prop_oneof![any::<bool>().prop_map(Expr::Bool), column(of, &["done"])].boxed(),
        _ => prop_oneof![
            claims(),
            column(of, &["data.n", "data.t", "data.b", "data.list", "data.when", "data.none"])
        ]
        .boxed(),
    }
}

pub(super) fn predicate(of: &'static [Source]) -> BoxedStrategy<Expr> {
    let kinds = any_of(&[Kind::Text, Kind::Number, Kind::Time, Kind::Bool]);
    let ops = any_of(&[Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge]);
    let pair = (kinds, 0..6).prop_flat_map(move |(kind, wild)| {
        let pick = move |side| operand(if wild == side { Kind::Claim } else { kind }, of);
        (pick(0), pick(1))
    });
    let compare = (ops, pair).prop_map(|(op, (left, right))| {
        let unordered = [left.kind(), right.kind()].contains(&Kind::Bool);
        let op = if unordered && op.orders() { Op::Ne } else { op };
        Expr::Compare(op, Box::new(left), Box::new(right))
    });
    let part = move || column(of, &["data.n", "data.t", "data.b", "data.list", "data.when", "data.none"]);
    let parts = (any::<bool>(), part(), part()).prop_map(|(same, left, right)| {
        Expr::Compare(if same { Op::Eq } else { Op::Ne }, Box::new(left), Box::new(right))
    });
    let nullable = prop_oneof![
        column(of, &["title", "due", "data", "raw", "data.n", "data.none"]),
        claims(),
        any_of(&[Auth::Uid, Auth::Role, Auth::Email]).prop_map(Expr::Auth),
    ];
    let null = (any::<bool>(), nullable).prop_map(|(is, of)| {
        Expr::Compare(if is { Op::Eq } else { Op::Ne }, Box::new(of), Box::new(Expr::Null))
    });
    let listed = any_of(&[Kind::Text, Kind::Number, Kind::Time, Kind::Bool]).prop_flat_map(move |kind| {
        let item = prop_oneof![3 => operand(kind, of), 1 => claims()]
            .prop_filter("plain", |item| item.parts().is_empty());
        let of = prop_oneof![3 => operand(kind, of), 1 => operand(Kind::Claim, of)];
        (of, prop::collection::vec(item, 1..4)).prop_filter_map("comparable", |(of, list)| {
            let mixed = of.kind() == Kind::Part && list.iter().all(|item| item.kind() == Kind::Claim);
            // A text in a list is a time beside a time only.
            let timeless = (of.kind() != Kind::Time || matches!(of, Expr::Time(_)))
                && list.iter().any(|item| matches!(item, Expr::Time(_)));
            (!mixed && !timeless).then(|| Expr::In(Box::new(of), list))
        })
    });
    let needle =
        prop_oneof![operand(Kind::Text, of), operand(Kind::Number, of), operand(Kind::Bool, of), claims()];
    let within = (needle, prop_oneof![claims(), column(of, &["data", "data.list", "data.t"])])
        .prop_map(|(of, list)| Expr::Within(Box::new(of), Box::new(list)));
    let within_claim = (prop_oneof![operand(Kind::Time, of), column(of, &["data.n", "data.t"])], claims())
        .prop_map(|(of, list)| Expr::Within(Box::new(of), Box::new(list)));
    let text = move || prop_oneof![3 => operand(Kind::Text, of), 1 => operand(Kind::Claim, of)];
    let starts = (text(), text()).prop_map(|(text, start)| Expr::StartsWith(Box::new(text), Box::new(start)));
    let leaf = prop_oneof![6 => compare, 1 => parts, 2 => null, 2 => listed, 2 => within, 1 => within_claim, 2 => starts,
        1 => operand(Kind::Bool, of), 1 => operand(Kind::Claim, of)];
    // A filter does not look into other tables.
    let leaf = if of.contains(&Source::Bare) {
        leaf.boxed()
    } else {
        prop_oneof![5 => leaf, 1 => lookup(of)].boxed()
    };
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        let many = || prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            many().prop_map(|parts| flat(parts, true)),
            many().prop_map(|parts| flat(parts, false)),
            inner.clone().prop_map(|of| Expr::Not(Box::new(of))),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| Expr::Compare(
                Op::Eq,
                Box::new(Expr::Not(Box::new(left))),
                Box::new(Expr::Not(Box::new(right)))
            )),
        ]
    });
    tree.boxed()
}

/// As the parser makes it.
pub(super) fn flat(parts: Vec<Expr>, all: bool) -> Expr {
    let parts = parts.into_iter().flat_map(|part| match part {
        Expr::All(inner) if all => inner,
        Expr::Any(inner) if !all => inner,
        part => vec![part],
    });
    if all { Expr::All(parts.collect()) } else { Expr::Any(parts.collect()) }
}
