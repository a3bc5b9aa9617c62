//! The list of tools, with their types erased once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kernel::{Caller, Env, Error, Proof, Result, Scope, Scopes, Tenant};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::decode::decode;
use crate::schema::{self, Validator};
use crate::{Cx, Effect, Host, Progress, Selection, Spec, Tool};

/// What can be known of a tool without calling it.
#[derive(Debug, Clone)]
pub struct Doc {
    /// Its name: the name of its file.
    pub name: &'static str,
    /// Its declaration.
    pub spec: Spec,
    /// Whether it works on one environment, and not on the tenant as a whole.
    pub in_environment: bool,
    /// Whether agents begin with it.
    pub entry: bool,
    /// The input schema as a model sees it.
    pub input_schema: Value,
    /// The output schema.
    pub output_schema: Value,
}

impl Doc {
    /// The annotations of MCP (2025-06-18 and later, `ToolAnnotations`), which follow from the risk class.
    #[must_use]
    pub fn annotations(&self) -> Value {
        let effect = self.spec.effect;
        json!({
            "title": self.spec.title,
            "readOnlyHint": effect == Effect::Read,
            "destructiveHint": effect == Effect::Destroy,
            "idempotentHint": matches!(effect, Effect::Read | Effect::Idempotent),
            "openWorldHint": false,
        })
    }

    /// The tool as the JSON door shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.spec.title,
            "description": self.spec.about,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "annotations": self.annotations(),
        })
    }

    /// Whether `caller` may call it.
    #[must_use]
    pub fn allowed(&self, caller: &Caller) -> bool {
        caller.principal.may_call_tools()
            && caller.scopes.missing(self.spec.scopes).is_none()
            && caller.held.as_ref().is_none_or(|held| held.has(self.name))
    }

    /// The scopes it needs.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        self.spec.scopes.iter().copied().collect()
    }
}

/// A level of the platform that tools work on. Closed: implemented for the two proofs.
pub trait Level: Proof {
    /// Whether it is one environment.
    const IN_ENVIRONMENT: bool;
}

impl Level for Env {
    const IN_ENVIRONMENT: bool = true;
}

impl Level for Tenant {
    const IN_ENVIRONMENT: bool = false;
}

/// What a call hands to a tool once it is let through.
pub(crate) struct Passed<P> {
    pub platform: Arc<P>,
    pub caller: Arc<Caller>,
    pub selection: Selection,
    pub tool: &'static str,
    pub id: kernel::CallId,
    pub cancel: CancellationToken,
    pub progress: Progress,
}

type Running = Pin<Box<dyn Future<Output = Result<Value>> + Send>>;

/// One tool with its types erased.
pub(crate) struct Entry<P> {
    pub doc: Doc,
    pub input: Validator,
    pub output: Validator,
    pub authorize: fn(&Caller, &[Scope], &str) -> Result<()>,
    /// How long a call may run where its caller sets no deadline.
    pub patience: Duration,
    pub run: fn(Passed<P>, Value) -> Running,
}

/// Every tool there is, in a fixed order. It is all that a door holds.
pub struct Registry<P> {
    entries: Vec<Entry<P>>,
}

impl<P: Host> Registry<P> {
    /// A registry without tools; see [`registry!`](crate::registry!).
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Adds one tool.
    ///
    /// # Panics
    /// Where the tool's own schema does not compile, which no input can cause.
    #[must_use]
    pub fn with<T: Tool<P>>(mut self, name: &'static str) -> Self
    where
        T::Proof: Level,
    {
        let (input, output) = (schema::of_input::<T::Input>(), schema::of_output::<T::Output>());
        let compile = |schema: &Value| {
            Validator::new(schema).unwrap_or_else(|e| panic!("the schema of {name} is wrong: {e:?}"))
        };
        self.entries.push(Entry {
            input: compile(&input),
            output: compile(&output),
            doc: Doc {
                name,
                spec: T::SPEC,
                in_environment: T::Proof::IN_ENVIRONMENT,
                entry: T::ENTRY,
                input_schema: schema::slim(&input),
                output_schema: output,
            },
            authorize: |caller, scopes, tool| T::Proof::authorize_for(caller, scopes, Some(tool)).map(drop),
            patience: T::PATIENCE,
            run: run::<P, T>,
        });
        self
    }

    /// Every tool, in order.
    pub fn docs(&self) -> impl Iterator<Item = &Doc> {
        self.entries.iter().map(|entry| &entry.doc)
    }

    /// The tool with that name.
    ///
    /// # Errors
    /// `not_found`.
    pub fn doc(&self, name: &str) -> Result<&Doc> {
        self.entry(name).map(|entry| &entry.doc)
    }

    /// The tools that `caller` may call and `selection` admits, in order.
    pub fn visible<'a>(&'a self, caller: &'a Caller, selection: Selection) -> impl Iterator<Item = &'a Doc> {
        self.docs().filter(move |doc| doc.allowed(caller) && selection.admits(doc.spec.effect))
    }

    pub(crate) fn entry(&self, name: &str) -> Result<&Entry<P>> {
        self.entries.iter().find(|entry| entry.doc.name == name).ok_or_else(|| {
            Error::not_found(format!("tool {:?}", name.chars().take(64).collect::<String>()))
                .hint("list the tools first")
        })
    }
}

impl<P: Host> Default for Registry<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// The one place where a tool's types are erased, and the only box.
fn run<P: Host, T: Tool<P>>(passed: Passed<P>, input: Value) -> Running {
    Box::pin(async move {
        let input = decode::<T::Input>(input)?;
        let cx = Cx {
            platform: &passed.platform,
            proof: T::Proof::authorize_for(&passed.caller, T::SPEC.scopes, Some(passed.tool))?,
            caller: &passed.caller,
            selection: passed.selection,
            id: passed.id,
            cancel: &passed.cancel,
            progress: &passed.progress,
        };
        let output = T::call(&cx, input).await?;
        serde_json::to_value(output).map_err(Error::internal)
    })
}

/// The list of tools, one entry a line, each `file::Type`; the tool's name is the file's.
#[macro_export]
macro_rules! registry {
    ($($file:ident :: $tool:ident),+ $(,)?) => {
        $crate::Registry::new()$(.with::<$file::$tool>(stringify!($file)))+
    };
}
