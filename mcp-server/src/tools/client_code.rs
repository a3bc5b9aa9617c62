//! `client_code`: a typed client for the tables that are live.

use capabilities::rows::{LiveApps as _, typescript};
use kernel::{Env, Error, Result, Scope};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct ClientCode;

/// What a page may cost, in tokens.
const PAGE: usize = 3_400;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    #[serde(default)]
    #[schemars(schema_with = "language")]
    language: Option<Language>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Language {
    Typescript,
}

fn language(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["typescript"] })
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The code, for a file beside /_/sdk.js and /_/sdk.d.ts of the app.
    code: String,
    /// Where the whole of it is, always of the live release.
    url: String,
    /// Where the next part begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Tool<Platform> for ClientCode {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Typed client",
        about: "Types and client for the live tables.",
        scopes: &[Scope::AppRead],
        effect: Effect::Read,
        examples: &["{}"],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let Input { language: None | Some(Language::Typescript), cursor } = input;
        let platform = cx.platform();
        let text = typescript(&*platform.releases.app(cx.env()).await?);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let from = match cursor.as_deref() {
            None => 0,
            Some(cursor) => {
                let line = cursor.parse().ok().filter(|line| (1..lines.len()).contains(line));
                line.ok_or_else(|| {
                    Error::invalid("/cursor", "the cursor is not one of this client")
                        .hint("begin again without it")
                })?
            }
        };
        let mut spent = 0;
        let page = lines[from..].iter().take_while(|line| {
            spent += budget::estimate(line) + 2;
            spent <= PAGE
        });
        let next = from + page.count();
        Ok(Output {
            code: lines[from..next].concat(),
            url: format!("{}/_/client.ts", platform.url(cx.env()).await?),
            cursor: (next < lines.len()).then(|| next.to_string()),
        })
    }
}
