//! What MCP asks of a server, answered from the registry.
#![expect(deprecated, reason = "clients before 2026-07-28 set a log level and subscribe by requests")]

use std::sync::Arc;

use http::request::Parts;
use kernel::{CallId, Code, Error};
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams,
    CompleteResult, ContentBlock, CustomRequest, CustomResult, ErrorCode, ErrorData, GetPromptRequestParams,
    GetPromptResponse, GetSkillRequestParams, GetSkillResult, Implementation, JsonObject, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListSkillsResult, ListToolsResult, MetaObject,
    PaginatedRequestParams, ProgressNotificationParam, ReadResourceDirectoryRequestParams,
    ReadResourceDirectoryResult, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities,
    ServerConfig, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool, ToolAnnotations,
    UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;
use tokio::sync::mpsc;
use tool::{Call, Doc, Host, Progress, Step};

use super::Visit;
use super::calls::Calls;
use crate::doors::Doors;

/// What a model is told of the server as a whole.
pub(super) const INSTRUCTIONS: &str = "Steading hosts a whole app: tables with access rules, sign-in of its users, \
    a site. One app_apply with the whole manifest makes it or changes it, all or nothing, checked live. \
    For a new app call skill_read {\"name\":\"start-here\"} first: it has a complete manifest that works as it is. \
    For an app that is there call app_describe first. Unknown input fields are refused. \
    A failed call says what to do next in hint.";

/// Where a client puts its idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "steading/idempotency-key";

/// How long a client may keep a list, in milliseconds. It changes only when the platform is replaced.
pub(super) const LIST_TTL_MS: u64 = 60_000;

/// Steps that a slow client has not taken yet; later ones are left out.
const STEPS: usize = 16;

pub(super) type Answer<T> = Result<T, ErrorData>;
pub(super) type Context = RequestContext<RoleServer>;

/// Answers one client; a cheap clone for each request.
pub(super) struct Handler<P, X>(Arc<Shared<P, X>>);

struct Shared<P, X> {
    doors: Arc<Doors<P>>,
    beside: X,
    tools: Vec<Tool>,
    config: ServerConfig,
    calls: Calls,
    page: usize,
}

impl<P, X> Clone for Handler<P, X> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Host, X: ServerHandler> Handler<P, X> {
    pub(super) fn new(doors: Arc<Doors<P>>, beside: X, page: usize) -> Self {
        let mut capabilities = beside.get_info().capabilities;
        if capabilities.tools.is_none() {
            capabilities.tools = ServerCapabilities::builder().enable_tools().build().tools;
        }
        let config = ServerConfig::new(capabilities)
            .with_server_info(
                Implementation::new("steading", env!("CARGO_PKG_VERSION")).with_title("Steading"),
            )
            .with_instructions(beside.get_info().instructions.as_deref().unwrap_or(INSTRUCTIONS));
        let tools = doors.registry.docs().map(described).collect();
        Self(Arc::new(Shared { doors, beside, tools, config, calls: Calls::default(), page: page.max(1) }))
    }

    pub(super) fn calls(&self) -> Calls {
        self.0.calls.clone()
    }

    /// Runs a call while its steps are sent to a client that asked for them.
    async fn run(&self, mut call: Call, context: &Context) -> kernel::Result<Value> {
        let Some(token) = context.meta.get_progress_token() else { return self.0.doors.call(call).await };
        let (say, mut steps) = mpsc::channel::<Step>(STEPS);
        call.progress = Progress::to(move |step| drop(say.try_send(step)));
        let tell = async |step: Step| {
            let progress = ProgressNotificationParam::new(token.clone(), step.done.into())
                .with_total(step.total.into())
                .with_message(step.message);
            // A client that has gone is noticed by the call's own cancellation.
            let _ = context.peer.notify_progress(progress).await;
        };
        let mut running = std::pin::pin!(self.0.doors.call(call));
        let outcome = loop {
            tokio::select! {
                biased;
                Some(step) = steps.recv() => tell(step).await,
                outcome = &mut running => break outcome,
            }
        };
        while let Ok(step) = steps.try_recv() {
            tell(step).await;
        }
        outcome
    }
}

/// Keeps a tool out of the search that Claude Code puts before the tools of servers with many.
const ALWAYS_LOAD: &str = "anthropic/alwaysLoad";

/// A tool as MCP shows it.
fn described(doc: &Doc) -> Tool {
    let mut tool = Tool::new_with_raw(doc.name, Some(doc.spec.about.into()), object(&doc.input_schema))
        .with_title(doc.spec.title)
        .with_raw_output_schema(object(&doc.output_schema));
    tool.annotations = serde_json::from_value::<ToolAnnotations>(doc.annotations()).ok();
    if doc.entry {
        let mut meta = MetaObject::default();
        meta.0.insert(ALWAYS_LOAD.to_owned(), true.into());
        tool.meta = Some(meta);
    }
    tool
}

fn object(schema: &Value) -> Arc<JsonObject> {
    Arc::new(schema.as_object().cloned().unwrap_or_default())
}

/// What a call has come to, as MCP shows it.
pub(super) fn result(outcome: kernel::Result<Value>, id: CallId) -> CallToolResult {
    match outcome {
        Ok(output) => CallToolResult::structured(output),
        // Text alone: official clients check structured content against the schema of good results.
        Err(error) => {
            let problem = error.problem(&id.to_string()).to_string();
            CallToolResult::error(vec![ContentBlock::text(problem)])
        }
    }
}

fn visit(context: &Context) -> Answer<&Visit> {
    context
        .extensions
        .get::<Parts>()
        .and_then(|parts| parts.extensions.get::<Visit>())
        .ok_or_else(|| ErrorData::internal_error("internal error", None))
}

fn idempotency_key(context: &Context) -> kernel::Result<Option<String>> {
    match context.meta.get(IDEMPOTENCY_KEY) {
        None => Ok(None),
        Some(Value::String(key)) => Ok(Some(key.clone())),
        Some(_) => {
            Err(Error::new(Code::InvalidInput, format!("_meta[{IDEMPOTENCY_KEY:?}] must be a string")))
        }
    }
}

impl<P: Host, X: ServerHandler> ServerHandler for Handler<P, X> {
    fn get_info(&self) -> ServerConfig {
        self.0.config.clone()
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let ours = self.0.tools.iter().find(|tool| tool.name == name);
        ours.cloned().or_else(|| self.0.beside.get_tool(name))
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Answer<ListToolsResult> {
        let Visit { caller, selection, .. } = visit(&context)?.clone();
        let mut tools: Vec<Tool> = self
            .0
            .doors
            .registry
            .docs()
            .zip(&self.0.tools)
            .filter(|(doc, _)| doc.allowed(&caller) && selection.admits(doc.spec.effect))
            .map(|(_, tool)| tool.clone())
            .collect();
        tools.extend(self.0.beside.list_tools(None, context).await?.tools);
        // A cursor is the name of the last tool that was shown.
        if let Some(cursor) = request.and_then(|request| request.cursor) {
            let shown = tools.iter().position(|tool| tool.name == cursor);
            let shown = shown.ok_or_else(|| ErrorData::invalid_params("there is no such cursor", None))?;
            tools.drain(..=shown);
        }
        let more = tools.len() > self.0.page;
        tools.truncate(self.0.page);
        let mut result = ListToolsResult::with_all_items(tools);
        result.next_cursor = result.tools.last().filter(|_| more).map(|tool| tool.name.to_string());
        result.ttl_ms = Some(LIST_TTL_MS);
        result.cache_scope = Some(CacheScope::Private);
        Ok(result)
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: Context) -> Answer<CallToolResponse> {
        if self.0.doors.registry.doc(&request.name).is_err() {
            return self.0.beside.call_tool(request, context).await;
        }
        let Visit { caller, selection, id } = visit(&context)?.clone();
        let input = Value::Object(request.arguments.unwrap_or_default());
        let mut call = Call::new(caller, request.name, input);
        call.id = id;
        call.selection = selection;
        call.cancel = context.ct.child_token();
        let _entered = self.0.calls.enter(&call, &context.id.clone().into_json_value());
        let outcome = match idempotency_key(&context) {
            Ok(key) => {
                call.idempotency_key = key;
                self.run(call, &context).await
            }
            Err(error) => Err(error),
        };
        Ok(result(outcome, id).into())
    }

    async fn on_custom_request(&self, request: CustomRequest, context: Context) -> Answer<CustomResult> {
        // rmcp takes a request it knows, with parameters it cannot read, for one it does not know.
        if request.method == "tools/call" {
            return Err(ErrorData::invalid_params("name must be a string and arguments an object", None));
        }
        self.0.beside.on_custom_request(request, context).await
    }

    async fn complete(&self, request: CompleteRequestParams, context: Context) -> Answer<CompleteResult> {
        self.0.beside.complete(request, context).await
    }

    async fn set_level(&self, request: SetLevelRequestParams, context: Context) -> Answer<()> {
        self.0.beside.set_level(request, context).await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: Context,
    ) -> Answer<GetPromptResponse> {
        self.0.beside.get_prompt(request, context).await
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Answer<ListPromptsResult> {
        self.0.beside.list_prompts(request, context).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Answer<ListResourcesResult> {
        self.0.beside.list_resources(request, context).await
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Answer<ListResourceTemplatesResult> {
        self.0.beside.list_resource_templates(request, context).await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Answer<ReadResourceResponse> {
        self.0.beside.read_resource(request, context).await
    }

    async fn list_skills(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Answer<ListSkillsResult> {
        self.0.beside.list_skills(request, context).await
    }

    async fn get_skill(&self, request: GetSkillRequestParams, context: Context) -> Answer<GetSkillResult> {
        self.0.beside.get_skill(request, context).await
    }

    async fn read_resource_directory(
        &self,
        request: ReadResourceDirectoryRequestParams,
        context: Context,
    ) -> Answer<ReadResourceDirectoryResult> {
        self.0.beside.read_resource_directory(request, context).await
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        self.0.beside.accepted_subscription_filter(requested)
    }

    async fn listen(&self, context: SubscriptionContext) -> Answer<()> {
        self.0.beside.listen(context).await
    }

    async fn subscribe(&self, request: SubscribeRequestParams, context: Context) -> Answer<()> {
        self.0.beside.subscribe(request, context).await
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, context: Context) -> Answer<()> {
        self.0.beside.unsubscribe(request, context).await
    }
}

/// rmcp answers some methods with nothing where a handler says nothing.
pub(super) fn unknown(method: &'static str) -> ErrorData {
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method, None)
}
