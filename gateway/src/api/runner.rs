//! `/v1/runner`: the programs that the platform's builder has in all sandboxes beside the platform's own; for the operator.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hands::{Equipment, Swapped};
use http::{HeaderMap, StatusCode};
use kernel::{Caller, Error, Proof as _, Result, Scope, Tenant};
use mcp_server::auth::Authenticated;
use sandbox::local::programs::MOST_BYTES;
use serde_json::json;
use tokio_util::io::StreamReader;
use tool::Effect;
use web::problem::Problem;

use super::{Api, answer, unbroken};

/// The largest archive: what it has beside its programs is little.
const ARCHIVE: u64 = MOST_BYTES + (1 << 20);

fn authorize(caller: &Caller) -> Result<Tenant> {
    Tenant::authorize(caller, &[Scope::TenantAdmin])
}

/// What sandboxes are made with.
pub async fn show(State(api): State<Api>, Authenticated(caller): Authenticated) -> Result<Response, Problem> {
    let work = async {
        authorize(&caller)?;
        api.platform().hands.equipment().await
    };
    let Equipment { version, programs } = api.act(&caller, "runner.show", Effect::Read, work).await?;
    let programs: Vec<_> = programs.iter().map(|it| json!({ "name": it.name, "bytes": it.bytes })).collect();
    Ok(answer(StatusCode::OK, &json!({ "version": version.to_string(), "programs": programs })))
}

/// Has all sandboxes use the programs of a tar in place of those that they have.
pub async fn put(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async {
            authorize(&caller)?;
            let body = web::body::bounded(&headers, body, ARCHIVE).await?;
            let (gate, first) = (api.0.gate.clone(), caller.clone());
            // An archive takes its time: whoever sends its end must still be let in.
            let again = async move {
                let Authenticated(caller) =
                    Authenticated::again(&*gate, &headers, &first).await.map_err(std::io::Error::other)?;
                authorize(&caller).map_err(std::io::Error::other)?;
                Ok(None)
            };
            let again = stream::once(again).try_filter_map(async |end| Ok(end));
            let chunks = body.into_data_stream().map_err(refused).chain(again).boxed();
            api.platform().hands.use_programs(StreamReader::new(chunks)).await
        };
        let Swapped { version, before, swapped, reverted } =
            api.act(&caller, "runner.use", Effect::Idempotent, work).await?;
        let body = json!({
            "version": version.to_string(), "before": before.to_string(), "swapped": swapped, "reverted": reverted,
        });
        Ok(answer(StatusCode::OK, &body))
    })
    .await
}

/// What was wrong with the body, as whoever reads it finds it.
fn refused(error: axum::Error) -> std::io::Error {
    match error.into_inner().downcast::<Error>() {
        Ok(own) => std::io::Error::other(*own),
        Err(error) => std::io::Error::other(error),
    }
}
