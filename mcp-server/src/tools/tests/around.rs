//! Functions where nothing runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use capabilities::hosting::Blobs;
use functions::{Artifacts, Asker, Called, Functions, FunctionsLimits, Host, Line, Place, Sent};
use futures::future::BoxFuture;
use http::{Request, Response};
use kernel::{Code, Env, Error, Result, Secret};
use sandbox::egress::{Event, Policy};
use sandbox::local::Local;
use sandbox::runner::Isolation;
use sandbox::workspace::templates::Templates;
use serde_json::json;

use super::Ground;

/// Nothing is around them.
struct Nothing;

impl Host for Nothing {
    fn place<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<Place>> {
        Box::pin(async {
            Ok(Place { slug: "default".to_owned(), url: "http://default.localhost".to_owned() })
        })
    }

    fn secrets<'a>(&'a self, _: &'a Env, _: &'a [String]) -> BoxFuture<'a, Result<BTreeMap<String, Secret>>> {
        Box::pin(async { Ok(BTreeMap::new()) })
    }

    fn admits<'a>(&'a self, _: &'a Env, _: Isolation) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn policy<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<Policy>> {
        Box::pin(async { Ok(Policy::default()) })
    }

    fn log(&self, _: &Called, _: Option<&str>, _: &Line) {}

    fn told(&self, _: &Called, _: Event) {}

    fn answer<'a>(
        &'a self,
        _: &'a Asker,
        _: Request<hyper::body::Incoming>,
    ) -> BoxFuture<'a, Response<Sent>> {
        Box::pin(std::future::pending())
    }
}

/// Functions that `none` is to run.
pub fn functions(none: Arc<Local>, directory: &Path, blobs: Blobs) -> Functions {
    let artifacts = Artifacts::open(directory.join("functions"), blobs).unwrap();
    let templates = Templates::new(directory.join("templates"));
    Functions::new(none, templates, artifacts, Arc::new(Nothing), FunctionsLimits::default()).unwrap()
}

#[tokio::test]
async fn a_function_that_is_not_there_is_not_asked() {
    let ground = Ground::new().await;
    for name in ["none", "No Name", &"x".repeat(5_000)] {
        let refused = ground.call("function_invoke", json!({ "name": name })).await.unwrap_err();
        assert_eq!((refused.code(), refused.pointer()), (Code::NotFound, Some("/name")));
    }
    let deploy = async |input| -> Error { ground.call("function_deploy", input).await.unwrap_err() };
    let refused = deploy(json!({ "name": "Hello", "files": { "index.ts": "" } })).await;
    assert_eq!((refused.code(), refused.pointer()), (Code::InvalidInput, Some("/name")));
    let refused = deploy(json!({ "name": "hello", "files": {}, "workspace_path": "x" })).await;
    assert_eq!((refused.code(), refused.pointer()), (Code::InvalidInput, Some("/files")));
}
