//! What is said of budgets: that one has no room, which, and when it has again; and that one is nearly spent.

use std::time::Duration;

use kernel::{Code, Error, LimitInfo, LimitScope, Timestamp};
use store::{Aside, Limit, Period, Setter, Standing, Unit};

/// When to ask again where calls under way may leave something.
const SOON: Duration = Duration::from_secs(5);

/// How a limit frees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Frees {
    /// When calls under way are over, perhaps.
    Soon,
    /// When the next period begins.
    At(Timestamp),
    /// Never for a call like this one.
    Never,
}

fn wanted(aside: &Aside, unit: Unit) -> u64 {
    match unit {
        Unit::Tokens => aside.tokens(),
        Unit::Micro => aside.micro.unwrap_or_default(),
    }
}

fn frees(standing: &Standing, aside: &Aside, now: Timestamp) -> Frees {
    let (limit, wanted) = (&standing.limit, wanted(aside, standing.limit.unit()));
    if wanted > limit.most() {
        Frees::Never
    } else if standing.spent.saturating_add(wanted) > limit.most() {
        Frees::At(limit.period().ends(now))
    } else {
        Frees::Soon
    }
}

/// That there is no room for a call in `lacking`: says it of the one that frees last.
pub(crate) fn refusal(lacking: &[Standing], aside: &Aside, now: Timestamp) -> Error {
    let Some(standing) = lacking.iter().max_by_key(|it| frees(it, aside, now)) else {
        return Error::internal("a call was refused by no budget");
    };
    let (limit, frees) = (&standing.limit, frees(standing, aside, now));
    let (unit, wanted) = (limit.unit(), wanted(aside, limit.unit()));
    let uses = match unit {
        Unit::Tokens => format!("use {wanted} tokens"),
        Unit::Micro => format!("cost {wanted} micro"),
    };
    let message = format!(
        "this call may {uses}, and of the {} of this {} that {} has, {} are spent and {} set aside for calls under way",
        limit.most(),
        limit.period(),
        whose(limit),
        standing.spent,
        standing.aside,
    );
    let error = Error::new(Code::BudgetExceeded, message).limit(info(standing, frees, now));
    let raise = raise(limit);
    match frees {
        Frees::Never => error.field("/max_tokens").hint(format!("set max_tokens, or send less; {raise}")),
        Frees::At(at) => error.retry_after(until(at, now)).hint(format!(
            "a new {} begins at {at}, or ask for less with max_tokens; {raise}",
            limit.period()
        )),
        Frees::Soon => error
            .retry_after(SOON)
            .hint(format!("ask again when those are over, or for less with max_tokens; {raise}")),
    }
}

/// That money is bounded, and what the model costs is not known.
pub(crate) fn unpriced(limit: &Limit, model: &str) -> Error {
    let message = format!("the model {model:?} has no price, and money is bounded for {}", whose(limit));
    let raise = format!("the platform's operator sets one: steading price set {model}");
    let info = LimitInfo::new(name(limit), scope(limit), limit.most(), limit.unit().as_str());
    Error::new(Code::BudgetExceeded, message).limit(info.raised(raise.clone())).hint(raise)
}

/// That most of a budget is spent.
pub(crate) fn warning(standing: &Standing, now: Timestamp) -> String {
    let limit = &standing.limit;
    let percent = u128::from(standing.spent) * 100 / u128::from(limit.most().max(1));
    format!(
        "{percent} % of what {} has this {} for models is spent: {} of {} {}; a new {} begins at {}",
        whose(limit),
        limit.period(),
        standing.spent,
        limit.most(),
        limit.unit(),
        limit.period(),
        limit.period().ends(now),
    )
}

fn info(standing: &Standing, frees: Frees, now: Timestamp) -> LimitInfo {
    let limit = &standing.limit;
    let (begins, ends) = (limit.period().begins(now), limit.period().ends(now));
    let info = LimitInfo::new(name(limit), scope(limit), limit.most(), limit.unit().as_str())
        .window(until(ends, begins).as_secs())
        .left(standing.left())
        .raised(raise(limit));
    match frees {
        Frees::Never => info,
        Frees::At(at) => info.reset(until(at, now).as_secs()),
        Frees::Soon => info.reset(SOON.as_secs()),
    }
}

const fn scope(limit: &Limit) -> LimitScope {
    if limit.env().is_some() { LimitScope::Environment } else { LimitScope::Tenant }
}

fn name(limit: &Limit) -> &'static str {
    match (limit, limit.unit(), limit.period()) {
        (Limit::Usual { .. }, ..) => "model.tokens_of_env",
        (_, Unit::Tokens, Period::Day) => "tokens_of_day",
        (_, Unit::Tokens, Period::Month) => "tokens_of_month",
        (_, Unit::Micro, Period::Day) => "money_of_day",
        (_, Unit::Micro, Period::Month) => "money_of_month",
    }
}

fn whose(limit: &Limit) -> String {
    let whose = if limit.env().is_some() { "the environment" } else { "the tenant" };
    match limit {
        Limit::Set(budget) => format!("{whose} ({})", budget.id),
        Limit::Usual { .. } => whose.to_owned(),
    }
}

fn raise(limit: &Limit) -> String {
    match limit {
        Limit::Usual { .. } => {
            "the platform's operator raises model.tokens_of_env, or sets another budget for it".to_owned()
        }
        Limit::Set(budget) => {
            let who = match budget.setter {
                Setter::Operator => "the platform's operator",
                Setter::Tenant => "who has a key of the tenant with key:admin",
            };
            format!("{who} raises it: PUT /v1/budgets/{}", budget.id)
        }
    }
}

/// From `now` to `at`, in whole seconds, rounded up.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    let micros = u64::try_from(at.as_micros() - now.as_micros()).unwrap_or_default();
    Duration::from_secs(micros.div_ceil(1_000_000).max(1))
}

#[cfg(test)]
mod tests {
    use kernel::{BudgetId, EnvId, TenantId};
    use serde_json::json;
    use store::Budget;

    use super::*;

    fn standing(most: u64, spent: u64, aside: u64, unit: Unit, period: Period) -> Standing {
        let budget = Budget {
            id: "bud_00000000000000000000000000000001".parse::<BudgetId>().unwrap(),
            tenant: TenantId::new(),
            env: None,
            unit,
            period,
            setter: Setter::Operator,
            most,
            updated: Timestamp::from_micros(0),
        };
        Standing { limit: Limit::Set(budget), spent, aside }
    }

    #[test]
    fn a_refusal_says_which_budget_how_much_there_is_and_when_there_is_more() {
        let now = Timestamp::parse("2026-12-31T23:59:00Z").unwrap();
        let aside = Aside { prompt: 150, completion: 50, micro: Some(7) };
        let usual =
            Standing { limit: Limit::Usual { env: EnvId::new(), most: 1_000 }, spent: 900, aside: 90 };
        let refused = refusal(std::slice::from_ref(&usual), &aside, now);
        assert_eq!(
            (refused.code(), refused.status(), refused.retry_after_secs()),
            (Code::BudgetExceeded, 402, Some(60))
        );
        assert_eq!(
            refused.message(),
            "this call may use 200 tokens, and of the 1000 of this day that the environment has, 900 are spent and 90 set aside \
             for calls under way"
        );
        assert_eq!(
            refused.advice().unwrap(),
            "a new day begins at 2027-01-01T00:00:00Z, or ask for less with max_tokens; \
             the platform's operator raises model.tokens_of_env, or sets another budget for it"
        );
        // What frees last is said: money of the month that is set aside for others frees sooner than a day's tokens.
        let money = standing(10, 1, 9, Unit::Micro, Period::Month);
        assert_eq!(refusal(&[money.clone(), usual.clone()], &aside, now).message(), refused.message());
        let soon = refusal(&[money], &aside, now);
        assert_eq!(soon.retry_after_secs(), Some(5));
        assert_eq!(
            soon.problem("req")["limit"],
            json!({
                "name": "money_of_month", "scope": "tenant", "value": 10, "unit": "micro", "window_s": 31 * 86_400,
                "left": 0, "reset_s": 5,
                "raise": "the platform's operator raises it: PUT /v1/budgets/bud_00000000000000000000000000000001",
            })
        );
        // A call that is larger than all of it never has room.
        let never = refusal(&[usual, standing(199, 0, 0, Unit::Tokens, Period::Day)], &aside, now);
        assert_eq!((never.retry_after_secs(), never.pointer()), (None, Some("/max_tokens")));
        assert_eq!(never.limit_info().map(|it| (it.value, it.left, it.reset_s)), Some((199, 199, None)));
    }

    #[test]
    fn a_warning_says_how_much_is_spent_and_when_there_is_more() {
        let now = Timestamp::parse("2026-11-05T00:00:00Z").unwrap();
        let standing = standing(1_000, 812, 100, Unit::Tokens, Period::Month);
        assert_eq!(
            warning(&standing, now),
            "81 % of what the tenant (bud_00000000000000000000000000000001) has this month for models is spent: \
             812 of 1000 tokens; a new month begins at 2026-12-01T00:00:00Z"
        );
    }
}
