//! What the official conformance suite wants served beside a product's own tools: content of every kind, prompts,
//! resources, and tools that ask the client.
#![expect(deprecated, reason = "the suite of 2025-11-25 samples, logs and subscribes")]

mod content;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, CompleteRequestParams,
    CompleteResult, CreateMessageRequestParams, ElicitRequestParams, ErrorData, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, InputRequiredResult, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, LoggingLevel, LoggingMessageNotificationParam,
    PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, RequestStateCodec, ServerCapabilities, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Value, json};

use content::{PNG, answer, asked, complete, constant, elicited, form, image, read, resource, sample, text};

type Answer<T> = Result<T, ErrorData>;
type Context = RequestContext<RoleServer>;

/// Tools without arguments, by what they stand for.
const PLAIN: &[&str] = &[
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_error_handling",
    "test_tool_with_logging",
    "test_tool_with_progress",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_logging_tool",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
];

/// The fixture.
pub struct Fixture {
    state: RequestStateCodec,
}

impl Fixture {
    pub fn new() -> Self {
        Self { state: RequestStateCodec::try_new([7; 32]).unwrap() }
    }

    fn tools() -> Vec<Tool> {
        let plain = PLAIN.iter().map(|name| json!({
            "name": name, "description": "A tool of the conformance suite.", "inputSchema": { "type": "object" },
        }));
        let asking =
            [("test_sampling", "prompt"), ("test_elicitation", "message")].map(|(name, argument)| {
                json!({
                    "name": name,
                    "description": "A tool of the conformance suite that asks the client.",
                    "inputSchema": {
                        "type": "object",
                        "properties": { argument: { "type": "string" } },
                        "required": [argument],
                    },
                })
            });
        plain.chain(asking).map(read).collect()
    }

    /// A tool that needs answers before it ends: the questions, or the text it ends with.
    fn ask(&self, name: &str, request: &CallToolRequestParams, context: &Context) -> Answer<Value> {
        let given = request.input_responses.as_ref();
        let state = || self.opened(request.request_state.as_deref());
        Ok(match name {
            "elicitation" => {
                match given.and_then(|given| given.get("user_name")?["content"]["name"].as_str()) {
                    Some(name) => text(&format!("Hello, {name}!")),
                    None => asked(json!({ "user_name": form("What is your name?", "name") })),
                }
            }
            "sampling" => match answer(given, "capital_question") {
                Some(answer) => text(&answer["content"].to_string()),
                None => asked(json!({ "capital_question": sample("What is the capital of France?", 100) })),
            },
            "list_roots" => match answer(given, "client_roots") {
                Some(answer) => text(&answer["roots"].to_string()),
                None => asked(json!({ "client_roots": { "method": "roots/list", "params": {} } })),
            },
            "request_state" | "tampered_state" => match answer(given, "confirm") {
                Some(_) => {
                    state()?;
                    text("state-ok")
                }
                None => {
                    // A state that cannot be read is refused, whatever comes with it.
                    if request.request_state.is_some() {
                        state()?;
                    }
                    let questions = json!({ "confirm": form("Please confirm", "ok") });
                    self.remembered(questions, "confirm")
                }
            },
            "multiple_inputs" => {
                let all = ["user_name", "greeting", "client_roots"];
                if all.iter().all(|key| answer(given, key).is_some()) {
                    state()?;
                    text("All three answers arrived.")
                } else {
                    let questions = json!({
                        "user_name": form("What is your name?", "name"),
                        "greeting": sample("Generate a greeting", 50),
                        "client_roots": { "method": "roots/list", "params": {} },
                    });
                    self.remembered(questions, "three")
                }
            }
            "multi_round" => match request.request_state.as_deref() {
                None => {
                    self.remembered(json!({ "step1": form("Step 1: What is your name?", "name") }), "round-1")
                }
                Some(_) if state()? == b"round-1" => {
                    let question = form("Step 2: What is your favorite color?", "color");
                    self.remembered(json!({ "step2": question }), "round-2")
                }
                Some(_) => text("Both rounds are done."),
            },
            "capabilities" => {
                let capabilities = context.client_capabilities().unwrap_or_default();
                let mut questions = json!({});
                if capabilities.sampling.is_some() {
                    questions["sampling"] = sample("Say something", 50);
                }
                if capabilities.elicitation.is_some() {
                    questions["elicitation"] = form("Say something", "something");
                }
                asked(questions)
            }
            _ => return Err(ErrorData::invalid_params("there is no such tool", None)),
        })
    }

    fn opened(&self, state: Option<&str>) -> Answer<Vec<u8>> {
        let state = state.ok_or_else(|| ErrorData::invalid_params("requestState is missing", None))?;
        self.state.open(state).map_err(|e| ErrorData::invalid_params(e.to_string(), None))
    }

    fn remembered(&self, questions: Value, state: &str) -> Value {
        let mut asked = asked(questions);
        asked["requestState"] = self.state.seal(state.as_bytes()).into();
        asked
    }
}

async fn log(context: &Context) {
    for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        let entry = LoggingMessageNotificationParam::new(LoggingLevel::Info, line.into());
        let _ = context.peer.notify_logging_message(entry).await;
    }
}

async fn progress(context: &Context) {
    let Some(token) = context.meta.get_progress_token() else { return };
    for done in [0.0, 50.0, 100.0] {
        let step = ProgressNotificationParam::new(token.clone(), done).with_total(100.0);
        let _ = context.peer.notify_progress(step).await;
    }
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(
            ServerCapabilities::builder()
                .enable_tools()
                .enable_prompts()
                .enable_resources()
                .enable_resources_subscribe()
                .enable_completions()
                .enable_logging()
                .build(),
        )
    }

    async fn list_tools(&self, _: Option<PaginatedRequestParams>, _: Context) -> Answer<ListToolsResult> {
        Ok(ListToolsResult::with_all_items(Self::tools()))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: Context) -> Answer<CallToolResponse> {
        let name = request.name.as_ref();
        let argument = |name: &str| {
            request
                .arguments
                .as_ref()
                .and_then(|all| all.get(name)?.as_str())
                .unwrap_or("Please answer")
                .to_owned()
        };
        if let Some(result) = constant(name) {
            return Ok(read::<CallToolResult>(result).into());
        }
        if let Some(asking) = name.strip_prefix("test_input_required_result_") {
            let result = self.ask(asking, &request, &context)?;
            return Ok(match result.get("inputRequests") {
                Some(_) => read::<InputRequiredResult>(result).into(),
                None => read::<CallToolResult>(result).into(),
            });
        }
        let able = context.client_capabilities().unwrap_or_default();
        if let Some(form) = elicited(name, &argument("message")) {
            if able.elicitation.is_none() {
                return Err(ErrorData::invalid_request("the client cannot be asked", None));
            }
            let answered = context.peer.create_elicitation(read::<ElicitRequestParams>(form)).await;
            let said = match answered {
                Ok(answer) => text(&format!("User response: {}", json!(answer))),
                Err(error) => return Err(ErrorData::internal_error(error.to_string(), None)),
            };
            return Ok(read::<CallToolResult>(said).into());
        }
        let said = match name {
            "test_sampling" => {
                if able.sampling.is_none() {
                    return Err(ErrorData::invalid_request("the client cannot be asked", None));
                }
                let asked = sample(&argument("prompt"), 100)["params"].take();
                let answered = context.peer.create_message(read::<CreateMessageRequestParams>(asked)).await;
                match answered {
                    Ok(answer) => text(&format!("LLM response: {}", json!(answer)["content"])),
                    Err(error) => return Err(ErrorData::internal_error(error.to_string(), None)),
                }
            }
            "test_tool_with_logging" => {
                log(&context).await;
                text("Logged.")
            }
            "test_tool_with_progress" => {
                progress(&context).await;
                text("Progressed.")
            }
            "test_missing_capability" => {
                if able.sampling.is_none() {
                    let sampling = ClientCapabilities::builder().enable_sampling().build();
                    return Err(ErrorData::missing_required_client_capability(sampling));
                }
                text("Done.")
            }
            _ => return Err(ErrorData::invalid_params("there is no such tool", None)),
        };
        Ok(read::<CallToolResult>(said).into())
    }

    async fn list_prompts(&self, _: Option<PaginatedRequestParams>, _: Context) -> Answer<ListPromptsResult> {
        let prompt = |name: &str, arguments: &[&str]| {
            let arguments: Vec<_> =
                arguments.iter().map(|name| json!({ "name": name, "required": true })).collect();
            read(json!({ "name": name, "description": "A prompt of the suite.", "arguments": arguments }))
        };
        Ok(ListPromptsResult::with_all_items(vec![
            prompt("test_simple_prompt", &[]),
            prompt("test_prompt_with_arguments", &["arg1", "arg2"]),
            prompt("test_prompt_with_embedded_resource", &["resourceUri"]),
            prompt("test_prompt_with_image", &[]),
            prompt("test_input_required_result_prompt", &[]),
        ]))
    }

    async fn get_prompt(&self, request: GetPromptRequestParams, _: Context) -> Answer<GetPromptResponse> {
        let argument = |name: &str| {
            let given = request.arguments.as_ref().and_then(|all| all.get(name)?.as_str());
            given.unwrap_or_default().to_owned()
        };
        let said = |text: &str| json!({ "type": "text", "text": text });
        let content = match request.name.as_str() {
            "test_simple_prompt" => vec![said("This is a simple prompt for testing.")],
            "test_prompt_with_arguments" => {
                let (first, second) = (argument("arg1"), argument("arg2"));
                vec![said(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
            }
            "test_prompt_with_embedded_resource" => vec![
                resource(&argument("resourceUri"), "text/plain", "Embedded resource content for testing."),
                said("Please process the embedded resource above."),
            ],
            "test_prompt_with_image" => vec![image(), said("Please analyze the image above.")],
            "test_input_required_result_prompt" => {
                match answer(request.input_responses.as_ref(), "user_context") {
                    Some(answer) => vec![said(&answer["content"]["context"].to_string())],
                    None => {
                        let question = form("What context should the prompt use?", "context");
                        return Ok(
                            read::<InputRequiredResult>(asked(json!({ "user_context": question }))).into()
                        );
                    }
                }
            }
            _ => return Err(ErrorData::invalid_params("there is no such prompt", None)),
        };
        let messages: Vec<_> =
            content.into_iter().map(|content| json!({ "role": "user", "content": content })).collect();
        Ok(read::<GetPromptResult>(complete(json!({ "messages": messages }))).into())
    }

    async fn complete(&self, _: CompleteRequestParams, _: Context) -> Answer<CompleteResult> {
        let completion = json!({ "values": ["paris", "park"], "total": 2, "hasMore": false });
        Ok(read(complete(json!({ "completion": completion }))))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Answer<ListResourcesResult> {
        let resource = |uri: &str, kind: &str| {
            read(
                json!({ "uri": uri, "name": uri, "description": "A resource of the suite.", "mimeType": kind }),
            )
        };
        Ok(ListResourcesResult::with_all_items(vec![
            resource("test://static-text", "text/plain"),
            resource("test://static-binary", "image/png"),
            resource("test://watched-resource", "text/plain"),
        ]))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Answer<ListResourceTemplatesResult> {
        let template = json!({
            "uriTemplate": "test://template/{id}/data",
            "name": "template",
            "description": "A template of the suite.",
            "mimeType": "application/json",
        });
        Ok(ListResourceTemplatesResult::with_all_items(vec![read(template)]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: Context,
    ) -> Answer<ReadResourceResponse> {
        let uri = request.uri.as_str();
        let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
        let contents = match (uri, id) {
            (_, Some(id)) => json!({
                "uri": uri,
                "mimeType": "application/json",
                "text": json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") }).to_string(),
            }),
            ("test://static-text", _) => json!({
                "uri": uri,
                "mimeType": "text/plain",
                "text": "This is the content of the static text resource.",
            }),
            ("test://watched-resource", _) => {
                json!({ "uri": uri, "mimeType": "text/plain", "text": "Watched." })
            }
            ("test://static-binary", _) => json!({ "uri": uri, "mimeType": "image/png", "blob": PNG }),
            _ => {
                return Err(ErrorData::resource_not_found("Resource not found", Some(json!({ "uri": uri }))));
            }
        };
        Ok(read::<ReadResourceResult>(complete(json!({ "contents": [contents] }))).into())
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: Context) -> Answer<()> {
        Ok(())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: Context) -> Answer<()> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: Context) -> Answer<()> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }
}
