//! `/v1/prices`: what models cost, from a time on.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use kernel::{Error, Result, Timestamp};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Query;
use models::{NewPrice, PRICES};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Price;
use tool::Effect;
use web::problem::Problem;

use super::keys::After;
use super::{Action, Api, answer, page, read, unbroken};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    model: String,
    /// Now, where it is left out.
    since: Option<Timestamp>,
    /// Millionths of the currency, by the million tokens.
    input: u64,
    cached_input: Option<u64>,
    output: u64,
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(after): Query<After>,
) -> Result<Response, Problem> {
    let work = async {
        let after = after.cursor.as_deref().map(|cursor| {
            let wrong = || Error::invalid("/cursor", "this is not a cursor of this list");
            let (since, model) = cursor.split_once(' ').ok_or_else(wrong)?;
            Ok::<_, Error>((model, Timestamp::from_micros(since.parse().map_err(|_| wrong())?)))
        });
        api.platform().models.prices().list(&caller, after.transpose()?).await
    };
    let found = api.act(&caller, "prices.list", Effect::Read, work).await?;
    let last = found.last().filter(|_| found.len() == PRICES as usize);
    let cursor = last.map(|it| format!("{} {}", it.since.as_micros(), it.model));
    Ok(page("prices", found.iter().map(shown).collect(), cursor))
}

pub async fn set(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let action = Action::of("prices.set", &input);
        let work = async {
            let Wanted { model, since, input, cached_input, output } = tool::decode(input)?;
            let new = NewPrice { model, since, input, cached_input, output };
            api.platform().models.prices().set(&caller, new).await
        };
        let set = api.act(&caller, action, Effect::Idempotent, work).await?;
        Ok(answer(StatusCode::OK, &shown(&set)))
    })
    .await
}

fn shown(price: &Price) -> Value {
    json!({
        "model": price.model, "since": price.since.to_string(), "input": price.input,
        "cached_input": price.cached_input, "output": price.output,
    })
}
