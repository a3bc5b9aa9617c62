//! `skill_read`: instructions that a model loads when it needs them.

use kernel::{Error, Result, Scope, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;
use crate::skills;

pub struct SkillRead;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// A skill, or a file it refers to.
    name: Option<String>,
    /// Instead: words.
    query: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The skill's name, or the file's path.
    name: &'static str,
    /// What it says.
    text: &'static str,
}

impl Tool<Platform> for SkillRead {
    // The same for everybody, also where a credential has no environment yet.
    type Proof = Tenant;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Read a skill",
        about: "How things are done here, with examples: start-here, build-a-web-app, \
                data-and-access, auth-and-accounts, files-and-images, realtime, domains, debug-and-verify, change-data-safely, \
                manage-environments.",
        scopes: &[Scope::AppRead],
        effect: Effect::Read,
        examples: &[r#"{"name":"start-here"}"#, r#"{"query":"who may read which rows"}"#],
    };

    const ENTRY: bool = true;

    async fn call(_: &Cx<'_, Platform, Tenant>, input: Input) -> Result<Output> {
        match (input.name, input.query) {
            (Some(name), None) => {
                let skill = skills::named(&name).map(|skill| Output { name: skill.name, text: skill.body });
                let found = skill
                    .or_else(|| skills::file(&name).map(|file| Output { name: file.path, text: file.text }));
                found.ok_or_else(|| unknown(format!("skill {:?}", name.chars().take(64).collect::<String>())))
            }
            (None, Some(query)) => {
                let found = skills::find(&query);
                let found = found.map(|skill| Output { name: skill.name, text: skill.body });
                found.ok_or_else(|| unknown("skill with one of these words".to_owned()))
            }
            // Who asks for nothing yet begins at the beginning.
            (None, None) => {
                let first =
                    skills::named("start-here").map(|skill| Output { name: skill.name, text: skill.body });
                first.ok_or_else(|| unknown("skill to start with".to_owned()))
            }
            (Some(_), Some(_)) => Err(Error::invalid("/query", "give either name or query")),
        }
    }
}

fn unknown(what: String) -> Error {
    let names: Vec<_> = skills::all().iter().map(|skill| skill.name).collect();
    Error::not_found(what).hint(format!("the skills are {}", names.join(", ")))
}
