//! What a model is asked: OpenAI's request for a chat completion, as far as the platform answers for it.

use bytes::Bytes;
use kernel::{Code, Error, Result};
use serde::Serialize as _;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Value, json};
use unicode_normalization::UnicodeNormalization as _;

use crate::BODY;

/// What an answer is taken to be where the request does not bound it, in tokens.
const COMPLETION: u64 = 4_096;

/// What a template adds around tools, in tokens, beside its words around messages.
const TEMPLATE_OF_TOOLS: u64 = 1_024;

/// What something else than text may be, whatever its bytes are: a picture of few bytes may be a large one. The most that a
/// provider is known to count for one is 48,000.
const MEDIUM: u64 = 65_536;

/// What a message is made of, and whether that is text. Other kinds can be of any size, or lead to what others have uploaded.
const PARTS: [(&str, bool); 4] =
    [("text", true), ("refusal", true), ("image_url", false), ("input_audio", false)];

/// What may be said in a request. What else a provider may understand could lead to other models, to places that it then
/// fetches from, or past the budget.
const FIELDS: [&str; 33] = [
    "chat_template_kwargs",
    "enable_thinking",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "min_p",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "safety_identifier",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
];

/// The largest number that is taken, which is more than any model says.
const NUMBER: u64 = u32::MAX as u64;

/// The most answers to one request.
const ANSWERS: u64 = 16;

/// A request that can be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asking {
    /// It, as JSON.
    pub body: Bytes,
    /// Whether the answer is to come in pieces.
    pub stream: bool,
    /// Whether whoever asks wants to be told what it has used at the end of those.
    pub shows_usage: bool,
    /// How many answers are wanted.
    pub answers: u64,
    /// What it uses at most: tokens that are sent.
    pub prompt: u64,
    /// And tokens that come back, which the provider is told.
    pub completion: u64,
}

impl Asking {
    /// Reads `body`, which may only ask for `model`. The field `bound` bounds the answer, whichever the request has: not everybody
    /// knows both. `template` is what the model's template adds to messages, in tokens.
    pub fn read(body: &[u8], model: &str, bound: &str, template: u64) -> Result<Self> {
        if body.len() > BODY {
            return Err(Error::new(Code::TooLarge, format!("the request is larger than {BODY} bytes"))
                .hint("send fewer messages, or shorter ones"));
        }
        let mut asked: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
            Error::invalid("", "the body is no JSON object")
                .hint(r#"send {"messages": [{"role": "user", "content": "…"}]}"#)
        })?;
        if asked.get("messages").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            return Err(Error::invalid("/messages", "messages must be a list with at least one message")
                .hint(r#"send {"messages": [{"role": "user", "content": "…"}]}"#));
        }
        if let Some(other) = asked.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            let shown: String = other.chars().take(64).collect();
            return Err(Error::invalid("", format!("a model is not asked with {shown:?}"))
                .hint(format!("leave it out; there are {}", FIELDS.join(", "))));
        }
        let media = media(&asked["messages"])?;
        if let Some(at) = fetched(&asked["messages"]) {
            return Err(Error::invalid(at, "a provider fetches nothing for a function")
                .hint("send what it is to see as a data: URL"));
        }
        match asked.get("model") {
            None | Some(Value::Null) => drop(asked.insert("model".to_owned(), model.into())),
            Some(Value::String(wanted)) if wanted == model => {}
            Some(_) => {
                return Err(Error::invalid("/model", "there is no such model")
                    .hint(format!("there is {model:?}; leave `model` out to ask it")));
            }
        }
        let stream = flag(&asked, "stream")?;
        let mut shows_usage = false;
        if stream {
            let options = asked.entry("stream_options").or_insert(Value::Null);
            match options {
                Value::Null => {}
                Value::Object(options) => shows_usage = options.get("include_usage") == Some(&true.into()),
                _ => return Err(Error::invalid("/stream_options", "stream_options must be an object")),
            }
            // Said at the end alone: what is said on the way is not all.
            *options = json!({ "include_usage": true });
        }
        let said = [number(&asked, "max_tokens")?, number(&asked, "max_completion_tokens")?];
        let most = said.into_iter().flatten().min().unwrap_or(COMPLETION);
        let answers = number(&asked, "n")?.unwrap_or(1);
        if !(1..=ANSWERS).contains(&answers) {
            return Err(Error::invalid("/n", format!("n must be from 1 to {ANSWERS}")));
        }
        for name in ["max_tokens", "max_completion_tokens"] {
            asked.remove(name);
        }
        asked.insert(bound.to_owned(), most.into());
        let tools =
            ["tools", "functions"].iter().filter_map(|name| asked.get(*name)).map(of_tools).sum::<u64>();
        // What is predicted and does not come counts as if it had.
        let predicted = asked.get("prediction").map_or(0, |it| it.to_string().len() as u64);
        let completion = most.saturating_add(predicted);
        let body = Value::Object(asked).to_string();
        let added = template.saturating_add(tools).saturating_add(MEDIUM.saturating_mul(media));
        Ok(Self {
            prompt: of_text(&body).saturating_add(added),
            completion: completion.saturating_mul(answers),
            body: body.into(),
            stream,
            shows_usage,
            answers,
        })
    }
}

/// What a text is at most, in tokens, of which each has a byte at least: the text as it is or in a normal form, which models read
/// it in and which may be longer.
fn of_text(text: &str) -> u64 {
    let length = |chars: &mut dyn Iterator<Item = char>| chars.map(char::len_utf8).sum::<usize>();
    let longest = match text.is_ascii() {
        true => text.len(),
        false => text.len().max(length(&mut text.nfc())).max(length(&mut text.nfkc())),
    };
    longest as u64
}

/// What tools are at most besides: templates write them with line breaks and blanks.
fn of_tools(tools: &Value) -> u64 {
    let mut written = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut written, PrettyFormatter::with_indent(b"    "));
    // A value is always written.
    drop(tools.serialize(&mut serializer));
    TEMPLATE_OF_TOOLS.saturating_add(written.len() as u64)
}

/// How many parts of messages are no text.
fn media(messages: &Value) -> Result<u64> {
    let mut media = 0;
    for (message, it) in messages.as_array().into_iter().flatten().enumerate() {
        for (part, it) in it.get("content").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let known = PARTS.iter().find(|(name, _)| it["type"] == *name);
            let (_, is_text) = known.ok_or_else(|| {
                let names = PARTS.map(|(name, _)| name).join(", ");
                Error::invalid(format!("/messages/{message}/content/{part}/type"), "no model is sent this")
                    .hint(format!("there are {names}"))
            })?;
            media += u64::from(!is_text);
        }
    }
    Ok(media)
}

/// Where a message has an address that a provider would fetch, by its pointer.
fn fetched(messages: &Value) -> Option<String> {
    let messages = messages.as_array().into_iter().flatten().enumerate();
    let mut parts = messages.flat_map(|(message, it)| {
        let parts = it.get("content").and_then(Value::as_array).into_iter().flatten().enumerate();
        parts.map(move |(part, it)| (message, part, it))
    });
    let leads_away = |part: &Value| {
        let kinds = part.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_url"));
        let mut addresses = kinds.map(|(_, it)| it.get("url").unwrap_or(it));
        addresses.any(|it| !it.as_str().is_some_and(|url| url.starts_with("data:")))
    };
    let (message, part, _) = parts.find(|(_, _, part)| leads_away(part))?;
    Some(format!("/messages/{message}/content/{part}"))
}

fn flag(asked: &Map<String, Value>, name: &str) -> Result<bool> {
    match asked.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(said)) => Ok(*said),
        Some(_) => Err(Error::invalid(format!("/{name}"), format!("{name} must be true or false"))),
    }
}

fn number(asked: &Map<String, Value>, name: &str) -> Result<Option<u64>> {
    match asked.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(said) => said.as_u64().filter(|said| (1..=NUMBER).contains(said)).map(Some).ok_or_else(|| {
            Error::invalid(format!("/{name}"), format!("{name} must be a whole number from 1 to {NUMBER}"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(asked: &Value) -> Result<Asking> {
        Asking::read(asked.to_string().as_bytes(), "small", "max_tokens", 128)
    }

    fn refused(asked: &Value) -> (Code, String) {
        let error = read(asked).unwrap_err();
        (error.code(), error.pointer().unwrap_or_default().to_owned())
    }

    #[test]
    fn the_model_is_filled_in_and_what_it_uses_is_asked_for() {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let asking = read(&json!({ "messages": messages, "stream": true, "stop": [1, null] })).unwrap();
        let sent: Value = serde_json::from_slice(&asking.body).unwrap();
        assert_eq!(
            sent,
            json!({ "messages": messages, "stream": true, "stop": [1, null], "model": "small",
                "max_tokens": 4_096, "stream_options": { "include_usage": true } })
        );
        assert!(asking.stream && !asking.shows_usage);
        let own = json!({ "messages": messages, "model": "small", "stream": true, "n": 3, "max_tokens": 10,
            "max_completion_tokens": 20,
            "stream_options": { "include_usage": true, "continuous_usage_stats": true } });
        let asking = read(&own).unwrap();
        let sent: Value = serde_json::from_slice(&asking.body).unwrap();
        assert_eq!(sent["stream_options"], json!({ "include_usage": true }));
        assert!(asking.shows_usage);
        assert_eq!((asking.prompt, asking.completion), (asking.body.len() as u64 + 128, 30));
        let asking = read(&json!({ "messages": messages, "max_tokens": null })).unwrap();
        assert_eq!((asking.stream, asking.completion), (false, 4_096));
    }

    #[test]
    fn the_provider_is_told_what_is_set_aside_and_never_is_it_less_than_may_be_used() {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let sent = |asking: &Asking| serde_json::from_slice::<Value>(&asking.body).unwrap();
        let plain = read(&json!({ "messages": messages })).unwrap();
        assert_eq!(sent(&plain)["max_tokens"], plain.completion);
        assert_eq!(plain.prompt, plain.body.len() as u64 + 128);
        let newer = json!({ "messages": messages, "max_completion_tokens": 30 });
        let newer = read(&newer).unwrap();
        let sent_newer = sent(&newer);
        assert_eq!((&sent_newer["max_tokens"], newer.completion), (&json!(30), 30));
        assert_eq!(sent_newer.get("max_completion_tokens"), None, "not everybody knows it");
        let both = json!({ "messages": messages, "max_tokens": 40, "max_completion_tokens": 30 }).to_string();
        let named = Asking::read(both.as_bytes(), "small", "max_completion_tokens", 128).unwrap();
        let sent_named = sent(&named);
        assert_eq!((&sent_named["max_completion_tokens"], named.completion), (&json!(30), 30));
        assert_eq!(sent_named.get("max_tokens"), None);
        let tools = read(&json!({ "messages": messages, "tools": [{ "a": [[1]] }] })).unwrap();
        // Written as templates do it, each line with its blanks.
        let written = "[\n    {\n        \"a\": [\n            [\n                1\n            ]\n        ]\n    }\n]";
        assert_eq!(tools.prompt, tools.body.len() as u64 + 128 + 1_024 + written.len() as u64);
        // What is one sign here is eighteen in the form that models read it in.
        let long = read(&json!({ "messages": [{ "role": "user", "content": "\u{fdfa}" }] })).unwrap();
        assert_eq!(long.prompt, long.body.len() as u64 - 3 + 33 + 128);
        let predicted = json!({ "messages": messages, "max_tokens": 10, "n": 2, "prediction": "abc" });
        assert_eq!(read(&predicted).unwrap().completion, 2 * (10 + 5));
        let picture = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AA" } });
        let content = json!([{ "type": "text", "text": "a" }, picture, picture]);
        let seen = read(&json!({ "messages": [{ "role": "user", "content": content }] })).unwrap();
        assert_eq!(seen.prompt, seen.body.len() as u64 + 128 + 2 * 65_536);
    }

    #[test]
    fn what_no_model_is_asked_is_refused_with_its_field() {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let with = |name: &str, value: Value| {
            let mut asked = json!({ "messages": messages });
            asked[name] = value;
            asked
        };
        for (asked, field) in [
            (json!([]), ""),
            (json!({}), "/messages"),
            (json!({ "messages": [] }), "/messages"),
            (json!({ "messages": "hi" }), "/messages"),
            (with("model", json!("large")), "/model"),
            (with("model", json!(7)), "/model"),
            (with("stream", json!("yes")), "/stream"),
            (with("max_tokens", json!(-1)), "/max_tokens"),
            (with("max_completion_tokens", json!(1.5)), "/max_completion_tokens"),
            (with("max_tokens", json!(1_u64 << 32)), "/max_tokens"),
            (with("n", json!(17)), "/n"),
        ] {
            assert_eq!(refused(&asked), (Code::InvalidInput, field.to_owned()), "{asked}");
        }
        let options = json!({ "messages": messages, "stream": true, "stream_options": 1 });
        assert_eq!(refused(&options).1, "/stream_options");
        assert_eq!(Asking::read(b"{", "small", "max_tokens", 0).unwrap_err().code(), Code::InvalidInput);
        assert_eq!(
            Asking::read(&vec![b' '; BODY + 1], "small", "max_tokens", 0).unwrap_err().code(),
            Code::TooLarge
        );
        let error = read(&with("model", json!("large"))).unwrap_err();
        assert!(error.advice().unwrap().contains("\"small\""));
    }

    #[test]
    fn what_would_lead_elsewhere_is_not_sent() {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        for name in ["models", "route", "plugins", "service_tier", "web_search_options", "n_predict", "x"] {
            let error = read(&json!({ "messages": messages, name: 1 })).unwrap_err();
            assert_eq!(error.code(), Code::InvalidInput, "{name}");
            assert!(error.message().contains(name), "{}", error.message());
        }
        let with = |part: Value| json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "a" }, part] }] });
        let picture = |url: &str| with(json!({ "type": "image_url", "image_url": { "url": url } }));
        assert!(read(&picture("data:image/png;base64,AAAA")).is_ok());
        for url in
            ["http://169.254.169.254/", "https://example.com/a.png", "file:///etc/passwd", " data:x", ""]
        {
            assert_eq!(refused(&picture(url)).0, Code::InvalidInput, "{url}");
        }
        for part in [
            json!({ "type": "video_url", "video_url": "data:video/mp4;base64,AA" }),
            json!({ "type": "file", "file": { "file_id": "file-1" } }),
            json!({ "text": "a" }),
            json!("a"),
        ] {
            let expected = (Code::InvalidInput, "/messages/0/content/1/type".to_owned());
            assert_eq!(refused(&with(part)), expected);
        }
    }
}
