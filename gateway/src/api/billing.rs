//! `/v1/meters`: what is counted and what it costs; `/v1/statements`: what a tenant has used in a month, and what that comes to;
//! `/v1/usage/export`: the same hour by hour, for other systems.

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use control::metering::{self, Line, Used};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use kernel::{Error, Meter, Proof as _, Result, Scope, Tenant, TenantId, Timestamp};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Query;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{MeterPrice, Metered, Period, hour_of};
use tool::Effect;
use web::problem::Problem;

use super::budgets::environment;
use super::{Action, Api, answer, page, read, unbroken};

/// Hours of meters on one page.
const PAGE: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    meter: String,
    /// From this hour on, where it is left out.
    since: Option<Timestamp>,
    /// Millionths of the currency.
    micro: u64,
}

pub async fn meters(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Problem> {
    let work = async {
        Tenant::authorize(&caller, &[Scope::EnvRead])?;
        api.platform().control.metering().prices().await
    };
    let prices = api.act(&caller, "meters.list", Effect::Read, work).await?;
    let now = Timestamp::now();
    let all = Meter::ALL.into_iter().map(|meter| {
        let of = prices.iter().filter(|price| price.meter == meter).map(priced).collect::<Vec<_>>();
        json!({
            "meter": meter.as_str(), "unit": meter.unit(), "priced_by": meter.priced_by(),
            "micro": metering::price(&prices, meter, now), "prices": of,
        })
    });
    Ok(page("meters", all.collect(), None))
}

fn priced(price: &MeterPrice) -> Value {
    json!({ "since": price.since.to_string(), "micro": price.micro })
}

pub async fn set_price(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let action = Action::of("meters.set", &input);
        let work = async {
            let Wanted { meter, since, micro } = tool::decode(input)?;
            let meter: Meter = meter.parse().map_err(|why: String| Error::invalid("/meter", why))?;
            api.platform().control.metering().set_price(&caller, meter, since, micro).await
        };
        let set = api.act(&caller, action, Effect::Idempotent, work).await?;
        let mut shown = priced(&set);
        shown["meter"] = set.meter.as_str().into();
        shown["priced_by"] = set.meter.priced_by().into();
        Ok(answer(StatusCode::OK, &shown))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// `2026-11`; this month where there is none.
    month: Option<String>,
    /// The environment, by slug or id; all of the tenant where there is none.
    env: Option<String>,
    /// `json` or `csv`.
    format: Option<String>,
}

pub async fn statement(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let work = async {
        let tenant = Tenant::authorize(&caller, &[Scope::EnvRead])?.id();
        let csv = is_csv(asked.format.as_deref(), &["json", "csv"])?;
        let (from, to) = month(asked.month.as_deref())?;
        let env = match &asked.env {
            Some(name) => Some(environment(&api, &caller, name).await?),
            None => caller.env,
        };
        let control = &api.platform().control;
        control.ledger().flush(tenant).await?;
        let lines = control.metering().lines(tenant, env, from, to).await?;
        Ok((tenant, from, to, lines, csv))
    };
    let (tenant, from, to, lines, csv) = api.act(&caller, "statements.show", Effect::Read, work).await?;
    if csv {
        return Ok(text("text/csv; charset=utf-8", statement_csv(&lines)));
    }
    let total: u64 = lines.iter().filter_map(|line| line.micro).fold(0, u64::saturating_add);
    let body = json!({
        "tenant": tenant, "from": from.to_string(), "to": to.to_string(),
        // Until the month is over, and what was counted in it is written, it grows.
        "final": Timestamp::now() > to.plus(std::time::Duration::from_secs(60)),
        "lines": lines.iter().map(line).collect::<Vec<_>>(), "total_micro": total,
    });
    Ok(answer(StatusCode::OK, &body))
}

fn line(line: &Line) -> Value {
    let mut shown = match &line.of {
        Used::Meter(meter) => json!({
            "meter": meter.as_str(), "amount": line.amount, "unit": meter.unit(), "priced_by": meter.priced_by(),
        }),
        Used::Model(model, calls) => {
            json!({ "model": model, "calls": calls, "amount": line.amount, "unit": "tokens" })
        }
    };
    shown["env"] = json!(line.env);
    shown["micro"] = line.micro.into();
    shown
}

fn statement_csv(lines: &[Line]) -> String {
    let mut csv = "env,of,amount,unit,micro\r\n".to_owned();
    for line in lines {
        let (of, unit) = match &line.of {
            Used::Meter(meter) => (meter.as_str().to_owned(), meter.unit()),
            Used::Model(model, _) => (format!("model {model}"), "tokens"),
        };
        let env = line.env.map(|env| env.to_string()).unwrap_or_default();
        let micro = line.micro.map(|micro| micro.to_string()).unwrap_or_default();
        csv.push_str(&format!("{env},{},{},{unit},{micro}\r\n", cell(&of), line.amount));
    }
    csv
}

/// A cell of CSV (RFC 4180). What a spreadsheet would take for a formula is none.
fn cell(text: &str) -> String {
    let text =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// A time, or an age such as `7d`; a day ago where there is none.
    since: Option<String>,
    /// A time; now where there is none.
    until: Option<String>,
    /// `json`, `csv` or `cloudevents`.
    format: Option<String>,
    cursor: Option<String>,
}

pub async fn export(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(asked): Query<Span>,
) -> Result<Response, Problem> {
    let work = async {
        let tenant = Tenant::authorize(&caller, &[Scope::EnvRead])?;
        if caller.env.is_some() {
            return Err(
                Error::invalid("", "an export is of a whole tenant").hint("call it without Steading-Env")
            );
        }
        is_csv(asked.format.as_deref(), &["json", "csv", "cloudevents"])?;
        let at = |text: &Option<String>, field: &str, usual: Timestamp| match text {
            None => Ok(usual),
            Some(text) => Timestamp::parse_or_ago(text)
                .ok_or_else(|| Error::invalid(field, "expected a time such as 2026-01-31T12:00:00Z")),
        };
        let now = Timestamp::now();
        let since = at(&asked.since, "/since", now.minus(std::time::Duration::from_secs(24 * 3_600)))?;
        // An hour that goes on has no end yet, and would be another event each time.
        let over = hour_of(now.minus(std::time::Duration::from_secs(60)));
        let until = at(&asked.until, "/until", over)?.min(over);
        let wrong = || Error::invalid("/cursor", "this is not a cursor of this list");
        let after = asked.cursor.as_deref().map(|cursor| {
            let mut parts = cursor.splitn(3, ' ');
            let hour = parts.next().and_then(|hour| hour.parse().ok()).ok_or_else(wrong)?;
            let (env, meter) = (parts.next().ok_or_else(wrong)?, parts.next().ok_or_else(wrong)?);
            Ok::<_, Error>((Timestamp::from_micros(hour), env, meter))
        });
        let control = &api.platform().control;
        control.ledger().flush(tenant.id()).await?;
        let span = (hour_of(since), hour_of(until));
        let hours = control.metering().hours(tenant.id(), span, after.transpose()?, PAGE).await?;
        Ok((tenant.id(), hours))
    };
    let (tenant, hours) = api.act(&caller, "usage.export", Effect::Read, work).await?;
    let cursor = hours.last().filter(|_| hours.len() == PAGE as usize).map(|it| {
        format!(
            "{} {} {}",
            it.hour.as_micros(),
            it.env.map(|env| env.to_string()).unwrap_or_default(),
            it.meter
        )
    });
    let mut response = match asked.format.as_deref() {
        Some("csv") => text("text/csv; charset=utf-8", hours_csv(&hours)),
        Some("cloudevents") => {
            let events: Vec<_> = hours.iter().map(|it| event(tenant, it)).collect();
            text("application/cloudevents-batch+json", Value::from(events).to_string())
        }
        _ => return Ok(page("hours", hours.iter().map(hour).collect(), cursor)),
    };
    if let Some(cursor) = cursor.and_then(|cursor| cursor.parse().ok()) {
        response.headers_mut().insert("steading-cursor", cursor);
    }
    Ok(response)
}

fn hour(it: &Metered) -> Value {
    json!({
        "env": it.env, "hour": it.hour.to_string(), "meter": it.meter.as_str(), "amount": it.amount,
        "unit": it.meter.unit(),
    })
}

/// A CloudEvent (1.0.2, JSON format). The same hour has the same id each time: whoever takes events knows it by that.
fn event(tenant: TenantId, it: &Metered) -> Value {
    let env = it.env.map(|env| env.to_string()).unwrap_or_default();
    let subject = if env.is_empty() { tenant.to_string() } else { format!("{tenant}/{env}") };
    json!({
        "specversion": "1.0", "type": "com.steading.usage.hour", "source": "/v1/usage",
        "id": format!("{tenant}/{env}/{}/{}", it.hour.as_secs(), it.meter),
        "subject": subject, "time": it.hour.to_string(), "datacontenttype": "application/json",
        "data": { "tenant": tenant, "env": it.env, "meter": it.meter.as_str(), "amount": it.amount, "unit": it.meter.unit() },
    })
}

fn hours_csv(hours: &[Metered]) -> String {
    let mut csv = "hour,env,meter,amount,unit\r\n".to_owned();
    for it in hours {
        let env = it.env.map(|env| env.to_string()).unwrap_or_default();
        csv.push_str(&format!("{},{env},{},{},{}\r\n", it.hour, it.meter, it.amount, it.meter.unit()));
    }
    csv
}

fn text(kind: &'static str, text: String) -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, kind)], text).into_response()
}

fn is_csv(format: Option<&str>, known: &[&str]) -> Result<bool> {
    match format {
        Some(format) if !known.contains(&format) => {
            Err(Error::invalid("/format", format!("there is {}", known.join(", "))))
        }
        format => Ok(format == Some("csv")),
    }
}

/// When a month begins and ends, in UTC.
fn month(text: Option<&str>) -> Result<(Timestamp, Timestamp)> {
    let within = match text {
        None => Timestamp::now(),
        Some(text) => {
            let first = Some(text).filter(|text| text.len() == 7);
            first
                .and_then(|text| Timestamp::parse(&format!("{text}-01T00:00:00Z")))
                .ok_or_else(|| Error::invalid("/month", "expected a month such as 2026-11"))?
        }
    };
    Ok((Period::Month.begins(within), Period::Month.ends(within)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Environments.
    envs: u64,
    /// A month of each: calls, requests of visitors, GiB read, hours of a processor, GiB-hours of memory, GiB kept beside what an
    /// empty one has.
    #[serde(default)]
    calls: u64,
    #[serde(default)]
    visits: u64,
    #[serde(default)]
    egress_gib: f64,
    #[serde(default)]
    cpu_hours: f64,
    #[serde(default)]
    memory_gib_hours: f64,
    #[serde(default)]
    storage_gib: f64,
}

/// What so many environments would cost in a month at today's prices.
pub async fn estimate(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(planned): Query<Planned>,
) -> Result<Response, Problem> {
    let work = async {
        Tenant::authorize(&caller, &[Scope::EnvRead])?;
        let platform = api.platform();
        let prices = platform.control.metering().prices().await?;
        let empty = platform.databases.empty().await?;
        let parts = |amount: f64, field: &str, meter: Meter| {
            if !(0.0..=1e9).contains(&amount) {
                return Err(Error::invalid(format!("/{field}"), "expected a number from 0 to 1,000,000,000"));
            }
            Ok((amount * meter.in_a_price() as f64).round() as u128)
        };
        if planned.envs > 1_000_000_000 || planned.calls > 1 << 53 || planned.visits > 1 << 53 {
            return Err(Error::invalid("/envs", "that is more than there can be"));
        }
        let month = u128::from(empty) * 730 * 3_600;
        let of_one = [
            (Meter::Calls, u128::from(planned.calls)),
            (Meter::Visits, u128::from(planned.visits)),
            (Meter::Egress, parts(planned.egress_gib, "egress_gib", Meter::Egress)?),
            (Meter::Cpu, parts(planned.cpu_hours, "cpu_hours", Meter::Cpu)?),
            (Meter::Memory, parts(planned.memory_gib_hours, "memory_gib_hours", Meter::Memory)?),
            (Meter::Storage, parts(planned.storage_gib, "storage_gib", Meter::Storage)? + month),
        ];
        let now = Timestamp::now();
        let lines: Vec<_> = of_one
            .into_iter()
            .map(|(meter, amount)| {
                let amount = amount.saturating_mul(u128::from(planned.envs));
                let micro =
                    metering::price(&prices, meter, now).map(|micro| metering::cost(meter, amount, micro));
                (meter, amount, micro)
            })
            .collect();
        let total: u64 = lines.iter().filter_map(|line| line.2).fold(0, u64::saturating_add);
        let shown: Vec<_> = lines
            .iter()
            .map(|(meter, amount, micro)| {
                let priced = *amount as f64 / meter.in_a_price() as f64;
                json!({ "meter": meter.as_str(), "amount": priced, "in": meter.priced_by(), "micro": micro })
            })
            .collect();
        Ok(json!({
            "envs": planned.envs, "hours": 730, "empty_environment_bytes": empty, "lines": shown,
            "total_micro": total,
        }))
    };
    let estimate = api.act(&caller, "costs.estimate", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &estimate))
}
