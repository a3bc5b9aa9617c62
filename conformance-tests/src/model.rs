//! A model for coding agents, played by a test: it asks for one tool call, and ends when it has seen the result.

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
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = Arc::clone(&heard);
                // An agent that goes away in the middle has its own test to answer to.
                std::thread::spawn(move || drop(converse(stream, wire, tool, &heard)));
            }
        });
        Ok(Self { url, asked, wire })
    }

    /// What the agent gave as the result of the call, in the request that followed it.
    #[must_use]
    pub fn result(&self) -> Option<String> {
        self.asked().iter().find_map(|request| self.wire.result(request)).map(|result| match result {
            Value::String(text) => text,
            other => other.to_string(),
        })
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
    fn result(self, request: &Value) -> Option<Value> {
        let find =
            |list: &Value, found: &dyn Fn(&Value) -> Option<Value>| list.as_array()?.iter().find_map(found);
        match self {
            Self::Messages => find(&request["messages"], &|message| {
                find(&message["content"], &|block| {
                    (block["type"] == "tool_result").then(|| block["content"].clone())
                })
            }),
            Self::Responses => find(&request["input"], &|item| {
                (item["type"] == "function_call_output").then(|| item["output"].clone())
            }),
            Self::Chat => find(&request["messages"], &|message| {
                (message["role"] == "tool").then(|| message["content"].clone())
            }),
        }
    }

    /// The stream of one answer: a call of `offer`, else the last words.
    fn answer(self, offer: Option<&Offer>) -> String {
        match self {
            Self::Messages => messages(offer),
            Self::Responses => responses(offer),
            Self::Chat => chat(offer),
        }
    }
}

fn messages(offer: Option<&Offer>) -> String {
    let (block, delta, stop) = match offer {
        Some(Offer { name, .. }) => (
            json!({ "type": "tool_use", "id": "toolu_1", "name": name, "input": {} }),
            json!({ "type": "input_json_delta", "partial_json": "{}" }),
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

fn responses(offer: Option<&Offer>) -> String {
    let item = match offer {
        Some(Offer { name, namespace }) => json!({
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "namespace": namespace,
            "arguments": "{}", "status": "completed",
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

fn chat(offer: Option<&Offer>) -> String {
    let (delta, reason) = match offer {
        Some(Offer { name, .. }) => {
            let call = json!({ "name": name, "arguments": "{}" });
            let calls = json!([{ "index": 0, "id": "call_1", "type": "function", "function": call }]);
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
fn converse(stream: TcpStream, wire: Wire, tool: &str, heard: &Mutex<Vec<Value>>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(incoming) = Incoming::read(&mut stream)? {
        let request: Value = serde_json::from_slice(&incoming.body).unwrap_or_default();
        let path = incoming.path.split('?').next().unwrap_or_default();
        let asks = ["/messages", "/responses", "/chat/completions"].iter().any(|end| path.ends_with(end));
        let (status, answer) = match asks {
            true => {
                let offers = offers(&request["tools"]);
                let offer = offers.iter().find(|offer| offer.name.ends_with(tool));
                let offer = offer.filter(|_| wire.result(&request).is_none());
                ("200 OK", wire.answer(offer))
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
