//! A model for coding agents, played by a test: it asks for one tool call after another, and ends.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::incoming::Incoming;

/// What the model says at its end.
pub const LAST_WORDS: &str = "That is all.";

/// How an agent talks to its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Anthropic's Messages.
    Messages,
    /// OpenAI's Responses.
    Responses,
    /// OpenAI's Chat Completions.
    Chat,
}

/// What a model knows when it is asked: what it was told, and what came of its calls.
#[derive(Debug)]
pub struct Heard {
    /// Every text but the descriptions of tools.
    pub told: String,
    /// The results of its calls, in order.
    pub results: Vec<String>,
}

/// A tool call that a model asks for.
#[derive(Debug)]
pub struct Ask {
    /// The end of the tool's name: agents put the server's before it.
    pub tool: String,
    /// Its input.
    pub input: Value,
}

/// Decides on the next call; none ends the conversation.
type Mind = dyn Fn(&Heard) -> Option<Ask> + Send + Sync;

/// A model on a loopback port, until the test process ends.
#[derive(Debug)]
pub struct Model {
    /// Its address, without a path.
    pub url: String,
    asked: Arc<Mutex<Vec<Value>>>,
    wire: Wire,
}

impl Model {
    /// Starts a model that calls the tool whose name ends in `tool`, with no arguments.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn start(wire: Wire, tool: &'static str) -> anyhow::Result<Self> {
        Self::thinking(wire, move |heard| {
            heard.results.is_empty().then(|| Ask { tool: tool.to_owned(), input: json!({}) })
        })
    }

    /// Starts a model that makes the calls that `mind` decides on, as far as it is offered the tools.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn thinking(
        wire: Wire,
        mind: impl Fn(&Heard) -> Option<Ask> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let mind: Arc<Mind> = Arc::new(mind);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, mind) = (Arc::clone(&heard), Arc::clone(&mind));
                // An agent that goes away in the middle has its own test to answer to.
                std::thread::spawn(move || drop(converse(stream, wire, &*mind, &heard)));
            }
        });
        Ok(Self { url, asked, wire })
    }

    /// What the agent gave as the result of the first call, in the request that followed it.
    #[must_use]
    pub fn result(&self) -> Option<String> {
        self.results().into_iter().next()
    }

    /// What the agent gave as the results of all calls, in order.
    #[must_use]
    pub fn results(&self) -> Vec<String> {
        let asked = self.asked();
        asked.iter().map(|request| self.wire.results(request)).max_by_key(Vec::len).unwrap_or_default()
    }

    /// The names of all tools that end in one of `names`, as the agent offered them.
    #[must_use]
    pub fn offered(&self, names: &[String]) -> Vec<String> {
        let asked = self.asked();
        let offers = asked.iter().map(|request| offers(&request["tools"]));
        let most = offers.max_by_key(Vec::len).unwrap_or_default();
        most.into_iter()
            .filter(|offer| names.iter().any(|name| offer.name.ends_with(name.as_str())))
            .map(|offer| offer.name)
            .collect()
    }

    /// Every request so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A tool as an agent offers it to its model.
struct Offer {
    name: String,
    namespace: Option<String>,
}

fn offers(tools: &Value) -> Vec<Offer> {
    let mut offers = Vec::new();
    for tool in tools.as_array().into_iter().flatten() {
        let name = tool["name"].as_str().or(tool["function"]["name"].as_str()).unwrap_or_default();
        if tool["tools"].is_array() {
            let inner = self::offers(&tool["tools"]).into_iter();
            offers.extend(inner.map(|offer| Offer { namespace: Some(name.to_owned()), ..offer }));
        } else {
            offers.push(Offer { name: name.to_owned(), namespace: None });
        }
    }
    offers
}

impl Wire {
    fn results(self, request: &Value) -> Vec<String> {
        let list = |list: &Value| list.as_array().cloned().unwrap_or_default();
        let found: Vec<Value> = match self {
            Self::Messages => list(&request["messages"])
                .iter()
                .flat_map(|message| list(&message["content"]))
                .filter(|block| block["type"] == "tool_result")
                .map(|block| block["content"].clone())
                .collect(),
            Self::Responses => list(&request["input"])
                .iter()
                .filter(|item| item["type"] == "function_call_output")
                .map(|item| item["output"].clone())
                .collect(),
            Self::Chat => list(&request["messages"])
                .iter()
                .filter(|message| message["role"] == "tool")
                .map(|message| message["content"].clone())
                .collect(),
        };
        found.iter().map(plain).collect()
    }

    fn heard(self, request: &Value) -> Heard {
        let mut told = String::new();
        for part in ["system", "instructions", "messages", "input"] {
            texts(&request[part], &mut told);
        }
        Heard { told, results: self.results(request) }
    }

    /// The stream of one answer: a call, else the last words.
    fn answer(self, call: Option<&ToolCall<'_>>) -> String {
        match self {
            Self::Messages => messages(call),
            Self::Responses => responses(call),
            Self::Chat => chat(call),
        }
    }
}

/// A call of a tool that was offered.
struct ToolCall<'a> {
    offer: &'a Offer,
    input: String,
    /// Which of the conversation it is.
    number: usize,
}

/// Every text in a part of a request, one a line.
fn texts(part: &Value, told: &mut String) {
    match part {
        Value::String(text) => {
            told.push_str(text);
            told.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, told)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, told)),
        _ => {}
    }
}

/// A result's text, whether it comes as one or in blocks.
fn plain(result: &Value) -> String {
    match result {
        Value::String(text) => text.clone(),
        Value::Array(blocks) if blocks.iter().all(|block| block["text"].is_string()) => {
            blocks.iter().filter_map(|block| block["text"].as_str()).collect()
        }
        other => other.to_string(),
    }
}

fn messages(call: Option<&ToolCall<'_>>) -> String {
    let (block, delta, stop) = match call {
        Some(ToolCall { offer, input, number }) => (
            json!({ "type": "tool_use", "id": format!("toolu_{number}"), "name": offer.name, "input": {} }),
            json!({ "type": "input_json_delta", "partial_json": input }),
            "tool_use",
        ),
        None => (
            json!({ "type": "text", "text": "" }),
            json!({ "type": "text_delta", "text": LAST_WORDS }),
            "end_turn",
        ),
    };
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "played", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 1, "output_tokens": 1 },
    });
    named(&[
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({
            "type": "message_delta",
            "delta": { "stop_reason": stop, "stop_sequence": null },
            "usage": { "output_tokens": 1 },
        }),
        json!({ "type": "message_stop" }),
    ])
}

fn responses(call: Option<&ToolCall<'_>>) -> String {
    let item = match call {
        Some(ToolCall { offer: Offer { name, namespace }, input, number }) => json!({
            "type": "function_call", "id": format!("fc_{number}"), "call_id": format!("call_{number}"),
            "name": name, "namespace": namespace, "arguments": input, "status": "completed",
        }),
        None => json!({
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{ "type": "output_text", "text": LAST_WORDS, "annotations": [] }],
        }),
    };
    let usage = json!({
        "input_tokens": 1, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": 1, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 2,
    });
    let done = json!({ "id": "resp_1", "status": "completed", "output": [item], "usage": usage });
    named(&[
        json!({ "type": "response.created", "response": { "id": "resp_1" } }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item }),
        json!({ "type": "response.completed", "response": done }),
    ])
}

fn chat(call: Option<&ToolCall<'_>>) -> String {
    let (delta, reason) = match call {
        Some(ToolCall { offer, input, number }) => {
            let call = json!({ "name": offer.name, "arguments": input });
            let id = format!("call_{number}");
            let calls = json!([{ "index": 0, "id": id, "type": "function", "function": call }]);
            (json!({ "role": "assistant", "tool_calls": calls }), "tool_calls")
        }
        None => (json!({ "role": "assistant", "content": LAST_WORDS }), "stop"),
    };
    let chunk = |delta: Value, reason: Value| {
        json!({
            "id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": "played",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }],
            "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
        })
    };
    let (first, last) = (chunk(delta, Value::Null), chunk(json!({}), reason.into()));
    format!("data: {first}\n\ndata: {last}\n\ndata: [DONE]\n\n")
}

/// Events whose name is their type.
fn named(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
        .collect()
}

/// Answers the requests of one connection.
fn converse(stream: TcpStream, wire: Wire, mind: &Mind, heard: &Mutex<Vec<Value>>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(incoming) = Incoming::read(&mut stream)? {
        let request: Value = serde_json::from_slice(&incoming.body).unwrap_or_default();
        let path = incoming.path.split('?').next().unwrap_or_default();
        let asks = ["/messages", "/responses", "/chat/completions"].iter().any(|end| path.ends_with(end));
        let (status, answer) = match asks {
            true => {
                let offers = offers(&request["tools"]);
                let known = wire.heard(&request);
                // Agents also ask for titles and the like, and offer nothing then.
                let ask = (!offers.is_empty()).then(|| mind(&known)).flatten();
                let call = ask.and_then(|ask| {
                    let offer = offers.iter().find(|offer| offer.name.ends_with(&ask.tool))?;
                    Some(ToolCall { offer, input: ask.input.to_string(), number: known.results.len() + 1 })
                });
                ("200 OK", wire.answer(call.as_ref()))
            }
            // Agents probe for more than a model needs to have.
            false => ("404 Not Found", String::new()),
        };
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let length = answer.len();
        write!(
            stream.get_mut(),
            "HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{answer}"
        )?;
    }
    Ok(())
}
