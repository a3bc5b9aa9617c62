//! `access_explain`: tries an operation on a row as somebody, and says why it passes or not.

use capabilities::access::{Explanation, Operation, Question, Who};
use kernel::{Code, Env, Error, Result, Scope};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};
use tool::{Cx, Effect, Spec, Tool, budget};

use super::outcome::shorten;
use crate::platform::Platform;

pub struct AccessExplain;

/// How many characters of the statement and of a rule are shown, and what its parameters may cost, in tokens.
const SQL: usize = 2_000;
const RULE: usize = 1_000;
const PARAMS: usize = 600;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    on: String,
    #[schemars(schema_with = "operation")]
    r#do: Operation,
    r#as: String,
    id: Option<String>,
    #[serde(default)]
    #[schemars(schema_with = "object")]
    row: Option<Map<String, Value>>,
    #[serde(default)]
    #[schemars(schema_with = "object")]
    new: Option<Map<String, Value>>,
}

fn operation(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": Operation::ALL })
}

fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

impl Tool<Platform> for AccessExplain {
    type Proof = Env;
    type Input = Input;
    type Output = Explanation;

    const SPEC: Spec = Spec {
        title: "Explain access",
        about: "Tries an operation as anonymous, user (the row's owner), other, admin or a user's id; says why it passes \
                or not.",
        scopes: &[Scope::AppRead],
        effect: Effect::Read,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Explanation> {
        let who = match input.r#as.parse() {
            Ok(persona) => Who::Persona(persona),
            Err(()) => Who::User(input.r#as.parse().map_err(|_| {
                Error::invalid("/as", "this is neither anonymous, user, other, admin, nor a user's id")
                    .hint("auth_users gives the id of an address")
            })?),
        };
        if input.id.is_some() && input.row.is_some() {
            return Err(Error::invalid("/row", "give either id or row"));
        }
        // The answer tells what rules ask of a user, and of a row that is there.
        if matches!(who, Who::User(_)) || input.id.is_some() {
            needs(cx, Scope::AuthRead, "/as")?;
        }
        if input.id.is_some() {
            needs(cx, Scope::DbRead, "/id")?;
        }
        let question = Question {
            on: input.on,
            operation: input.r#do,
            who,
            id: input.id,
            row: input.row.unwrap_or_default(),
            new: input.new.unwrap_or_default(),
        };
        let mut explanation = cx.platform().releases.explain(cx.env(), question, cx.cancel()).await?;
        shorten(&mut explanation.sql, SQL);
        shorten(&mut explanation.rule, RULE);
        explanation.failing.iter_mut().for_each(|failing| shorten(failing, RULE));
        let (params, left) = budget::fit(std::mem::take(&mut explanation.params), PARAMS);
        explanation.params = params;
        if left > 0 {
            explanation.params.push(format!("and {left} more").into());
        }
        Ok(explanation)
    }
}

fn needs(cx: &Cx<'_, Platform, Env>, scope: Scope, at: &str) -> Result<()> {
    match cx.caller().scopes.missing(&[scope]) {
        None => Ok(()),
        Some(scope) => Err(Error::new(Code::Forbidden, format!("the credential lacks the scope {scope}"))
            .field(at)
            .hint("ask about somebody made up and a made-up row, or use a credential that carries it")),
    }
}
